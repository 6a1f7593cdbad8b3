"""Exceptions nobody foresaw: they must not end the process, which has a map to lose, and must not pass unseen."""

from __future__ import annotations

import logging
from collections.abc import Callable

from rclpy.exceptions import InvalidHandle

from ovs3d_ros.types import UserError

log = logging.getLogger(__name__)


class Unforeseen:
    """Logs what went wrong in one place: the first exception of each kind with its traceback, the others in a line."""

    def __init__(self, place: str):
        """Takes the place, such as a topic, for the log."""
        self._place = place
        self._known: set[type] = set()

    def report(self, error: Exception) -> UserError:
        """Logs the exception that is being handled; returns it as the reason to reject what caused it.

        Raises:
            InvalidHandle: it is one. What was used went meanwhile, as on deactivation, and `node.spin_once` passes over that.
        """
        if isinstance(error, InvalidHandle):
            raise error
        what = f"{self._place}: {type(error).__name__}: {error}"
        if type(error) in self._known:
            log.error(what)
        else:
            self._known.add(type(error))
            log.exception(what)
        return UserError(f"{what}; the log has the details")


def guarded(callback: Callable[[], None], place: str) -> Callable[[], None]:
    """A timer's callback that logs what goes wrong, see `Unforeseen`, and is called again next time."""
    unforeseen = Unforeseen(place)

    def call() -> None:
        try:
            callback()
        except Exception as error:  # logged: a topic that stands still is no reason to lose the map
            unforeseen.report(error)

    return call
