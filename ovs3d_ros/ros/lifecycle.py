"""Lifecycle transitions that the current state does not allow."""

from __future__ import annotations

from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import TransitionCallbackReturn


class InvalidTransitions:
    """Mixin of a lifecycle node: a transition that its state does not allow is refused.

    Up to Jazzy rclpy lets the exception leave the service's callback, which would end the node. Newer
    versions catch it themselves.
    """

    def _LifecycleNodeMixin__change_state(self, transition_id: int) -> TransitionCallbackReturn:
        """As the private method of `rclpy.lifecycle.LifecycleNodeMixin`."""
        try:
            return super()._LifecycleNodeMixin__change_state(transition_id)
        except rclpy_implementation.RCLError as error:
            self.get_logger().error(f"transition {transition_id} is refused: {error}")
            return TransitionCallbackReturn.ERROR
