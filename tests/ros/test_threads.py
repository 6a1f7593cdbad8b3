"""No callback of the node waits for a thread because others, such as merging, run for long."""

from __future__ import annotations

import itertools

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("ovs3d_interfaces")
pytestmark = pytest.mark.ros

from helpers import synthetic  # noqa: E402
from helpers.ros_wire import wire  # noqa: E402, F401
from rclpy.lifecycle import TransitionCallbackReturn  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402

import ovs3d_ros.ros.session as session_module  # noqa: E402
from ovs3d_ros.config import leaves, override  # noqa: E402
from ovs3d_ros.ros.node import NUM_GROUPS, MappingNode  # noqa: E402


def test_each_group_of_callbacks_has_a_thread(wire, monkeypatch):
    monkeypatch.setattr(session_module, "warm_up", lambda pipeline: None)
    config = override(synthetic.make_config(), {"autostart": False})
    overrides = [
        Parameter(leaf.path, value=list(v) if isinstance(v, tuple) else v) for leaf, v in leaves(config)
    ]
    node = MappingNode(context=wire.context, parameter_overrides=overrides)
    wire.nodes.append(node)
    for trigger in (node.trigger_configure, node.trigger_activate):
        assert trigger() == TransitionCallbackReturn.SUCCESS
    entities = itertools.chain(node.services, node.timers, node.subscriptions, node.clients, node.waitables)
    assert len({entity.callback_group for entity in entities}) == NUM_GROUPS
    node.trigger_shutdown()
