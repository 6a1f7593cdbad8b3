"""Reads some arrays of a safetensors file, and neither torch nor the rest of the file."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

PREFIX_BYTES = 8  # a safetensors file starts with the length of its JSON header, little-endian
_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}


def read_arrays(path: Path, names: Iterable[str]) -> tuple[dict[str, np.ndarray], str | None]:
    """The named arrays of floats, and the text under the key `ovs3d` of the metadata, None without one.

    It checks what it needs for itself only; `tensors.read_tensors` says what is wrong with a file.

    Raises:
        OSError, ValueError, KeyError, TypeError, AttributeError: the file cannot be read, or lacks them.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        start = PREFIX_BYTES + int.from_bytes(file.read(PREFIX_BYTES), "little")
        if start > size:
            raise ValueError("the header is longer than the file")
        header = json.loads(file.read(start - PREFIX_BYTES))
        arrays = {}
        for name in names:
            begin, end = header[name]["data_offsets"]
            if not 0 <= begin <= end <= size - start:
                raise ValueError(f"{name} lies outside the file")
            file.seek(start + begin)
            flat = np.frombuffer(file.read(end - begin), _TYPES[header[name]["dtype"]])
            arrays[name] = flat.reshape(header[name]["shape"])
    return arrays, header.get("__metadata__", {}).get("ovs3d")


@contextmanager
def open_regular(path: Path) -> Iterator[BinaryIO]:
    """Opens a file to read.

    Raises:
        OSError: it cannot be read, or is a folder, a pipe or a device.
    """
    # Without O_NONBLOCK, opening a pipe would block until a process writes to it.
    with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError("it is not a regular file")
        yield file
