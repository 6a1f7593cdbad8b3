"""Remembers what was computed from a map, as a map is asked many times."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

import torch

from ovs3d_ros.types import MapSnapshot

Value = TypeVar("Value")


class SnapshotMemo(Generic[Value]):
    """Keeps the value of one function for the latest snapshot; it does not keep the snapshot alive.

    Any thread may use it. Two threads may both compute a value at first; the results are the same.

    Args:
        compute: the function, of a snapshot and settings.
    """

    def __init__(self, compute: Callable[..., Value]) -> None:
        self._compute = compute
        self._latest: tuple[weakref.ref[torch.Tensor], tuple[Hashable, ...], Value] | None = None
        self._asked: tuple[weakref.ref[torch.Tensor], tuple[Hashable, ...]] | None = None

    def __call__(self, snapshot: MapSnapshot, *settings: Hashable) -> Value:
        """The value for this snapshot and these settings."""
        latest = self._latest
        if latest is not None and latest[0]() is snapshot.weight and latest[1] == settings:
            return latest[2]
        value = self._compute(snapshot, *settings)
        self._latest = weakref.ref(snapshot.weight), settings, value
        return value

    def if_repeated(self, snapshot: MapSnapshot, *settings: Hashable) -> Value | None:
        """The value, but None when it is asked for the first time: it may not be worth its time."""
        asked = self._asked
        if asked is not None and asked[0]() is snapshot.weight and asked[1] == settings:
            return self(snapshot, *settings)
        self._asked = weakref.ref(snapshot.weight), settings
        return None
