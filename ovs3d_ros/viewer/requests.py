"""What visitors ask for, until the viewer's thread does it: bounded, fair, and at a bounded rate."""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass

log = logging.getLogger(__name__)

COOLDOWN = 0.25  # seconds between two requests of one kind by one visitor
IDLE = 0.5  # seconds between two calls of `RequestThread.between` while nobody asks for anything
_STOP_TIMEOUT = 5.0  # seconds


@dataclass(slots=True)
class _Request:
    """An action and the time from which it may run, seconds of the monotonic clock."""

    action: Callable[[], None]
    due: float


class RequestQueue:
    """Holds at most one request of each kind for each visitor: a newer one replaces it.

    Ten thousand queries a second thus cost no more than four, and a visitor who asks for much does not keep
    others waiting: the request that has been due for longest runs first. Any thread may use it.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: dict[tuple[int, Hashable], _Request] = {}
        self._last: dict[tuple[int, Hashable], float] = {}
        self._closed = False

    def put(self, visitor: int, kind: Hashable, action: Callable[[], None], delay: float = 0.0) -> None:
        """Adds a request, which may run after `delay` seconds, and replaces an earlier one of its kind."""
        key = visitor, kind
        with self._changed:
            if not self._closed:
                due = max(time.monotonic() + delay, self._last.get(key, -COOLDOWN) + COOLDOWN)
                self._waiting[key] = _Request(action, due)
                self._changed.notify()

    def take(self, timeout: float) -> Callable[[], None] | None:
        """Waits up to `timeout` seconds for a request that is due, and removes it."""
        end = time.monotonic() + timeout
        with self._changed:
            while not self._closed:
                now = time.monotonic()
                key = min(self._waiting, key=lambda k: self._waiting[k].due, default=None)
                if key is not None and self._waiting[key].due <= now:
                    self._last[key] = now
                    return self._waiting.pop(key).action
                due = end if key is None else min(end, self._waiting[key].due)
                if now >= end:
                    return None
                self._changed.wait(due - now)
        return None

    def forget(self, visitor: int) -> None:
        """Drops the requests of a visitor who has left."""
        with self._changed:
            for table in (self._waiting, self._last):
                for key in [key for key in table if key[0] == visitor]:
                    del table[key]

    def __len__(self) -> int:
        """The number of waiting requests."""
        return len(self._waiting)

    def close(self) -> None:
        """Drops everything; `take` returns at once from now on."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify_all()


class RequestThread:
    """Does what visitors ask for, one thing after the other, on a thread of its own.

    Attributes:
        requests: what they ask for.
        between: called after each request, and at least twice a second, with the time when the request began.
    """

    def __init__(self) -> None:
        """Starts the thread."""
        self.requests = RequestQueue()
        self.between: Callable[[float], None] = lambda started: None
        self._running = True
        self._thread = threading.Thread(target=self._serve, name="viewer", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while self._running:
            action = self.requests.take(IDLE)
            started = time.monotonic()
            if action is not None:
                run_and_log(action)
            del action  # it holds a visitor, who may have left
            run_and_log(functools.partial(self.between, started))

    def close(self) -> None:
        """Drops what is asked for and ends the thread."""
        self._running = False
        self.requests.close()
        if self._thread.is_alive():
            self._thread.join(_STOP_TIMEOUT)


def run_and_log(action: Callable[[], None]) -> None:
    """Runs an action; an exception is logged, so that one visitor's does not end the viewer."""
    try:
        action()
    except Exception:
        log.exception("the viewer could not do what a visitor asked for")
