"""Camera poses from /tf, for `pose_source: tf`. Polled, never waited for."""

from __future__ import annotations

import numpy as np
from rclpy.node import Node
from rclpy.time import Time

from ovs3d_ros.ros import conversions
from ovs3d_ros.sensors.sync import SAME_STAMP
from ovs3d_ros.types import UserError


class TfPoses:
    """A `sync.PoseSource` that asks the transform tree."""

    def __init__(self, node: Node, world_frame: str):
        """Starts listening to /tf and /tf_static.

        Args:
            node: whose executor receives the transforms.
            world_frame: frame of the map.

        Raises:
            UserError: tf2_ros is not installed.
        """
        try:
            import tf2_ros
        except ImportError as error:
            raise UserError(
                f"pose_source is tf but tf2_ros cannot be imported ({error}); install it with your ROS "
                "distribution (apt install ros-$ROS_DISTRO-tf2-ros-py) or set pose_source to pose, odom "
                "or transform"
            ) from None
        self._errors = (
            tf2_ros.LookupException,
            tf2_ros.ConnectivityException,
            tf2_ros.ExtrapolationException,
            tf2_ros.InvalidArgumentException,
        )
        self._buffer = tf2_ros.Buffer(node=node)
        self._listener = tf2_ros.TransformListener(self._buffer, node, spin_thread=False)
        self.world_frame = world_frame
        self.camera_frame = ""
        self.problem = ""

    def at(self, stamp: float, final: bool) -> np.ndarray | None:
        """See `sync.PoseSource.at`; tf2 interpolates by itself, so `final` changes nothing."""
        for shift in (
            0.0,
            -SAME_STAMP,
        ):  # a float64 stamp may lie a rounding error beyond the newest transform
            time = Time(nanoseconds=round((stamp + shift) * 1e9))
            try:
                transform = self._buffer.lookup_transform(self.world_frame, self.camera_frame, time)
            except self._errors as error:
                source = self.camera_frame or "an image without frame_id"
                self.problem = f"no transform from {source} to {self.world_frame}: {str(error).strip()}"
            else:
                self.problem = ""
                return conversions.from_transform(transform.transform, "/tf")
        return None

    def clear(self) -> None:
        """Forgets the transforms of before a clock jump (static ones stay)."""
        self._buffer.clear()
