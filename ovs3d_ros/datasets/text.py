"""Reading text and JSON with errors that name the file."""

from __future__ import annotations

import json
import math
from pathlib import Path

from ovs3d_ros.types import UserError


def read_text(path: Path) -> str:
    """The UTF-8 text of a file (a byte-order mark is dropped).

    Raises:
        UserError: missing or not text.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable as UTF-8 text ({error})") from None


def read_json_object(path: Path) -> dict:
    """The JSON object in a file.

    Raises:
        UserError: missing, truncated, or not an object.
    """
    try:
        value = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path}: not valid JSON ({error}); is the file truncated?") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a JSON object, got {type(value).__name__}")
    return value


def finite_number(value: object, what: str) -> float:
    """`value` as a float.

    Args:
        value: what a file gave.
        what: file and key, for the error.

    Raises:
        UserError: not a finite number.
    """
    try:
        if not isinstance(value, bool) and isinstance(value, (int, float)) and math.isfinite(value):
            return float(value)
    except OverflowError:
        value = math.inf  # an integer beyond all floats, whose digits would fill the message
    raise UserError(f"{what} is {value!r}; expected a finite number")
