"""Numbers in order, for statistics over all keyframes that must not cost more after hours of a drive."""

from __future__ import annotations

import bisect


class SortedValues:
    """Positive numbers, one added at a time; their statistics take the same time however many there are."""

    def __init__(self) -> None:
        self._values: list[float] = []

    def add(self, value: float) -> None:
        """Adds a number; 0 stands for none."""
        if value:
            bisect.insort(self._values, value)

    @property
    def median(self) -> float:
        """0 without a number."""
        count = len(self._values)
        return (self._values[count // 2] + self._values[(count - 1) // 2]) / 2 if count else 0.0

    @property
    def largest(self) -> float:
        """0 without a number."""
        return self._values[-1] if self._values else 0.0
