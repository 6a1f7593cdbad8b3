"""Input subscriptions that know what came through them, and can say why nothing does."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

from ovs3d_ros.ros.callback_errors import Unforeseen
from ovs3d_ros.types import UserError

MAX_PUBLISHERS = 100  # whose sequence numbers are remembered


@dataclass(slots=True)
class Stream:
    """One subscription and what came through it.

    Attributes:
        role: what it is for, such as image, or front/image where there are several cameras.
        topic: the resolved topic.
        quality: what is asked of publishers: "reliable" or "best effort".
        remedy: what to do where their quality of service does not fit.
        listen: subscribes; nothing is received before.
        received: messages so far.
        rate: Hz, see `measure`.
        newest_stamp: of the headers, seconds.
        lost: messages that were sent but not taken: lost on the way, or pushed out of a full queue.
        incompatible: publishers whose quality of service does not fit.
        unforeseen: where exceptions go that are nobody's fault but ours.
        slowest_ms: the longest a callback took.
    """

    role: str
    topic: str
    quality: str
    remedy: str = "set qos.input=sensor_data"
    listen: Callable[[], None] | None = None
    received: int = 0
    rate: float = 0.0
    newest_stamp: float = float("nan")
    lost: int = 0
    incompatible: int = 0
    slowest_ms: float = 0.0
    _received_at_measure: int = 0
    _received_at_report: int = 0
    _numbers: dict[object, int] = field(default_factory=dict)
    unforeseen: Unforeseen = field(init=False)

    def __post_init__(self) -> None:
        self.unforeseen = Unforeseen(self.topic)

    def count(self, info: dict[str, Any]) -> None:
        """Counts a message, and those missing before it by the publisher's sequence numbers, where there are any."""
        self.received += 1
        number, publisher = info.get("publication_sequence_number"), info.get("publisher_gid")
        if number is None or publisher is None:
            return
        key = bytes(publisher["data"])
        self.lost += max(0, number - self._numbers.get(key, number - 1) - 1)
        if len(self._numbers) >= MAX_PUBLISHERS:  # of processes that came and went
            self._numbers.clear()
        self._numbers[key] = number

    @property
    def silent(self) -> bool:
        """Whether nothing came since `mark`."""
        return self.received == self._received_at_report

    def mark(self) -> None:
        """Starts the period that `silent` is about."""
        self._received_at_report = self.received

    def measure(self, period: float) -> None:
        """Updates the rate; called every `period` seconds."""
        self.rate = (self.received - self._received_at_measure) / period
        self._received_at_measure = self.received

    def values(self) -> dict[str, object]:
        """For the diagnostics."""
        return {
            f"{self.role} topic": self.topic,
            f"{self.role} messages": self.received,
            f"{self.role} lost": self.lost,
            f"{self.role} rate (Hz)": round(self.rate, 2),
        }


def make_stream(
    node: Node,
    role: str,
    message_type: type,
    topic: str,
    profile: QoSProfile,
    group: CallbackGroup,
    callback: Callable[[Any, Stream], None],
    reject: Callable[[UserError], None],
) -> Stream:
    """A stream that counts what it receives. It does not subscribe before `Stream.listen`.

    The executor may call back while a constructor is still at work, so whoever makes streams has everything in place
    before any of them listens.

    Args:
        node: to subscribe on.
        role: see `Stream`.
        message_type: of the topic.
        topic: its name.
        profile: quality of service.
        group: callback group.
        callback: takes a message and the stream; a UserError goes to `reject`, and so does, once it is logged, any
            other exception.
        reject: takes the reason why a message cannot be used.
    """
    best_effort = profile.reliability == ReliabilityPolicy.BEST_EFFORT
    stream = Stream(role, node.resolve_topic_name(topic), "best effort" if best_effort else "reliable")

    def received(message: Any, info: dict[str, Any]) -> None:
        started = time.perf_counter()
        stream.count(info)
        try:
            callback(message, stream)
        except UserError as error:
            reject(error)
        except Exception as error:  # logged and counted: one message must not end the process
            reject(stream.unforeseen.report(error))
        stream.slowest_ms = max(stream.slowest_ms, 1e3 * (time.perf_counter() - started))

    def incompatible(event: Any) -> None:
        stream.incompatible = event.total_count

    def listen() -> None:
        # With two arguments rclpy passes what the middleware knows of the message; Humble does not.
        informed = hasattr(Subscription, "CallbackType")
        node.create_subscription(
            message_type,
            topic,
            received if informed else lambda message: received(message, {}),
            profile,
            callback_group=group,
            event_callbacks=SubscriptionEventCallbacks(incompatible_qos=incompatible),
        )

    stream.listen = listen
    return stream


def explain_silence(node: Node, streams: list[Stream], frames: int) -> str:
    """Why nothing came on these topics; empty if there are none.

    Args:
        node: knows who publishes.
        streams: the silent ones.
        frames: complete frames so far: topics that worked need no advice on their names.
    """
    publishers = {stream.role: node.get_publishers_info_by_topic(stream.topic) for stream in streams}
    reasons = [explain_mute(s, publishers[s.role]) for s in streams if publishers[s.role]]
    unpublished = [s for s in streams if not publishers[s.role]]
    if unpublished:
        topics, first = ", ".join(s.topic for s in unpublished), unpublished[0]
        role = first.role.rpartition("/")[2]
        remedy = f"; remap the inputs, for example --ros-args -r {first.role}:=/camera/{role}"
        gone = f", gone after {frames} frames" if frames else remedy
        reasons.insert(0, f"no publisher on {topics} (0 Hz, {first.quality}){gone}")
    return "; ".join(reasons)


def explain_mute(stream: Stream, publishers: list[Any]) -> str:
    """Why nothing came on a topic that has publishers."""
    about = f"nothing on {stream.topic} (0 Hz, {stream.quality})"
    offers = sorted({p.qos_profile.reliability.name.lower().replace("_", " ") for p in publishers})
    if stream.incompatible:
        return (
            f"{about}: the publisher offers another quality of service ({', '.join(offers)}); {stream.remedy}"
        )
    return f"{about} though {len(publishers)} publisher(s) offer {', '.join(offers)}"
