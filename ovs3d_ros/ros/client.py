"""Calls the services and actions of a mapping node from another process."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import rclpy
from rclpy.action import ActionClient
from rclpy.node import Node

from ovs3d_ros.types import UserError

POLL = 0.1  # seconds
NOTICE = 2.0  # seconds without the node until it is said


class NodeClient(Node):
    """Calls one mapping node; one thread at a time.

    Args:
        name: of this node.
        server: name of the mapping node; relative to the namespace of this one, e.g. `ovs3d`.
        stopping: ends every wait.
    """

    def __init__(self, name: str, server: str, stopping: threading.Event) -> None:
        super().__init__(name)
        self._server = server
        self._stopping = stopping
        self._callers: dict[str, Any] = {}  # clients by the full name of what they call

    def call(self, kind: type, service: str, request: Any, timeout: float) -> Any:
        """Waits for the node, calls its service `~/service`, and returns the response.

        Raises:
            UserError: there is no such node.
            TimeoutError: no answer came in time.
        """
        name = self.resolve_service_name(f"{self._server}/{service}")
        if name not in self._callers:
            self._callers[name] = self.create_client(kind, name)
        client = self._callers[name]
        self._wait_for_node(name, client.service_is_ready, timeout)
        return self._result(name, client.call_async(request), timeout)

    def act(self, kind: type, action: str, goal: Any, timeout: float) -> Any:
        """Waits for the node, sends a goal to its action `~/action`, and returns the result.

        Raises:
            UserError: there is no such node, or it refuses the goal.
            TimeoutError: no result came in time.
        """
        name = self.resolve_service_name(f"{self._server}/{action}")
        if name not in self._callers:
            self._callers[name] = ActionClient(self, kind, name)
        client = self._callers[name]
        self._wait_for_node(name, client.server_is_ready, timeout)
        handle = self._result(name, client.send_goal_async(goal), timeout)
        if not handle.accepted:
            raise UserError(f"{name} refused the goal")
        return self._result(name, handle.get_result_async(), timeout).result

    def wait(self, ready: Callable[[], bool], seconds: float) -> bool:
        """Spins until `ready()`; returns whether it was before the time was over."""
        end = time.monotonic() + seconds
        while not (done := ready()) and time.monotonic() < end and not self._stopping.is_set():
            rclpy.spin_once(self, timeout_sec=POLL)
        return bool(done)

    def _result(self, name: str, future: Any, timeout: float) -> Any:
        if not self.wait(future.done, timeout):
            raise TimeoutError(f"{name} gave no answer within {timeout:g} s")
        return future.result()

    def _wait_for_node(self, name: str, is_ready: Callable[[], bool], timeout: float) -> None:
        """Waits for the node, and says so if that takes long; raises UserError if it does not come."""
        notice = min(NOTICE, timeout)
        if self.wait(is_ready, notice):
            return
        if timeout > notice and not self._stopping.is_set():
            sys.stderr.write(f"waiting for {name}\n")
        if not self.wait(is_ready, timeout - notice):
            raise UserError(
                f"no node offers {name}: start it, give --node its full name, like /NAMESPACE/ovs3d, or "
                "check ROS_DOMAIN_ID"
            )
