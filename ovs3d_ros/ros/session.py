"""What exists of the node between configure and cleanup: models, map, mapping thread, outputs and services."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from rclpy.node import Node

from ovs3d_ros.config import Config
from ovs3d_ros.io.atomic import check_target
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.ros import conversions
from ovs3d_ros.ros.entity_scope import Scope
from ovs3d_ros.ros.inputs.cameras import check_cameras, split_extrinsics
from ovs3d_ros.ros.inputs.loop_closure import LoopClosure
from ovs3d_ros.ros.outputs.publishers import Outputs
from ovs3d_ros.ros.services.map_folder import MAP_SUFFIX, MapFolder
from ovs3d_ros.ros.services.maps import MapServices
from ovs3d_ros.ros.services.query import QueryServices
from ovs3d_ros.ros.services.vocabulary import Vocabulary, check_vocabulary
from ovs3d_ros.types import Frame, UserError
from ovs3d_ros.warm_up import warm_up
from ovs3d_ros.worker import MappingWorker

WARM_UP_TIMEOUT = 600.0  # seconds; compiling takes a minute on a slow machine, under load more
STOP_TIMEOUT = 30.0  # seconds the mapping thread has to end where nothing is to be saved
STOP_NOTICE = 10.0  # seconds between words about waiting for it where something is
RESCUED = "rescued"  # name of the map that could not be saved where it should, without suffix


class Mapping:
    """A map that can grow and be asked, with everything around it but the inputs.

    Attributes:
        pipeline: the map.
        worker: its thread.
        loop_closure: takes `keyframe_path`.
        closed: services and thread have ended; nothing is mapped any more.
    """

    def __init__(self, node: Node, config: Config):
        """Loads the models, warms up, starts the mapping thread and offers the services.

        Raises:
            UserError: a model that cannot be loaded, bad names of cameras, bad extrinsics, a bad vocabulary, or a place
                to save to that cannot be written to.
        """
        self._node = node
        self._config = config
        self._log = node.get_logger()
        self._scope = Scope(node)
        self.closed = False
        self._target = exit_target(config)
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

    def close(self) -> bool:
        """Ends the services and the mapping thread and writes the map where `output.save_on_exit` says.

        After an error it may be called again, once the cause is mended.

        Returns:
            False if the map could only be written to `map.directory`, as `rescue` does; the log has the reason.

        Raises:
            UserError: the map can be written nowhere.
        """
        self.closed = True
        self._scope.close()
        if self._target is None:
            if not self.worker.stop(STOP_TIMEOUT):
                self._log.error(f"the mapping thread did not end within {STOP_TIMEOUT:.0f} s")
            return True
        return self._save()

    def rescue(self) -> None:
        """After a failure: saves the map if that can be done, and logs it in any case."""
        with contextlib.suppress(UserError):  # `_save` has logged it
            self._save()

    def _save(self) -> bool:
        """Ends the mapping thread and writes the map where it should be, or else to `map.directory`.

        Returns:
            Whether it is where it should be.

        Raises:
            UserError: neither could be done; the reasons are logged.
        """
        self._end_thread()
        if self.worker.snapshot is None:
            self._log.warning("there was no map to save yet")
            return True
        folder, failures = MapFolder(self._config.map.directory), []
        for target in filter(None, (self._target, RESCUED + MAP_SUFFIX)):
            try:
                path = target if target is self._target else folder.target(target, MAP_SUFFIX, overwrite=True)
                self.pipeline.save(path)
            except Exception as error:  # whatever broke the mapping may break this too: said and done
                failures.append(
                    str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
                )
                self._log.error(f"the map could not be saved: {failures[-1]}")
            else:
                self._log.info(f"map written to {path}")
                return not failures
        raise UserError(f"the map could not be saved: {'; '.join(failures)}")

    def _end_thread(self) -> None:
        """Waits as long as it takes: in the middle of a frame the map is not fit to be saved."""
        while not self.worker.stop(STOP_NOTICE):
            self._log.warning(
                "the map is saved once the mapping thread has ended what it is at; waiting for it"
            )


def exit_target(config: Config) -> Path | None:
    """The file `output.save_on_exit` names, None without one.

    Raises:
        UserError: it cannot be written; better said now than when there is a map to lose.
    """
    try:
        return check_target(Path(config.output.save_on_exit)) if config.output.save_on_exit else None
    except UserError as error:
        raise UserError(f"output.save_on_exit: {error}") from None
