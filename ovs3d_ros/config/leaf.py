"""What a parameter is: its path, type, default, range and description, and which values it takes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from ovs3d_ros.types import UserError

# Paths, or groups that end in a dot, of what may change while a map grows.
RUNTIME = (
    "keyframe.",
    "seed.",
    "query.negatives",
    "query.threshold",
    "query.presence",
    "query.absent",
    "query.min_weight",
    "query.instance_gap",
    "query.min_instance",
    "map.max_gaussians",
    "train.steps_per_keyframe",
    "output.max_points",
    "output.min_opacity",
    "output.stand_off",
    "output.grid_resolution",
)


@dataclass(frozen=True, slots=True)
class Leaf:
    """One parameter: dotted path, type, default and what a user needs to know about it."""

    path: str
    type: type
    default: Any
    doc: str
    unit: str
    low: float | None
    high: float | None
    choices: tuple[str, ...]

    @property
    def runtime(self) -> bool:
        """Whether it may change while a map grows, see `Ovs3d.configure`; the others are fixed at the start."""
        return self.path.startswith(RUNTIME)


def leaf(
    default: Any,
    doc: str,
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """A dataclass field with its description, unit and range."""
    return field(default=default, metadata=dict(doc=doc, unit=unit, low=low, high=high, choices=choices))


def checked(spec: Leaf, value: Any) -> Any:
    """The value in the leaf's type.

    Raises:
        UserError: type, choice or range is wrong.
    """
    if spec.type is tuple:
        if not isinstance(value, (list, tuple)):
            raise UserError(f"{spec.path}: expected a list, got {value!r}")
        if not value:
            raise UserError(f"{spec.path}: must not be empty")
        return tuple(_checked_scalar(spec, type(spec.default[0]), v) for v in value)
    return _checked_scalar(spec, spec.type, value)


def _checked_scalar(spec: Leaf, kind: type, value: Any) -> Any:
    if kind is float and isinstance(value, (int, str)) and not isinstance(value, bool):
        try:
            value = float(value)  # YAML reads 1 as an integer and 1e-4 as a string
        except (ValueError, OverflowError):
            raise UserError(f"{spec.path}: expected a number, got {value!r}") from None
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise UserError(f"{spec.path}: expected {kind.__name__}, got {value!r}")
    if spec.choices and value not in spec.choices:
        raise UserError(f"{spec.path}: {value!r} is none of {', '.join(spec.choices)}")
    if kind in (int, float):
        low, high = -math.inf if spec.low is None else spec.low, math.inf if spec.high is None else spec.high
        if not low <= value <= high or value in (
            math.inf,
            -math.inf,
        ):  # nor NaN, which no comparison holds for
            raise UserError(f"{spec.path}: {value!r} is outside [{low}, {high}] {spec.unit}".rstrip())
    return value
