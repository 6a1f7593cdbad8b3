"""Images are encoded with more threads of torch than the rest, and the rest keeps its number."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
from typing import ClassVar

import pytest
import torch
from helpers import synthetic
from helpers.color_encoder import ColorEncoder

from ovs3d_ros import Ovs3d
from ovs3d_ros.config import ComputeConfig
from ovs3d_ros.encoders.own_thread import EncoderThread, make_encoder_thread


def test_only_its_own_calls_have_more_threads() -> None:
    torch.set_num_threads(1)
    encoder, later = EncoderThread(3), []
    assert encoder.run(torch.get_num_threads) == 3
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert later == [1] and torch.get_num_threads() == 1
    assert encoder.run(torch.get_num_threads) == 3


class CountingEncoder(ColorEncoder):
    """Remembers the threads of torch that each image is encoded with."""

    threads: ClassVar[list[int]] = []

    def encode_image(self, image):
        self.threads.append(torch.get_num_threads())
        return super().encode_image(image)


def encoder_threads() -> int:
    return sum(thread.name.startswith("encoder") for thread in threading.enumerate())


def test_map_encodes_with_more_threads_and_ends_them_with_itself(monkeypatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    gc.collect()
    others = encoder_threads()
    config, frames = synthetic.make_config(compute__threads=3), synthetic.make_frames(2)
    room = Ovs3d(config, clip=CountingEncoder(config.clip, "cpu"))
    for _ in range(3):
        room.reset()
        for frame in frames:
            assert room.add_frame(frame)
    assert set(CountingEncoder.threads) == {3} and torch.get_num_threads() == config.compute.torch_threads
    assert encoder_threads() == others + 1
    del room
    gc.collect()
    end = time.monotonic() + 60
    while encoder_threads() > others and time.monotonic() < end:
        time.sleep(0.02)
    assert encoder_threads() == others


def test_results_and_exceptions_come_back() -> None:
    encoder = EncoderThread(1)
    assert encoder.run(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        encoder.run(divmod, 7, 0)
    assert encoder.run(divmod, 7, 2) == (3, 1)


@pytest.mark.parametrize(
    "device, threads, torch_threads, expected",
    [("cpu", 5, 1, 5), ("cpu", 2, 4, 4), ("cuda", 5, 1, 1), ("cpu", 0, 1, None)],
)
def test_number_of_threads(device, threads, torch_threads, expected, monkeypatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    config = ComputeConfig(threads=threads, torch_threads=torch_threads)
    assert make_encoder_thread(config, device).threads == (expected or cores)
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")  # threads that keep cores busy are not added
    assert make_encoder_thread(config, device).threads == torch_threads


@pytest.mark.parametrize("first, policy", [("ovs3d_ros", "PASSIVE"), ("torch", None)])
def test_waiting_threads_sleep_if_torch_is_loaded_after_the_package(first: str, policy: str | None) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    script = f"import os, {first}, ovs3d_ros; print(os.environ.get('OMP_WAIT_POLICY'))"
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(policy)
