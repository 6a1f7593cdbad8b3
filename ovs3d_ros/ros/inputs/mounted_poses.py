"""Camera poses from the poses of the robot, for `pose_source` odom, transform and pose_with_covariance."""

from __future__ import annotations

from typing import Any

import numpy as np

from ovs3d_ros.ros.inputs.tf import TransformBuffer
from ovs3d_ros.sensors.mounts import SAME_FRAME, settled_mount
from ovs3d_ros.sensors.sync import PoseBuffer
from ovs3d_ros.types import UserError


class MountedPoses:
    """A `sync.PoseSource` that leads the poses of a topic to the camera.

    Attributes:
        camera_frame: the optical frame, from the images.
        problem: why the last pose could not be led to the camera; empty if it could.
        mount: the last pose [4, 4] of the camera on the robot; None before the first.
    """

    def __init__(
        self,
        buffer: PoseBuffer,
        extrinsics: np.ndarray | None,
        is_odometry: bool,
        transforms: TransformBuffer | None,
        log: Any,
    ):
        """Takes what leads to the camera.

        Args:
            buffer: keeps and interpolates the poses of the topic.
            extrinsics: see `settled_mount`.
            is_odometry: see `settled_mount`.
            transforms: /tf_static; None: not available.
            log: logger of the node.
        """
        self.camera_frame = ""
        self.problem = ""
        self.mount: np.ndarray | None = None
        self._buffer = buffer
        self._extrinsics = extrinsics
        self._is_odometry = is_odometry
        self._transforms = transforms
        self._log = log
        self._child: str | None = None

    def add(self, stamp: float, pose: np.ndarray, child: str, topic: str) -> None:
        """Stores the pose [4, 4] of frame `child`.

        Raises:
            UserError: earlier messages hold poses of another frame.
        """
        child = child.lstrip("/")
        if self._child is None and not child and self._is_odometry and self._extrinsics is None:
            self._log.warning(
                f"{topic} does not say whose poses it holds (no child_frame_id); they are taken as those of "
                "the camera. If they are the robot's, set input.extrinsics"
            )
        if self._child not in (None, child):
            raise UserError(
                f"{topic}: poses of several frames, '{self._child}' and '{child}'; only one source may "
                "publish them"
            )
        self._child = child
        self._buffer.add(stamp, pose)

    def at(self, stamp: float, accept_nearest: bool) -> np.ndarray | None:
        """See `PoseSource.at`."""
        self.problem = ""
        pose = self._buffer.at(stamp, accept_nearest)
        if pose is None:
            return None
        try:
            self.mount = self._find_mount(stamp)
            return pose @ self.mount
        except UserError as error:
            self.problem = str(error)
            return None

    def _find_mount(self, stamp: float) -> np.ndarray:
        """The pose [4, 4] of the camera on the robot.

        Raises:
            UserError: the frames differ, and neither the extrinsics nor /tf_static connect them.
        """
        child, optical = self._child or "", self.camera_frame.lstrip("/")
        mount = settled_mount(self._extrinsics, self._is_odometry, child, optical)
        if mount is not None:
            return mount
        try:
            if self._transforms is None:
                raise UserError("tf2_msgs is not installed")
            return self._transforms.lookup(child, optical, stamp, accept_nearest=True)
        except UserError as error:
            raise UserError(
                f"the poses are those of '{child}', images are in '{optical}', and /tf_static does not "
                f"connect them ({error}); publish that transform, or set input.extrinsics to the camera's "
                f"pose in '{child}': [x, y, z, qx, qy, qz, qw] ({list(SAME_FRAME)} if both names mean "
                "the same frame)"
            ) from None

    def clear(self) -> None:
        """See `PoseSource.clear`."""
        self._buffer.clear()
