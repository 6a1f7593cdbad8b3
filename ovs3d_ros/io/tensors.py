"""Tensor files in the safetensors format, with one text under the key `ovs3d` of the metadata."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load

from ovs3d_ros.io.arrays import PREFIX_BYTES, open_regular
from ovs3d_ros.io.atomic import Destination, atomic_write

_TYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.uint8: "U8",
    torch.int8: "I8",
}


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], str | None]:
    """Reads a safetensors file into memory of this process; it never unpickles.

    `safetensors.safe_open` maps the file into memory instead: its tensors change with the file, and the
    process dies (SIGBUS) when another one truncates it.

    Returns:
        The tensors by name, and the text under the key `ovs3d` of the metadata, None without one.

    Raises:
        OSError: the file cannot be read, is not a regular file, or changed while it was read.
        ValueError: it is not a safetensors file, or it is truncated or damaged.
    """
    content = _read_bytes(path)
    try:
        tensors = load(content)
        header = json.loads(content[PREFIX_BYTES : PREFIX_BYTES + int.from_bytes(content[:8], "little")])
    except (SafetensorError, KeyError, AssertionError, RecursionError) as error:
        raise ValueError(" ".join(str(error).split())) from None
    return tensors, header.get("__metadata__", {}).get("ovs3d")


def _read_bytes(path: Path) -> bytes:
    with open_regular(path) as file:
        before = os.fstat(file.fileno())
        content = file.read(before.st_size)
        after = os.fstat(file.fileno())
    if (len(content), before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise OSError("another program changed the file while it was read; read it again")
    return content


def write_tensors(path: str | Path | Destination, tensors: dict[str, torch.Tensor], header: str) -> None:
    """Writes tensors to a safetensors file atomically.

    `safetensors.torch.save_file` opens a path, which another user may have replaced by a link.

    Args:
        path: file to write; its folder exists.
        tensors: contiguous, on the CPU, of the types of `_TYPES`.
        header: text stored under the key `ovs3d` of the file's metadata.

    Raises:
        OSError: the file cannot be written. The earlier file stays.
    """
    # Wide types first, as safetensors does it: each tensor then starts at a multiple of its item size.
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))
    entries, end = {"__metadata__": {"ovs3d": header}}, 0
    for name, tensor in ordered:
        begin, end = end, end + tensor.numel() * tensor.element_size()
        entries[name] = dict(dtype=_TYPES[tensor.dtype], shape=list(tensor.shape), data_offsets=[begin, end])
    text = json.dumps(entries).encode("utf-8")
    text += b" " * (-len(text) % PREFIX_BYTES)
    with atomic_write(path) as file:
        file.write(len(text).to_bytes(PREFIX_BYTES, "little") + text)
        for _, tensor in ordered:
            file.write(tensor.numpy().reshape(-1).view("u1").data)
