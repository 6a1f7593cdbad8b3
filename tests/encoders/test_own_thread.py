"""Images are encoded with more threads of torch than the rest, and the rest keeps its number."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest
import torch

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
