"""A thread on which images are encoded, with more threads of torch than the rest of the process has.

An image tower is most of the work of a keyframe and keeps several cores busy. The many small steps around it
do not: there, handing work to another thread costs more than the work. torch counts its threads per calling
thread, so a thread of its own with another number serves both.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

from ovs3d_ros.config import ComputeConfig, resolve_threads

Result = TypeVar("Result")


class EncoderThread:
    """Runs calls one after the other on a thread with `threads` threads of torch; the thread ends with it.

    Attributes:
        threads: their number.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        own = torch.get_num_threads()
        self._executor = ThreadPoolExecutor(1, "encoder", torch.set_num_threads, (threads,))
        self._executor.submit(torch.get_num_threads).result()
        torch.set_num_threads(own)  # the number that later threads of the process begin with is shared

    def run(self, call: Callable[..., Result], *arguments: object) -> Result:
        """Returns the result of call(*arguments), or raises its exception."""
        return self.start(call, *arguments).result()

    def start(self, call: Callable[..., Result], *arguments: object) -> Future[Result]:
        """Starts call(*arguments) after the calls before it; returns the future of its result."""
        return self._executor.submit(call, *arguments)


def make_encoder_thread(config: ComputeConfig, device: str) -> EncoderThread:
    """The thread for encoders on a device.

    It has `compute.threads` threads of torch on a CPU, and `compute.torch_threads` where more are of no use.
    """
    if device != "cpu" or not _waits_asleep():
        return EncoderThread(config.torch_threads)
    return EncoderThread(max(config.torch_threads, resolve_threads(config.threads)))


def _waits_asleep() -> bool:
    """Whether threads of torch sleep while they wait for each other, see `ovs3d_ros/__init__.py`.

    Where they keep their cores busy, two threads on cores that others use too took twice as long as one.
    """
    return os.environ.get("OMP_WAIT_POLICY", "").strip().upper() == "PASSIVE"
