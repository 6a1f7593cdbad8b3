"""Answers questions for all services and topics, and tells what has changed since the last answer."""

from __future__ import annotations

import numpy as np
from rclpy.node import Node

from ovs3d_interfaces.msg import ObjectEvent
from ovs3d_interfaces.msg import SemanticObject as SemanticObjectMessage
from ovs3d_ros.config import Config
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.query.tracking import APPEARED, GONE, MOVED, Change, Track, last_views
from ovs3d_ros.ros import conversions
from ovs3d_ros.ros.outputs.answers import Answer, AnswerStore
from ovs3d_ros.ros.outputs.messages import map_header
from ovs3d_ros.ros.outputs.view import LatestView
from ovs3d_ros.types import MapSnapshot, Query, SemanticObject

EVENTS = {APPEARED: ObjectEvent.APPEARED, MOVED: ObjectEvent.MOVED, GONE: ObjectEvent.GONE}
EVENT_QUEUE = 100  # messages


class Asking:
    """Answers queries, follows their objects and publishes `~/object_events`."""

    def __init__(self, node: Node, config: Config, pipeline: Ovs3d, answers: AnswerStore, view: LatestView):
        """Advertises the topic.

        Args:
            node: publishes.
            config: frame of the map.
            pipeline: answers queries.
            answers: has the tracker of the objects.
            view: newer than the newest keyframe.
        """
        self._clock = node.get_clock()
        self._config = config
        self._pipeline = pipeline
        self._answers = answers
        self._view = view
        self._events = node.create_publisher(ObjectEvent, "~/object_events", EVENT_QUEUE)

    @property
    def has_subscribers(self) -> bool:
        """Whether `~/object_events` has subscribers."""
        return self._events.get_subscription_count() > 0

    def header(self) -> conversions.Header:
        """The header of an answer: the map's frame, now."""
        return map_header(self._clock, self._config)

    def answer(self, query: Query, snapshot: MapSnapshot) -> Answer:
        """The answer to a query, with the tracks of its objects; publishes what has changed."""
        result = self._pipeline.answer(query, snapshot)
        answer = Answer(result, snapshot)
        if not self._answers.is_current(answer):
            return answer
        tracks, changes = self._answers.tracker.update(result, conversions.to_seconds(self.header().stamp))
        if changes and self.has_subscribers:
            self._publish(changes, answer)
        return Answer(result, snapshot, tuple(tracks))

    def object_messages(self, answer: Answer, header: conversions.Header) -> list[SemanticObjectMessage]:
        """The objects of an answer."""
        objects, tracks = answer.result.objects, answer.tracks or (None,) * len(answer.result.objects)
        stamps = self._last_seen(answer.snapshot, [item.center for item in objects])
        return [
            object_message(item, track, stamp, header)
            for item, track, stamp in zip(objects, tracks, stamps, strict=True)
        ]

    def _last_seen(self, snapshot: MapSnapshot, centers: list[np.ndarray]) -> np.ndarray:
        cameras, poses, stamps = snapshot.cameras, snapshot.camtoworlds, snapshot.stamps
        if (view := self._view.get()) is not None:
            cameras = [*cameras, view.frame.camera]
            poses = np.concatenate([poses, view.frame.camtoworld[None]])
            stamps = np.append(stamps, view.frame.stamp)
        return last_views(np.array(centers).reshape(-1, 3), cameras, poses, stamps)

    def _publish(self, changes: list[Change], answer: Answer) -> None:
        header = self.header()
        stamps = self._last_seen(answer.snapshot, [change.item.center for change in changes])
        for change, stamp in zip(changes, stamps, strict=True):
            before = change.previous
            previous, _ = conversions.to_box(before.center, before.quat, before.size)
            self._events.publish(
                ObjectEvent(
                    header=header,
                    event=EVENTS[change.kind],
                    object=object_message(change.item, change.track, stamp, header),
                    previous=previous,
                )
            )


def object_message(
    item: SemanticObject, track: Track | None, last_seen: float, header: conversions.Header
) -> SemanticObjectMessage:
    """One object; without a track it has the id 0."""
    pose, size = conversions.to_box(item.center, item.quat, item.size)
    message = SemanticObjectMessage(
        header=header,
        label=item.prompt,
        instance=item.instance,
        score=float(item.score),
        pose=pose,
        size=size,
        num_gaussians=int(item.num_gaussians),
        observed_views=int(item.views),
        last_seen=conversions.to_time(last_seen),
    )
    if track is not None:
        message.id, message.first_seen = track.id, conversions.to_time(track.first_seen)
        message.age = max(0.0, conversions.to_seconds(header.stamp) - track.first_seen)
    return message
