"""The node's input topics: converts what arrives, matches it by stamp, and says what is missing."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy

from ovs3d_ros.config import Config
from ovs3d_ros.ros import conversions
from ovs3d_ros.sensors.calibration import Calibration, Rectifier, make_rectifier
from ovs3d_ros.sensors.sync import FrameSynchronizer, Match, PoseBuffer
from ovs3d_ros.types import Frame, UserError

POLL_PERIOD = 0.05  # seconds between looks at the images that wait for a pose
POSE_QUEUE = 200  # odometry comes in bursts of up to 200 Hz


@dataclass(slots=True)
class Stream:
    """One subscription and what came through it."""

    role: str
    topic: str
    subscription: Any = None
    received: int = 0
    received_at_measure: int = 0
    received_at_report: int = 0
    rate: float = 0.0
    newest_stamp: float = float("nan")
    incompatible: int = 0


class Inputs:
    """Subscribes to the input topics and calls back with every complete frame.

    All callbacks share one mutually exclusive group: they only convert and enqueue.
    """

    def __init__(self, node: Node, config: Config, on_frame: Callable[[Frame, conversions.Header], None]):
        """Subscribes.

        Args:
            node: to subscribe on.
            config: topics' transports, quality of service, tolerances.
            on_frame: receives each frame and the image's header; must not block.

        Raises:
            UserError: bad extrinsics, or pose_source tf without tf2_ros.
        """
        self._node = node
        self._config = config
        self._on_frame = on_frame
        self._group = MutuallyExclusiveCallbackGroup()
        self._extrinsics = conversions.extrinsics_matrix(config.input.extrinsics, "input.extrinsics")
        self._poses = self._make_pose_source()
        self._sync = FrameSynchronizer(
            self._poses,
            config.input.sync_slop,
            config.tf.timeout_s,
            config.input.clock_jump,
            config.input.use_depth,
        )
        self._calibration: Calibration | None = None
        self._rectifier: Rectifier | None = None
        self._rectified = False
        self._warned_frames: set[tuple[str, str]] = set()
        self.streams: dict[str, Stream] = {}
        self.frames = 0
        self.rejected = 0
        self.problem = ""
        self.silence = ""
        self._frames_at_report = 0
        self._losses_at_report = (0, 0)
        self._measured_at = time.monotonic()
        self._subscribe_all()
        node.create_timer(POLL_PERIOD, self._pump, callback_group=self._group)

    def _make_pose_source(self) -> Any:
        if self._config.pose_source == "tf":
            from ovs3d_ros.ros.tf import TfPoses

            return TfPoses(self._node, self._config.input.world_frame)
        return PoseBuffer(self._config.input.sync_slop, self._config.input.pose_gap)

    def _subscribe_all(self) -> None:
        options = self._config.input
        image, image_type = "image", conversions.Image
        if options.image_transport == "compressed":
            image, image_type = "image/compressed", conversions.CompressedImage
        self._subscribe("image", image_type, image, self._on_image)
        resolved = self.streams["image"].topic
        self._rectified = options.rectification == "rectified" or (
            options.rectification == "auto" and "rect" in resolved
        )
        self._subscribe("camera_info", conversions.CameraInfo, "camera_info", self._on_camera_info)
        if options.use_depth:
            depth, depth_type = "depth", conversions.Image
            if options.depth_transport == "compressedDepth":
                depth, depth_type = "depth/compressedDepth", conversions.CompressedImage
            self._subscribe("depth", depth_type, depth, self._on_depth)
        sources = {
            "pose": (conversions.PoseStamped, self._on_pose),
            "odom": (conversions.Odometry, self._on_odom),
            "transform": (conversions.TransformStamped, self._on_transform),
        }
        if self._config.pose_source in sources:
            message_type, callback = sources[self._config.pose_source]
            self._subscribe(
                self._config.pose_source, message_type, self._config.pose_source, callback, POSE_QUEUE
            )

    def _subscribe(
        self, role: str, message_type: type, topic: str, callback: Callable, queue: int = 0
    ) -> None:
        """Subscribes to a relative topic; a transport's suffix follows the remapping of its base topic."""
        base, slash, suffix = topic.partition("/")
        topic = self._node.resolve_topic_name(base) + slash + suffix
        reliable = self._config.qos.input == "reliable"
        profile = QoSProfile(
            depth=max(queue, self._config.qos.depth),
            reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        )
        stream = Stream(role, topic)

        def received(message: Any) -> None:
            stream.received += 1
            try:
                stamp = self._stamp(message, stream)
                callback(message, stamp)
            except UserError as error:
                self._reject(error)

        def incompatible(event: Any) -> None:
            stream.incompatible = event.total_count

        stream.subscription = self._node.create_subscription(
            message_type,
            topic,
            received,
            profile,
            callback_group=self._group,
            event_callbacks=SubscriptionEventCallbacks(incompatible_qos=incompatible),
        )
        stream.topic = stream.subscription.topic_name
        self.streams[role] = stream

    def _stamp(self, message: Any, stream: Stream) -> float:
        stamp = conversions.to_seconds(message.header.stamp)
        if stamp == 0:
            raise UserError(f"{stream.topic}: header.stamp is 0; the publisher must stamp its messages")
        stream.newest_stamp = stamp
        return stamp

    def _reject(self, error: UserError) -> None:
        self.rejected += 1
        self.problem = str(error)
        self._node.get_logger().warning(
            f"rejected: {error}", throttle_duration_sec=self._config.input.silence
        )

    def _on_image(self, message: Any, stamp: float) -> None:
        if self._config.pose_source == "tf":
            self._poses.camera_frame = message.header.frame_id
        self._sync.add_image(stamp, message, time.monotonic())
        self._pump()

    def _on_camera_info(self, message: Any, stamp: float) -> None:
        calibration = conversions.from_camera_info(message)
        if calibration != self._calibration:
            self._calibration, self._rectifier = calibration, None
            self._rectifier = make_rectifier(calibration, self._rectified, self.streams["camera_info"].topic)
            camera = self._rectifier.camera
            treatment = "undistorted" if self._rectifier.maps is not None else "taken as they are"
            self._node.get_logger().info(f"camera {camera.width}x{camera.height}, images are {treatment}")
        self._pump()

    def _on_depth(self, message: Any, stamp: float) -> None:
        self._sync.add_depth(stamp, message)
        self._pump()

    def _on_pose(self, message: Any, stamp: float) -> None:
        self._add_pose(stamp, message.header.frame_id, conversions.from_pose(message.pose, self._pose_topic))

    def _on_odom(self, message: Any, stamp: float) -> None:
        base = conversions.from_pose(message.pose.pose, self._pose_topic)
        self._add_pose(stamp, message.header.frame_id, base @ self._extrinsics)

    def _on_transform(self, message: Any, stamp: float) -> None:
        camtoworld = conversions.from_transform(message.transform, self._pose_topic)
        self._add_pose(stamp, message.header.frame_id, camtoworld)

    @property
    def _pose_topic(self) -> str:
        return self.streams[self._config.pose_source].topic

    def _add_pose(self, stamp: float, frame_id: str, camtoworld: np.ndarray) -> None:
        world_frame = self._config.input.world_frame
        if frame_id and frame_id.lstrip("/") != world_frame:
            raise UserError(
                f"{self._pose_topic}: poses are in frame '{frame_id}', the map is in '{world_frame}'; "
                f"set input.world_frame to {frame_id}"
            )
        self._sync.observe("pose", stamp)
        self._poses.add(stamp, camtoworld)
        self._pump()

    def _pump(self) -> None:
        """Hands on what is complete. Without a calibration everything waits, bounded."""
        if self._rectifier is None:
            return
        for match in self._sync.ready(time.monotonic()):
            try:
                frame = self._make_frame(match)
            except UserError as error:
                self._reject(error)
                continue
            self.frames += 1
            self.problem = self.silence = ""
            self._on_frame(frame, match.image.header)

    def _make_frame(self, match: Match) -> Frame:
        rectifier, topic = self._rectifier, self.streams["image"].topic
        image = rectifier.color(conversions.from_image(match.image, topic), topic)
        depth = None
        if match.depth is not None:
            topic = self.streams["depth"].topic
            depth = rectifier.depth(conversions.from_depth(match.depth, topic), topic)
            self._compare_frames(match.image.header.frame_id, match.depth.header.frame_id)
        return Frame(
            stamp=match.stamp,
            image=image,
            camera=rectifier.camera,
            camtoworld=match.camtoworld,
            depth=depth,
            name=f"{match.stamp:.6f}",
        )

    def _compare_frames(self, image_frame: str, depth_frame: str) -> None:
        pair = (image_frame, depth_frame)
        if image_frame and depth_frame and image_frame != depth_frame and pair not in self._warned_frames:
            self._warned_frames.add(pair)
            self._node.get_logger().warning(
                f"depth is in frame '{depth_frame}', images in '{image_frame}': unless that is one camera, "
                "use depth registered to the colour camera (aligned_depth_to_color or depth_image_proc)"
            )

    def measure(self) -> None:
        """Updates the streams' rates; called once per report."""
        now = time.monotonic()
        period, self._measured_at = max(now - self._measured_at, 1e-3), now
        for stream in self.streams.values():
            stream.rate = (stream.received - stream.received_at_measure) / period
            stream.received_at_measure = stream.received

    def values(self) -> dict[str, object]:
        """Counts and rates for the diagnostics."""
        values: dict[str, object] = {
            "frames": self.frames,
            "rejected": self.rejected,
            "waiting": self._sync.waiting,
            **self._sync.counts.as_dict(),
        }
        for role, stream in self.streams.items():
            values[f"{role} topic"] = stream.topic
            values[f"{role} messages"] = stream.received
            values[f"{role} rate (Hz)"] = round(stream.rate, 2)
        return values

    def report_silence(self) -> str:
        """Why no usable frame arrived since the last call; empty if one did. Also kept in `silence`."""
        quiet = self.frames == self._frames_at_report
        self.silence = self._explain() if quiet else ""
        counts = self._sync.counts
        self._frames_at_report = self.frames
        self._losses_at_report = counts.lost_pose, counts.lost_depth
        for stream in self.streams.values():
            stream.received_at_report = stream.received
        return self.silence

    def _explain(self) -> str:
        silent = [s for s in self.streams.values() if s.received == s.received_at_report]
        publishers = {s.role: self._node.get_publishers_info_by_topic(s.topic) for s in silent}
        asked = "reliable" if self._config.qos.input == "reliable" else "best effort"
        missing = [self._explain_stream(s, publishers[s.role], asked) for s in silent if publishers[s.role]]
        unpublished = [s for s in silent if not publishers[s.role]]
        if unpublished:
            topics, role = ", ".join(s.topic for s in unpublished), unpublished[0].role
            remedy = f"; remap the inputs, for example --ros-args -r {role}:=/camera/{role}"
            gone = f", gone after {self.frames} frames" if self.frames else remedy
            missing.insert(0, f"no publisher on {topics} (0 Hz, {asked}){gone}")
        if missing:
            return "; ".join(missing)
        if self._rectifier is None or self.problem:
            return self.problem or "no camera_info yet"
        counts = self._sync.counts
        lost_pose, lost_depth = (
            counts.lost_pose - self._losses_at_report[0],
            counts.lost_depth - self._losses_at_report[1],
        )
        if lost_pose:
            return self._explain_poses(lost_pose)
        if lost_depth:
            return (
                f"{lost_depth} images without depth within {self._config.input.sync_slop} s "
                f"({self._stamps('image', 'depth')}); raise input.sync_slop or set input.use_depth=false"
            )
        return "all inputs arrive but no image is complete yet"

    def _explain_poses(self, lost: int) -> str:
        if self._config.pose_source == "tf":
            return self._poses.problem or f"{lost} images without a transform in time"
        return (
            f"{lost} images without a pose at their stamp "
            f"({self._stamps('image', self._config.pose_source)}); "
            "are both on one clock? else raise input.sync_slop or input.pose_gap"
        )

    def _stamps(self, *roles: str) -> str:
        return ", ".join(f"newest {role} stamp {self.streams[role].newest_stamp:.3f}" for role in roles)

    @staticmethod
    def _explain_stream(stream: Stream, publishers: list[Any], asked: str) -> str:
        """Why nothing came on a topic that has publishers."""
        about = f"nothing on {stream.topic} (0 Hz, {asked})"
        if stream.incompatible:
            return f"{about}: the publisher offers another quality of service; set qos.input=sensor_data"
        offers = sorted({p.qos_profile.reliability.name.lower().replace("_", " ") for p in publishers})
        return f"{about} though {len(publishers)} publisher(s) offer {', '.join(offers)}"
