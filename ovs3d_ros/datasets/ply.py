"""Reads sparse points from PLY files (ASCII or binary), as nerfstudio writes them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from ovs3d_ros.geometry import check_coordinates
from ovs3d_ros.io.git_lfs import check_no_lfs_pointer
from ovs3d_ros.types import UserError

_DTYPES = {
    "char": "i1",
    "int8": "i1",
    "uchar": "u1",
    "uint8": "u1",
    "short": "i2",
    "int16": "i2",
    "ushort": "u2",
    "uint16": "u2",
    "int": "i4",
    "int32": "i4",
    "uint": "u4",
    "uint32": "u4",
    "float": "f4",
    "float32": "f4",
    "double": "f8",
    "float64": "f8",
}
_BYTE_ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">"}


def read_points(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Reads the vertices of a PLY file.

    Args:
        path: the file; its first element must be `vertex` with x, y, z; red, green, blue are optional
            (default grey).

    Returns:
        xyz [P, 3] float64 and rgb [P, 3] uint8.

    Raises:
        UserError: the file is missing, truncated, not a point cloud, or has non-finite coordinates.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: not readable ({error.strerror})") from None
    header = re.match(rb"ply.*?end_header\r?\n", data, re.DOTALL)
    if header is None:
        check_no_lfs_pointer(path)
        raise UserError(f"{path}: not a PLY file (no 'ply' ... 'end_header')")
    encoding, count, fields = _header(header[0].decode("ascii", "replace"), path)
    body = data[header.end() :]
    if encoding in _BYTE_ORDERS:
        dtype = np.dtype([(name, _BYTE_ORDERS[encoding] + kind) for name, kind in fields])
        if len(body) < count * dtype.itemsize:
            raise UserError(f"{path}: truncated: the header promises {count} vertices; copy it again")
        table = np.frombuffer(body, dtype=dtype, count=count)
        columns = {name: table[name] for name, _ in fields}
    else:
        try:
            rows = np.array([line.split() for line in body.splitlines()[:count]], dtype=np.float64)
            rows = rows.reshape(count, len(fields))
        except ValueError:
            raise UserError(f"{path}: truncated or malformed: the header promises {count} vertices") from None
        columns = {name: rows[:, i] for i, (name, _) in enumerate(fields)}
    xyz = check_coordinates(np.stack([columns[axis] for axis in "xyz"], axis=1), str(path))
    if {"red", "green", "blue"} <= columns.keys():
        return xyz, np.stack([columns[c] for c in ("red", "green", "blue")], axis=1).astype(np.uint8)
    return xyz, np.full(xyz.shape, 128, dtype=np.uint8)


def _header(text: str, path: Path) -> tuple[str, int, list[tuple[str, str]]]:
    """Encoding, number of vertices, and (property, dtype) of the first element, which must be `vertex`."""
    encoding, count, fields = "", -1, []
    for words in (line.split() for line in text.splitlines()):
        if words[:1] == ["format"] and len(words) > 1:
            encoding = words[1]
        elif words[:1] == ["element"]:
            if count >= 0:
                break
            if len(words) != 3 or words[1] != "vertex" or not words[2].isdigit():
                raise UserError(f"{path}: the first element must be 'vertex'; export a plain point cloud")
            count = int(words[2])
        elif words[:1] == ["property"]:
            if len(words) != 3 or words[1] not in _DTYPES:
                raise UserError(f"{path}: property {' '.join(words[1:])!r} is not a plain number")
            fields.append((words[2], _DTYPES[words[1]]))
    if encoding not in ("ascii", *_BYTE_ORDERS) or not {"x", "y", "z"} <= {name for name, _ in fields}:
        raise UserError(f"{path}: not an ASCII or binary PLY whose vertices have x, y, z")
    return encoding, count, fields
