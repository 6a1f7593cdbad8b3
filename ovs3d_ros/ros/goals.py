"""Goals of actions run and end also where the middleware cannot tell their state.

rclpy publishes each state of a goal. On a busy machine Fast DDS refused that ("cannot publish data"), and
rclpy's exception lost the goal and ended the node.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from action_msgs.msg import GoalStatus
from rclpy.action.server import ServerGoalHandle
from rclpy.impl.implementation_singleton import rclpy_implementation

log = logging.getLogger(__name__)


def begin_goal(goal: ServerGoalHandle) -> None:
    """Runs an accepted goal, as the `handle_accepted_callback` of an action server."""
    try:
        goal.execute()
    except rclpy_implementation.RCLError as error:
        if goal.status != GoalStatus.STATUS_EXECUTING:
            raise
        log.warning("a goal runs, but its state could not be published: %s", error)
        goal._action_server.notify_execute(goal, None)


def end_goal(goal: ServerGoalHandle, change: Callable[[], None]) -> None:
    """Ends a goal by `change`, one of its methods `succeed`, `abort` and `canceled`."""
    try:
        change()
    except rclpy_implementation.RCLError as error:
        if goal.is_active:
            raise
        log.warning("a goal has ended, but its state could not be published: %s", error)
