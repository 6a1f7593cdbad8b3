"""Keeps the latest snapshot of a map for as long as the map does not change."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Any

from ovs3d_ros.mapping.mapper import Mapper
from ovs3d_ros.types import MapSnapshot


@dataclass(frozen=True, slots=True)
class MapMarks:
    """Tells two states of a map apart, without a copy of it and without keeping it alive.

    Attributes:
        tensors: those that make up the map, and how often each was changed in place, by operations of torch.
        parts: objects that are replaced when what they stand for changes.
        numbers: counts of all other changes.
    """

    tensors: list[tuple[weakref.ref[Any], int]]
    parts: tuple[object, ...]
    numbers: tuple[Hashable, ...]

    def agree(self, other: MapMarks) -> bool:
        """Whether nothing changed between the two."""
        if self.numbers != other.numbers or len(self.tensors) != len(other.tensors):
            return False
        pairs = zip(self.tensors, other.tensors, strict=True)
        same = all(a() is not None and a() is b() and n == m for (a, n), (b, m) in pairs)
        return same and all(a is b for a, b in zip(self.parts, other.parts, strict=True))


def mark_map(mapper: Mapper, parts: Iterable[object], frames: int) -> MapMarks:
    """Marks the state of a map.

    Args:
        mapper: of its Gaussians and keyframes.
        parts: what else a snapshot is made of, see `MapMarks`.
        frames: that the map was given.
    """
    g, parcels = mapper.gaussians, mapper.blocks.parcels
    # Copies: a refinement on another thread may add a statistic meanwhile.
    holders = [dict(holder) for holder in (g.params, g.stats, *(parcel.side for parcel in parcels))]
    tensors = [(weakref.ref(t), t._version) for holder in holders for t in holder.values()]
    # The kernel that moves Gaussians writes past torch, and so past its count of changes. NaN equals nothing.
    steps = mapper.steps, repr(mapper.psnr)
    numbers = frames, mapper.keyframes.changes, *steps, *(name for holder in holders for name in holder)
    whole = [(weakref.ref(parcel), 0) for parcel in parcels]
    return MapMarks(tensors + whole, (mapper, mapper.keyframes, *parts), numbers)


class KeptSnapshot:
    """The latest snapshot of a map that grows."""

    def __init__(self) -> None:
        self._latest: tuple[MapMarks, MapSnapshot] | None = None

    def get(self, marks: MapMarks | None, make: Callable[[], MapSnapshot]) -> MapSnapshot:
        """The kept snapshot, or a new one.

        Args:
            marks: of the map now; None: the next snapshot differs although the map does not change.
            make: makes a snapshot.
        """
        latest = self._latest
        if latest is not None and marks is not None and latest[0].agree(marks):
            return latest[1]
        self._latest = None  # one map more in memory than need be
        snapshot = make()
        if marks is not None:
            self._latest = marks, snapshot
        return snapshot
