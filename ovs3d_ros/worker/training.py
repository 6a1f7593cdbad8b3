"""The training that is due after new keyframes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from ovs3d_ros.pipeline import Ovs3d

_MAX_OWED = (
    5.0  # seconds; an hour of frames must not be followed by an hour of training before the next frame
)
_MAX_KEYFRAMES = 200  # keyframes whose steps may be due; a drive must not be followed by hours of training
_END = object()


class TrainingSchedule:
    """Optimisation steps for each new keyframe, and afterwards a new lift of all features.

    While frames wait, training keeps a share of the time: that of the frames and of their encoder is credited
    to it, and its own is debited.

    The mapping thread calls the methods. Any thread may set `enabled` and read `needs_work`.
    """

    def __init__(self, pipeline: Ovs3d, pause: Callable[[], None]):
        """Takes the map, and the function to call between two steps."""
        self.enabled = True
        self._pipeline = pipeline
        self._pause = pause
        self._steps_due = 0
        self._owed = 0.0  # seconds
        self._relift: Iterator[None] | None = None

    def figures(self) -> dict[str, object]:
        """Whether training is enabled, and the optimisation steps that are due, for diagnostics."""
        return dict(training=self.enabled, steps_due=self._steps_due)

    def is_owed(self) -> bool:
        """Whether training comes before the frames that wait."""
        return self._owed > 0 and self.needs_work()

    def credit(self, seconds: float, share: float) -> None:
        """Notes the time that frames took; `share` of all time is for training."""
        self._owed = min(self._owed + share / (1 - share) * seconds, _MAX_OWED)

    def needs_work(self) -> bool:
        """Whether training is due and enabled."""
        return self.enabled and (self._steps_due > 0 or self._relift is not None)

    def add_keyframe(self, steps: int) -> None:
        """Schedules steps for a keyframe; the lift starts again after them."""
        self._steps_due = min(self._steps_due + steps, max(self._steps_due, _MAX_KEYFRAMES * steps))
        self._relift = None

    def add_features(self) -> None:
        """Begins a lift that goes on anew, as another keyframe has its features now."""
        if self._relift is not None:
            self._relift = self._pipeline.relift()

    def retrain(self, steps: int) -> None:
        """Schedules so many steps for each keyframe of a map that was changed, and a new lift."""
        count = self._pipeline.stats["keyframes"]
        if count:
            self.add_keyframe(min(count, _MAX_KEYFRAMES) * steps)

    def clear(self) -> None:
        """Cancels the training that is due, because the map was replaced."""
        self._steps_due, self._owed, self._relift = 0, 0.0, None

    def run_slice(self) -> bool:
        """Takes a step, or lifts one keyframe; returns whether the map has new features to publish."""
        started = time.monotonic()
        try:
            return self._run_slice()
        finally:
            self._owed = max(0.0, self._owed - (time.monotonic() - started))

    def _run_slice(self) -> bool:
        if self._steps_due:
            self._pipeline.optimize(1, lambda _: self._pause())
            self._steps_due -= 1
            self._relift = self._pipeline.relift() if self._steps_due == 0 else None
            return False
        if next(self._relift, _END) is not _END:
            return False
        self._relift = None
        return True
