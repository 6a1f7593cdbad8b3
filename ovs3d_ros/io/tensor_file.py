"""A temporary file that takes tensors out of memory and gives them back as they were."""

from __future__ import annotations

import contextlib
import ctypes
import math
import mmap
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

import numpy as np
import torch

_LARGE_FILES = "/var/tmp"  # on a disk by convention; /tmp is often in memory
_TRIM_EVERY = 16 << 20  # bytes written
_LIBRARY = ctypes.CDLL(None)
_PUNCH_HOLE = 0x03  # with FALLOC_FL_KEEP_SIZE
_ALIGNMENT = 64  # bytes, as torch has it
_SMALL_FILES = "/tmp"


class _Memory(mmap.mmap):
    """Memory of tensors, see `empty_tensors`."""

    owners: tuple = ()


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where a tensor lies in the file, and what it is."""

    offset: int
    shape: tuple[int, ...]
    dtype: torch.dtype


def temporary_folder() -> str:
    """The folder of large temporary files: `TMPDIR` if it is set, else one on a disk."""
    return os.environ.get("TMPDIR") or (_LARGE_FILES if os.access(_LARGE_FILES, os.W_OK) else _SMALL_FILES)


class TensorFile:
    """Tensors in a file without a name, which the system removes with the process, also after a crash.

    What is written is never changed, so any thread may read it while another one writes.

    Args:
        alignment: bytes; tensors begin at multiples of it.

    Attributes:
        size: bytes that were written.
        freed: bytes of them that were freed again.
    """

    def __init__(self, alignment: int = 1) -> None:
        self._alignment = alignment
        self.size = self.freed = self._trimmed = 0
        self._file: IO[bytes] | None = None  # opened by the first write

    def write(self, tensors: Sequence[torch.Tensor]) -> list[StoredTensor]:
        """Adds tensors of any device.

        Raises:
            OSError: the file cannot be opened, or the disk is full. What was written before stays.
        """
        if self._file is None:
            # Its descriptor closes with the last reference to it.
            self._file = tempfile.TemporaryFile(dir=temporary_folder(), buffering=0)  # noqa: SIM115
        entries, end = [], self.size
        for tensor in tensors:
            content = tensor.detach().cpu().contiguous().numpy().reshape(-1).view(np.uint8).data
            end += -end % self._alignment
            entries.append(StoredTensor(end, tuple(tensor.shape), tensor.dtype))
            while len(content):
                written = os.pwrite(self._file.fileno(), content, end)
                content, end = content[written:], end + written
        self.size = end
        if end - self._trimmed >= _TRIM_EVERY:
            self._trimmed = end
            give_memory_back()
        return entries

    def fileno(self) -> int:
        """The descriptor of the file, which has been written to."""
        assert self._file is not None, "nothing was written"
        return self._file.fileno()

    def free(self, entry: StoredTensor) -> None:
        """Gives the place of a tensor back to the disk; it must not be read any more."""
        size = math.prod(entry.shape) * entry.dtype.itemsize
        self.freed += size
        if self._file is not None and not self._file.closed:  # the collector may have closed it
            _punch(self._file.fileno(), entry.offset, size)

    def read(self, entries: Sequence[StoredTensor]) -> list[torch.Tensor]:
        """Tensors of `write`, on the CPU, in memory of their own, see `empty_tensors`.

        Raises:
            OSError: the disk fails.
        """
        assert self._file is not None, "nothing was written"
        tensors = empty_tensors([(entry.shape, entry.dtype) for entry in entries])
        for entry, tensor in zip(entries, tensors, strict=True):
            content, start = memoryview(tensor.numpy().reshape(-1).view(np.uint8)), entry.offset
            while len(content):
                count = os.preadv(self._file.fileno(), [content], start)
                if not count:
                    raise OSError("a temporary file lost its end")
                content, start = content[count:], start + count
        return tensors


def _punch(descriptor: int, start: int, size: int) -> None:
    """Gives a part of a file back to the disk, where the system can do that."""
    with contextlib.suppress(OSError, AttributeError):
        call = _LIBRARY.fallocate
        call.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]
        call(descriptor, _PUNCH_HOLE, start, size)


def give_memory_back() -> None:
    """Gives free memory of the process back to the system.

    The C library keeps it: of large arrays that come and go among small ones it uses few places twice, so
    each keyframe would leave a hole of its size.
    """
    with contextlib.suppress(OSError, AttributeError):  # only the GNU library has it
        _LIBRARY.malloc_trim(0)


def empty_tensors(
    kinds: Sequence[tuple[tuple[int, ...], torch.dtype]], alignment: int = _ALIGNMENT, owners: Sequence = ()
) -> list[torch.Tensor]:
    """Tensors of zeros, of shapes and types, whose memory goes back to the system with the last of them.

    Args:
        kinds: shape and type of each.
        alignment: bytes; tensors begin at multiples of it.
        owners: live at least as long as the memory.
    """
    starts, end = [], 0
    for shape, dtype in kinds:
        starts.append(end)
        size = math.prod(shape) * dtype.itemsize
        end += -(-size // alignment) * alignment
    memory = _Memory(-1, max(end, 1), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.owners = tuple(owners)
    return [
        torch.frombuffer(memory, dtype=dtype, count=math.prod(shape), offset=start).view(shape)
        if math.prod(shape)
        else torch.empty(shape, dtype=dtype)
        for (shape, dtype), start in zip(kinds, starts, strict=True)
    ]
