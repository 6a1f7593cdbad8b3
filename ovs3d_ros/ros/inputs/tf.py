"""Camera poses from /tf, for `pose_source: tf`. A lookup never waits.

The buffer of tf2_ros is used if installed. Otherwise `TfTopicBuffer` needs only the message package tf2_msgs.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.time import Time

from ovs3d_ros.config import InputConfig
from ovs3d_ros.ros import conversions
from ovs3d_ros.ros.inputs.silence import explain_silent_publishers
from ovs3d_ros.ros.inputs.streams import Quality, Stream
from ovs3d_ros.sensors.sync import SAME_STAMP
from ovs3d_ros.sensors.transforms import TransformTree
from ovs3d_ros.types import UserError

TF_QUEUE = 100  # as in tf2_ros
CAPACITY = 2000  # transforms kept per frame: 20 s at 100 Hz
GRAPH_PERIOD = 1.0  # seconds an explanation of silence is cached: graph queries are slow, lookups frequent


class TransformBuffer(Protocol):
    """Transforms between frames over time."""

    def subscribe(self) -> None:
        """Starts to receive transforms."""

    def lookup(self, target: str, source: str, stamp: float, accept_nearest: bool) -> np.ndarray:
        """The transform [4, 4] from `source` to `target` at `stamp` (seconds).

        `sync.PoseSource.at` explains `accept_nearest`.

        Raises:
            UserError: the transform is not known, and why.
        """
        ...

    def clear(self) -> None:
        """Deletes all transforms but the static ones, after a clock jump."""


class TfPoses:
    """A `sync.PoseSource` that looks up the pose of one camera in the map frame.

    Attributes:
        camera_frame: the optical frame, from the images.
        problem: why the last lookup failed; empty if it did not.
    """

    def __init__(self, buffer: TransformBuffer, world_frame: str):
        """Takes the transforms and the frame of the map."""
        self._buffer = buffer
        self._world_frame = world_frame
        self.camera_frame = ""
        self.problem = ""

    def at(self, stamp: float, accept_nearest: bool) -> np.ndarray | None:
        """See `sync.PoseSource.at`."""
        source = self.camera_frame.lstrip("/")
        if not source:
            self.problem = "no transform: the images have no frame_id; set input.camera_frame"
            return None
        try:
            pose = self._buffer.lookup(self._world_frame, source, stamp, accept_nearest)
        except UserError as error:
            self.problem = f"no transform from {source} to {self._world_frame}: {error}"
            return None
        self.problem = ""
        return pose

    def clear(self) -> None:
        """See `sync.PoseSource.clear`."""
        self._buffer.clear()


class TfTopicBuffer:
    """A transform buffer that subscribes to /tf and /tf_static without tf2_ros."""

    def __init__(
        self,
        node: Node,
        config: InputConfig,
        group: CallbackGroup,
        reject: Callable[[UserError], None],
        topics: tuple[str, ...] = ("/tf", "/tf_static"),
    ):
        """Prepares the subscriptions.

        Args:
            node: subscribes; its executor receives the transforms.
            config: tolerances.
            group: callback group, the same in which `lookup` is called.
            reject: takes the reason why a transform cannot be used.
            topics: to subscribe to.

        Raises:
            UserError: tf2_msgs is not installed.
        """
        message_type = conversions.tf_message_type()
        self._tree = TransformTree(config.sync_slop, config.pose_gap, CAPACITY, config.clock_jump)
        self._reject = reject
        self._node = node
        self._silence, self._explained_at = "", 0.0
        profiles = {
            "/tf": QoSProfile(depth=TF_QUEUE),
            "/tf_static": QoSProfile(depth=TF_QUEUE, durability=DurabilityPolicy.TRANSIENT_LOCAL),
        }
        remedy = "transforms must be published reliably, static ones transient local"
        self._streams = [
            Stream(
                node,
                topic[1:],
                message_type,
                topic,
                Quality(profiles[topic], remedy),
                group,
                self._add,
                reject,
            )
            for topic in topics
        ]

    def subscribe(self) -> None:
        """See `TransformBuffer.subscribe`."""
        for stream in self._streams:
            stream.subscribe()

    def _add(self, message: Any, stream: Stream) -> None:
        static = stream.role == "tf_static"
        for item in message.transforms:
            stamp, child = conversions.to_seconds(item.header.stamp), item.child_frame_id
            try:
                matrix = conversions.from_transform(item.transform, f"/tf: '{child}'")
                self._tree.add(item.header.frame_id, child, stamp, matrix, static)
            except UserError as error:
                self._reject(error)

    def lookup(self, target: str, source: str, stamp: float, accept_nearest: bool) -> np.ndarray:
        """See `TransformBuffer.lookup`."""
        if not any(stream.received for stream in self._streams):
            raise UserError(self._recent_explanation())
        pose = self._tree.at(target, source, stamp, accept_nearest)
        if pose is None:
            raise UserError(
                self._tree.explain_missing(target, source, stamp) or f"not known yet at {stamp:.3f} s"
            )
        return pose

    def _recent_explanation(self) -> str:
        now = time.monotonic()
        if now - self._explained_at >= GRAPH_PERIOD or not self._silence:
            self._silence, self._explained_at = self._explain_silence(), now
        return self._silence

    def _explain_silence(self) -> str:
        publishers = {s.role: self._node.get_publishers_info_by_topic(s.topic) for s in self._streams}
        reasons = [
            explain_silent_publishers(s, publishers[s.role]) for s in self._streams if publishers[s.role]
        ]
        return "; ".join(reasons) or f"no publisher on {' and '.join(s.topic for s in self._streams)}"

    def clear(self) -> None:
        """See `TransformBuffer.clear`."""
        self._tree.clear()


class Tf2Buffer:
    """The buffer of tf2_ros, which interpolates by its own rules."""

    def __init__(self, node: Node):
        """Takes the node that subscribes."""
        import tf2_ros

        self._node = node
        self._error = tf2_ros.TransformException
        self._buffer = tf2_ros.Buffer(node=node)

    def subscribe(self) -> None:
        """See `TransformBuffer.subscribe`."""
        from tf2_ros import TransformListener

        self._listener = TransformListener(self._buffer, self._node, spin_thread=False)

    def lookup(self, target: str, source: str, stamp: float, accept_nearest: bool) -> np.ndarray:
        """See `TransformBuffer.lookup`. tf2 has no nearest transform: `accept_nearest` has no effect."""
        # A float64 stamp may lie outside the known range by a rounding error. Then the oldest transform is
        # tried, which lies up to SAME_STAMP later, and the newest (0).
        reason, nanoseconds = "", round(stamp * 1e9)
        for time_ns in (nanoseconds, nanoseconds + round(SAME_STAMP * 1e9), 0):
            try:
                found = self._buffer.lookup_transform(target, source, Time(nanoseconds=time_ns))
            except self._error as error:
                reason = reason or str(error).strip()
                continue
            if time_ns or abs(conversions.to_seconds(found.header.stamp) - stamp) <= SAME_STAMP:
                return conversions.from_transform(found.transform, "/tf")
        raise UserError(reason)

    def clear(self) -> None:
        """See `TransformBuffer.clear`."""
        self._buffer.clear()


def make_transform_buffer(
    node: Node, config: InputConfig, group: CallbackGroup, reject: Callable[[UserError], None]
) -> TransformBuffer:
    """The buffer of tf2_ros if it is installed, else a `TfTopicBuffer`, whose arguments and errors apply."""
    if importlib.util.find_spec("tf2_ros") is not None:
        return Tf2Buffer(node)
    return TfTopicBuffer(node, config, group, reject)
