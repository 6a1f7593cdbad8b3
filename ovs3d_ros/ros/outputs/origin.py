"""The frame of the clouds of a map that lies far from the origin of its world frame.

Viewers of PointCloud2 read float32 alone, which rounds UTM coordinates to half a metre. Such clouds are
published in a frame near the map, and `/tf_static` leads to it.
"""

from __future__ import annotations

import numpy as np
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from ovs3d_ros.config import Config
from ovs3d_ros.ros import conversions
from ovs3d_ros.types import MapSnapshot, UserError

_SUFFIX = "_ovs3d"


def cloud_frame(snapshot: MapSnapshot | None, config: Config) -> str:
    """The frame of the points of a map: the world frame, or one that starts at the map's origin."""
    far = snapshot is not None and snapshot.frame.origin.any()
    return config.input.world_frame + (_SUFFIX if far else "")


class OriginBroadcaster:
    """Publishes the transform to `cloud_frame` once per origin; nothing for a map without one."""

    def __init__(self, node: Node):
        """Takes the node; the topic is advertised when it is needed."""
        self._node = node
        self._publisher: Publisher | None = None
        self._published = np.zeros(3)

    def publish(self, snapshot: MapSnapshot, config: Config) -> None:
        """Publishes the transform of a snapshot unless it is published already."""
        if not snapshot.frame.origin.any() or np.array_equal(snapshot.frame.origin, self._published):
            return
        self._published, transform = snapshot.frame.origin, np.eye(4)
        transform[:3, 3] = snapshot.frame.origin
        world, child = config.input.world_frame, cloud_frame(snapshot, config)
        place = ", ".join(f"{value:.0f}" for value in snapshot.frame.origin)
        try:
            tf_message = conversions.tf_message_type()
        except UserError as error:
            self._node.get_logger().warning(
                f"clouds are in frame '{child}' at ({place}) m of '{world}', no transform says so: {error}"
            )
            return
        if self._publisher is None:
            latched = QoSProfile(
                depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
            )
            self._publisher = self._node.create_publisher(tf_message, "/tf_static", latched)
        header = conversions.to_header(0.0, world)
        self._publisher.publish(tf_message(transforms=[conversions.to_transform(transform, header, child)]))
        self._node.get_logger().info(
            f"the map lies far from the origin of '{world}': clouds are in frame '{child}' at ({place}) m"
        )
