"""Rows of tensors that lie in a temporary file, and tensors that continue them without a copy."""

from __future__ import annotations

import ctypes
import logging
import math
import mmap
import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ovs3d_ros.io.tensor_file import StoredTensor, TensorFile, empty_tensors, temporary_folder

logger = logging.getLogger(__name__)

ROWS = mmap.PAGESIZE  # a multiple of this many rows fills whole pages, whatever a row holds
_LIBRARY = ctypes.CDLL(None, use_errno=True)
_FIXED, _NO_RESERVE = 0x10, 0x4000  # MAP_FIXED and MAP_NORESERVE of Linux
_STAYS = (
    "Gaussians cannot be parked in a file in %s (%s): they stay in memory. Nothing is lost; free space "
    "there, or start with TMPDIR set to a folder on another disk"
)

Rows = dict[str, torch.Tensor]


@dataclass(frozen=True, eq=False)
class StoredRows:
    """Rows [count, ...] of several tensors, which never change.

    Attributes:
        count: of the rows.
        entries: where they lie, file by file; empty if they are in memory.
        tensors: in memory; empty if they are in files.
    """

    count: int
    entries: dict[str, tuple[TensorFile, StoredTensor]]
    tensors: Rows

    def read(self) -> Rows:
        """Copies on the CPU, or the tensors in memory themselves; do not change them."""
        if not self.entries:
            return dict(self.tensors)
        return {name: file.read([entry])[0] for name, (file, entry) in self.entries.items()}

    def __del__(self) -> None:
        for file, entry in self.entries.values():
            file.free(entry)


class RowFile:
    """Stores rows in temporary files, one for each name; in memory, with one warning, where that fails."""

    def __init__(self) -> None:
        self._files: dict[str, TensorFile] = {}
        self._warned = False

    @property
    def size(self) -> int:
        """Bytes in the files."""
        return sum(file.size - file.freed for file in list(self._files.values()))

    def store(self, tensors: Rows) -> StoredRows:
        """Stores tensors [M, ...], M a multiple of `ROWS`; those on another device stay there."""
        count = len(next(iter(tensors.values())))
        assert count % ROWS == 0, "rows fill whole pages"
        if all(tensor.device.type == "cpu" for tensor in tensors.values()):
            stored = StoredRows(count, {}, {})
            try:
                for name, tensor in tensors.items():
                    stored.entries[name] = self._write(name, tensor)
                return stored
            except OSError as error:  # what was written so far is freed with `stored`
                if not self._warned:
                    logger.error(_STAYS, temporary_folder(), error.strerror or error)
                self._warned = True
        return StoredRows(count, {}, {name: t.clone() for name, t in tensors.items()})

    def _write(self, name: str, tensor: torch.Tensor) -> tuple[TensorFile, StoredTensor]:
        file = self._files.setdefault(name, TensorFile(alignment=mmap.PAGESIZE))
        return file, file.write([tensor])[0]


def join_rows(parts: Sequence[StoredRows], last: Rows) -> Rows:
    """The rows of all parts, then those of `last`, one tensor for each name of `last`.

    What lies in a file is mapped, so only `last` is copied. The pages go back with the last of the tensors.
    """
    if any(tensor.device.type != "cpu" for tensor in last.values()):
        return {
            name: torch.cat([*(part.tensors[name].to(t.device) for part in parts), t])
            for name, t in last.items()
        }
    parked = sum(part.count for part in parts)
    kinds = [((parked + len(t), *t.shape[1:]), t.dtype) for t in last.values()]
    joined = dict(zip(last, empty_tensors(kinds, mmap.PAGESIZE, parts), strict=True))
    for name, tensor in last.items():
        first = 0
        for part in parts:
            if not part.entries:
                joined[name][first : first + part.count] = part.tensors[name]
            first += part.count
        width = math.prod(tensor.shape[1:]) * tensor.element_size()
        for first, file, offset, size in _runs(parts, name, width):
            _map(joined[name][first:], file, offset, size)
        joined[name][parked:] = tensor
    return joined


def _runs(parts: Sequence[StoredRows], name: str, width: int) -> list[tuple[int, TensorFile, int, int]]:
    """Rows of parts that lie side by side in a file: first row, file, offset and bytes of each run.

    A map of millions has hundreds of parts, and each snapshot asks for ten names of them.

    Args:
        parts: the rows.
        name: of the tensor.
        width: bytes of one of its rows.
    """
    starts: list[tuple[int, TensorFile, int]] = []
    sizes: list[int] = []
    row, end, last = 0, -1, None
    for part in parts if width else ():
        stored = part.entries.get(name)
        if stored is None:
            last = None
        else:
            file, offset, size = stored[0], stored[1].offset, part.count * width
            if file is last and offset == end:
                sizes[-1] += size
            else:
                starts.append((row, file, offset))
                sizes.append(size)
            end, last = offset + size, file
        row += part.count
    return [(*start, size) for start, size in zip(starts, sizes, strict=True)]


def _map(place: torch.Tensor, file: TensorFile, offset: int, size: int) -> None:
    """Replaces the pages from the first element of `place` on by some of a file."""
    call = _LIBRARY.mmap
    call.restype, call.argtypes = (
        ctypes.c_void_p,
        [*[ctypes.c_void_p, ctypes.c_size_t], *[ctypes.c_int] * 3, ctypes.c_long],
    )
    flags = mmap.MAP_PRIVATE | _FIXED | _NO_RESERVE
    protection = mmap.PROT_READ | mmap.PROT_WRITE  # private: what is written does not reach the file
    address = call(place.data_ptr(), size, protection, flags, file.fileno(), offset)
    if address != place.data_ptr():
        number = ctypes.get_errno()
        raise OSError(number, f"parked Gaussians cannot be mapped ({os.strerror(number)})")
