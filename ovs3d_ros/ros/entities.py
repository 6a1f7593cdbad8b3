"""The ROS entities of one lifecycle state: created together, destroyed together."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from rclpy.node import Node

KINDS = ("subscriptions", "publishers", "services", "clients", "timers")


class EntityGroup:
    """The subscriptions, publishers, services and timers that a node created within `collect`."""

    def __init__(self, node: Node):
        """Takes the node; the group is empty."""
        self._node = node
        self._entities: dict[str, list[Any]] = {kind: [] for kind in KINDS}

    @contextlib.contextmanager
    def collect(self) -> Iterator[None]:
        """Adds all entities that the node creates within the block, also if the block raises."""
        before = {kind: {id(entity) for entity in getattr(self._node, kind)} for kind in KINDS}
        try:
            yield
        finally:
            for kind, known in before.items():
                self._entities[kind] += [e for e in getattr(self._node, kind) if id(e) not in known]

    def destroy(self) -> None:
        """Destroys all entities of the group; a second call does nothing."""
        for kind, entities in self._entities.items():
            destroy = getattr(self._node, f"destroy_{kind[:-1]}")
            while entities:
                destroy(entities.pop())
