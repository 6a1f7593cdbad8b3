"""The transform of the camera on /tf, for robots whose poses are messages of their own."""

from __future__ import annotations

from rclpy.node import Node

from ovs3d_ros.config import Config
from ovs3d_ros.ros import conversions
from ovs3d_ros.types import Frame, UserError

QUEUE = 100  # transforms; the depth that tf2 uses


def check_camera_tf(config: Config) -> None:
    """Raises UserError if `output.camera_tf` would give the camera's frame a second parent."""
    if config.output.camera_tf and config.pose_source != "pose":
        raise UserError(
            f"output.camera_tf: with pose_source {config.pose_source} the robot's own transforms lead to the "
            "camera; set output.camera_tf to false"
        )


class CameraTransform:
    """Broadcasts where the camera was in the world when it took an image, if `output.camera_tf` is set."""

    def __init__(self, node: Node, config: Config):
        """Advertises /tf.

        Raises:
            UserError: see `check_camera_tf`; or tf2_msgs is not installed.
        """
        check_camera_tf(config)
        self._world_frame = config.input.world_frame
        self._publisher = None
        if config.output.camera_tf:
            self._publisher = node.create_publisher(conversions.tf_message_type(), "/tf", QUEUE)

    def send(self, frame: Frame, header: conversions.Header) -> None:
        """Broadcasts the pose of a frame; `header` is that of its image."""
        child = header.frame_id.lstrip("/")
        if self._publisher is None or child in ("", self._world_frame):
            return  # tf2 refuses a frame without a name, and one that is its own parent
        world = conversions.Header(stamp=header.stamp, frame_id=self._world_frame)
        transform = conversions.to_transform(frame.camtoworld, world, child)
        self._publisher.publish(self._publisher.msg_type(transforms=[transform]))
