"""`keyframe_path`: after a loop closure the keyframes move to their new poses, and the map with them."""

from __future__ import annotations

import threading
from concurrent.futures import Future

import numpy as np
from rclpy.node import Node

from ovs3d_ros.config import Config
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.ros import conversions
from ovs3d_ros.ros.streams import Stream
from ovs3d_ros.sensors.corrections import correct_poses
from ovs3d_ros.types import UserError
from ovs3d_ros.worker import MappingWorker


class LoopClosure:
    """Takes paths and corrects the map on the mapping thread; of paths that come faster, the newest counts.

    Attributes:
        corrected: keyframes moved so far.
    """

    def __init__(self, node: Node, config: Config, pipeline: Ovs3d, worker: MappingWorker, extrinsics: dict):
        """Takes what it works on; `extrinsics` has, by camera, the optical frame in the frame of the path [4, 4]."""
        self.corrected = 0
        self._log = node.get_logger()
        self._config = config
        self._pipeline = pipeline
        self._worker = worker
        self._extrinsics = extrinsics
        self._lock = threading.Lock()
        self._newest: tuple[np.ndarray, np.ndarray] | None = None  # stamps and poses that wait for the thread

    def take(self, message: conversions.Path, stream: Stream) -> None:
        """Takes a path; never blocks.

        Raises:
            UserError: a pose that cannot be used, or another frame than the map's.
        """
        frame, world_frame = message.header.frame_id.lstrip("/"), self._config.input.world_frame
        if frame and frame != world_frame:
            raise UserError(f"{stream.topic}: the path is in frame '{frame}', the map is in '{world_frame}'")
        stamps = np.array([conversions.to_seconds(item.header.stamp) for item in message.poses])
        poses = [conversions.from_pose(item.pose, stream.topic) for item in message.poses]
        with self._lock:
            waiting, self._newest = self._newest is not None, (stamps, np.array(poses).reshape(-1, 4, 4))
        if not waiting:
            self._worker.post(self._correct, self._report)

    def _correct(self) -> int:
        """On the mapping thread: moves what the newest path moves; returns the number of keyframes."""
        with self._lock:
            (stamps, path), self._newest = self._newest, None
        count = 0
        for sensor, extrinsics in self._extrinsics.items():
            keyframes = [k for k in self._pipeline.mapper.keyframes if k.sensor == sensor]
            times = np.array([k.stamp for k in keyframes])
            old = np.array([k.camtoworld for k in keyframes]).reshape(-1, 4, 4)
            new = correct_poses(times, old, stamps, path @ extrinsics, self._config.input.sync_slop)
            if new:
                self._pipeline.update_poses(times[list(new)], np.array(list(new.values())), sensor)
            count += len(new)
        return count

    def _report(self, future: Future) -> None:
        if future.cancelled():
            return
        if future.exception() is not None:
            self._log.error(f"a path could not be applied: {future.exception()}")
        elif future.result():
            self.corrected += future.result()
            self._log.info(f"loop closure: {future.result()} keyframes moved")
