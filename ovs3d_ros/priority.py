"""Lets short work on other threads go before long work, where both would compete for the same cores."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator


class RightOfWay:
    """Who answers somebody claims it; who works in the background gives way between two pieces of work.

    Claims that come while somebody gives way do not prolong that: a piece of work is done in between, so that the
    background work goes on, more slowly, however much is asked.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._claims: set[object] = set()

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """Holds a claim within the block."""
        claim = object()
        with self._changed:
            self._claims.add(claim)
        try:
            yield
        finally:
            with self._changed:
                self._claims.discard(claim)
                self._changed.notify_all()

    def give(self, seconds: float) -> None:
        """Returns when the claims there are now have ended, or after so many seconds."""
        with self._changed:
            now = set(self._claims)
            if now:
                self._changed.wait_for(lambda: not now & self._claims, seconds)
