"""Rows of tensors that lie in a temporary file, and tensors that continue them without a copy."""

from __future__ import annotations

import ctypes
import itertools
import logging
import math
import mmap
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from ovs3d_ros.io.tensor_file import StoredTensor, TensorFile, empty_tensors, temporary_folder

logger = logging.getLogger(__name__)

ROWS = mmap.PAGESIZE  # a multiple of this many rows fills whole pages, whatever a row holds
_LIBRARY = ctypes.CDLL(None, use_errno=True)
_MAP = _LIBRARY.mmap
_MAP.restype = ctypes.c_void_p
_MAP.argtypes = [*[ctypes.c_void_p, ctypes.c_size_t], *[ctypes.c_int] * 3, ctypes.c_long]
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

    @cached_property
    def files(self) -> tuple[TensorFile, ...]:
        """Those of the entries."""
        return tuple(file for file, _ in self.entries.values())

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Where the entries lie in their files, bytes."""
        return tuple(entry.offset for _, entry in self.entries.values())

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
    first = 0
    for files, group in itertools.groupby(parts, lambda part: part.files):
        place = _map_parts if files else _copy_parts
        first = place(list(group), first, joined)
    for name, tensor in last.items():
        joined[name][parked:] = tensor
    return joined


def _map_parts(parts: list[StoredRows], first: int, joined: Rows) -> int:
    """Maps parts that lie in the same files into tensors from row `first` on; returns the row after the last.

    A map of millions has hundreds of parts, and each snapshot asks for ten names of them.
    """
    counts = np.array([part.count for part in parts])
    rows = first + counts.cumsum() - counts
    offsets = np.array([part.offsets for part in parts])  # [parts, names]
    for (name, (file, _)), starts in zip(parts[0].entries.items(), offsets.T, strict=True):
        tensor = joined[name]
        if width := math.prod(tensor.shape[1:]) * tensor.element_size():  # bytes of a row
            ends = starts + counts * width
            # Parts that lie side by side are mapped at once.
            heads = np.concatenate([[0], 1 + (starts[1:] != ends[:-1]).nonzero()[0]])
            tails = np.append(heads[1:], len(parts)) - 1
            places = tensor.data_ptr() + rows[heads] * width
            runs = zip(places.tolist(), starts[heads].tolist(), ends[tails].tolist(), strict=True)
            _map_runs(runs, file.fileno())
    return first + int(counts.sum())


def _copy_parts(parts: list[StoredRows], first: int, joined: Rows) -> int:
    """Copies parts in memory into tensors from row `first` on; returns the row after the last."""
    for part in parts:
        for name, tensor in joined.items():
            tensor[first : first + part.count] = part.tensors[name]
        first += part.count
    return first


def _map_runs(runs: Iterable[tuple[int, int, int]], descriptor: int) -> None:
    """Replaces pages of memory by those of a file: address, first and last byte of the file, for each run."""
    flags = mmap.MAP_PRIVATE | _FIXED | _NO_RESERVE
    protection = mmap.PROT_READ | mmap.PROT_WRITE  # private: what is written does not reach the file
    for place, start, end in runs:
        if _MAP(place, end - start, protection, flags, descriptor, start) != place:
            number = ctypes.get_errno()
            raise OSError(number, f"parked Gaussians cannot be mapped ({os.strerror(number)})")
