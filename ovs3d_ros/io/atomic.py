"""Writing files that are there whole or not at all; tensors among them, as safetensors."""

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
def replacing(path: Path, suffix: str = ".part") -> Iterator[Path]:
    """A temporary file in the same folder, renamed to `path` after the block, so a crash never leaves half a file.

    A symbolic link stays one: the file it points to is replaced. A new file has the permissions that the umask leaves,
    a replaced one keeps its own.

    Args:
        path: file to write; its folder exists.
        suffix: how the temporary name ends, for writers that go by it.

    Yields:
        The path to write to.

    Raises:
        OSError: the file cannot be written, or is there and no regular file; what was there before stays.
    """
    before = path.stat().st_mode if path.exists() else None
    if before is not None and not stat.S_ISREG(before):
        raise OSError(errno.EINVAL, "it is no regular file")
    target = path.resolve()
    temporary = (
        target.parent / f".{secrets.token_hex(8)}{suffix}"
    )  # short: the name itself may be as long as names get
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    mode = temporary.stat().st_mode if before is None else before
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, stat.S_IMODE(mode))  # safetensors makes the file anew, for its owner alone
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def check_target(path: Path) -> Path:
    """Returns the path, with `~` expanded, if a file can be written there.

    Raises:
        UserError: it is a folder, a device or a pipe, has an impossible name, or its folder is missing or not writable.
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
        raise UserError(f"{path}: is a device or a pipe, which this would replace; give the name of a file")
    folder = path.resolve().parent
    if not folder.is_dir():
        raise UserError(f"{path}: the folder {folder} does not exist; create it first")
    check_writable(folder)
    return path


def check_writable(folder: Path) -> None:
    """Raises UserError unless files can be made in a folder."""
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UserError(f"{folder}: cannot write there ({error.strerror}); choose another folder") from None


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 text file, whole or not at all.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot write this file ({error.strerror})") from None


def write_tensors(path: Path, tensors: dict[str, torch.Tensor], header: str) -> None:
    """Writes tensors to a safetensors file, whole or not at all.

    Args:
        path: file to write; its folder exists.
        tensors: contiguous, on the CPU.
        header: text that goes with them, under `ovs3d` in the file's metadata.

    Raises:
        OSError, SafetensorError: the file cannot be written; what was there before stays.
    """
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={"ovs3d": header})
