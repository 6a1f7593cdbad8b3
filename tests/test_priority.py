"""Who answers somebody goes before who works in the background, and never stops that for good."""

from __future__ import annotations

import threading
import time

from ovs3d_ros.priority import RightOfWay

WAIT = 60.0  # seconds; generous, for machines under load


def test_without_claims_nobody_waits() -> None:
    started = time.perf_counter()
    RightOfWay().give(WAIT)
    assert time.perf_counter() - started < WAIT / 2


def test_background_work_waits_for_the_claims_there_are_and_not_for_later_ones() -> None:
    way, order = RightOfWay(), []

    def give() -> None:
        way.give(WAIT)
        order.append("worked")

    with way.claimed():
        thread = threading.Thread(target=give)
        thread.start()
        while not way._changed._waiters:  # it gives way now
            assert thread.is_alive()
            time.sleep(0.001)
        order.append("answered")
    with way.claimed():  # the next one asks at once: it must not be waited for
        thread.join(WAIT / 2)
        assert not thread.is_alive()
    assert order == ["answered", "worked"]


def test_a_claim_that_does_not_end_is_not_waited_for_for_ever() -> None:
    way = RightOfWay()
    with way.claimed():
        started = time.perf_counter()
        way.give(0.05)
        assert 0.04 < time.perf_counter() - started < WAIT
