"""Goals of actions run and end also where the middleware cannot tell their state.

rclpy publishes each state of a goal. A writer of Fast DDS gives up after a tenth of a second, which a busy
machine may not have for it; rclpy's exception would then lose the goal, or its result.
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
