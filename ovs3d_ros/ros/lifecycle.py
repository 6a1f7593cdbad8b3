"""Lifecycle transitions one after the other, and those that the current state does not allow."""

from __future__ import annotations

import threading
from typing import Any

from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import TransitionCallbackReturn


class Transitions:
    """Mixin of a lifecycle node: transitions wait for each other, and what the state forbids is refused.

    Up to Jazzy rclpy lets the exception leave the service's callback, which would end the node. Newer
    versions catch it themselves.

    Attributes:
        changing: held while a transition runs; the thread that holds it may start one.
    """

    def __init__(self, *arguments: Any, **options: Any):
        """Passes everything on."""
        self.changing = threading.RLock()
        super().__init__(*arguments, **options)

    def _LifecycleNodeMixin__change_state(self, transition_id: int) -> TransitionCallbackReturn:
        """As the private method of `rclpy.lifecycle.LifecycleNodeMixin`."""
        try:
            with self.changing:
                return super()._LifecycleNodeMixin__change_state(transition_id)
        except rclpy_implementation.RCLError as error:
            self.get_logger().error(f"transition {transition_id} is refused: {error}")
            return TransitionCallbackReturn.ERROR
