"""Jumps of a pose: localisation that corrects itself, or a wrong stamp."""

from __future__ import annotations

import numpy as np

MIN_DISTANCE = 0.5  # metres; less is noise of the localisation
MIN_SPEED = 10.0  # metres per second
MIN_RATIO = 4.0  # to the speed before, so that a car or a drone on its way does not jump


class JumpDetector:
    """Compares the speed between two poses with that before.

    Attributes:
        count: jumps so far.
    """

    def __init__(self) -> None:
        self.count = 0
        self._stamp = 0.0
        self._position: np.ndarray | None = None
        self._speed: float | None = None  # unknown until there are two poses

    def update(self, stamp: float, position: np.ndarray) -> float:
        """Takes the position [3] in metres at `stamp` in seconds; returns the distance of a jump, else 0."""
        earlier, elapsed = self._position, stamp - self._stamp
        self._stamp, self._position = stamp, position
        if earlier is None or elapsed <= 0:
            self._speed = None
            return 0.0
        distance = float(np.linalg.norm(position - earlier))
        before, self._speed = self._speed, distance / elapsed
        if before is None or distance < MIN_DISTANCE or self._speed < max(MIN_SPEED, MIN_RATIO * before):
            return 0.0
        self.count += 1
        return distance
