"""What exists of the node between configure and cleanup: models, map, mapping thread, outputs and services."""

from __future__ import annotations

import time
from pathlib import Path

from rclpy.node import Node

from ovs3d_ros.config import Config
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.ros import conversions
from ovs3d_ros.ros.inputs import check_cameras, split_extrinsics
from ovs3d_ros.ros.loop_closure import LoopClosure
from ovs3d_ros.ros.map_folder import MAP_SUFFIX, MapFolder
from ovs3d_ros.ros.map_services import MapServices
from ovs3d_ros.ros.publish import Outputs
from ovs3d_ros.ros.query_service import QueryServices
from ovs3d_ros.ros.scope import Scope
from ovs3d_ros.ros.vocabulary import Vocabulary, check_vocabulary
from ovs3d_ros.types import Frame
from ovs3d_ros.warm_up import warm_up
from ovs3d_ros.worker import MappingWorker

WARM_UP_TIMEOUT = 600.0  # seconds; compiling takes a minute on a slow machine, under load more
STOP_TIMEOUT = 30.0  # seconds the mapping thread has to end
RESCUED = "rescued"  # name of the map of a thread that failed, without suffix


class Mapping:
    """A map that can grow and be asked, with everything around it but the inputs.

    Attributes:
        pipeline: the map.
        worker: its thread.
        loop_closure: takes `keyframe_path`.
    """

    def __init__(self, node: Node, config: Config):
        """Loads the models, warms up, starts the mapping thread and offers the services.

        Raises:
            UserError: a model that cannot be loaded, bad names of cameras, bad extrinsics, or a bad vocabulary.
        """
        self._node = node
        self._config = config
        self._log = node.get_logger()
        self._scope = Scope(node)
        cameras = check_cameras(config.input.cameras)
        check_vocabulary(config)  # before there is anything to take down again
        extrinsics = dict(zip(cameras, split_extrinsics(config, len(cameras)), strict=True))
        self.pipeline = Ovs3d(config)
        self.worker = MappingWorker(self.pipeline, config)
        self.loop_closure = LoopClosure(node, config, self.pipeline, self.worker, extrinsics)
        self.worker.start(prepare=self._warm_up)
        if not self.worker.wait_idle(WARM_UP_TIMEOUT) and self.worker.error is None:
            self._log.warning("warming up takes long; the first frames will wait")
        with self._scope.collecting():
            self._outputs = Outputs(node, config, self.pipeline, self.worker)
            self._queries = QueryServices(node, config, self.pipeline, self.worker, self._outputs)
            MapServices(node, config, self.pipeline, self.worker, self._outputs)
            self._vocabulary = Vocabulary(node, config, self.pipeline, self.worker, self._outputs)

    def _warm_up(self) -> None:
        """Compiles the kernels on the mapping thread; nothing is subscribed to before, so no frame waits for it."""
        self._log.info("warming up: compiling kernels; the first start on a machine takes half a minute")
        started = time.monotonic()
        warm_up(self.pipeline)
        self._log.info(f"warmed up in {time.monotonic() - started:.1f} s")

    def take(self, frame: Frame, header: conversions.Header) -> None:
        """Takes a frame with its image's header; never blocks."""
        self.worker.submit(frame)
        self._outputs.set_view(frame, header)

    def configure(self, config: Config) -> None:
        """Takes new values of runtime parameters, see `Leaf.runtime`."""
        self._config = config
        for part in (self.pipeline, self.worker, self._outputs, self._queries, self._vocabulary):
            part.configure(config)

    def close(self) -> None:
        """Ends the services and the mapping thread and writes the map where `output.save_on_exit` says.

        Raises:
            UserError: the map cannot be written.
        """
        self._scope.close()
        if not self.worker.stop(STOP_TIMEOUT):
            self._log.error(f"the mapping thread did not end within {STOP_TIMEOUT:.0f} s")
        elif self._config.output.save_on_exit and self.worker.snapshot is not None:
            self._save(Path(self._config.output.save_on_exit).expanduser())

    def rescue(self) -> None:
        """After a failure of the mapping thread: saves the map if that can be done, and logs it in any case."""
        if self.worker.snapshot is None:
            self._log.error("there was no map to save yet")
            return
        try:
            if self._config.output.save_on_exit:
                path = Path(self._config.output.save_on_exit).expanduser()
            else:
                path = MapFolder(self._config.map.directory).target(RESCUED + MAP_SUFFIX, MAP_SUFFIX, overwrite=True)
            self._save(path)
        except Exception as error:  # noqa: BLE001 - whatever broke the thread may break this too: said and done
            self._log.error(f"the map could not be saved: {type(error).__name__}: {error}")

    def _save(self, path: Path) -> None:
        self.pipeline.save(path)
        self._log.info(f"map written to {path}")
