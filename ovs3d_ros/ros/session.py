"""The node between configure and cleanup: models, map, mapping thread, outputs and services."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import numpy as np
from rclpy.node import Node

from ovs3d_ros.config import Config
from ovs3d_ros.io.atomic import check_target
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.query.request import check_names
from ovs3d_ros.ros import conversions
from ovs3d_ros.ros.entities import EntityGroup
from ovs3d_ros.ros.inputs.cameras import check_cameras, chosen_extrinsics
from ovs3d_ros.ros.inputs.loop_closure import LoopClosure
from ovs3d_ros.ros.inputs.streams import Stream
from ovs3d_ros.ros.outputs.answers import Answer, AnswerStore
from ovs3d_ros.ros.outputs.camera_transform import CameraTransform, check_camera_tf
from ovs3d_ros.ros.outputs.keep_out import KeepOutMask
from ovs3d_ros.ros.outputs.publishers import Outputs
from ovs3d_ros.ros.outputs.view import LatestView
from ovs3d_ros.ros.services.asking import Asking
from ovs3d_ros.ros.services.map_folder import MAP_SUFFIX, MapFolder
from ovs3d_ros.ros.services.maps import MapServices
from ovs3d_ros.ros.services.merge_map import MergeService
from ovs3d_ros.ros.services.query import QueryServices
from ovs3d_ros.ros.services.show_view import ViewService
from ovs3d_ros.ros.services.vocabulary import Vocabulary
from ovs3d_ros.sensors.jumps import SpeedLimit
from ovs3d_ros.types import Frame, SemanticObject, UserError
from ovs3d_ros.viewer.server import MapViewer
from ovs3d_ros.viewer.source import MapSource, keyframe_photo
from ovs3d_ros.viewer.stage import check_viewer
from ovs3d_ros.warm_up import warm_up
from ovs3d_ros.worker import MappingWorker, MapRefiner
from ovs3d_ros.worker.ingest import JUMP

WARM_UP_TIMEOUT = 600.0  # seconds; compiling takes a minute on a slow machine, under load more
STOP_TIMEOUT = 30.0  # seconds the mapping thread has to end if no map is to be saved
STOP_NOTICE = 10.0  # seconds between log lines while the node waits for it to save a map
RESCUED = "rescued"  # file name, without suffix, of a map that could not be saved to output.save_on_exit


class MappingSession:
    """A map, the thread that extends it, and its outputs and services; all of the node except the inputs.

    Attributes:
        pipeline: the map.
        worker: the mapping thread.
        refiner: refines the map.
        config: the current configuration.
        asking: answers queries.
        closed: the services and the mapping thread have ended.
    """

    def __init__(self, node: Node, config: Config):
        """Loads the models, warms up, starts the mapping thread and offers the services.

        Raises:
            UserError: a model cannot be loaded, `output.save_on_exit` cannot be written, or the names of
                cameras, the extrinsics, the vocabulary or the names to keep out of are bad.
        """
        self._node = node
        self.config = config
        self._log = node.get_logger()
        self._entities = EntityGroup(node)
        self.closed = False
        self._target = exit_target(config)
        cameras = check_cameras(config.input.cameras)
        check_camera_tf(config)
        if config.viewer.port:
            check_viewer(config.viewer)
        # Before anything is created that would have to be destroyed.
        check_names(config.navigation.keep_out, "navigation.keep_out")
        check_names(config.output.vocabulary, "output.vocabulary")
        extrinsics = dict(zip(cameras, chosen_extrinsics(config, len(cameras)), strict=True))
        self.pipeline = Ovs3d(config)
        self.worker = MappingWorker(self.pipeline, config)
        self.refiner = MapRefiner(self.pipeline, self.worker)
        self._loop_closure = LoopClosure(node, config, self.pipeline, self.worker, extrinsics)
        self.worker.start(prepare=self._warm_up)
        if not self.worker.wait_idle(WARM_UP_TIMEOUT) and self.worker.error is None:
            self._log.warning("the kernels are not compiled yet; the first frames will wait")
        self._view = LatestView()
        self._speed_limit = SpeedLimit()
        self._viewer: MapViewer | None = None
        try:
            with self._entities.collect():
                self._camera_transform = CameraTransform(node, config)
                self._offer_services(AnswerStore())
            self._open_viewer(config)
        except UserError:
            self._entities.destroy()
            self.worker.stop(STOP_TIMEOUT)
            raise

    def _offer_services(self, answers: AnswerStore) -> None:
        """Advertises the topics and offers the services, which share the answers."""
        node, config, pipeline, worker = self._node, self.config, self.pipeline, self.worker
        self._outputs = Outputs(node, config, pipeline, worker, answers, self._view)
        self.asking = Asking(node, config, pipeline, answers, self._view)
        self._queries = QueryServices(node, config, pipeline, worker, answers, self._view, self.asking)
        ViewService(node, pipeline, worker, self.asking)
        MapServices(node, config, pipeline, worker, answers)
        MergeService(node, config, pipeline, worker)
        self._keep_out = KeepOutMask(node, config, pipeline, worker)
        self._vocabulary = Vocabulary(node, config, pipeline, worker, answers, self._outputs, self.asking)

    def _open_viewer(self, config: Config) -> None:
        """Serves the map to browsers, if `viewer.port` is set."""
        if config.viewer.port:
            worker, photo = self.worker, keyframe_photo(self.pipeline)
            source = MapSource(
                self.pipeline, lambda: worker.snapshot, photo, worker.priority.claim, live=True
            )
            self._viewer = MapViewer(source, config.viewer, self._node.get_name())
            self._log.info(f"the map is shown at {self._viewer.address}")

    def _warm_up(self) -> None:
        """Compiles the kernels on the mapping thread, before the node subscribes to images."""
        self._log.info("warming up: compiling kernels; the first start on a machine takes half a minute")
        started = time.monotonic()
        warm_up(self.pipeline)
        self._log.info(f"warmed up in {time.monotonic() - started:.1f} s")

    def describe(self) -> str:
        """Device and text encoder, for the log."""
        return f"device {self.pipeline.device}, text encoder {self.pipeline.queries.encoder_name}"

    @property
    def error(self) -> BaseException | None:
        """The exception that ended the mapping thread, or None."""
        return self.worker.error

    def submit(self, frame: Frame, header: conversions.Header) -> None:
        """Queues a frame with its image's header; never blocks."""
        reason = self._speed_limit.exceeded(frame, self.config.input.max_speed)
        if reason and self.worker.ingest.pause(JUMP, reason):
            self._log.error(
                f"{reason}: frames are ignored from now on, so that the map is not spoilt; correct the "
                "localisation, then publish keyframe_path or call ~/set_ingest with data: true"
            )
        self.worker.submit(frame)
        self._view.set(frame, header)
        self._camera_transform.send(frame, header)

    def submit_path(self, message: conversions.Path, stream: Stream, mounts: dict[str, np.ndarray]) -> None:
        """Queues a message of `keyframe_path`, see `LoopClosure.submit`."""
        self._loop_closure.submit(message, stream, mounts)

    def find_goal(self, answer: Answer, item: SemanticObject) -> np.ndarray | None:
        """Where to stand to see an object of an answer, see `Goals.find`."""
        return self._outputs.goals.find(answer, item, self.config)

    def configure(self, config: Config) -> None:
        """Uses new values of the runtime parameters, see `Leaf.runtime`."""
        self.config = config
        for part in (
            self.pipeline,
            self.worker,
            self._outputs,
            self._queries,
            self._vocabulary,
            self._keep_out,
        ):
            part.configure(config)

    def close(self) -> bool:
        """Ends the services and the mapping thread and writes the map to `output.save_on_exit`.

        After an error it may be called again, once the cause is fixed.

        Returns:
            False if the map could only be written to `map.directory`; the log has the reason.

        Raises:
            UserError: the map could not be written to either place.
        """
        self.closed = True
        if self._viewer is not None:
            self._viewer.close()
            self._viewer = None
        self._entities.destroy()
        if self._target is None:
            if not self.worker.stop(STOP_TIMEOUT):
                self._log.error(f"the mapping thread did not end within {STOP_TIMEOUT:.0f} s")
            return True
        return self._save()

    def rescue(self) -> None:
        """Saves the map after a failure, if possible, and logs the outcome."""
        with contextlib.suppress(UserError):  # already logged by `_save`
            self._save()

    def _save(self) -> bool:
        """Ends the mapping thread and writes the map to `output.save_on_exit`, or else to `map.directory`.

        Returns:
            False if the map had to be written to `map.directory`.

        Raises:
            UserError: both failed; the reasons are logged.
        """
        self._end_thread()
        if self.worker.snapshot is None:
            self._log.warning("there was no map to save yet")
            return True
        folder, failures = MapFolder(self.config.map.directory), []
        for target in filter(None, (self._target, RESCUED + MAP_SUFFIX)):
            try:
                path = target if target is self._target else folder.target(target, MAP_SUFFIX, overwrite=True)
                self.pipeline.save(path)
            except Exception as error:  # logged; a cause that ended the mapping may also break this
                failures.append(
                    str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
                )
                self._log.error(f"the map could not be saved: {failures[-1]}")
            else:
                self._log.info(f"map written to {path}")
                return not failures
        raise UserError(f"the map could not be saved: {'; '.join(failures)}")

    def _end_thread(self) -> None:
        """Waits without limit, because the map must not be saved in the middle of a frame."""
        while not self.worker.stop(STOP_NOTICE):
            self._log.warning(
                "waiting for the mapping thread to finish its current step; the map is saved afterwards"
            )


def exit_target(config: Config) -> Path | None:
    """The file named by `output.save_on_exit`, None if empty.

    Raises:
        UserError: the file cannot be written; checked at the start, before there is a map to lose.
    """
    try:
        return check_target(Path(config.output.save_on_exit)) if config.output.save_on_exit else None
    except UserError as error:
        raise UserError(f"output.save_on_exit: {error}") from None
