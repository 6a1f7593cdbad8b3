"""Reports why no usable frame arrives: topics, their quality of service, poses, or stamps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile

from ovs3d_ros.config import Config
from ovs3d_ros.ros.inputs.streams import Stream
from ovs3d_ros.sensors.sync import FrameSynchronizer

MAX_DELAY = 60.0  # seconds; poses that are older than the image by more than this use another clock


class SilenceReport:
    """Explains the silence of one camera, one period after the other.

    Attributes:
        text: why no frame was complete in the last period; empty if one was, or has been since.
    """

    def __init__(
        self,
        node: Node,
        config: Config,
        streams: dict[str, Stream],
        sync: FrameSynchronizer,
        pose_problem: Callable[[], str],
    ):
        """Takes the sources of the reasons.

        Args:
            node: asks the ROS graph for publishers.
            config: tolerances to suggest.
            streams: subscriptions of the camera by role.
            sync: counts the images that were lost for want of a pose or depth.
            pose_problem: says why /tf has no pose, or why a pose of the robot does not lead to the camera;
                empty otherwise.
        """
        self.text = ""
        self._node = node
        self._config = config
        self._streams = streams
        self._sync = sync
        self._pose_problem = pose_problem
        self._frames = 0
        self._counts = sync.counts.as_dict()
        self._received = dict.fromkeys(streams, 0)

    def update(self, frames: int, problem: str) -> str:
        """Ends a period and explains it; returns `text`.

        Args:
            frames: complete frames so far.
            problem: why the last message was rejected; empty if none was.
        """
        self.text = self._explain(frames, problem) if frames == self._frames else ""
        self._frames = frames
        self._counts = self._sync.counts.as_dict()
        self._received = {role: stream.received for role, stream in self._streams.items()}
        return self.text

    def clear(self) -> None:
        """Ends the silence: a frame is complete."""
        self.text = ""

    def _explain(self, frames: int, problem: str) -> str:
        silent = [stream for role, stream in self._streams.items() if stream.received == self._received[role]]
        if silent:
            return explain_silent_topics(self._node, silent, frames)
        if problem:
            return problem
        lost = {name: count - self._counts[name] for name, count in self._sync.counts.as_dict().items()}
        if lost["lost_overflow"]:
            return self._explain_overflow(lost["lost_overflow"])
        if lost["lost_pose"]:
            return self._explain_poses(lost["lost_pose"])
        if lost["lost_depth"]:
            return (
                f"{lost['lost_depth']} images without depth within {self._config.input.sync_slop} s "
                f"({self._list_stamps('image', 'depth')}); raise input.sync_slop or set input.use_depth=false"
            )
        return "all inputs arrive but no image is complete yet"

    def _explain_overflow(self, lost: int) -> str:
        stamps = self._list_stamps(*(role for role in self._streams if role != "camera_info"))
        return (
            f"{lost} images were dropped: at most {self._sync.capacity} may wait for their depth and pose "
            f"({'; '.join(filter(None, (stamps, self._pose_problem())))}); "
            "send fewer images, or depth and poses sooner"
        )

    def _explain_poses(self, lost: int) -> str:
        source, timeout = self._config.pose_source, self._config.tf.timeout_s
        problem = self._pose_problem()
        if problem or source == "tf":
            return problem or f"{lost} images without a transform in time"
        remedy = "check that both use one clock, else raise input.sync_slop or input.pose_gap"
        if timeout <= self._delay(source) <= MAX_DELAY:
            remedy = f"raise tf.timeout_s, which is {timeout} s, or publish poses sooner"
        return f"{lost} images without a pose at their stamp ({self._list_stamps('image', source)}); {remedy}"

    def _delay(self, role: str) -> float:
        """Seconds by which the newest stamp of a stream is older than that of the images."""
        return self._streams["image"].newest_stamp - self._streams[role].newest_stamp

    def _list_stamps(self, *roles: str) -> str:
        return ", ".join(
            f"newest {role} stamp {self._streams[role].newest_stamp:.3f}" + self._describe_delay(role)
            for role in roles
        )

    def _describe_delay(self, role: str) -> str:
        delay = self._delay(role)
        if not abs(delay) > self._config.input.sync_slop:  # NaN too
            return ""
        return f", {abs(delay):.3f} s {'behind' if delay > 0 else 'ahead'}"


def explain_silent_topics(node: Node, streams: list[Stream], frames: int) -> str:
    """Why no message arrived on these topics.

    Args:
        node: asks the ROS graph for publishers.
        streams: the silent ones.
        frames: complete frames so far; after the first, the topic names are right and need no advice.
    """
    publishers = {stream.role: node.get_publishers_info_by_topic(stream.topic) for stream in streams}
    reasons = [explain_silent_publishers(s, publishers[s.role]) for s in streams if publishers[s.role]]
    unpublished = [s for s in streams if not publishers[s.role]]
    if unpublished:
        topics, first = ", ".join(s.topic for s in unpublished), unpublished[0]
        role = first.role.rpartition("/")[2]
        remedy = f"; remap the inputs, for example --ros-args -r {first.role}:=/camera/{role}"
        advice = f", gone after {frames} frames" if frames else remedy
        reasons.insert(0, f"no publisher on {topics} (0 Hz, {first.reliability}){advice}")
    return "; ".join(reasons)


def explain_silent_publishers(stream: Stream, publishers: list[Any]) -> str:
    """Why no message arrived on a topic that has publishers."""
    topic = f"nothing on {stream.topic} (0 Hz, {stream.reliability})"
    offers = " / ".join(sorted({_describe_quality(p.qos_profile) for p in publishers}))
    if stream.incompatible:
        return f"{topic}: the publisher offers another quality of service ({offers}); {stream.remedy}"
    silence = f"{topic} though {len(publishers)} publisher(s) offer {offers}"
    if stream.received or not all(_is_latched(p.qos_profile) for p in publishers):
        return silence
    return f"{silence}; a message sent once, before the node subscribed, does not arrive: send it repeatedly"


def _is_latched(profile: QoSProfile) -> bool:
    return profile.durability == DurabilityPolicy.TRANSIENT_LOCAL


def _describe_quality(profile: QoSProfile) -> str:
    """Reliability and durability in words."""
    return ", ".join(
        policy.name.lower().replace("_", " ") for policy in (profile.reliability, profile.durability)
    )
