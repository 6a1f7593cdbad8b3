"""Gives short work that a client waits for priority over background work on the same processor cores."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator


class PriorityGate:
    """A client claims priority; background work pauses between steps until the claim ends.

    A pause only covers the claims that exist when it begins. Background work takes a step before it pauses
    for later claims, so it slows down under many requests but never stops.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._claims: set[object] = set()

    @contextlib.contextmanager
    def claim(self) -> Iterator[None]:
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

    def pause(self, timeout: float) -> None:
        """Blocks until the current claims have ended, at most `timeout` seconds."""
        with self._changed:
            current = set(self._claims)
            if current:
                self._changed.wait_for(lambda: not current & self._claims, timeout)
