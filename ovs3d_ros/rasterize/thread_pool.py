"""Threads that run the kernels, and memory that the kernels use again from pass to pass."""

from __future__ import annotations

import functools
import math
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any

import numpy as np

from ovs3d_ros.config import resolve_threads


class BufferPool:
    """Keeps float32 arrays for reuse. Several threads may use it at once.

    Fresh pages from the system cost as much time as the kernels that fill them, and the system hands them out
    to one thread at a time. Sizes are rounded up to powers of two, so a growing map wastes few blocks.
    """

    def __init__(self) -> None:
        # No lock: dict and list operations are atomic; garbage collection may call `release` in `acquire`.
        self._free: dict[int, list[np.ndarray]] = {}

    def acquire(self, *shape: int) -> np.ndarray:
        """Returns an array of this shape with arbitrary values."""
        count = math.prod(shape)
        size = 1 << max(count - 1, 0).bit_length()
        try:
            block = self._free.setdefault(size, []).pop()
        except IndexError:
            block = np.empty(size, np.float32)
        return block[:count].reshape(shape)

    def release(self, *arrays: np.ndarray) -> None:
        """Takes back arrays from `acquire`. The caller must not use them, or views of them, any more."""
        for array in arrays:
            block = array.base
            assert block is not None, "not an array of `acquire`"
            self._free[block.size].append(block)


class ThreadPool:
    """Runs a kernel once per thread.

    The pool divides the work the same way every time, so results depend on its size only. A pass hands work
    to its threads five times and more. `concurrent.futures` takes 45 microseconds longer each time than plain
    queues do, which is a twentieth of a small pass.

    Args:
        threads: number of threads, 0 for one per available core.

    Attributes:
        size: number of threads, the caller's included.
        buffers: memory for intermediate results.
    """

    def __init__(self, threads: int):
        self.size = resolve_threads(threads)
        self.buffers = BufferPool()
        self._inboxes: list[SimpleQueue] = [SimpleQueue() for _ in range(1, self.size)]
        for inbox in self._inboxes:
            threading.Thread(target=_run_tasks, args=(inbox,), name="rasterizer", daemon=True).start()
        weakref.finalize(self, _stop_threads, self._inboxes)

    def run(self, kernel: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Calls kernel(thread, size, *arguments) on every thread and returns all results, by thread.

        Thread 0 is the caller's own. An exception on any thread is raised once all threads are done.
        """
        outboxes = [SimpleQueue() for _ in self._inboxes]
        for thread, (inbox, outbox) in enumerate(zip(self._inboxes, outboxes, strict=True), 1):
            inbox.put((outbox, kernel, thread, self.size, *arguments))
        try:
            own_result = kernel(0, self.size, *arguments)
        finally:  # the caller may free the arguments next, so no thread may still use them
            others = [outbox.get() for outbox in outboxes]
        for _, error in others:
            if error is not None:
                raise error
        return [own_result, *(result for result, _ in others)]

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        """The results of function(item), in the order of the items; a free thread takes the next one."""
        results, numbers = [None] * len(items), iter(range(len(items)))

        def take_items(*_: int) -> None:
            for number in numbers:  # atomic: each number goes to one thread
                results[number] = function(items[number])

        self.run(take_items)
        return results

    def run_inline(self, kernel: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Does the work of all threads on the caller's thread, with the same results.

        This is faster than `run` where the work takes less time than waking a thread.
        """
        return [kernel(thread, self.size, *arguments) for thread in range(self.size)]

    @contextmanager
    def partial_sums(self, *shape: int) -> Iterator[np.ndarray]:
        """Lends a float32 array [threads, *shape] with arbitrary values for the length of a `with` block.

        Each thread adds to its own row; a later kernel sums over the threads.
        """
        array = self.buffers.acquire(self.size, *shape)
        try:
            yield array
        finally:
            self.buffers.release(array)


@functools.cache
def shared_pool(threads: int) -> ThreadPool:
    """The one pool of this many threads in the process, for callers that are functions and keep no state.

    Starting threads for each call takes milliseconds while the cores are busy, as much as a query's kernels.
    """
    return ThreadPool(threads)


def _run_tasks(inbox: SimpleQueue) -> None:
    """Runs the tasks of one thread until the inbox yields None."""
    while (task := inbox.get()) is not None:
        outbox, kernel, *arguments = task
        try:
            outcome = kernel(*arguments), None
        except BaseException as error:  # `ThreadPool.run` raises it on the caller's thread
            outcome = None, error
        outbox.put(outcome)
        del task, outbox, kernel, arguments, outcome  # else they would live on until the next task


def _stop_threads(inboxes: list[SimpleQueue]) -> None:
    for inbox in inboxes:
        inbox.put(None)


def chain_kernels(*calls: tuple[Any, ...]) -> Callable[[int, int], None]:
    """Makes one kernel out of several calls (kernel, *arguments); each thread runs them one after the other.

    Waking a thread takes as long as the lightest kernels. Threads do not wait for each other between the
    calls, so no kernel of a chain may read the output of another thread in the same chain.
    """

    def run_chain(thread: int, size: int) -> None:
        for kernel, *arguments in calls:
            kernel(thread, size, *arguments)

    return run_chain


def clear_partial_sums(thread: int, _: int, sums: np.ndarray) -> None:
    """Fills the thread's own row of [threads, ...] with zeros; numpy releases the GIL meanwhile."""
    sums[thread].fill(0.0)
