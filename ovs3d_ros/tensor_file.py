"""Writing tensors to a safetensors file that is there whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file


def write_tensors(path: Path, tensors: dict[str, torch.Tensor], header: str) -> None:
    """Writes to a temporary file in the same folder and renames it, so a crash never leaves half a file.

    Args:
        path: file to write; its folder exists.
        tensors: contiguous, on the CPU.
        header: text that goes with them, under `ovs3d` in the file's metadata.

    Raises:
        OSError, SafetensorError: the file cannot be written; what was there before stays.
    """
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    os.close(handle)
    try:
        save_file(tensors, temporary, metadata={"ovs3d": header})
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
