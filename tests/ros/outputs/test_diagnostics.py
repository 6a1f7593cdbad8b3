"""What /diagnostics says about the node itself."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("ovs3d_interfaces")
pytestmark = pytest.mark.ros

from helpers.ros_wire import wire  # noqa: E402, F401
from rclpy.context import Context  # noqa: E402
from rclpy.node import Node  # noqa: E402

from ovs3d_ros.config import Config  # noqa: E402
from ovs3d_ros.ros import conversions  # noqa: E402
from ovs3d_ros.ros.outputs.diagnostics import Diagnostics  # noqa: E402


def test_second_node_of_the_same_name_is_reported_until_it_goes(wire):
    received: list[conversions.DiagnosticArray] = []
    watched = wire.node("ovs3d")
    wire.node("listener").create_subscription(
        conversions.DiagnosticArray, "/diagnostics", received.append, 10
    )
    wire.node("other", use_sim_time=False)
    Diagnostics(watched, Config())

    def messages() -> list[str]:
        return [status.message for status in received[-1].status] if received else []

    wire.spin_until(messages)
    assert not any("another node" in message for message in messages())
    second = Context()
    second.init(args=[], domain_id=wire.context.get_domain_id())
    twin = Node("ovs3d", context=second)
    try:
        wire.spin_until(lambda: any("another node is called /ovs3d" in message for message in messages()))
    finally:
        twin.destroy_node()
        second.shutdown()
    wire.spin_until(lambda: not any("another node" in message for message in messages()))
