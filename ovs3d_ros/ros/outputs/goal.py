"""`~/goal_pose`: where to go to see the object that was asked for."""

from __future__ import annotations

import time

import numpy as np
from rclpy.node import Node

from ovs3d_ros.config import Config
from ovs3d_ros.query.approach import approach_pose
from ovs3d_ros.query.navigation import goal_pose
from ovs3d_ros.ros import conversions
from ovs3d_ros.ros.inputs.costmap import CostmapInput
from ovs3d_ros.ros.outputs import messages
from ovs3d_ros.ros.outputs.answers import Answer, AnswerStore
from ovs3d_ros.ros.outputs.view import LatestView
from ovs3d_ros.types import SemanticObject, UserError

PATIENCE = 2.0  # seconds a goal waits for a subscriber, whose discovery may take longer than the answer


class Goals:
    """Finds poses in front of objects: on free ground if a costmap has arrived; any thread may use it."""

    def __init__(self, node: Node, config: Config, view: LatestView):
        """Subscribes to `costmap`; `view` tells where the robot is."""
        self._costmap = CostmapInput(node, config)
        self._view = view
        self._log = node.get_logger()

    def find(self, answer: Answer, item: SemanticObject, config: Config) -> np.ndarray | None:
        """A pose [4, 4] on the ground that faces an object of an answer.

        None if the costmap has no place for it; the log says why.
        """
        stand_off, poses = config.output.stand_off, answer.snapshot.camtoworlds
        costmap, view = self._costmap.grid, self._view.get()
        if costmap is None:
            return goal_pose(item, poses, stand_off)
        robot = view.frame.camtoworld[:2, 3] if view is not None else None
        try:
            return approach_pose(item, costmap, poses, robot, stand_off, config.navigation.robot_radius)
        except UserError as error:
            self._log.warning(f"no goal: {error}")
            return None


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
        self._waiting: tuple[Answer, np.ndarray] | None = None
        self._deadline = 0.0  # monotonic time
        self._told = False  # that nobody subscribes

    def offer(self, answer: Answer, goal: np.ndarray | None) -> None:
        """Takes the goal of an answer, if it has one, in place of one that still waits."""
        self._waiting = None if goal is None else (answer, goal)
        self._deadline = time.monotonic() + PATIENCE

    def update(self, config: Config) -> None:
        """Publishes the goal that waits, or says once that nobody subscribes to it."""
        if self._waiting is None:
            return
        answer, goal = self._waiting
        if not self._answers.is_current(answer):
            self._waiting = None
        elif self._publisher.get_subscription_count():
            self._waiting, self._told = None, False
            header = messages.map_header(self._clock, config)
            self._publisher.publish(conversions.PoseStamped(header=header, pose=conversions.to_pose(goal)))
        elif time.monotonic() > self._deadline:
            self._waiting = None
            if not self._told:
                self._told = True
                self._log.info(
                    "nobody subscribes to ~/goal_pose, so goals are not published; subscribe before you ask"
                )
