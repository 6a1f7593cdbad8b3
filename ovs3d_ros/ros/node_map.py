"""The map of a running node, asked by its services, for the tools of language agents."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import rclpy
from rclpy.signals import SignalHandlerOptions

from ovs3d_interfaces.action import FindObject
from ovs3d_interfaces.srv import GetNames, GetObjects, ShowView
from ovs3d_ros.agents.asked_map import Goal, Reply, Thing, goal_of
from ovs3d_ros.query.presence import VERDICTS
from ovs3d_ros.ros import conversions
from ovs3d_ros.ros.client import NodeClient
from ovs3d_ros.types import UserError


class NodeMap:
    """The map of a node as it grows; one question at a time. See `asked_map.AskedMap`.

    It asks by `~/get_objects`, so that the node's output topics and `~/goal_pose` stay as they are.

    Args:
        client: calls the node.
        server: name of the node.
        timeout: seconds to wait for each answer.

    Raises:
        UserError: the node does not answer in time.
    """

    digits = 3

    def __init__(self, client: NodeClient, server: str, timeout: float) -> None:
        self.title = server
        self._client = client
        self._timeout = timeout
        self._lock = threading.Lock()
        self.known_names()

    def ask(self, names: Sequence[str], *, relate: Sequence[str] = ()) -> Reply:
        """See `AskedMap.ask`."""
        request = GetObjects.Request(prompts=list(names), relate=list(relate))
        answer = self._call(GetObjects, "get_objects", request)
        return Reply(
            names=answer.prompts,
            verdicts=[VERDICTS[number] for number in answer.verdict],
            presence=list(answer.presence),
            notes=answer.notes,
            things=[Thing(item.label, _center(item), _size(item)) for item in answer.objects],
            relations=[(r.thing, r.relation, r.place) for r in answer.relations],
            observed=answer.observed,
        )

    def known_names(self) -> list[str]:
        """See `AskedMap.known_names`."""
        answer = self._call(GetNames, "get_names", GetNames.Request())
        return [*answer.vocabulary, *answer.refined, *answer.common]

    def picture(self, names: Sequence[str]) -> bytes:
        """See `AskedMap.picture`."""
        return bytes(self._call(ShowView, "show_view", ShowView.Request(prompts=list(names))).picture.data)

    def goal(self, name: str) -> Goal | None:
        """See `AskedMap.goal`; on free ground if the node has a costmap."""
        with self._lock, _in_time():
            goal = FindObject.Goal(prompts=[name], timeout=0.0)
            found = self._client.act(FindObject, "find_object", goal, self._timeout)
        if found.error_code == FindObject.Result.NOT_FOUND:
            return None
        if found.error_code != FindObject.Result.OK:
            raise UserError(found.error_msg)
        if not found.approach.header.frame_id:
            raise UserError(f"{name}: the costmap has no free ground from which it can be seen")
        return goal_of(conversions.from_pose(found.approach.pose, "the goal"), _center(found.object))

    def _call(self, kind: type, service: str, request: Any) -> Any:
        """The response of a service.

        Raises:
            UserError: the node refuses, or does not answer in time.
        """
        with self._lock, _in_time():
            answer = self._client.call(kind, service, request, self._timeout)
        if answer.error_code != kind.Response.OK:
            raise UserError(answer.error_msg)
        return answer


@contextlib.contextmanager
def connect(server: str, timeout: float) -> Iterator[NodeMap]:
    """The map of a node, while the context is open.

    Args:
        server: name of the node, e.g. `/ovs3d`.
        timeout: seconds to wait for the node, and for each answer.

    Raises:
        UserError: there is no such node, or it does not answer in time.
    """
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    client = NodeClient(f"agent_{os.getpid()}", server, threading.Event())
    try:
        yield NodeMap(client, server, timeout)
    finally:
        client.destroy_node()
        rclpy.shutdown()


@contextlib.contextmanager
def _in_time() -> Iterator[None]:
    """Turns a timeout into an error that the user or the agent reads."""
    try:
        yield
    except TimeoutError as error:
        raise UserError(f"{error}; the node may be busy: try again, or raise --timeout") from None


def _center(item: Any) -> np.ndarray:
    return np.array([item.pose.position.x, item.pose.position.y, item.pose.position.z])


def _size(item: Any) -> np.ndarray:
    return np.array([item.size.x, item.size.y, item.size.z])
