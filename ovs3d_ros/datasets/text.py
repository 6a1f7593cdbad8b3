"""Reads text and JSON; errors name the file."""

from __future__ import annotations

import json
import math
from pathlib import Path

from ovs3d_ros.io.git_lfs import check_no_lfs_pointer
from ovs3d_ros.types import UserError


def read_text(path: Path, errors: str = "strict") -> str:
    """The UTF-8 text of a file (a byte-order mark is dropped).

    Args:
        path: the file.
        errors: what to do with other bytes, see `open`; "surrogateescape" keeps those of file names.

    Raises:
        UserError: the file is missing or not text.
    """
    try:
        return path.read_text(encoding="utf-8-sig", errors=errors)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable as UTF-8 text ({error})") from None


def read_json_object(path: Path) -> dict:
    """The JSON object in a file.

    Raises:
        UserError: the file is missing, truncated, or not an object.
    """
    try:
        value = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        check_no_lfs_pointer(path)
        raise UserError(f"{path}: not valid JSON ({error}); is the file truncated?") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a JSON object, got {type(value).__name__}")
    return value


def finite_number(value: object, where: str) -> float:
    """Converts a number that was read from a file to a float.

    Args:
        value: the value in the file.
        where: file and key to name in the error.

    Raises:
        UserError: the value is not a finite number.
    """
    try:
        if not isinstance(value, bool) and isinstance(value, (int, float)) and math.isfinite(value):
            return float(value)
    except OverflowError:
        value = math.inf  # the digits of so large an integer would fill the message
    raise UserError(f"{where} is {value!r}; expected a finite number")
