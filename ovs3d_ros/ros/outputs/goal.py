"""`~/goal_pose`: where to go to see the object that was asked for."""

from __future__ import annotations

import time

from rclpy.node import Node

from ovs3d_ros.config import Config
from ovs3d_ros.ros import conversions
from ovs3d_ros.ros.outputs import messages
from ovs3d_ros.ros.outputs.answers import Answer, AnswerStore

PATIENCE = 2.0  # seconds a goal waits for a subscriber, whose discovery may take longer than the answer


class GoalPublisher:
    """Publishes each goal once, to those who are there.

    The topic is not latched: a planner that starts later must not drive to the goal of an old query.
    """

    def __init__(self, node: Node, answers: AnswerStore):
        """Advertises the topic; `answers` know whether the map of an answer is still in use."""
        self._publisher = node.create_publisher(conversions.PoseStamped, "~/goal_pose", 1)
        self._log = node.get_logger()
        self._clock = node.get_clock()
        self._answers = answers
        self._waiting: Answer | None = None
        self._deadline = 0.0  # monotonic time
        self._told = False  # that nobody subscribes

    def offer(self, answer: Answer) -> None:
        """Takes an answer, whose goal replaces one that still waits."""
        self._waiting, self._deadline = answer, time.monotonic() + PATIENCE

    def update(self, config: Config) -> None:
        """Publishes the goal that waits, or says once that nobody subscribes to it."""
        answer = self._waiting
        if answer is None:
            return
        if not answer.result.objects or not self._answers.is_current(answer):
            self._waiting = None
        elif self._publisher.get_subscription_count():
            self._waiting, self._told = None, False
            header = messages.map_header(self._clock, config)
            self._publisher.publish(messages.build_goal(answer, answer.result.objects[0], header, config))
        elif time.monotonic() > self._deadline:
            self._waiting = None
            if not self._told:
                self._told = True
                self._log.info(
                    "nobody subscribes to ~/goal_pose, so goals are not published; subscribe before you ask"
                )
