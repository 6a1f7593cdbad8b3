"""Publishes the output topics. A message is only built if its topic has subscribers."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from ovs3d_ros.config import Config
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.ros import conversions
from ovs3d_ros.ros.callbacks import start_timer
from ovs3d_ros.ros.outputs import detections, messages
from ovs3d_ros.ros.outputs.answers import Answer, AnswerStore
from ovs3d_ros.ros.outputs.goal import GoalPublisher, Goals
from ovs3d_ros.ros.outputs.origin import OriginBroadcaster
from ovs3d_ros.ros.outputs.segmentation import SegmentationPublisher
from ovs3d_ros.ros.outputs.view import LatestView
from ovs3d_ros.worker import MappingWorker

ANSWER_PERIOD = 0.1  # seconds between checks for a new answer
LATCHED = QoSProfile(
    depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
)
MAX_AGE = 5.0  # seconds after which a message is published again to a new subscriber; tf2 forgets after ten
Build = Callable[[Any, conversions.Header, Config], Any]


class LatchedTopic:
    """A latched topic whose message is built once per version, if the topic has subscribers.

    A new subscriber gets the latched message, whose stamp may be old. The message then follows with a new
    stamp.
    """

    def __init__(self, node: Node, message_type: type, topic: str, build: Build):
        """Advertises the topic.

        Args:
            node: publishes.
            message_type: type of the topic.
            topic: its name.
            build: makes the message from the content of `publish`, the header, and the configuration.
        """
        self._publisher = node.create_publisher(message_type, topic, LATCHED)
        self._clock = node.get_clock()
        self._published: object = None
        self._published_at = 0.0  # monotonic time
        self._num_subscribers = 0
        self._build = build

    @property
    def has_subscribers(self) -> bool:
        """Whether the topic has subscribers."""
        return self._publisher.get_subscription_count() > 0

    def publish(self, version: object, content: Any, config: Config) -> None:
        """Publishes the content, unless all subscribers have this version with a stamp that is new enough."""
        count = self._publisher.get_subscription_count()
        joined, self._num_subscribers = count > self._num_subscribers, count
        is_old = joined and time.monotonic() - self._published_at > MAX_AGE
        if count and (is_old or version != self._published):
            self._publisher.publish(self._build(content, messages.map_header(self._clock, config), config))
            self._published, self._published_at = version, time.monotonic()


class Outputs:
    """Publishes the map, the answer, and the answer as seen by the newest camera.

    Attributes:
        goals: finds poses in front of objects.
    """

    def __init__(
        self,
        node: Node,
        config: Config,
        pipeline: Ovs3d,
        worker: MappingWorker,
        answers: AnswerStore,
        view: LatestView,
    ):
        """Advertises the topics and starts the timers (`output.rate`)."""
        self._config = config
        self._worker = worker
        self._answers = answers
        self._view = view
        self._published_number = 0  # of the newest answer on the topics
        self._map_topics = [
            LatchedTopic(node, conversions.PointCloud2, "~/map_cloud", messages.build_map_cloud),
            LatchedTopic(node, conversions.Path, "~/keyframes", messages.build_keyframes),
        ]
        self._answer_topics = _make_answer_topics(node)
        self.goals = Goals(node, config, view)
        self._goal = GoalPublisher(node, answers)
        self._arrow = LatchedTopic(node, conversions.Marker, "~/goal_marker", messages.build_goal_arrow)
        self._arrow_goal: tuple[Answer, np.ndarray | None] | None = None  # that the arrow shows
        self._segmentation = SegmentationPublisher(node, pipeline, config.output.mask_size)
        self._origin = OriginBroadcaster(node)
        group = MutuallyExclusiveCallbackGroup()
        start_timer(node, 1.0 / config.output.rate, self._publish, "outputs", group)
        start_timer(node, ANSWER_PERIOD, self._publish_new_answer, "outputs", group)

    def configure(self, config: Config) -> None:
        """Uses new values of the runtime parameters."""
        self._config = config
        self._segmentation.max_size = config.output.mask_size

    @property
    def has_answer_subscribers(self) -> bool:
        """Whether a topic that shows answers has subscribers."""
        return self._segmentation.has_subscribers or any(t.has_subscribers for t in self._answer_topics)

    def _publish(self) -> None:
        """Publishes everything that has changed."""
        snapshot, shown, config = self._worker.snapshot, self._answers.shown, self._config
        num_clears = self._answers.num_clears
        # The settings belong to the version: new runtime parameters change the messages of an unchanged map.
        settings = config.output
        if snapshot is not None:
            self._origin.publish(snapshot, config)
        if snapshot is not None or num_clears:
            version = ("cleared", num_clears) if snapshot is None else snapshot.version
            for topic in self._map_topics:
                topic.publish((version, settings), snapshot, config)
        if shown.number:
            for topic in self._answer_topics:
                topic.publish((shown.number, settings), shown.answer, config)
        self._publish_arrow()
        view = self._view.get()
        if shown.answer is not None and snapshot is not None and view is not None:
            self._segmentation.publish(shown.number, shown.answer, snapshot, view)

    def _publish_new_answer(self) -> None:
        """Publishes a new answer and its goal before the next regular update."""
        number = self._answers.shown.number
        if number != self._published_number:
            self._published_number = number
            self._publish()
        while (answer := self._answers.take_goal()) is not None:
            objects = answer.result.objects
            goal = self.goals.find(answer, objects[0], self._config) if objects else None
            self._goal.offer(answer, goal)
            self._arrow_goal = answer, goal
            self._publish_arrow()
        self._goal.update(self._config)

    def _publish_arrow(self) -> None:
        """Publishes the goal for people to see, and deletes it when its map was discarded."""
        if self._arrow_goal is not None:
            answer, goal = self._arrow_goal
            current = self._answers.is_current(answer)
            self._arrow.publish((id(answer), current), goal if current else None, self._config)


def _make_answer_topics(node: Node) -> list[LatchedTopic]:
    """The latched topics that show the answer; those of vision_msgs only if it is installed."""
    topics: list[tuple[type, str, Build]] = [
        (conversions.PointCloud2, "query_cloud", messages.build_query_cloud),
        (conversions.String, "label_map", messages.build_label_map),
        (conversions.MarkerArray, "markers", messages.build_markers),
        (conversions.PoseArray, "object_poses", messages.build_object_poses),
        (conversions.OccupancyGrid, "query_grid", messages.build_grid),
    ]
    vision = detections.vision_messages()
    if vision is None:
        node.get_logger().info("vision_msgs is not installed: no ~/detections and ~/label_info")
    else:
        topics += [
            (vision.Detection3DArray, "detections", messages.build_detections),
            (vision.LabelInfo, "label_info", messages.build_label_info),
        ]
    return [LatchedTopic(node, message_type, f"~/{name}", build) for message_type, name, build in topics]
