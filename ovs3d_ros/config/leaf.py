"""One parameter: its path, type, default, range, description and policy, and the check of its values."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Flag, auto
from typing import Any

from ovs3d_ros.types import UserError

_FLOAT32 = 1.1754943508222875e-38, 3.4028234663852886e38  # smallest and greatest positive number
_INT64 = 2**63 - 1
_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


class Policy(Flag):
    """Where a parameter belongs, and whether it may change while a map grows.

    Every parameter has exactly one of MAP, SESSION and MACHINE, and may have RUNTIME beside it.
    """

    MAP = auto()
    """How a map is made. A map file carries the value, and a map is opened with it."""
    SESSION = auto()
    """How a map is asked, refined or published. A map file does not carry it; the settings of today hold."""
    MACHINE = auto()
    """Devices, threads and folders of this computer. A map file does not carry it; the settings of today
    hold.
    """
    RUNTIME = auto()
    """May change while a map grows; all others are fixed when the node or the command starts."""


MAP, SESSION, MACHINE, RUNTIME = Policy.MAP, Policy.SESSION, Policy.MACHINE, Policy.RUNTIME


@dataclass(frozen=True, slots=True)
class Leaf:
    """One parameter: dotted path, type, default, policy, and the facts a user needs to set it."""

    path: str
    type: type  # tuple for lists
    item: type | None  # of the elements of a list, else None
    default: Any
    policy: Policy
    doc: str
    unit: str
    low: float | None
    high: float | None
    choices: tuple[str, ...]

    @property
    def runtime(self) -> bool:
        """Whether the value may change while a map grows, see `Ovs3d.configure`."""
        return Policy.RUNTIME in self.policy

    @property
    def stored(self) -> bool:
        """Whether map files carry the value."""
        return Policy.MAP in self.policy

    @property
    def may_be_empty(self) -> bool:
        """Whether the parameter is a list that may be empty: one that is empty by default."""
        return self.default == ()

    @property
    def allowed(self) -> str:
        """The allowed values in words, like "0 to 8192" or "auto, cpu or cuda"; empty: any of the type."""
        if self.choices:
            return f"{', '.join(self.choices[:-1])} or {self.choices[-1]}"
        if self.low is None:
            return "" if self.high is None else f"at most {self.high}"
        return f"at least {self.low}" if self.high is None else f"{self.low} to {self.high}"


def leaf(
    default: Any,
    policy: Policy,
    doc: str,
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """A dataclass field with its policy, description, unit and range."""
    metadata = dict(policy=policy, doc=doc, unit=unit, low=low, high=high, choices=choices)
    return field(default=default, metadata=metadata)


def check_value(spec: Leaf, value: Any) -> Any:
    """The value in the leaf's type.

    Raises:
        UserError: wrong type, not one of the choices, or outside the range.
    """
    if spec.item is None:
        return _check_scalar(spec, spec.type, value)
    if not isinstance(value, (list, tuple)):
        raise UserError(f"{spec.path}: expected a list, got {value!r}")
    if not value and not spec.may_be_empty:
        raise UserError(f"{spec.path}: must not be empty; give at least one, or leave it out for the default")
    return tuple(_check_scalar(spec, spec.item, element) for element in value)


def drop_placeholder(spec: Leaf, value: Any) -> Any:
    """An empty list for an optional list that holds only a placeholder: `['']`, `[0]` or `[0.0]`.

    ROS launch files have no empty list, and parameter files and maps of earlier versions have none either.
    """
    holds_placeholder = spec.may_be_empty and isinstance(value, (list, tuple)) and list(value) in ([""], [0])
    return [] if holds_placeholder else value


def _check_scalar(spec: Leaf, kind: type, value: Any) -> Any:
    if kind is float and isinstance(value, (int, str)) and not isinstance(value, bool):
        try:
            value = float(value)  # YAML reads 1 as an integer and 1e-4 as a string
        except (ValueError, OverflowError):
            raise UserError(f"{spec.path}: expected {_KINDS[kind]}, got {value!r}") from None
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise UserError(f"{spec.path}: expected {_KINDS[kind]}, got {value!r}")
    if spec.choices and value not in spec.choices:
        raise UserError(f"{spec.path}: {value!r} is none of {', '.join(spec.choices)}")
    if kind in (int, float):
        low, high = -math.inf if spec.low is None else spec.low, math.inf if spec.high is None else spec.high
        # Tensors are float32: a number must not become zero or infinity there. Comparisons are false for NaN.
        is_exact = (
            abs(value) <= _INT64 if kind is int else not value or _FLOAT32[0] <= abs(value) <= _FLOAT32[1]
        )
        if not (low <= value <= high and is_exact):
            remedy = " ".join(filter(None, ("give", spec.allowed or "a finite number", spec.unit)))
            remedy += ", or an empty list" if spec.may_be_empty else ""
            raise UserError(f"{spec.path}: {value!r} is outside the range; {remedy}")
    return value
