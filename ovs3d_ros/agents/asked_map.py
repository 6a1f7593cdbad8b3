"""What the tools of language agents ask a map for, be it a file or a running node."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True, slots=True)
class Thing:
    """An object of a reply.

    Attributes:
        name: that was asked for.
        center: [3] in the frame of the map, in the unit of its poses.
        size: [3] edge lengths of its box in that unit.
    """

    name: str
    center: np.ndarray
    size: np.ndarray


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to N names.

    Attributes:
        names: [N] that were asked for.
        verdicts: [N] "yes", "unsure" or "no".
        presence: [N] probability that the thing is in the map.
        notes: [N] why there are no objects although it, or what it names, is here; else "".
        things: the objects, the best one of each name first.
        relations: (thing, relation, place) with indices of `things`, as far as they were asked for.
        observed: share of the horizon that the map shows, 0..1.
    """

    names: Sequence[str]
    verdicts: Sequence[str]
    presence: Sequence[float]
    notes: Sequence[str]
    things: Sequence[Thing]
    relations: Sequence[tuple[int, str, int]]
    observed: float


@dataclass(frozen=True, slots=True)
class Goal:
    """Where a robot faces a thing.

    Attributes:
        position: [2] x and y in the frame of the map, in the unit of its poses.
        yaw: radians.
        center: [3] of the thing.
    """

    position: np.ndarray
    yaw: float
    center: np.ndarray


def goal_of(pose: np.ndarray, center: np.ndarray) -> Goal:
    """The goal of an upright pose [4, 4] whose x axis points to a thing with this center [3]."""
    return Goal(pose[:2, 3], float(np.arctan2(pose[1, 0], pose[0, 0])), center)


class AskedMap(Protocol):
    """A map that answers; every method raises UserError for names that cannot be asked for.

    Attributes:
        title: names the map.
        digits: decimal places of positions.
    """

    title: str
    digits: int

    def ask(self, names: Sequence[str], *, relate: Sequence[str] = ()) -> Reply:
        """The answer to 1 to 128 distinct names, and the relations of the objects of some of them."""
        ...

    def known_names(self) -> list[str]:
        """Names worth asking for."""
        ...

    def picture(self, names: Sequence[str]) -> bytes:
        """A JPEG of the keyframe's view that shows the things best, in colour, with a legend."""
        ...

    def goal(self, name: str) -> Goal | None:
        """Where a robot faces the best object of a name; None if nothing is found."""
        ...
