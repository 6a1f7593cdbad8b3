"""Subscriptions of the node's inputs, with statistics of their messages."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

from ovs3d_ros.ros.callbacks import ErrorReporter
from ovs3d_ros.types import UserError

MAX_PUBLISHERS = 100  # publishers whose sequence numbers are remembered
LATCHED_DEPTH = 1  # messages kept of each latched publisher: only the newest is of use


@dataclass(frozen=True, slots=True)
class Quality:
    """How a topic is subscribed.

    Attributes:
        profile: quality of service.
        remedy: advice if that of the publishers is incompatible.
        latched: whether a publisher may send its message only once, before the node subscribes (transient
            local). A second subscription then asks for that message, because a single one either misses it or
            refuses the volatile publishers.
    """

    profile: QoSProfile
    remedy: str = "set qos.input=sensor_data"
    latched: bool = False


class Stream:
    """One input topic: its subscription and the statistics of its messages.

    Attributes:
        role: the input it serves, for example image, or front/image with several cameras.
        topic: the resolved topic.
        reliability: requested of publishers: "reliable" or "best effort".
        remedy: advice if the publishers' quality of service is incompatible.
        received: messages so far.
        lost: messages sent that never reached the callback: dropped in transit or pushed out of a full queue.
        rate: messages per second, see `update_rate`.
        newest_stamp: newest header stamp, seconds.
        incompatible: publishers with an incompatible quality of service.
        slowest_ms: duration of the slowest callback.
        errors: logs unexpected exceptions of the callback.
    """

    def __init__(
        self,
        node: Node,
        role: str,
        message_type: type,
        topic: str,
        quality: Quality,
        group: CallbackGroup,
        callback: Callable[[Any, Stream], None],
        reject: Callable[[UserError], None],
    ):
        """Prepares the subscription; call `subscribe` to receive messages.

        Args:
            node: subscribes.
            role: see the attribute.
            message_type: type of the topic.
            topic: relative or absolute name.
            quality: of service, see there.
            group: callback group.
            callback: takes a message and this stream. Errors go to `reject`; unexpected ones also to the log.
            reject: takes the reason why a message cannot be used.
        """
        best_effort = quality.profile.reliability == ReliabilityPolicy.BEST_EFFORT
        self.role = role
        self.topic = node.resolve_topic_name(topic)
        self.reliability = "best effort" if best_effort else "reliable"
        self.remedy = quality.remedy
        self.received = 0
        self.lost = 0
        self.rate = 0.0
        self.newest_stamp = float("nan")
        self.incompatible = 0
        self.slowest_ms = 0.0
        self.errors = ErrorReporter(self.topic)
        self._node = node
        self._name = topic
        self._message_type = message_type
        self._quality = quality
        self._group = group
        self._callback = callback
        self._reject = reject
        self._received_at_update = 0
        self._sequence_numbers: dict[bytes, int] = {}
        self._sent: deque[tuple[object, int]] = deque(
            maxlen=MAX_PUBLISHERS
        )  # newest messages of latched topics
        self._is_single: bool | None = None  # one publisher, as of the last `update_rate`; None: not known

    def subscribe(self) -> None:
        """Subscribes. The executor may call back at once, so all callbacks must be ready before."""
        # rclpy passes information on each message to a callback with two arguments; Humble does not.
        informed = hasattr(Subscription, "CallbackType")
        self._create(self._quality.profile, self._on_incompatible, informed)
        if self._quality.latched:
            latched = QoSProfile(
                depth=LATCHED_DEPTH,
                reliability=ReliabilityPolicy.RELIABLE,
                durability=DurabilityPolicy.TRANSIENT_LOCAL,
            )
            # Volatile publishers do not match it. That is no fault: the first subscription serves them.
            self._create(latched, lambda event: None, informed)

    def _create(self, profile: QoSProfile, on_incompatible: Callable[[Any], None], informed: bool) -> None:
        self._node.create_subscription(
            self._message_type,
            self._name,
            self._receive if informed else lambda message: self._receive(message, {}),
            profile,
            callback_group=self._group,
            event_callbacks=SubscriptionEventCallbacks(incompatible_qos=on_incompatible),
        )

    def _receive(self, message: Any, info: dict[str, Any]) -> None:
        started = time.perf_counter()
        if self._quality.latched and self._is_known(info):
            return
        self._count(info)
        try:
            self._callback(message, self)
        except UserError as error:
            self._reject(error)
        except Exception as error:  # logged and counted: one message must not end the process
            self._reject(self.errors.report(error))
        self.slowest_ms = max(self.slowest_ms, 1e3 * (time.perf_counter() - started))

    def _is_known(self, info: dict[str, Any]) -> bool:
        """Whether the other subscription of a latched topic has brought this message or a newer one.

        Only messages of one publisher are compared. False where the middleware does not number messages; a
        repeated message does no harm.
        """
        number, gid = info.get("publication_sequence_number"), info.get("publisher_gid")
        if number is None:
            return False
        if gid is None:  # before Kilted; time tells apart publishers, also one that starts again at number 1
            message = (info.get("source_timestamp"), number)
            is_known = message in self._sent
            self._sent.append(message)
            return is_known
        return number <= self._sequence_numbers.get(bytes(gid["data"]), number - 1)

    def _publisher(self, info: dict[str, Any]) -> bytes | None:
        """What identifies the publisher of a message; None: unknown, and there are several."""
        publisher = info.get("publisher_gid")
        if publisher is not None:
            return bytes(publisher["data"])
        if self._is_single is None:
            self._is_single = self._node.count_publishers(self.topic) == 1
        return b"" if self._is_single else None  # before Kilted

    def _count(self, info: dict[str, Any]) -> None:
        """Counts a message, and by its sequence number, if any, the messages lost before it."""
        self.received += 1
        number, publisher = info.get("publication_sequence_number"), self._publisher(info)
        if number is None or publisher is None:
            return
        self.lost += max(0, number - self._sequence_numbers.get(publisher, number - 1) - 1)
        if len(self._sequence_numbers) >= MAX_PUBLISHERS:  # forget processes that have ended
            self._sequence_numbers.clear()
        self._sequence_numbers[publisher] = number

    def _on_incompatible(self, event: Any) -> None:
        self.incompatible = event.total_count

    def update_rate(self, period: float) -> None:
        """Updates `rate`; called every `period` seconds."""
        is_single = self._node.count_publishers(self.topic) == 1
        if is_single != self._is_single:  # the numbers of several publishers cannot be told apart
            self._is_single = is_single
            self._sequence_numbers.pop(b"", None)
        self.rate = (self.received - self._received_at_update) / period
        self._received_at_update = self.received

    def diagnostic_values(self) -> dict[str, object]:
        """Key-value pairs for /diagnostics."""
        return {
            f"{self.role} topic": self.topic,
            f"{self.role} messages": self.received,
            f"{self.role} lost": self.lost,
            f"{self.role} rate (Hz)": round(self.rate, 2),
        }
