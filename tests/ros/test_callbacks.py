"""Callbacks that raise, and entities that are destroyed while they are used, do not end the node."""

from __future__ import annotations

import time
from collections import deque

import pytest

pytest.importorskip("rclpy")
pytestmark = pytest.mark.ros

from helpers.ros_wire import wire  # noqa: E402, F401
from rclpy.action import ActionClient  # noqa: E402
from rclpy.action.server import ServerGoalHandle  # noqa: E402
from rclpy.exceptions import InvalidHandle  # noqa: E402
from rclpy.impl.implementation_singleton import rclpy_implementation  # noqa: E402
from std_msgs.msg import String  # noqa: E402

from ovs3d_interfaces.action import FindObject, Refine  # noqa: E402
from ovs3d_ros.ros import callbacks  # noqa: E402
from ovs3d_ros.ros.callbacks import log_errors  # noqa: E402
from ovs3d_ros.ros.node import MOST_FAILURES, spin_once  # noqa: E402
from ovs3d_ros.ros.services.find_object import FindObjectAction  # noqa: E402
from ovs3d_ros.ros.services.refine import RefineAction  # noqa: E402

RCLError = rclpy_implementation.RCLError


def test_timer_continues_after_exception(wire, caplog):
    calls = []

    def update() -> None:
        calls.append(1)
        raise OverflowError("too much")

    wire.node("publisher").create_timer(0.01, log_errors(update, "outputs"))
    wire.spin_until(lambda: len(calls) == 3)
    assert "outputs: OverflowError: too much" in caplog.text and caplog.text.count("Traceback") == 1


def test_recurring_lines_are_new_once_and_after_a_quiet_minute(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(callbacks.time, "monotonic", lambda: now[0])
    lines, heard = callbacks.Recurrences(), []
    for _ in range(100):
        now[0] += 1.0
        for line in (f"image at {now[0]:.3f} s is truncated", "no calibration"):
            heard += [line] * lines.is_new(line)
    assert heard == ["image at 1.000 s is truncated", "no calibration"]
    now[0] += 61.0
    assert lines.is_new("image at 7 s is truncated")
    assert (
        all(lines.is_new(f"other {chr(97 + k)}" * (k + 1)) for k in range(200)) and len(lines._heard) <= 100
    )


def test_timer_ignores_destroyed_publisher(wire, caplog):
    """On shutdown, publishers may be destroyed while their timer runs."""
    node = wire.node("publisher")
    publisher = node.create_publisher(String, "talk", 10)
    publish = log_errors(lambda: publisher.publish(String(data="late")), "outputs")
    publisher.destroy()
    with pytest.raises(InvalidHandle):
        publish()
    node.create_timer(0.01, publish)
    deadline = time.monotonic() + 0.2
    while time.monotonic() < deadline:
        spin_once(wire.executor, deque())
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_spin_survives_destroyed_subscription(wire):
    """On deactivation, rclpy may have listed the events of a subscription that is then destroyed."""
    node, heard = wire.node("listener"), []
    node.create_subscription(String, "talk", heard.append, 10)
    destroyed = node.create_subscription(String, "other", heard.append, 10)
    destroyed.event_handlers[0].destroy()
    with pytest.raises(InvalidHandle):
        wire.executor.spin_once(timeout_sec=0.02)
    spin_once(wire.executor, deque())
    node.destroy_subscription(destroyed)
    publisher = wire.node("talker").create_publisher(String, "talk", 10)
    deadline = time.monotonic() + 30
    while not heard:
        assert time.monotonic() < deadline, "the node hears nothing"
        publisher.publish(String(data="hello"))
        spin_once(wire.executor, deque())


def test_spin_survives_failures_of_the_middleware_but_not_endless_ones(wire):
    """rclpy's own code raises them, for example where an action server publishes the state of a goal."""
    calls = []

    def fail() -> None:
        calls.append(1)
        raise RCLError("cannot publish data")

    wire.node("node").create_timer(0.01, fail)
    failures, deadline = deque([-1e9], MOST_FAILURES), time.monotonic() + 30  # the first was long ago
    while len(calls) < MOST_FAILURES - 1 and time.monotonic() < deadline:
        spin_once(wire.executor, failures)
    assert len(failures) == MOST_FAILURES and len(calls) == MOST_FAILURES - 1
    with pytest.raises(RCLError):
        for _ in range(1000):
            spin_once(wire.executor, failures)
    assert len(calls) == MOST_FAILURES


@pytest.mark.parametrize(
    "server, kind, name", [(RefineAction, Refine, "refine"), (FindObjectAction, FindObject, "find_object")]
)
def test_goal_has_its_result_where_its_state_cannot_be_published(wire, monkeypatch, server, kind, name):
    real, changed = ServerGoalHandle._update_state, []

    def change(goal, event) -> None:
        real(goal, event)
        changed.append(event)
        raise RCLError("Failed publish goal status array: cannot publish data")

    monkeypatch.setattr(ServerGoalHandle, "_update_state", change)
    node = wire.node("server")
    action = server(node)
    client = ActionClient(wire.node("client"), kind, f"/{node.get_name()}/{name}")
    wire.spin_until(client.server_is_ready)
    sent = client.send_goal_async(kind.Goal())
    wire.spin_until(sent.done)
    ended = sent.result().get_result_async()
    wire.spin_until(ended.done)
    result = ended.result().result
    assert result.error_code != result.OK and result.error_msg and len(changed) == 2
    client.destroy()
    del action
