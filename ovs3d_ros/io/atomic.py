"""Atomic file writing: a crash or a full disk leaves the earlier file, never half of the new one.

Other users may be able to write into the folder. So temporary names are unpredictable and opened exclusively,
links are followed once, when the destination is chosen, and the rest happens relative to the opened folder.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import re
import secrets
import stat
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ovs3d_ros.types import UserError

_LEFTOVER = re.compile(r"\.(ovs3d-)?[0-9a-f]{16}\.part")  # without the prefix in earlier versions
_LEFTOVER_AGE = 600.0  # seconds; writers of earlier versions, and those on some network drives, hold no lock
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Destination:
    """A file to write. Its links are already followed; a link that comes later is replaced, not followed.

    Attributes:
        folder: the folder, without links.
        name: name of the file in the folder.
        identity: device and inode number of the folder.
    """

    folder: Path
    name: str
    identity: tuple[int, int]

    @property
    def path(self) -> Path:
        """The path of the file."""
        return self.folder / self.name

    def __str__(self) -> str:
        return str(self.path)


def resolve_destination(path: str | Path | Destination) -> Destination:
    """Follows the links of a path; the file it points to is the one to write.

    Raises:
        OSError: the folder does not exist, the links form a loop, or the path is a link of another user.
    """
    if isinstance(path, Destination):
        return path
    path = Path(path)
    if path.is_symlink() and path.lstat().st_uid not in (os.geteuid(), path.parent.stat().st_uid, 0):
        # As the kernel's protected_symlinks: in a shared folder, others could choose the file to replace.
        raise OSError(errno.EPERM, "it is a link that belongs to another user; remove it")
    try:
        real = path.resolve()
    except RuntimeError:  # of Python up to 3.12
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP)) from None
    status = os.stat(real.parent)
    return Destination(real.parent, real.name, (status.st_dev, status.st_ino))


@contextlib.contextmanager
def atomic_write(path: str | Path | Destination) -> Iterator[BinaryIO]:
    """Opens a temporary file in the folder of `path`; it becomes `path` when the block ends without an error.

    A symbolic link stays a link: the file it points to is replaced. A new file gets its permissions from the
    umask; a replaced file keeps its own.

    Args:
        path: file to write; its folder exists.

    Yields:
        The temporary file, open for writing.

    Raises:
        OSError: the file cannot be written, or `path` is no regular file. The earlier file stays.
    """
    destination = resolve_destination(path)
    with _open_folder(destination) as folder:
        mode, temporary = _earlier_mode(folder, destination.name), _temporary_name()
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(temporary, flags, 0o666, dir_fd=folder)
        try:
            with open(descriptor, "wb") as file:
                _lock(descriptor)
                yield file
                file.flush()
                _finish(descriptor, mode)
                if not os.path.samestat(os.fstat(descriptor), os.lstat(temporary, dir_fd=folder)):
                    raise OSError(errno.ESTALE, "another program replaced the temporary file")
            os.replace(temporary, destination.name, src_dir_fd=folder, dst_dir_fd=folder)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=folder)


@contextlib.contextmanager
def atomic_write_path(path: str | Path | Destination, suffix: str) -> Iterator[Path]:
    """As `atomic_write`, for writers that open a file by its path and choose the format by its suffix.

    Yields:
        A path in a temporary folder that no other user can open.

    Raises:
        OSError: as `atomic_write`.
    """
    destination = resolve_destination(path)
    with _open_folder(destination) as folder:
        mode, temporary, name = _earlier_mode(folder, destination.name), _temporary_name(), f"file{suffix}"
        os.mkdir(temporary, 0o700, dir_fd=folder)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        private = os.open(temporary, flags, dir_fd=folder)
        try:
            _lock(private)
            yield destination.folder / temporary / name
            descriptor = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=private)
            try:
                _finish(descriptor, mode)
            finally:
                os.close(descriptor)
            os.replace(name, destination.name, src_dir_fd=private, dst_dir_fd=folder)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=private)
            os.close(private)
            os.rmdir(temporary, dir_fd=folder)


@contextlib.contextmanager
def _open_folder(destination: Destination) -> Iterator[int]:
    """The descriptor of the destination's folder; refuses another folder that was put in its place."""
    folder = os.open(destination.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        status = os.fstat(folder)
        if (status.st_dev, status.st_ino) != destination.identity:
            raise OSError(errno.ESTALE, "its folder was replaced by another one in the meantime")
        yield folder
    finally:
        os.close(folder)


def _earlier_mode(folder: int, name: str) -> int | None:
    """Permissions of the file to replace; None without one."""
    try:
        mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISLNK(mode):  # it was put there after the destination was resolved
        return None
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is not a regular file")
    return stat.S_IMODE(mode)


def _temporary_name() -> str:
    # It does not contain the name of the destination, which may already have the greatest length allowed.
    return f".ovs3d-{secrets.token_hex(8)}.part"


def _lock(descriptor: int) -> bool:
    """Marks a temporary file or folder as in use until it is closed; False if another process uses it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a drive without locks
        return True
    return True


def remove_leftovers(folder: Path) -> None:
    """Removes temporary files of writers that were killed; the log names their number.

    A file is removed if its name is one of ours, it belongs to this user, it is ten minutes old and no
    writer uses it.

    Args:
        folder: where files will be written; it may be missing.
    """
    removed = 0
    with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, descriptor)
        for name in os.listdir(descriptor):
            if _LEFTOVER.fullmatch(name):
                with contextlib.suppress(OSError):
                    removed += _remove_leftover(descriptor, name)
    if removed:
        _log.info("%s: removed %d temporary files of writers that were killed", folder, removed)


def _remove_leftover(folder: int, name: str) -> bool:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(name, flags, dir_fd=folder)
    try:
        status = os.fstat(descriptor)
        is_ours = status.st_uid == os.geteuid() and time.time() - status.st_mtime > _LEFTOVER_AGE
        if not is_ours or not _lock(descriptor):
            return False
        if stat.S_ISDIR(status.st_mode):
            for child in os.listdir(descriptor):
                os.unlink(child, dir_fd=descriptor)
            os.rmdir(name, dir_fd=folder)
        elif stat.S_ISREG(status.st_mode):
            os.unlink(name, dir_fd=folder)
        else:
            return False
        return True
    finally:
        os.close(descriptor)


def _finish(descriptor: int, mode: int | None) -> None:
    os.fsync(descriptor)
    if mode is not None:
        os.fchmod(descriptor, mode)


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
    """Removes what killed writers left in the folder; raises UserError unless files can be created there."""
    remove_leftovers(folder)
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
        with atomic_write(path) as file:
            file.write(text.encode("utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot write this file ({error.strerror})") from None
