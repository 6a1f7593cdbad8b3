"""Callbacks of the node: an exception in one is logged, and neither ends the process nor loses the map."""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Callable

from rclpy.callback_groups import CallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import InvalidHandle
from rclpy.node import Node

from ovs3d_ros.types import UserError

log = logging.getLogger(__name__)
QUIET = 60.0  # seconds
MAX_LINES = 100  # that are remembered
NUMBER = re.compile(r"\d+(\.\d+)?")


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


class News:
    """Tells lines that say something new from lines that repeat the last one with other numbers."""

    def __init__(self) -> None:
        self._last = ""

    def is_news(self, line: str) -> bool:
        """Whether the line differs from the last one in more than numbers."""
        last, self._last = self._last, NUMBER.sub("", line)
        return self._last != last


class Recurrences:
    """Tells lines that are new from those that go on recurring, with the same or other numbers."""

    def __init__(self) -> None:
        self._heard: dict[str, float] = {}  # monotonic time by line

    def is_new(self, line: str) -> bool:
        """Whether the line was not heard for a minute."""
        kind, now = NUMBER.sub("", line), time.monotonic()
        before = self._heard.pop(kind, -math.inf)
        self._heard[kind] = now
        if len(self._heard) > MAX_LINES:
            del self._heard[next(iter(self._heard))]  # the one that was not heard for the longest time
        return now - before > QUIET


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
