"""Atomic file writing: a crash or a full disk leaves the earlier file, never half of the new one."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file

from ovs3d_ros.types import UserError


@contextlib.contextmanager
def atomic_write(path: Path, suffix: str = ".part") -> Iterator[Path]:
    """Opens a temporary file in the folder of `path`, and renames it to `path` when the block ends without an
    error.

    A symbolic link stays a link: the file it points to is replaced. A new file gets its permissions from the
    umask; a replaced file keeps its own.

    Args:
        path: file to write; its folder exists.
        suffix: ending of the temporary file's name, for writers that choose a format by it.

    Yields:
        The path of the temporary file.

    Raises:
        OSError: the file cannot be written, or `path` exists and is not a regular file. The earlier file
            stays.
    """
    earlier_mode = path.stat().st_mode if path.exists() else None
    if earlier_mode is not None and not stat.S_ISREG(earlier_mode):
        raise OSError(errno.EINVAL, "it is not a regular file")
    target = path.resolve()
    # The temporary name does not contain the name of `path`, which may already have the greatest length
    # allowed.
    temporary = target.parent / f".{secrets.token_hex(8)}{suffix}"
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    mode = temporary.stat().st_mode if earlier_mode is None else earlier_mode
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, stat.S_IMODE(mode))  # safetensors recreates the file, readable by its owner only
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def check_target(path: Path) -> Path:
    """Returns the path with `~` expanded, after checking that a file can be written there.

    Raises:
        UserError: the path is a folder, a device or a pipe, the name is not allowed, or the folder of the
            file is missing or not writable.
    """
    path = path.expanduser()
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        mode = stat.S_IFREG
    except OSError as error:
        raise UserError(f"{path}: cannot write there ({error.strerror}); choose another name") from None
    if stat.S_ISDIR(mode):
        raise UserError(f"{path}: is a folder; give a file name, for example {path / 'out'}")
    if not stat.S_ISREG(mode):
        raise UserError(f"{path}: is a device or a pipe and would be replaced; give the name of a file")
    folder = path.resolve().parent
    if not folder.is_dir():
        raise UserError(f"{path}: the folder {folder} does not exist; create it first")
    check_writable(folder)
    return path


def check_writable(folder: Path) -> None:
    """Raises UserError unless files can be created in the folder."""
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UserError(f"{folder}: cannot write there ({error.strerror}); choose another folder") from None


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 text file atomically.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        with atomic_write(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot write this file ({error.strerror})") from None


def write_tensors(path: Path, tensors: dict[str, torch.Tensor], header: str) -> None:
    """Writes tensors to a safetensors file atomically.

    Args:
        path: file to write; its folder exists.
        tensors: contiguous, on the CPU.
        header: text stored under the key `ovs3d` of the file's metadata.

    Raises:
        OSError, SafetensorError: the file cannot be written. The earlier file stays.
    """
    with atomic_write(path) as temporary:
        save_file(tensors, temporary, metadata={"ovs3d": header})
