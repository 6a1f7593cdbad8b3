"""What a node holds for one of its lives: made together, destroyed together."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from rclpy.node import Node

KINDS = ("subscriptions", "publishers", "services", "clients", "timers")


class Scope:
    """The subscriptions, publishers, services and timers that came to a node while it was `collecting`."""

    def __init__(self, node: Node):
        """Takes the node; it owns nothing yet."""
        self._node = node
        self._entities: dict[str, list[Any]] = {kind: [] for kind in KINDS}

    @contextlib.contextmanager
    def collecting(self) -> Iterator[None]:
        """Takes over what is created within the block, also when it fails."""
        before = {kind: {id(entity) for entity in getattr(self._node, kind)} for kind in KINDS}
        try:
            yield
        finally:
            for kind, known in before.items():
                self._entities[kind] += [e for e in getattr(self._node, kind) if id(e) not in known]

    def close(self) -> None:
        """Destroys all of it; may be called again."""
        for kind, entities in self._entities.items():
            destroy = getattr(self._node, f"destroy_{kind[:-1]}")
            while entities:
                destroy(entities.pop())
