"""Maps the frames of the mapping thread, and tells how long they took to appear in the map."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from ovs3d_ros.intake import Insertion
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.types import Frame, UserError
from ovs3d_ros.worker.statistics import FrameCounts
from ovs3d_ros.worker.training import TrainingSchedule

log = logging.getLogger(__name__)

_MOST_PENDING = 3  # keyframes without features yet; more would let the map run ahead of a slow encoder


@dataclass(frozen=True, slots=True)
class QueuedFrame:
    """A frame and the time of its arrival, in seconds of `time.perf_counter`."""

    frame: Frame
    arrival: float = field(default_factory=time.perf_counter)


class FrameMapper:
    """Maps frames, first their colours and later their features; the mapping thread calls the methods.

    Args:
        pipeline: the map.
        training: gets the steps of new keyframes.
        lock: guards the counts.
        publish: publishes the map.

    Attributes:
        counts: of the frames.
    """

    def __init__(
        self,
        pipeline: Ovs3d,
        training: TrainingSchedule,
        lock: threading.RLock,
        publish: Callable[[], None],
    ) -> None:
        self.counts = FrameCounts()
        self._pipeline, self._training, self._lock, self._publish = pipeline, training, lock, publish
        self._pending: deque[tuple[Insertion, float]] = deque()  # without features yet, and their arrivals

    @property
    def num_pending(self) -> int:
        """Keyframes that wait for their features."""
        return len(self._pending)

    @property
    def has_room(self) -> bool:
        """Whether another frame may be mapped before features are added."""
        return len(self._pending) < _MOST_PENDING

    @property
    def has_features(self) -> bool:
        """Whether `add_features` would not wait."""
        features = self._pending[0][0].features if self._pending else None
        return features is not None and features.done()

    def map(self, queued: QueuedFrame, on_features: Callable[[], None]) -> bool:
        """Maps a frame; publishes the map and schedules training if it became a keyframe, and returns that.

        `on_features` is called from any thread when `has_features` may have changed.
        """
        started, config = time.monotonic(), self._pipeline.config.train
        try:
            insertion = self._pipeline.intake.insert_frame(queued.frame)
        except UserError as error:
            log.warning("frame rejected: %s", error)
            with self._lock:
                self.counts.reject(str(error))
            return False
        self._training.credit(time.monotonic() - started, config.least_share)
        with self._lock:
            self.counts.accept(insertion is not None)
        if insertion is None:
            return False
        self._publish()
        self._training.add_keyframe(config.steps_per_keyframe)
        self._note(self.counts.latencies_ms, queued.arrival)
        if insertion.features is None:
            self._note(self.counts.feature_latencies_ms, queued.arrival)
        else:
            self._pending.append((insertion, queued.arrival))
            insertion.features.add_done_callback(lambda _: on_features())
        return True

    def add_features(self) -> None:
        """Adds the features of the keyframe that has waited longest, and publishes the map."""
        (insertion, arrival), started = self._pending.popleft(), time.monotonic()
        try:
            encoding = self._pipeline.intake.add_features(insertion)
        except UserError as error:
            log.warning("a keyframe has colours and no features: %s", error)
            with self._lock:
                self.counts.lack_features(str(error))
            return
        taken = encoding + time.monotonic() - started
        self._training.credit(taken, self._pipeline.config.train.least_share)
        self._training.add_features()
        self._publish()
        self._note(self.counts.feature_latencies_ms, arrival)

    def settle(self) -> None:
        """Waits for the features of all keyframes, and adds them."""
        while self._pending:
            self.add_features()

    def clear(self) -> None:
        """Forgets the keyframes that wait for features, because the map was replaced."""
        while self._pending:
            insertion, _ = self._pending.popleft()
            if insertion.features is not None:
                insertion.features.cancel()  # the encoder is free for the new map

    def _note(self, latencies_ms: deque[float], arrival: float) -> None:
        with self._lock:
            latencies_ms.append(1e3 * (time.perf_counter() - arrival))
