"""One camera's input topics: converts what arrives, matches it by stamp, and says what is missing."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy

from ovs3d_ros.config import Config
from ovs3d_ros.ros import conversions
from ovs3d_ros.ros.inputs.streams import Stream, explain_silence, make_stream
from ovs3d_ros.ros.inputs.tf import TfPoses, TransformBuffer
from ovs3d_ros.sensors.calibration import Calibration, Rectifier, make_rectifier
from ovs3d_ros.sensors.sync import FrameSynchronizer, Match, PoseBuffer
from ovs3d_ros.types import Frame, UserError

POSE_QUEUE = 200  # odometry comes in bursts of up to 200 Hz
LATEST = 60.0  # seconds: poses that are further behind than any timeout are on another clock


class CameraInput:
    """Subscribes to the topics of one camera, once told to `listen`, and calls back with every complete frame.

    Attributes:
        name: of the camera, empty where there is only one.
        streams: by role.
        frames: complete frames so far.
        rejected: messages that could not be used.
        problem: the reason of the last one; empty once a frame was complete.
        silence: why no frame was complete in the last period of `report_silence`; empty if one was.
    """

    def __init__(
        self,
        node: Node,
        config: Config,
        name: str,
        extrinsics: np.ndarray,
        transforms: TransformBuffer | None,
        group: CallbackGroup,
        on_frame: Callable[[Frame, conversions.Header], None],
    ):
        """Prepares the streams.

        Args:
            node: to subscribe on.
            config: topics' transports, quality of service, tolerances.
            name: prefix of the topics; empty: none.
            extrinsics: [4, 4] optical frame in the odometry's child frame.
            transforms: for pose_source tf.
            group: mutually exclusive: callbacks only convert and enqueue.
            on_frame: receives each frame and the image's header; must not block.
        """
        self.name = name
        self.streams: dict[str, Stream] = {}
        self.frames = 0
        self.rejected = 0
        self.problem = ""
        self.silence = ""
        self._node = node
        self._config = config
        self._group = group
        self._on_frame = on_frame
        self._extrinsics = extrinsics
        options = config.input
        self._poses = (
            PoseBuffer(options.sync_slop, options.pose_gap)
            if transforms is None
            else TfPoses(transforms, options.world_frame)
        )
        self._sync = FrameSynchronizer(
            self._poses, options.sync_slop, config.tf.timeout_s, options.clock_jump, options.use_depth
        )
        self._calibration: Calibration | None = None
        self._rectifier: Rectifier | None = None
        self._warned_frames: set[tuple[str, str]] = set()
        self._frames_at_report = 0
        self._counts_at_report = self._sync.counts.as_dict()
        self._uncalibrated = ""  # why the newest calibration cannot be used
        self._add_streams()
        self._rectified = options.rectification == "rectified" or (
            options.rectification == "auto" and "rect" in self._topic("image")
        )

    def listen(self) -> None:
        """Subscribes."""
        for stream in self.streams.values():
            stream.listen()

    def _add_streams(self) -> None:
        options = self._config.input
        image, image_type = "image", conversions.Image
        if options.image_transport == "compressed":
            image, image_type = "image/compressed", conversions.CompressedImage
        self._add_stream("image", image_type, image, self._on_image)
        self._add_stream("camera_info", conversions.CameraInfo, "camera_info", self._on_camera_info)
        if options.use_depth:
            depth, depth_type = "depth", conversions.Image
            if options.depth_transport == "compressedDepth":
                depth, depth_type = "depth/compressedDepth", conversions.CompressedImage
            self._add_stream("depth", depth_type, depth, self._on_depth)
        source = self._config.pose_source
        sources = {
            "pose": (conversions.PoseStamped, self._on_pose),
            "odom": (conversions.Odometry, self._on_odom),
            "transform": (conversions.TransformStamped, self._on_transform),
        }
        if source in sources:
            self._add_stream(source, sources[source][0], source, sources[source][1], POSE_QUEUE)

    def _add_stream(
        self, role: str, message_type: type, topic: str, callback: Callable, queue: int = 0
    ) -> None:
        """Adds a stream of a relative topic; a transport's suffix follows the remapping of its base topic.

        Odometry is of the robot, so that all cameras share its topic.
        """
        prefix = f"{self.name}/" if self.name and role != "odom" else ""
        base, slash, suffix = topic.partition("/")
        reliable = self._config.qos.input == "reliable"
        profile = QoSProfile(
            depth=max(queue, self._config.qos.depth),
            reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        )

        def received(message: Any, stream: Stream) -> None:
            callback(message, self._stamp(message, stream))

        self.streams[role] = make_stream(
            self._node,
            prefix + role,
            message_type,
            self._node.resolve_topic_name(prefix + base) + slash + suffix,
            profile,
            self._group,
            received,
            self.reject,
        )

    def _topic(self, role: str) -> str:
        return self.streams[role].topic

    def _stamp(self, message: Any, stream: Stream) -> float:
        stamp = conversions.to_seconds(message.header.stamp)
        if stamp == 0:
            raise UserError(f"{stream.topic}: header.stamp is 0; the publisher must stamp its messages")
        stream.newest_stamp = stamp
        return stamp

    def reject(self, error: UserError) -> None:
        """Counts and logs a message that cannot be used."""
        self.rejected += 1
        # Without a calibration nothing else matters, and a camera without one says so only once.
        self.problem = self._uncalibrated or str(error)
        self._node.get_logger().warning(
            f"rejected: {error}", throttle_duration_sec=self._config.input.silence
        )

    def _on_image(self, message: Any, stamp: float) -> None:
        if isinstance(self._poses, TfPoses):
            self._poses.camera_frame = message.header.frame_id
        self._sync.add_image(stamp, message, time.monotonic())
        self.poll()

    def _on_camera_info(self, message: Any, stamp: float) -> None:
        calibration = conversions.from_camera_info(message)
        if calibration != self._calibration:
            self._calibration, self._rectifier, self._uncalibrated = calibration, None, ""
            try:
                self._rectifier = make_rectifier(calibration, self._rectified, self._topic("camera_info"))
            except UserError as error:
                self._uncalibrated = str(error)
                raise
            camera = self._rectifier.camera
            treatment = "undistorted" if self._rectifier.maps is not None else "taken as they are"
            self._node.get_logger().info(f"camera {camera.width}x{camera.height}, images are {treatment}")
        self.poll()

    def _on_depth(self, message: Any, stamp: float) -> None:
        self._sync.add_depth(stamp, message)
        self.poll()

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
        return self._topic(self._config.pose_source)

    def _add_pose(self, stamp: float, frame_id: str, camtoworld: np.ndarray) -> None:
        world_frame = self._config.input.world_frame
        if frame_id and frame_id.lstrip("/") != world_frame:
            raise UserError(
                f"{self._pose_topic}: poses are in frame '{frame_id}', the map is in '{world_frame}'; "
                f"set input.world_frame to {frame_id}"
            )
        self._sync.observe("pose", stamp)
        self._poses.add(stamp, camtoworld)
        self.poll()

    def poll(self) -> None:
        """Hands on what is complete. Without a calibration everything waits, bounded."""
        if self._rectifier is None:
            return
        for match in self._sync.ready(time.monotonic()):
            try:
                frame = self._make_frame(match)
            except UserError as error:
                self.reject(error)
                continue
            except Exception as error:  # logged and counted: one image must not end the process
                self.reject(self.streams["image"].unforeseen.report(error))
                continue
            self.frames += 1
            self.problem = self.silence = ""
            self._on_frame(frame, match.image.header)

    def _make_frame(self, match: Match) -> Frame:
        rectifier, topic = self._rectifier, self._topic("image")
        image = rectifier.color(conversions.from_image(match.image, topic), topic)
        depth = None
        if match.depth is not None:
            topic = self._topic("depth")
            depth = rectifier.depth(conversions.from_depth(match.depth, topic), topic)
            self._compare_frames(match.image.header.frame_id, match.depth.header.frame_id)
        return Frame(
            stamp=match.stamp,
            image=image,
            camera=rectifier.camera,
            camtoworld=match.camtoworld,
            depth=depth,
            name=f"{self.name}{'/' if self.name else ''}{match.stamp:.6f}",
            sensor=self.name,
        )

    def _compare_frames(self, image_frame: str, depth_frame: str) -> None:
        pair = (image_frame, depth_frame)
        if image_frame and depth_frame and image_frame != depth_frame and pair not in self._warned_frames:
            self._warned_frames.add(pair)
            self._node.get_logger().warning(
                f"depth is in frame '{depth_frame}', images in '{image_frame}': unless that is one camera, "
                "use depth registered to the colour camera (aligned_depth_to_color or depth_image_proc)"
            )

    def counts(self) -> dict[str, int]:
        """What became of the messages; without clock jumps matched + lost_* + waiting = images received."""
        return {
            "frames": self.frames,
            "rejected": self.rejected,
            "waiting": self._sync.waiting,
            **self._sync.counts.as_dict(),
        }

    def report_silence(self) -> str:
        """Why no usable frame arrived since the last call; empty if one did. Also kept in `silence`."""
        quiet = self.frames == self._frames_at_report
        self.silence = self._explain() if quiet else ""
        self._frames_at_report = self.frames
        self._counts_at_report = self._sync.counts.as_dict()
        for stream in self.streams.values():
            stream.mark()
        return self.silence

    def _explain(self) -> str:
        silent = [s for s in self.streams.values() if s.silent]
        if silent:
            return explain_silence(self._node, silent, self.frames)
        if self._rectifier is None or self.problem:
            return self.problem or "no camera_info yet"
        lost = {name: n - self._counts_at_report[name] for name, n in self._sync.counts.as_dict().items()}
        if lost["lost_overflow"]:
            return self._explain_overflow(lost["lost_overflow"])
        if lost["lost_pose"]:
            return self._explain_poses(lost["lost_pose"])
        if lost["lost_depth"]:
            return (
                f"{lost['lost_depth']} images without depth within {self._config.input.sync_slop} s "
                f"({self._stamps('image', 'depth')}); raise input.sync_slop or set input.use_depth=false"
            )
        return "all inputs arrive but no image is complete yet"

    def _explain_overflow(self, lost: int) -> str:
        stamps = self._stamps(*(role for role in self.streams if role != "camera_info"))
        problem = self._poses.problem if isinstance(self._poses, TfPoses) else ""
        return (
            f"{lost} images had to go before all that belongs to them came, for at most {self._sync.capacity} may wait "
            f"({'; '.join(filter(None, (stamps, problem)))}); send fewer images, or the rest sooner"
        )

    def _explain_poses(self, lost: int) -> str:
        if isinstance(self._poses, TfPoses):
            return self._poses.problem or f"{lost} images without a transform in time"
        source, timeout = self._config.pose_source, self._config.tf.timeout_s
        remedy = "are both on one clock? else raise input.sync_slop or input.pose_gap"
        if timeout <= self._behind(source) <= LATEST:
            remedy = f"raise tf.timeout_s, which is {timeout} s, or make them come sooner"
        return f"{lost} images without a pose at their stamp ({self._stamps('image', source)}); {remedy}"

    def _behind(self, role: str) -> float:
        """Seconds by which the newest stamp of a stream is older than that of the images."""
        return self.streams["image"].newest_stamp - self.streams[role].newest_stamp

    def _stamps(self, *roles: str) -> str:
        late = {role: self._behind(role) for role in roles}
        return ", ".join(
            f"newest {role} stamp {self.streams[role].newest_stamp:.3f}"
            + (f", {late[role]:.3f} s behind" if late[role] > self._config.input.sync_slop else "")
            for role in roles
        )
