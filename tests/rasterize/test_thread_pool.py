"""Memory that rasterizer passes share: used again, never by two at once, and never with what the last one left."""

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


def test_memory_comes_back_and_is_cleared() -> None:
    pool = ThreadPool(2)
    with pool.partial_sums(3, 25) as first:
        address = first.ctypes.data
        first.fill(7.0)
        with pool.partial_sums(3, 25) as second:  # the other one is still in use
            assert second.ctypes.data != address
    with pool.partial_sums(10, 7) as third:
        assert third.shape == (2, 10, 7) and third.ctypes.data in (address, second.ctypes.data)
        third.fill(7.0)
        pool.run(clear_partial_sums, third)
        assert not third.any()
    assert pool.buffers.acquire(0, 8).shape == (0, 8)


def test_all_shares_are_done_here_as_they_would_be_elsewhere() -> None:
    def kernel(thread: int, size: int, number: int) -> tuple[int, int, int]:
        threads.append(threading.get_ident())
        return thread, size, number

    pool, threads = ThreadPool(3), []
    assert pool.run_inline(kernel, 7) == [(0, 3, 7), (1, 3, 7), (2, 3, 7)] and set(threads) == {
        threading.get_ident()
    }
    assert pool.run(kernel, 7) == [(0, 3, 7), (1, 3, 7), (2, 3, 7)] and len(set(threads)) > 1


@pytest.mark.parametrize("unlucky", [0, 2])
def test_an_error_on_any_thread_reaches_the_caller_when_all_have_ended(unlucky: int) -> None:
    def kernel(thread: int, size: int) -> None:
        if thread == unlucky:
            raise ValueError(f"thread {thread}")
        time.sleep(0.05)
        ended.append(thread)

    pool, ended = ThreadPool(3), []
    with pytest.raises(ValueError, match=f"thread {unlucky}"):
        pool.run(kernel)
    assert sorted(ended) == [thread for thread in range(3) if thread != unlucky]
    assert pool.run(lambda thread, size: thread) == [0, 1, 2]


def test_a_pool_keeps_nothing_it_was_given_and_its_threads_end_with_it() -> None:
    before = set(threading.enumerate())
    pool, scene = ThreadPool(3), np.zeros(5)
    threads = set(threading.enumerate()) - before
    assert len(threads) == 2
    pool.run(lambda *_: None, scene)
    kept = weakref.ref(scene)
    del scene
    deadline = time.monotonic() + 10
    while kept() is not None and time.monotonic() < deadline:  # the others put it down just after they answer
        time.sleep(0.01)
    assert kept() is None
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


def test_every_thread_makes_all_calls_chain_kernels() -> None:
    pool, made = ThreadPool(3), []
    pool.run(
        chain_kernels(
            *((lambda thread, size, call: made.append((thread, size, call)), call) for call in "ab")
        )
    )
    assert sorted(made) == [(thread, 3, call) for thread in range(3) for call in "ab"]
    assert all(made.index((thread, 3, "a")) < made.index((thread, 3, "b")) for thread in range(3))


def test_many_splats_are_packed_and_binned_by_all_threads_as_few_are_by_one(monkeypatch) -> None:
    scene = make_scene(count=200, channels=5)
    few, leaves = forward(CpuRasterizer(3), scene)
    expected = torch.autograd.grad(few, leaves)
    monkeypatch.setattr(cpu_view, "MIN_PARALLEL_SIZE", 0)
    many, leaves = forward(CpuRasterizer(3), scene)
    assert torch.equal(few, many)
    assert all(map(torch.equal, torch.autograd.grad(many, leaves), expected))


def test_a_pass_between_forward_and_backward_changes_nothing() -> None:
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
def test_depths_are_sorted_stably_however_far_apart(octaves: float) -> None:
    drawn = np.random.default_rng(0).integers(0, 500, 2000) / 500  # many alike
    depths = (0.01 * 2.0 ** (octaves * drawn)).astype(np.float32)
    np.testing.assert_array_equal(sort_front_to_back(depths), np.argsort(depths, kind="stable"))
    assert len(sort_front_to_back(depths[:0])) == 0
