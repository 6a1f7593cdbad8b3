"""One camera: subscribes to its input topics and matches their messages by stamp."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node

from ovs3d_ros.config import Config
from ovs3d_ros.ros import conversions
from ovs3d_ros.ros.callbacks import Recurrences
from ovs3d_ros.ros.inputs.frame_converter import FrameConverter
from ovs3d_ros.ros.inputs.mounted_poses import MountedPoses
from ovs3d_ros.ros.inputs.silence import SilenceReport
from ovs3d_ros.ros.inputs.streams import Stream
from ovs3d_ros.ros.inputs.tf import TfPoses, TransformBuffer
from ovs3d_ros.ros.inputs.topics import SHARED, InputTopic, camera_topics
from ovs3d_ros.sensors.jumps import JumpDetector
from ovs3d_ros.sensors.sync import FrameSynchronizer, PoseBuffer
from ovs3d_ros.types import Frame, UserError


class CameraInput:
    """Calls back with every complete frame of one camera, after `subscribe`.

    Attributes:
        name: of the camera; empty if there is only one.
        streams: subscriptions by role.
        frames: complete frames so far.
        rejected: messages that could not be used.
        problem: why the last message was rejected; empty once a frame is complete.
    """

    def __init__(
        self,
        node: Node,
        config: Config,
        name: str,
        extrinsics: np.ndarray | None,
        transforms: TransformBuffer | None,
        group: CallbackGroup,
        on_frame: Callable[[Frame, conversions.Header], None],
    ):
        """Prepares the subscriptions.

        Args:
            node: subscribes.
            config: topics' transports, quality of service, tolerances.
            name: prefix of the topics; empty for none.
            extrinsics: [4, 4] optical frame in the child frame of the poses; None: not set.
            transforms: /tf and /tf_static for pose_source tf; /tf_static if it may have to lead poses of the
                robot to the camera; else None.
            group: mutually exclusive; callbacks only convert and enqueue.
            on_frame: receives each frame and its image's header; must not block.
        """
        self.name = name
        self.frames = 0
        self.rejected = 0
        self.problem = ""
        self._node = node
        self._config = config
        self._on_frame = on_frame
        self._jumps = JumpDetector()
        self._rejections = Recurrences()
        self._clock_jumps = 0  # that were logged
        options, source, log = config.input, config.pose_source, node.get_logger()
        buffer = PoseBuffer(options.sync_slop, options.pose_gap)
        self._framed: TfPoses | MountedPoses | None = None  # poses that depend on the frame of the images
        if source == "tf":
            self._framed = TfPoses(transforms, options.world_frame)
        elif source != "pose":
            self._framed = MountedPoses(buffer, extrinsics, source in SHARED, transforms, log)
        self._poses = self._framed or buffer
        self._sync = FrameSynchronizer(
            self._poses, options.sync_slop, config.tf.timeout_s, options.clock_jump, options.use_depth
        )
        self.streams = {topic.role: self._make_stream(topic, group) for topic in camera_topics(config, name)}
        topics = {role: stream.topic for role, stream in self.streams.items()}
        self._converter = FrameConverter(name, topics, options, log)
        self._silence = SilenceReport(
            node, config, self.streams, self._sync, lambda: self._framed.problem if self._framed else ""
        )

    def _make_stream(self, topic: InputTopic, group: CallbackGroup) -> Stream:
        handlers = {
            "image": self._on_image,
            "camera_info": self._on_camera_info,
            "depth": self._on_depth,
        }
        handle = handlers.get(topic.role, self._on_pose)

        def receive(message: Any, stream: Stream) -> None:
            handle(message, _stamp(message, stream, required=not topic.latched))

        return Stream(
            self._node,
            topic.name,
            topic.message_type,
            topic.resolve(self._node),
            topic.quality(self._config),
            group,
            receive,
            self.reject,
        )

    def subscribe(self) -> None:
        """Subscribes to all topics."""
        for stream in self.streams.values():
            stream.subscribe()

    def reject(self, error: UserError) -> None:
        """Counts and logs a message that cannot be used."""
        self.rejected += 1
        # Nothing can be used without a calibration, and an uncalibrated camera reports it only once.
        self.problem = self._converter.problem or str(error)
        if self._rejections.is_new(str(error)):  # the count of the same one is in /diagnostics
            self._node.get_logger().warning(f"rejected: {error}")

    def _on_image(self, message: Any, stamp: float) -> None:
        message.header.frame_id = self._config.input.camera_frame or message.header.frame_id
        if self._framed is not None:
            self._framed.camera_frame = message.header.frame_id
        self._sync.add_image(stamp, message, time.monotonic())
        self.poll()

    def _on_camera_info(self, message: Any, stamp: float) -> None:
        self._converter.set_calibration(message)
        self.poll()

    def _on_depth(self, message: Any, stamp: float) -> None:
        self._sync.add_depth(stamp, message)
        self.poll()

    def _on_pose(self, message: Any, stamp: float) -> None:
        source = self._config.pose_source
        topic = self.streams[source].topic
        pose, child = conversions.from_stamped_pose(message, topic)
        frame_id, world_frame = message.header.frame_id, self._config.input.world_frame
        if frame_id and frame_id.lstrip("/") != world_frame:
            raise UserError(
                f"{topic}: poses are in frame '{frame_id}', the map is in '{world_frame}'; "
                f"set input.world_frame to {frame_id}"
            )
        self._sync.note_stamp("pose", stamp)
        if isinstance(self._framed, MountedPoses):
            self._framed.add(stamp, pose, child, topic)
        else:
            self._poses.add(stamp, pose)
        self.poll()

    def poll(self) -> None:
        """Passes on complete frames. Before the first calibration a limited number of images waits."""
        if not self._converter.calibrated:
            return
        for match in self._sync.take_complete(time.monotonic()):
            try:
                frame = self._converter.convert(match)
            except UserError as error:
                self.reject(error)
                continue
            except Exception as error:  # logged and counted: one image must not end the process
                self.reject(self.streams["image"].errors.report(error))
                continue
            self.frames += 1
            self.problem = ""
            self._watch_jumps(frame)
            self._silence.clear()
            self._on_frame(frame, match.image.header)

    def _watch_jumps(self, frame: Frame) -> None:
        """Logs jumps of the pose and of the clock."""
        clock_jumps, log = self._sync.counts.clock_jumps, self._node.get_logger()
        if clock_jumps > self._clock_jumps:
            self._clock_jumps = clock_jumps
            log.warning(
                "the clock was set back: the images and poses that waited are forgotten, the map stays"
            )
        if distance := self._jumps.update(frame.stamp, frame.camtoworld[:3, 3]):
            log.warning(
                f"the pose jumped by {distance:.2f} m at {frame.stamp:.3f} s; if localisation corrected "
                "itself, publish keyframe_path, so that what was mapped before moves too",
                throttle_duration_sec=self._config.input.silence,
            )

    @property
    def mount(self) -> np.ndarray | None:
        """Where the camera sits in the frame whose poses arrive, [4, 4]; None if the poses do not tell."""
        return self._framed.mount if isinstance(self._framed, MountedPoses) else None

    def counts(self) -> dict[str, int]:
        """Messages by outcome; without clock jumps matched + lost_* + waiting = images received."""
        return {
            "frames": self.frames,
            "rejected": self.rejected,
            "waiting": self._sync.waiting,
            "pose_jumps": self._jumps.count,
            **self._sync.counts.as_dict(),
        }

    @property
    def silence(self) -> str:
        """The last `report_silence`; empty once a frame is complete."""
        return self._silence.text

    def report_silence(self) -> str:
        """Why no usable frame arrived since the last call; empty if one did."""
        problem = self.problem or ("" if self._converter.calibrated else "no camera_info yet")
        return self._silence.update(self.frames, problem)


def _stamp(message: Any, stream: Stream, required: bool) -> float:
    """The stamp of a message in seconds, noted in its stream. A latched calibration needs none."""
    stamp = conversions.to_seconds(message.header.stamp)
    if stamp == 0 and required:
        raise UserError(f"{stream.topic}: header.stamp is 0; the publisher must stamp its messages")
    stream.newest_stamp = stamp
    return stamp
