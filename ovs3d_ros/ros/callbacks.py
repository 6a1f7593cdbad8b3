"""Callbacks of the node: an exception in one is logged, and neither ends the process nor loses the map."""

from __future__ import annotations

import logging
from collections.abc import Callable

from rclpy.callback_groups import CallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import InvalidHandle
from rclpy.node import Node

from ovs3d_ros.types import UserError

log = logging.getLogger(__name__)


class ErrorReporter:
    """Logs unexpected exceptions of one source: the first of each type with its traceback."""

    def __init__(self, source: str):
        """Takes the name of the source for the log, for example a topic."""
        self._source = source
        self._seen: set[type] = set()

    def report(self, error: Exception) -> UserError:
        """Logs the exception; returns the reason with which the message that caused it is rejected.

        Call it from the handler of the exception.

        Raises:
            InvalidHandle: the exception is one. The node destroyed an entity while a callback used it, for
                example on deactivation; `node.spin_once` ignores that.
        """
        if isinstance(error, InvalidHandle):
            raise error
        line = f"{self._source}: {type(error).__name__}: {error}"
        if type(error) in self._seen:
            log.error(line)
        else:
            self._seen.add(type(error))
            log.exception(line)
        return UserError(f"{line}; the log has the details")


def log_errors(callback: Callable[[], None], source: str) -> Callable[[], None]:
    """Wraps a timer's callback: exceptions are logged (see `ErrorReporter`) and the timer keeps running."""
    errors = ErrorReporter(source)

    def call() -> None:
        try:
            callback()
        except Exception as error:  # logged: a broken topic must not cost the map
            errors.report(error)

    return call


def start_timer(
    node: Node, period: float, callback: Callable[[], None], source: str, group: CallbackGroup
) -> None:
    """Calls `callback` every `period` seconds of wall time and logs its exceptions, see `log_errors`.

    The clock is steady: with use_sim_time, the node's own clock stands still until /clock arrives.
    """
    steady = Clock(clock_type=ClockType.STEADY_TIME)
    node.create_timer(period, log_errors(callback, source), callback_group=group, clock=steady)
