"""Reads some arrays of a safetensors file, and neither torch nor the rest of the file."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable
from pathlib import Path

import numpy as np

_PREFIX_BYTES = 8  # a safetensors file starts with the length of its JSON header, little-endian
_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}


def read_arrays(path: Path, names: Iterable[str]) -> tuple[dict[str, np.ndarray], str | None]:
    """The named arrays of floats, and the text under the key `ovs3d` of the metadata, None without one.

    It checks what it needs for itself only; `tensors.read_tensors` says what is wrong with a file.

    Raises:
        OSError, ValueError, KeyError, TypeError, AttributeError: the file cannot be read, or lacks them.
    """
    with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError("it is not a regular file")
        start = _PREFIX_BYTES + int.from_bytes(file.read(_PREFIX_BYTES), "little")
        if start > status.st_size:
            raise ValueError("the header is longer than the file")
        header = json.loads(file.read(start - _PREFIX_BYTES))
        arrays = {}
        for name in names:
            begin, end = header[name]["data_offsets"]
            if not 0 <= begin <= end <= status.st_size - start:
                raise ValueError(f"{name} lies outside the file")
            file.seek(start + begin)
            flat = np.frombuffer(file.read(end - begin), _TYPES[header[name]["dtype"]])
            arrays[name] = flat.reshape(header[name]["shape"])
    return arrays, header.get("__metadata__", {}).get("ovs3d")
