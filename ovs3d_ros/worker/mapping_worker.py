"""`MappingWorker`: maps frames and trains on a thread of its own."""

from __future__ import annotations

import concurrent.futures
import logging
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from ovs3d_ros.config import Config
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.priority import PriorityGate
from ovs3d_ros.types import Frame, MapSnapshot
from ovs3d_ros.worker.frame_mapper import FrameMapper, QueuedFrame
from ovs3d_ros.worker.ingest import IngestSwitch
from ovs3d_ros.worker.memory import MemoryWatch
from ovs3d_ros.worker.training import TrainingSchedule
from ovs3d_ros.worker.work_queue import ADD_FEATURES, THREAD_ENDED, Job, WorkQueue

log = logging.getLogger(__name__)
Result = TypeVar("Result")

_MAX_PAUSE = 0.5  # seconds a training step waits for clients with priority


class MappingWorker:
    """Feeds frames to a pipeline and trains between them, on a thread of its own.

    After `start` only this thread may change the map of the pipeline. Queries read `snapshot`.

    Attributes:
        pipeline: the map.
        config: the current configuration.
        error: the exception that ended the thread, or None.
        priority: a client claims it while it waits for an answer; the thread pauses between two steps.
        ingest: switches whether new frames are queued; those that already wait are mapped in any case.
        training: the steps that are due; only jobs may change them.
        num_replacements: how often the map was replaced.
    """

    def __init__(self, pipeline: Ovs3d, config: Config) -> None:
        self.pipeline = pipeline
        self.config = config
        self.error: BaseException | None = None
        self.priority = PriorityGate()
        self.ingest = IngestSwitch()
        self.num_replacements = 0
        self._lock = threading.RLock()  # guards the queue and the counts
        self.training = TrainingSchedule(pipeline, lambda: self.priority.pause(_MAX_PAUSE))
        self._frames = FrameMapper(pipeline, self.training, self._lock, self.publish)
        self._queue = WorkQueue(self._lock, self.training, self._frames)
        self._counts = self._frames.counts
        self._memory = MemoryWatch(self.ingest)
        self._snapshot: MapSnapshot | None = None
        self._thread: threading.Thread | None = None

    @property
    def snapshot(self) -> MapSnapshot | None:
        """The newest published map, None while the map is empty."""
        return self._snapshot

    def start(self, prepare: Callable[[], object] | None = None) -> None:
        """Publishes the map, unless it is empty, and starts the thread.

        Args:
            prepare: the first call of the thread. An exception in it ends the thread.
        """
        self._publish_unless_empty()
        self._queue.mark_busy()
        self._thread = threading.Thread(target=self._run, args=(prepare,), name="mapping", daemon=True)
        self._thread.start()

    def configure(self, config: Config) -> None:
        """Uses new values of the runtime parameters."""
        self.config = config

    def submit(self, frame: Frame) -> None:
        """Queues a frame without blocking. The frame is ignored while ingest is off."""
        with self._lock:
            self._counts.received += 1
            if self.ingest.on:
                self._counts.dropped += self._queue.put_frame(frame, self.config.input.inbox)
            else:
                self._counts.ignored += 1

    def set_training(self, training: bool) -> None:
        """Switches training; frames are mapped in any case."""
        self.training.enabled = training
        self._queue.notify()

    def stats(self) -> dict:
        """Counts and rates for diagnostics.

        frames_received is the sum of frames_mapped (keyframes), frames_skipped (they showed nothing new),
        frames_dropped, frames_ignored, frames_rejected, queue, and the frame that is being mapped. Further
        keys: last_rejection, ingest, pause_reason, training, steps_due, idle (see `wait_idle`),
        map_version, frame_to_map_p50_ms, frame_to_map_p95_ms, and those of `MemoryWatch.figures` and
        `Ovs3d.stats`.
        """
        with self._lock:
            figures = self._counts.figures() | self.training.figures() | self.ingest.figures()
            figures |= dict(queue=self._queue.num_frames, idle=self._queue.idle)
        snapshot, figures = self._snapshot, figures | self._memory.figures(self.config.compute.memory_limit)
        return figures | self.pipeline.stats | dict(map_version=snapshot.version if snapshot else 0)

    def run(self, job: Callable[[], Result], timeout: float) -> Result:
        """Runs a job on the mapping thread, between two pieces of its work, and returns the result.

        Only jobs may change or copy the map of the pipeline. All keyframes have their features then. Do all
        slow work elsewhere.

        Raises:
            TimeoutError: the thread did not reach the job in `timeout` seconds; the job will not run.
            RuntimeError: the thread has ended.
            Exception: of the job; the thread continues.
        """
        return self._run_job(Job(job, needs_features=True), timeout)

    def _run_job(self, queued: Job, timeout: float) -> Any:
        """Runs a job, see `run`."""
        if self._thread is None or not self._thread.is_alive():
            raise RuntimeError(THREAD_ENDED)
        self._queue.put_job(queued)
        concurrent.futures.wait([queued.future], timeout)
        if queued.future.cancel():
            raise TimeoutError(f"mapping was busy for {timeout:.0f} s")
        return queued.future.result()  # the job has run, or is running

    def schedule(
        self, change: Callable[[], Result], on_done: Callable[[concurrent.futures.Future], None]
    ) -> None:
        """Runs a change of the map on the mapping thread later, and publishes the map if its result is not 0.

        Never blocks. The thread calls `on_done` with the future of the result. A cancelled future means that
        the thread has ended before the change.
        """

        def apply() -> Result:
            result = change()
            if result:
                self.publish()
            return result

        queued = Job(apply)
        queued.future.add_done_callback(on_done)
        try:
            self._queue.put_job(queued)
        except RuntimeError:
            queued.future.cancel()

    def replace_map(self, change: Callable[[], object], timeout: float) -> MapSnapshot | None:
        """Runs a change that replaces or empties the map, see `run` for errors, and publishes the new map.

        Waiting frames belong to the old map: they are ignored and counted, and its training is cancelled.

        Returns:
            The new snapshot, None if the map is empty.
        """

        def replace() -> MapSnapshot | None:
            change()
            self.num_replacements += 1
            with self._lock:
                self._counts.ignored += self._queue.clear_frames()
            self._frames.clear()
            self._memory.clear()
            self.training.clear()
            self._snapshot = None
            self._publish_unless_empty()
            return self._snapshot

        return self._run_job(Job(replace), timeout)

    def publish(self) -> None:
        """Publishes a new snapshot; only jobs may call this."""
        self._snapshot = self.pipeline.snapshot()

    def wait_idle(self, timeout: float) -> bool:
        """Waits until all frames are mapped and their training is done; False on timeout or error."""
        return self._queue.wait_idle(timeout)

    def stop(self, timeout: float = 30.0) -> bool:
        """Ends the thread after its current work and joins it; False if it did not end in time."""
        self._queue.close()
        if self._thread is None:
            return True
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _publish_unless_empty(self) -> None:
        if self.pipeline.stats["num_gaussians"]:
            self.publish()

    def _run(self, prepare: Callable[[], object] | None) -> None:
        try:
            if prepare is not None:
                prepare()
            while (work := self._queue.take()) is not None:
                if isinstance(work, Job):
                    if work.needs_features:
                        self._frames.settle()
                    work.run()
                elif isinstance(work, QueuedFrame):
                    if self._frames.map(work, self._queue.notify):
                        self._memory.check(self.config.compute.memory_limit)
                elif work is ADD_FEATURES:
                    self._frames.add_features()
                elif self.training.run_slice():
                    self.publish()
            self._frames.settle()
        except BaseException as error:  # kept: the owner of the worker ends the process
            log.exception("the mapping thread failed")
            self.error = error
        finally:
            self._queue.close()
            self._queue.abort_jobs()
