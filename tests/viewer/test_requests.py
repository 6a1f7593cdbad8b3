"""Requests of visitors wait their turn, in a bounded place."""

from __future__ import annotations

import threading
import time

from ovs3d_ros.viewer.requests import COOLDOWN, RequestQueue


def drain(queue: RequestQueue) -> int:
    """Runs what is due; returns how many."""
    count = 0
    while (action := queue.take(0.0)) is not None:
        action()
        count += 1
    return count


def test_newest_request_of_a_kind_replaces_earlier_ones():
    queue, done = RequestQueue(), []
    for number in range(10_000):
        queue.put(1, "ask", lambda number=number: done.append(number))
    queue.put(1, "look", lambda: done.append("look"))
    queue.put(2, "ask", lambda: done.append("other"))
    assert len(queue) == 3
    drain(queue)
    assert sorted(map(str, done)) == ["9999", "look", "other"]


def test_flood_of_one_visitor_runs_at_the_bounded_rate():
    queue, done = RequestQueue(), []
    end = time.monotonic() + 4.5 * COOLDOWN
    while time.monotonic() < end:
        queue.put(1, "ask", lambda: done.append(1))
        drain(queue)
    assert len(done) == 5


def test_visitor_who_waited_longest_comes_first():
    queue, order = RequestQueue(), []
    queue.put(1, "ask", lambda: order.append("first"))
    drain(queue)
    queue.put(1, "ask", lambda: order.append("first again"))
    queue.put(2, "ask", lambda: order.append("second"))
    drain(queue)
    assert order == ["first", "second"]
    time.sleep(COOLDOWN)
    drain(queue)
    assert order == ["first", "second", "first again"]


def test_delayed_request_waits_and_starts_again_when_replaced():
    queue = RequestQueue()
    queue.put(1, "ask", lambda: None, delay=0.2)
    time.sleep(0.15)
    queue.put(1, "ask", lambda: None, delay=0.2)
    assert queue.take(0.1) is None
    started = time.monotonic()
    assert queue.take(5.0) is not None
    assert time.monotonic() - started < 2.0, "taken when due, not at the end of the timeout"


def test_requests_of_a_visitor_who_left_are_dropped():
    queue = RequestQueue()
    queue.put(1, "ask", lambda: None)
    queue.put(2, "ask", lambda: None, delay=10.0)
    queue.forget(1)
    assert len(queue) == 1 and queue.take(0.0) is None
    queue.forget(2)
    assert len(queue) == 0


def test_closing_wakes_the_thread_and_refuses_further_requests():
    queue = RequestQueue()
    taken: list = []
    thread = threading.Thread(target=lambda: taken.append(queue.take(60.0)))
    thread.start()
    queue.close()
    thread.join(5)
    assert taken == [None] and not thread.is_alive()
    queue.put(1, "ask", lambda: None)
    assert len(queue) == 0
