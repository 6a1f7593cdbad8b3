"""`keyframe_path`: a loop closure moves the keyframes to their new poses, and the Gaussians with them."""

from __future__ import annotations

import threading
from concurrent.futures import Future

import numpy as np
from rclpy.node import Node

from ovs3d_ros.config import Config
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.ros import conversions
from ovs3d_ros.ros.inputs.streams import Stream
from ovs3d_ros.sensors.corrections import correct_poses
from ovs3d_ros.types import UserError
from ovs3d_ros.worker import MappingWorker
from ovs3d_ros.worker.ingest import JUMP


class LoopClosure:
    """Corrects the map by paths, on the mapping thread. A newer path replaces one that still waits.

    Attributes:
        corrected: keyframes moved so far.
    """

    def __init__(self, node: Node, config: Config, pipeline: Ovs3d, worker: MappingWorker, extrinsics: dict):
        """Takes the map, its thread and, by camera, the extrinsics [4, 4] or None if they are not set."""
        self.corrected = 0
        self._log = node.get_logger()
        self._config = config
        self._pipeline = pipeline
        self._worker = worker
        self._extrinsics = extrinsics
        self._warned = False
        self._lock = threading.Lock()
        # Stamps and poses that wait, and the mounts of the cameras.
        self._newest: tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]] | None = None

    def submit(self, message: conversions.Path, stream: Stream, mounts: dict[str, np.ndarray]) -> None:
        """Queues a path; never blocks.

        Args:
            message: the path.
            stream: its topic.
            mounts: by camera, the optical frame [4, 4] in the frame whose poses arrive, which is also that of
                the path; used for cameras whose extrinsics are not set.

        Raises:
            UserError: a pose that cannot be used, no stamps, or a frame other than the map's.
        """
        frame, world_frame = message.header.frame_id.lstrip("/"), self._config.input.world_frame
        if frame and frame != world_frame:
            raise UserError(f"{stream.topic}: the path is in frame '{frame}', the map is in '{world_frame}'")
        stamps = np.array([conversions.to_seconds(item.header.stamp) for item in message.poses])
        if len(stamps) and not stamps.any():
            raise UserError(
                f"{stream.topic}: no pose of the path has a stamp; the publisher must stamp each pose"
            )
        poses = [conversions.from_pose(item.pose, stream.topic) for item in message.poses]
        with self._lock:
            waiting = self._newest is not None
            self._newest = stamps, np.array(poses).reshape(-1, 4, 4), mounts
        if not waiting:
            self._worker.schedule(self._correct, self._report)

    def _correct(self) -> int:
        """Applies the newest path, on the mapping thread; returns the number of keyframes that moved."""
        with self._lock:
            newest, self._newest = self._newest, None
        if newest is None:
            return 0
        stamps, path, mounts = newest
        self._check_stamps(stamps)
        keyframes, corrected = self._pipeline.keyframes.views, {}
        for sensor, extrinsics in self._extrinsics.items():
            mount = mounts.get(sensor, np.eye(4)) if extrinsics is None else extrinsics
            own = [index for index, k in enumerate(keyframes) if k.sensor == sensor]
            times = np.array([keyframes[index].stamp for index in own])
            old = np.array([keyframes[index].camtoworld for index in own]).reshape(-1, 4, 4)
            new = correct_poses(times, old, stamps, path @ mount, self._config.input.sync_slop)
            corrected |= {own[position]: pose for position, pose in new.items()}
        self._pipeline.move_keyframes(corrected)  # all at once: a bad pose of one camera moves none
        return len(corrected)

    def _check_stamps(self, stamps: np.ndarray) -> None:
        """Warns once about a path without a pose at any keyframe: it would silently correct nothing."""
        times, slop = [k.stamp for k in self._pipeline.keyframes.views], self._config.input.sync_slop
        if self._warned or not times or not len(stamps):
            return
        if any(np.abs(stamps - time).min() <= slop for time in times):
            return
        self._warned = True
        self._log.warning(
            "keyframe_path corrects nothing: none of its stamps "
            f"({stamps.min():.3f} to {stamps.max():.3f} s) is within {slop} s of a keyframe "
            f"({min(times):.3f} to {max(times):.3f} s); check that both use one clock, "
            "else raise input.sync_slop"
        )

    def _report(self, future: Future) -> None:
        if future.cancelled():
            return
        if future.exception() is not None:
            self._log.error(f"keyframe_path could not be applied: {future.exception()}")
        elif future.result():
            self.corrected += future.result()
            self._log.info(f"loop closure: {future.result()} keyframes moved")
            if self._worker.ingest.resume(JUMP):
                self._log.info("keyframe_path corrected the map: frames are mapped again")
