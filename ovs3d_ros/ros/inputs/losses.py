"""The share of the newest images that were lost, for /diagnostics."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

WINDOW = 10  # reports
MAX_SHARE = 0.2  # of the images; more is worth a warning
MIN_LOST = 5  # images; fewer are lost at every start
REASONS = {
    "lost_pose": "without a pose at their stamp",
    "lost_depth": "without depth at their stamp",
    "lost_overflow": "waited too long for depth and pose",
    "lost_transit": "were lost in transit",
}


class LossWindow:
    """Sums the counts of images over the last reports.

    Attributes:
        text: which share is lost and why; empty if it is small.
    """

    def __init__(self) -> None:
        self.text = ""
        self._history: deque[dict[str, int]] = deque(maxlen=WINDOW + 1)

    def update(self, counts: Mapping[str, int]) -> None:
        """Takes the counts so far: matched, and those in REASONS."""
        self._history.append({name: counts[name] for name in ("matched", *REASONS)})
        first, last = self._history[0], self._history[-1]
        lost = {name: last[name] - first[name] for name in REASONS}
        total = last["matched"] - first["matched"] + sum(lost.values())
        if sum(lost.values()) < MIN_LOST or sum(lost.values()) <= MAX_SHARE * total:
            self.text = ""
            return
        reasons = ", ".join(f"{count} {REASONS[name]}" for name, count in lost.items() if count)
        self.text = f"{sum(lost.values())} of the last {total} images were lost: {reasons}"
