"""The training that is due after new keyframes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ovs3d_ros.pipeline import Ovs3d

_STEPS_PER_SLICE = 5  # optimisation steps between two looks into the inbox
_END = object()


class TrainingSchedule:
    """Optimisation steps for each new keyframe, and afterwards a new lift of all features.

    The mapping thread calls the methods. Any thread may set `enabled` and read `needs_work`.
    """

    def __init__(self, pipeline: Ovs3d, pause: Callable[[], None]):
        """Takes the map, and the function to call between two steps."""
        self.enabled = True
        self._pipeline = pipeline
        self._pause = pause
        self._steps_due = 0
        self._relift: Iterator[None] | None = None

    def needs_work(self) -> bool:
        """Whether training is due and enabled."""
        return self.enabled and (self._steps_due > 0 or self._relift is not None)

    def add_keyframe(self, steps: int) -> None:
        """Schedules steps for a keyframe; the lift starts again after them."""
        self._steps_due += steps
        self._relift = None

    def clear(self) -> None:
        """Cancels the training that is due, because the map was replaced."""
        self._steps_due, self._relift = 0, None

    def run_slice(self) -> bool:
        """Takes a few steps, or lifts one keyframe; returns whether the map has new features to publish."""
        if self._steps_due:
            steps = min(_STEPS_PER_SLICE, self._steps_due)
            self._pipeline.optimize(steps, lambda _: self._pause())
            self._steps_due -= steps
            self._relift = self._pipeline.relift() if self._steps_due == 0 else None
            return False
        if next(self._relift, _END) is not _END:
            return False
        self._relift = None
        return True
