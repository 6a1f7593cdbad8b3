"""Frames and jobs that wait for the mapping thread."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from ovs3d_ros.types import Frame
from ovs3d_ros.worker.frame_mapper import FrameMapper, QueuedFrame
from ovs3d_ros.worker.training import TrainingSchedule

THREAD_ENDED = "the mapping thread has ended"
TRAIN = object()  # tells the thread to train
ADD_FEATURES = object()  # tells the thread to add the features that are there


@dataclass(frozen=True, slots=True)
class Job:
    """A call that must run on the mapping thread.

    Attributes:
        call: what to do.
        future: of its result.
        needs_features: whether all keyframes must have their features before.
    """

    call: Callable[[], object]
    future: Future = field(default_factory=Future)
    needs_features: bool = False

    def run(self) -> None:
        """Makes the call, unless the future was cancelled. Exceptions go to the future."""
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            self.future.set_result(self.call())
        except Exception as error:  # raised again by the caller that waits for the future
            self.future.set_exception(error)

    def abort(self) -> None:
        """Ends the future with an error: the thread will not run the job."""
        if self.future.set_running_or_notify_cancel():
            self.future.set_exception(RuntimeError(THREAD_ENDED))


class WorkQueue:
    """Gives the mapping thread its next work: a job, features, training that is owed, a frame, or training.

    While the encoder works, training waits, unless frames wait too and it is owed: it would take the
    encoder's cores, and the labels of new places would come much later.

    Args:
        lock: guards the queue.
        training: tells whether steps are due, and whether they come before frames.
        mapper: tells whether features are there, and whether it can take a frame.

    Attributes:
        closed: the thread ends, or has ended.
    """

    def __init__(self, lock: threading.RLock, training: TrainingSchedule, mapper: FrameMapper) -> None:
        self.closed = False
        self._changed = threading.Condition(lock)
        self._training, self._mapper = training, mapper
        self._frames: deque[QueuedFrame] = deque()
        self._jobs: deque[Job] = deque()
        self._busy = False

    @property
    def num_frames(self) -> int:
        """Frames that wait."""
        return len(self._frames)

    @property
    def idle(self) -> bool:
        """Whether nothing waits, nothing is being done and no training is due."""
        waits = self._frames or self._jobs or self._mapper.num_pending
        return not (waits or self._busy or self._training.needs_work())

    def put_frame(self, frame: Frame, capacity: int) -> int:
        """Queues a frame; returns how many of the oldest frames were dropped to make room for it."""
        with self._changed:
            dropped = 0
            while len(self._frames) >= capacity:
                self._frames.popleft()
                dropped += 1
            self._frames.append(QueuedFrame(frame))
            self._changed.notify_all()
        return dropped

    def clear_frames(self) -> int:
        """Discards the frames that wait; returns their number."""
        with self._changed:
            count = len(self._frames)
            self._frames.clear()
        return count

    def put_job(self, job: Job) -> None:
        """Queues a job.

        Raises:
            RuntimeError: the thread has ended.
        """
        with self._changed:
            if self.closed:
                raise RuntimeError(THREAD_ENDED)
            self._jobs.append(job)
            self._changed.notify_all()

    def mark_busy(self) -> None:
        """Notes that the thread works until it calls `take`."""
        with self._changed:
            self._busy = True

    def take(self) -> Job | QueuedFrame | object | None:
        """Waits for the next work and returns it: a `Job`, a `QueuedFrame`, ADD_FEATURES or TRAIN.

        None once closed. The call also tells the queue that the last work is done.
        """
        with self._changed:
            self._busy = False
            self._changed.notify_all()
            self._changed.wait_for(lambda: self.closed or self._has_work())
            if self.closed:
                return None
            self._busy = True
            if self._jobs:
                return self._jobs.popleft()
            if self._mapper.has_features:
                return ADD_FEATURES
            if self._takes_frame() and not self._training.is_owed():
                return self._frames.popleft()
            return TRAIN

    def _takes_frame(self) -> bool:
        return bool(self._frames) and self._mapper.has_room

    def _trains(self) -> bool:
        if self._mapper.num_pending:
            return bool(self._frames) and self._training.is_owed()
        return self._training.needs_work()

    def _has_work(self) -> bool:
        return bool(self._jobs) or self._mapper.has_features or self._takes_frame() or self._trains()

    def notify(self) -> None:
        """Wakes the thread after training was switched on or off, or when features are there."""
        with self._changed:
            self._changed.notify_all()

    def wait_idle(self, timeout: float) -> bool:
        """Waits until the queue is idle; False after `timeout` seconds, or if it was closed before."""
        with self._changed:
            self._changed.wait_for(lambda: self.idle or self.closed, timeout)
            return self.idle

    def close(self) -> None:
        """Ends the thread after its current work."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()

    def abort_jobs(self) -> None:
        """Ends the jobs that still wait with an error."""
        with self._changed:
            while self._jobs:
                self._jobs.popleft().abort()
