"""Maps the frames of the mapping thread, and tells how long they took to appear in the map."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

from ovs3d_ros.config import TrainConfig
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.types import UserError
from ovs3d_ros.worker.statistics import FrameCounts
from ovs3d_ros.worker.training import TrainingSchedule
from ovs3d_ros.worker.work_queue import QueuedFrame

log = logging.getLogger(__name__)


class FrameMapper:
    """Maps frames, first their colours and later their features; the mapping thread calls the methods.

    Args:
        pipeline: the map.
        config: of training.
        training: gets the steps of new keyframes.
        lock: guards the counts.
        publish: publishes the map.

    Attributes:
        counts: of the frames.
        config: of training; any thread may replace it.
    """

    def __init__(
        self,
        pipeline: Ovs3d,
        config: TrainConfig,
        training: TrainingSchedule,
        lock: threading.RLock,
        publish: Callable[[], None],
    ) -> None:
        self.counts, self.config = FrameCounts(), config
        self._pipeline, self._training, self._lock, self._publish = pipeline, training, lock, publish
        self._arrivals: deque[float] = deque()  # of the keyframes that wait for their features

    def map(self, queued: QueuedFrame, on_features: Callable[[], None]) -> bool:
        """Maps a frame; publishes the map and schedules training if it became a keyframe, and returns that.

        For `on_features` see `Intake.insert_frame`.
        """
        started, intake = time.monotonic(), self._pipeline.intake
        waiting = intake.num_pending
        try:
            inserted = intake.insert_frame(queued.frame, on_features)
        except UserError as error:
            log.warning("frame rejected: %s", error)
            with self._lock:
                self.counts.reject(str(error))
            return False
        self._training.credit(time.monotonic() - started, self.config.least_share)
        with self._lock:
            self.counts.accept(inserted)
        if inserted:
            self._publish()
            self._training.add_keyframe(self.config.steps_per_keyframe)
            self._note(self.counts.latencies_ms, queued.arrival)
            if intake.num_pending > waiting:
                self._arrivals.append(queued.arrival)
            else:
                self._note(self.counts.feature_latencies_ms, queued.arrival)
        return inserted

    def add_features(self) -> None:
        """Adds the features of the keyframe that has waited longest, and publishes the map."""
        arrival, started = self._arrivals.popleft(), time.monotonic()
        try:
            encoding = self._pipeline.intake.add_features()
        except UserError as error:
            log.warning("a keyframe has colours and no features: %s", error)
            with self._lock:
                self.counts.lack_features(str(error))
            return
        self._training.credit(encoding + time.monotonic() - started, self.config.least_share)
        self._training.add_features()
        self._publish()
        self._note(self.counts.feature_latencies_ms, arrival)

    def settle(self) -> None:
        """Waits for the features of all keyframes, and adds them."""
        while self._arrivals:
            self.add_features()

    def clear(self) -> None:
        """Forgets the keyframes that wait for features, because the map was replaced."""
        self._arrivals.clear()
        self._pipeline.intake.clear()

    def _note(self, latencies_ms: deque[float], arrival: float) -> None:
        with self._lock:
            latencies_ms.append(1e3 * (time.perf_counter() - arrival))
