"""The mapping thread: owns the pipeline's training state, so that ROS callbacks and queries never wait for it."""

from __future__ import annotations

import concurrent.futures
import functools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from ovs3d_ros.config import Config
from ovs3d_ros.mapping.keyframes import to_frame
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.priority import PriorityGate
from ovs3d_ros.sampling import evenly_spaced_indices
from ovs3d_ros.types import Frame, MapSnapshot, RefineStep, UserError

log = logging.getLogger(__name__)
Result = TypeVar("Result")

_SLICE = 5  # optimisation steps between looks into the inbox
_MAX_PAUSE = 0.5  # seconds a training step waits for clients with priority
_DONE = object()
_LATENCIES = 500  # frame-to-map times kept for the percentiles


@dataclass(slots=True)
class _Counters:
    received: int = 0
    dropped: int = 0
    ignored: int = 0
    rejected: int = 0
    mapped: int = 0
    skipped: int = 0
    last_rejection: str = ""
    latencies_ms: deque = field(default_factory=lambda: deque(maxlen=_LATENCIES))


class MappingWorker:
    """Feeds frames to a pipeline and trains in between, on a thread of its own.

    After `start` nobody else may add frames to the pipeline or optimise it; queries go to `snapshot`.

    Attributes:
        error: the exception that ended the thread, or None.
        priority: a client claims it while it waits for an answer; the thread pauses between two steps.
    """

    def __init__(self, pipeline: Ovs3d, config: Config) -> None:
        self.pipeline = pipeline
        self.config = config
        self.error: BaseException | None = None
        self.priority = PriorityGate()
        self._inbox: deque[tuple[float, Frame]] = deque()
        self._jobs: deque[tuple[Callable[[], object], concurrent.futures.Future]] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._ingest = True
        self._training = True
        self._busy = False
        self._prepare: Callable[[], object] | None = None
        self._credit = 0  # optimisation steps still owed to the keyframes that came
        self._relift: Iterator[None] | None = None  # runs once the steps are taken
        self._snapshot: MapSnapshot | None = None
        self._counters = _Counters()
        self._replaced = 0  # how often another map came in place of the old one
        self._thread = threading.Thread(target=self._run, name="mapping", daemon=True)

    def start(self, prepare: Callable[[], object] | None = None) -> None:
        """Publishes the map there is, if any, and starts the thread.

        Args:
            prepare: what the thread does first; it is not idle before, and an error in it ends the thread.
        """
        if self.pipeline.stats["num_gaussians"]:
            self._publish()
        self._prepare = prepare
        self._busy = prepare is not None
        self._thread.start()

    def configure(self, config: Config) -> None:
        """Takes new values of parameters that may change while a map grows."""
        self.config = config

    def submit(self, frame: Frame) -> None:
        """Queues a frame without ever blocking; when the inbox is full the oldest frame is dropped and counted.

        While ingest is off (`set_ingest`) the frame is ignored and counted; so are those of before `replace_map`.
        """
        with self._changed:
            self._counters.received += 1
            if not self._ingest:
                self._counters.ignored += 1
                return
            if len(self._inbox) >= self.config.input.inbox:
                self._inbox.popleft()
                self._counters.dropped += 1
            self._inbox.append((time.perf_counter(), frame))
            self._changed.notify_all()

    @property
    def snapshot(self) -> MapSnapshot | None:
        """The newest published map, or None before the first keyframe."""
        return self._snapshot

    def stats(self) -> dict:
        """Counters and rates for diagnostics.

        frames_received is the sum of frames_mapped (as keyframes), frames_skipped (they showed nothing new),
        frames_dropped, frames_ignored, frames_rejected, the queue and the one that is being mapped. Besides:
        last_rejection, ingest, training, idle (see `wait_idle`), keyframes, num_gaussians, steps, psnr, map_version,
        frame_to_map_p50_ms, frame_to_map_p95_ms.
        """
        with self._changed:
            counters, queue = self._counters, len(self._inbox)
            latencies = np.array(counters.latencies_ms or [np.nan])
            figures = dict(frames_received=counters.received, frames_mapped=counters.mapped,
                           frames_skipped=counters.skipped, frames_dropped=counters.dropped,
                           frames_ignored=counters.ignored, frames_rejected=counters.rejected,
                           last_rejection=counters.last_rejection, ingest=self._ingest, training=self._training,
                           queue=queue, idle=self._is_idle())
        snapshot = self._snapshot
        p50, p95 = np.percentile(latencies, [50, 95])
        return figures | self.pipeline.stats | dict(
            map_version=snapshot.version if snapshot else 0, frame_to_map_p50_ms=float(p50),
            frame_to_map_p95_ms=float(p95))

    def set_ingest(self, ingest: bool) -> None:
        """Whether frames are taken in; those that wait already are mapped in any case."""
        with self._changed:
            self._ingest = ingest

    def pause(self) -> None:
        """Stops training; frames are still taken in."""
        self._set_training(False)

    def resume(self) -> None:
        """Trains again."""
        self._set_training(True)

    def _set_training(self, training: bool) -> None:
        with self._changed:
            self._training = training
            self._changed.notify_all()

    def run(self, job: Callable[[], Result], timeout: float) -> Result:
        """Runs `job` on the mapping thread, between two pieces of its work, and returns the result.

        Only there may the pipeline's map be changed or copied; whatever takes long should be done elsewhere.

        Raises:
            TimeoutError: the thread did not come to it in `timeout` seconds; the job will not run.
            RuntimeError: the thread has ended.
            Exception: what the job raised; the thread goes on.
        """
        future: concurrent.futures.Future = concurrent.futures.Future()
        with self._changed:
            if self._stopping or self.error is not None or not self._thread.is_alive():
                raise RuntimeError("the mapping thread has ended")
            self._jobs.append((job, future))
            self._changed.notify_all()
        concurrent.futures.wait([future], timeout)
        if future.cancel():
            raise TimeoutError(f"mapping was busy for {timeout:.0f} s")
        return future.result()  # done, or being done

    def post(self, change: Callable[[], Result], done: Callable[[concurrent.futures.Future], None]) -> None:
        """Has the mapping thread run `change`, which may alter the map, and publish it if the result is not 0.

        Never blocks. `done` gets the future on the mapping thread; a future that is cancelled never ran.
        """
        def job() -> Result:
            result = change()
            if result:
                self._publish()
            return result

        future: concurrent.futures.Future = concurrent.futures.Future()
        future.add_done_callback(done)
        with self._changed:
            if self._stopping or self.error is not None:
                future.cancel()
                return
            self._jobs.append((job, future))
            self._changed.notify_all()

    def replace_map(self, change: Callable[[], object], timeout: float) -> MapSnapshot | None:
        """Runs `change`, which replaces or empties the pipeline's map, as `run` does, and publishes what is there then.

        Frames that wait were meant for the old map: they are ignored and counted. Steps owed to it are forgotten.

        Returns:
            The new snapshot, None if the map is empty now.
        """
        def job() -> MapSnapshot | None:
            change()
            self._replaced += 1
            with self._changed:
                self._counters.ignored += len(self._inbox)
                self._inbox.clear()
                self._credit, self._relift = 0, None
            self._snapshot = self.pipeline.snapshot() if self.pipeline.stats["num_gaussians"] else None
            return self._snapshot

        return self.run(job, timeout)

    def refine(self, names: list[str], on_step: Callable[[RefineStep], bool],
               timeout: float) -> tuple[RefineStep, MapSnapshot | None]:
        """Refines the map, see `Ovs3d.refine`, with a check on keyframes, and publishes the result.

        Only the beginning and the end, which touch the map, run on the mapping thread; the rest reads a snapshot on the
        caller's, so that frames are mapped meanwhile. `on_step` is told of every step and returns whether to go on.

        Returns:
            The last step taken, and the snapshot that has the refined field; None where the old field stays: told to
            stop, no better, or another map came in its place.

        Raises:
            UserError: bad names, an empty map, or a missing DINO.
            TimeoutError, RuntimeError: see `run`.
        """
        steps, replaced = iter(()), 0

        def begin() -> RefineStep:
            nonlocal steps, replaced
            keyframes, replaced = self.pipeline.keyframes, self._replaced
            chosen = evenly_spaced_indices(len(keyframes), self.config.refine.check_views)
            steps = self.pipeline.refine(names, [to_frame(keyframes[index]) for index in chosen])
            return next(steps)

        def end() -> MapSnapshot | None:
            next(steps, None)  # now it takes effect, if it does
            if replaced != self._replaced:
                return None
            self._publish()
            return self._snapshot

        if self.pipeline.keyframes:
            self.pipeline.prepare_check()  # here: it may take seconds
        step = self.run(begin, timeout)
        try:
            while (going := on_step(step)) and step.stage != "done":
                step = next(steps)
            return step, self.run(end, timeout) if going and step.kept else None
        finally:
            self.run(steps.close, timeout)

    def wait_idle(self, timeout: float) -> bool:
        """Waits until all frames are mapped and the steps owed to them are taken; False on timeout or error."""
        with self._changed:
            return self._changed.wait_for(lambda: self._is_idle() or self.error is not None, timeout) and not self.error

    def _is_idle(self) -> bool:
        settled = self._credit == 0 and self._relift is None
        return not self._inbox and not self._jobs and not self._busy and (settled or not self._training)

    def stop(self, timeout: float = 30.0) -> bool:
        """Ends the thread and joins it; False if it did not end in time."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            work = self._prepare or self._next()
            while work is not None:
                work()
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()
                work = self._next()
        except BaseException as error:  # handed to the owner of the worker, who ends the process
            log.exception("the mapping thread failed")
            with self._changed:
                self.error = error
                self._changed.notify_all()
        finally:
            with self._changed:
                self._stopping = True
                for _, future in self._jobs:
                    if future.set_running_or_notify_cancel():
                        future.set_exception(RuntimeError("the mapping thread has ended"))
                self._jobs.clear()

    def _next(self) -> Callable[[], None] | None:
        """What to do next: a job, a frame, or a slice of training; None to stop."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or not self._is_idle())
            if self._stopping:
                return None
            self._busy = True
            if self._jobs:
                return functools.partial(self._answer, *self._jobs.popleft())
            if self._inbox:
                return functools.partial(self._map, *self._inbox.popleft())
            return self._train

    @staticmethod
    def _answer(job: Callable[[], object], future: concurrent.futures.Future) -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(job())
        except Exception as error:  # raised again where the job came from
            future.set_exception(error)

    def _map(self, arrived: float, frame: Frame) -> None:
        try:
            inserted = self.pipeline.add_frame(frame)
        except UserError as error:
            log.warning("frame rejected: %s", error)
            with self._changed:
                self._counters.rejected += 1
                self._counters.last_rejection = str(error)
            return
        with self._changed:
            self._counters.mapped += inserted
            self._counters.skipped += not inserted
        if not inserted:
            return
        self._publish()
        with self._changed:
            self._credit += self.config.train.steps_per_keyframe
            self._relift = None
            self._counters.latencies_ms.append(1e3 * (time.perf_counter() - arrived))

    def _train(self) -> None:
        """A slice of optimisation, or one keyframe of lifting once the Gaussians have settled."""
        if self._credit:
            steps = min(_SLICE, self._credit)
            self.pipeline.optimize(steps, lambda _: self.priority.pause(_MAX_PAUSE))
            with self._changed:
                self._credit -= steps
                self._relift = self.pipeline.relift() if self._credit == 0 else None
        elif next(self._relift, _DONE) is _DONE:
            with self._changed:
                self._relift = None
            self._publish()

    def _publish(self) -> None:
        self._snapshot = self.pipeline.snapshot()
