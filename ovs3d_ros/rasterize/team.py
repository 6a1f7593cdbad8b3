"""What the kernels run on: a pool of threads, and memory that is used again."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
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
        count = int(np.prod(shape))
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

    Attributes:
        size: number of threads.
        workspace: memory for what the kernels leave each other.
    """

    def __init__(self, threads: int):
        available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.size = threads or available
        self.workspace = Workspace()
        self._pool = ThreadPoolExecutor(self.size - 1, "rasterizer") if self.size > 1 else None

    def run(self, kernel: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Calls kernel(thread, size, *arguments) on every thread and waits; returns and raises what they do.

        Thread 0 is the caller's own.
        """
        others = range(1, self.size) if self._pool else ()
        futures = [self._pool.submit(kernel, thread, self.size, *arguments) for thread in others]
        first = kernel(0, self.size, *arguments)
        return [first, *(future.result() for future in futures)]

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
