"""Work that a client waits for goes before background work, but never stops it."""

from __future__ import annotations

import threading
import time

from ovs3d_ros.priority import PriorityGate

WAIT = 60.0  # seconds; generous, for machines under load


def test_pause_without_claims_returns_at_once() -> None:
    started = time.perf_counter()
    PriorityGate().pause(WAIT)
    assert time.perf_counter() - started < WAIT / 2


def test_pause_covers_current_claims_but_not_later_ones() -> None:
    gate, order = PriorityGate(), []

    def work() -> None:
        gate.pause(WAIT)
        order.append("worked")

    with gate.claim():
        thread = threading.Thread(target=work)
        thread.start()
        while not gate._changed._waiters:  # until the thread pauses
            assert thread.is_alive()
            time.sleep(0.001)
        order.append("answered")
    with gate.claim():  # a second client follows at once: the thread must not wait for it
        thread.join(WAIT / 2)
        assert not thread.is_alive()
    assert order == ["answered", "worked"]


def test_pause_times_out_when_a_claim_does_not_end() -> None:
    gate = PriorityGate()
    with gate.claim():
        started = time.perf_counter()
        gate.pause(0.05)
        assert 0.04 < time.perf_counter() - started < WAIT
