"""A lifecycle transition that the state does not allow is refused and does not end the node."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy")
pytestmark = pytest.mark.ros

import rclpy  # noqa: E402
from rclpy.context import Context  # noqa: E402
from rclpy.impl.implementation_singleton import rclpy_implementation  # noqa: E402
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn  # noqa: E402

from ovs3d_ros.ros.environment import free_domain_id  # noqa: E402
from ovs3d_ros.ros.lifecycle import Transitions  # noqa: E402
from ovs3d_ros.ros.node import MappingNode  # noqa: E402


class JazzyNode(LifecycleNode):
    """A lifecycle node whose state machine raises, as in rclpy of Jazzy."""

    def _LifecycleNodeMixin__change_state(self, transition_id: int):
        raise rclpy_implementation.RCLError("not allowed")


class Node(Transitions, JazzyNode):
    """Refuses what Jazzy raises."""


def test_invalid_transition_is_refused_where_rclpy_raises():
    context = Context()
    rclpy.init(context=context, args=[], domain_id=free_domain_id())
    nodes = [Node("guarded", context=context), JazzyNode("bare", context=context)]
    try:
        with pytest.raises(rclpy_implementation.RCLError):
            nodes[1].trigger_activate()
        assert nodes[0].trigger_activate() == TransitionCallbackReturn.ERROR
    finally:
        for node in nodes:
            node.destroy_node()
        rclpy.shutdown(context=context)


def test_mapping_node_guards_its_transitions():
    order = MappingNode.__mro__
    assert order.index(Transitions) < order.index(LifecycleNode)
