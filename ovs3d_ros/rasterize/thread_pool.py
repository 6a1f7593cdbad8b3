"""What the kernels run on: a pool of threads, and memory that is used again."""

from __future__ import annotations

import math
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any

import numpy as np


class Workspace:
    """float32 arrays in memory that is kept from pass to pass. Safe to use from several threads at once.

    Pages fresh from the system cost as much as the kernels that fill them, the more so since the system hands
    them to one thread at a time. Sizes are powers of two, so that a growing map leaves few blocks behind.
    """

    def __init__(self) -> None:
        # No lock: the calls below are atomic, and `give` may come from the garbage collector inside `take`.
        self._free: dict[int, list[np.ndarray]] = {}

    def take(self, *shape: int) -> np.ndarray:
        """An array of this shape with any values."""
        count = math.prod(shape)
        size = 1 << max(count - 1, 0).bit_length()
        try:
            block = self._free.setdefault(size, []).pop()
        except IndexError:
            block = np.empty(size, np.float32)
        return block[:count].reshape(shape)

    def give(self, *arrays: np.ndarray) -> None:
        """Takes back arrays of `take`. Nobody may use them or views of them any more."""
        for array in arrays:
            self._free[array.base.size].append(array.base)


class ThreadTeam:
    """Runs a kernel once per thread. Shares are fixed, so results depend on the number of threads only.

    A pass hands over to its threads five times and more, and a pool of `concurrent.futures` takes 45 microseconds longer each
    time than bare queues: a twentieth of a small pass.

    Attributes:
        size: number of threads.
        workspace: memory for what the kernels leave each other.
    """

    def __init__(self, threads: int):
        available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.size = threads or available
        self.workspace = Workspace()
        self._inboxes: list[SimpleQueue] = [SimpleQueue() for _ in range(1, self.size)]
        for inbox in self._inboxes:
            threading.Thread(target=_serve, args=(inbox,), name="rasterizer", daemon=True).start()
        weakref.finalize(self, _dismiss, self._inboxes)

    def run(self, kernel: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Calls kernel(thread, size, *arguments) on every thread and waits; returns and raises what they do.

        Thread 0 is the caller's own.
        """
        outboxes = [SimpleQueue() for _ in self._inboxes]
        for thread, (inbox, outbox) in enumerate(zip(self._inboxes, outboxes, strict=True), 1):
            inbox.put((outbox, kernel, thread, self.size, *arguments))
        try:
            first = kernel(0, self.size, *arguments)
        finally:  # nobody may still work on what the caller is about to free
            others = [outbox.get() for outbox in outboxes]
        for _, error in others:
            if error is not None:
                raise error
        return [first, *(result for result, _ in others)]

    def run_here(self, kernel: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Does all shares on the caller's thread, with the same results: for less work than it takes to wake another."""
        return [kernel(thread, self.size, *arguments) for thread in range(self.size)]

    @contextmanager
    def slabs(self, *shape: int) -> Iterator[np.ndarray]:
        """A float32 array [threads, *shape] with any values for the length of a `with` block."""
        array = self.workspace.take(self.size, *shape)
        try:
            yield array
        finally:
            self.workspace.give(array)


def _serve(inbox: SimpleQueue) -> None:
    """The life of a thread: does what comes in, until None does."""
    while (task := inbox.get()) is not None:
        outbox, kernel, *arguments = task
        try:
            answer = kernel(*arguments), None
        except BaseException as error:  # the caller's to raise
            answer = None, error
        outbox.put(answer)
        del task, outbox, kernel, arguments, answer  # else they would live on until the next task


def _dismiss(inboxes: list[SimpleQueue]) -> None:
    for inbox in inboxes:
        inbox.put(None)


def in_turn(*calls: tuple[Any, ...]) -> Callable[[int, int], None]:
    """A kernel that makes all calls (kernel, *arguments) one after the other, and waits for no other thread in between.

    To wake a thread takes as long as the lightest kernels. No kernel may need what another thread leaves in it.
    """

    def all_calls(thread: int, size: int) -> None:
        for kernel, *arguments in calls:
            kernel(thread, size, *arguments)

    return all_calls


def clear_slab(thread: int, _: int, slabs: np.ndarray) -> None:
    """Fills a thread's own slab of [threads, ...] with zeros; numpy lets the others run meanwhile."""
    slabs[thread].fill(0.0)
