"""The input topics of a camera, as the configuration selects them."""

from __future__ import annotations

from dataclasses import dataclass

from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy

from ovs3d_ros.config import Config
from ovs3d_ros.ros import conversions
from ovs3d_ros.ros.inputs.streams import Quality

POSE_QUEUE = 200  # messages; odometry arrives in bursts of up to 200 Hz
POSE_TYPES = {
    "pose": conversions.PoseStamped,
    "odom": conversions.Odometry,
    "transform": conversions.TransformStamped,
    "pose_with_covariance": conversions.PoseWithCovarianceStamped,
}
SHARED = "odom", "pose_with_covariance"  # poses of the robot, which all cameras share


@dataclass(frozen=True, slots=True)
class InputTopic:
    """A relative input topic.

    Attributes:
        role: image, camera_info, depth, or a key of `POSE_TYPES`.
        message_type: type of the topic.
        prefix: camera name with a slash; empty for a single camera and for poses that all cameras share.
        transport: suffix of the image transport with a slash, or empty.
        queue: least number of messages to queue.
        latched: whether the publisher may send it only once, see `Quality`.
    """

    role: str
    message_type: type
    prefix: str
    transport: str = ""
    queue: int = 0
    latched: bool = False

    @property
    def name(self) -> str:
        """The name to remap: prefix and role."""
        return self.prefix + self.role

    def resolve(self, node: Node) -> str:
        """The full topic. The transport's suffix follows the remapping of the base topic."""
        return node.resolve_topic_name(self.name) + self.transport

    def quality(self, config: Config) -> Quality:
        """The quality of service of the subscription."""
        reliable = config.qos.input == "reliable"
        profile = QoSProfile(
            depth=max(self.queue, config.qos.depth),
            reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        )
        return Quality(profile, latched=self.latched)


def camera_topics(config: Config, camera: str) -> list[InputTopic]:
    """The topics to subscribe to for one camera; an empty name gives topics without a prefix."""
    options, prefix = config.input, f"{camera}/" if camera else ""
    raw, compressed = conversions.Image, conversions.CompressedImage
    topics = [
        InputTopic("image", compressed, prefix, "/compressed")
        if options.image_transport == "compressed"
        else InputTopic("image", raw, prefix),
        InputTopic("camera_info", conversions.CameraInfo, prefix, latched=True),
    ]
    if options.use_depth:
        topics.append(
            InputTopic("depth", compressed, prefix, "/compressedDepth")
            if options.depth_transport == "compressedDepth"
            else InputTopic("depth", raw, prefix)
        )
    source = config.pose_source
    if source in POSE_TYPES:
        prefix = "" if source in SHARED else prefix
        topics.append(InputTopic(source, POSE_TYPES[source], prefix, queue=POSE_QUEUE))
    return topics
