"""The thread pool and its buffers: reused, never shared by two passes at once, never with old values."""

from __future__ import annotations

import threading
import time
import weakref

import numpy as np
import pytest
import torch
from helpers.rasterize_oracle import NAMES, Scene, make_scene

from ovs3d_ros.rasterize import Splats, cpu_view
from ovs3d_ros.rasterize.cpu import CpuRasterizer
from ovs3d_ros.rasterize.cpu_view import sort_front_to_back
from ovs3d_ros.rasterize.thread_pool import ThreadPool, chain_kernels, clear_partial_sums


def forward(rasterizer: CpuRasterizer, scene: Scene) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The scene's loss and the leaves that it depends on."""
    leaves = scene.leaves()
    image = rasterizer(Splats(*leaves[:4]), leaves[4], scene.views)[0]
    return (image * scene.v_image).sum(), leaves


def test_partial_sums_reuse_memory_and_can_be_cleared() -> None:
    pool = ThreadPool(2)
    with pool.partial_sums(3, 25) as first:
        address = first.ctypes.data
        first.fill(7.0)
        with pool.partial_sums(3, 25) as second:  # `first` is still in use
            assert second.ctypes.data != address
    with pool.partial_sums(10, 7) as third:
        assert third.shape == (2, 10, 7) and third.ctypes.data in (address, second.ctypes.data)
        third.fill(7.0)
        pool.run(clear_partial_sums, third)
        assert not third.any()
    assert pool.buffers.acquire(0, 8).shape == (0, 8)


def test_run_inline_gives_the_results_of_run() -> None:
    def kernel(thread: int, size: int, number: int) -> tuple[int, int, int]:
        threads.append(threading.get_ident())
        return thread, size, number

    pool, threads = ThreadPool(3), []
    expected = [(0, 3, 7), (1, 3, 7), (2, 3, 7)]
    assert pool.run_inline(kernel, 7) == expected and set(threads) == {threading.get_ident()}
    assert pool.run(kernel, 7) == expected and len(set(threads)) > 1


@pytest.mark.parametrize("failing", [0, 2])
def test_error_on_any_thread_reaches_the_caller(failing: int) -> None:
    def kernel(thread: int, size: int) -> None:
        if thread == failing:
            raise ValueError(f"thread {thread}")
        time.sleep(0.05)
        ended.append(thread)

    pool, ended = ThreadPool(3), []
    with pytest.raises(ValueError, match=f"thread {failing}"):
        pool.run(kernel)
    assert sorted(ended) == [thread for thread in range(3) if thread != failing]
    assert pool.run(lambda thread, size: thread) == [0, 1, 2]


def test_pool_frees_arguments_and_ends_its_threads() -> None:
    before = set(threading.enumerate())
    pool, scene = ThreadPool(3), np.zeros(5)
    threads = set(threading.enumerate()) - before
    assert len(threads) == 2
    pool.run(lambda *_: None, scene)
    reference = weakref.ref(scene)
    del scene
    deadline = time.monotonic() + 10
    while reference() is not None and time.monotonic() < deadline:  # threads drop it just after they reply
        time.sleep(0.01)
    assert reference() is None
    del pool
    for thread in threads:
        thread.join(10)
    assert not any(thread.is_alive() for thread in threads)


def test_several_callers_share_a_pool() -> None:
    def caller(number: int) -> None:
        for _ in range(200):
            if pool.run(lambda thread, size, x: (thread, x), number) != [
                (thread, number) for thread in range(3)
            ]:
                mixed_up.append(number)

    pool, mixed_up = ThreadPool(3), []
    callers = [threading.Thread(target=caller, args=(number,)) for number in range(4)]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join(30)
    assert not mixed_up and not any(thread.is_alive() for thread in callers)


def test_chain_runs_all_calls_in_order_on_every_thread() -> None:
    def kernel(thread: int, size: int, name: str) -> None:
        calls.append((thread, size, name))

    pool, calls = ThreadPool(3), []
    pool.run(chain_kernels((kernel, "a"), (kernel, "b")))
    assert sorted(calls) == [(thread, 3, name) for thread in range(3) for name in "ab"]
    assert all(calls.index((thread, 3, "a")) < calls.index((thread, 3, "b")) for thread in range(3))


def test_parallel_packing_and_binning_equals_inline(monkeypatch) -> None:
    scene = make_scene(count=200, channels=5)
    inline, leaves = forward(CpuRasterizer(3), scene)
    expected = torch.autograd.grad(inline, leaves)
    monkeypatch.setattr(cpu_view, "MIN_PARALLEL_SIZE", 0)
    parallel, leaves = forward(CpuRasterizer(3), scene)
    assert torch.equal(inline, parallel)
    assert all(map(torch.equal, torch.autograd.grad(parallel, leaves), expected))


def test_other_pass_between_forward_and_backward_is_harmless() -> None:
    one, other = make_scene(channels=5), make_scene(channels=5, seed=3)
    loss, leaves = forward(CpuRasterizer(2), one)
    truth = torch.autograd.grad(loss, leaves)
    rasterizer = CpuRasterizer(2)
    for _ in range(2):  # memory is fresh in the first round only
        loss, leaves = forward(rasterizer, one)
        between, others = forward(rasterizer, other)
        torch.autograd.grad(between, others)
        for _ in range(2):
            gradients = torch.autograd.grad(loss, leaves, retain_graph=True)
            for name, gradient, expected in zip(NAMES, gradients, truth, strict=True):
                np.testing.assert_array_equal(gradient.numpy(), expected.numpy(), err_msg=name)
        del loss, between


@pytest.mark.parametrize("octaves", [0.0, 0.01, 3.0, 30.0])
def test_depths_are_sorted_stably_at_any_range(octaves: float) -> None:
    drawn = np.random.default_rng(0).integers(0, 500, 2000) / 500  # with many ties
    depths = (0.01 * 2.0 ** (octaves * drawn)).astype(np.float32)
    np.testing.assert_array_equal(sort_front_to_back(depths), np.argsort(depths, kind="stable"))
    assert len(sort_front_to_back(depths[:0])) == 0


def test_mapped_items_keep_their_order_and_one_error_ends_all() -> None:
    pool, threads, seen = ThreadPool(3), set(), []

    def square(value: int) -> int:
        threads.add(threading.get_ident())
        seen.append(value)
        time.sleep(0.01 if value else 0.1)  # the others take over meanwhile
        return value**2

    assert pool.map(square, range(12)) == [value**2 for value in range(12)] and len(threads) == 3
    assert sorted(seen) == [*range(12)], "each item is worked on once"
    assert pool.map(square, []) == []
    with pytest.raises(ZeroDivisionError):
        pool.map(lambda value: 1 / value, [1, 0, 2])
    assert pool.map(square, [2]) == [4]
