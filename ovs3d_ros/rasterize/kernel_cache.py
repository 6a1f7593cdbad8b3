"""Keeps compiled Numba kernels on disk: in a folder that can be written, and only while their sources stay.

Numba compares a compiled kernel with its own file alone, although the kernel contains helpers and constants
of other files. Here the name of the folder holds a hash of all files with kernels and helpers. After a change
in one of them the kernels are compiled into a new folder.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import llvmlite
import numba
from numba.core.caching import FunctionCache

_PACKAGE = Path(__file__).resolve().parents[1]
_WITH_KERNELS = "mapping", "query", "rasterize", "semantics"  # folders
_PREFIX = "kernels-"
_KEPT_FOLDERS = 8  # of different sources and versions; the least recently used ones are removed

logger = logging.getLogger(__name__)


def cached_njit(**options: Any) -> Callable[[Callable], Callable]:
    """`numba.njit` that keeps the compiled kernel on disk.

    It compiles without keeping anything if no folder can be written.

    Args:
        options: those of `numba.njit` except `cache`.
    """

    def decorate(function: Callable) -> Callable:
        kernel, folder = numba.njit(**options)(function), cache_folder()
        if folder is not None:
            earlier = numba.config.CACHE_DIR
            numba.config.CACHE_DIR = str(folder)  # FunctionCache reads it here, and never again
            try:
                kernel._cache = _FailsafeCache(function)
            finally:
                numba.config.CACHE_DIR = earlier
        return kernel

    return decorate


class _FailsafeCache(FunctionCache):
    """A cache whose faults cost only time: a full disk, or files that a power cut left empty."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception as error:  # pickle raises anything for bytes that it did not write
            _warn_unreadable(self.cache_path, str(error))
            with contextlib.suppress(OSError):
                self.flush()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except OSError as error:
            _warn(f"{self.cache_path}: {error.strerror}")
            self.disable()


@functools.cache
def _warn_unreadable(folder: str, reason: str) -> None:
    logger.warning("%s: cannot read the compiled kernels (%s); compiling them again", folder, reason)


@functools.cache
def _warn(reason: str) -> None:
    logger.warning(
        "compiled kernels cannot be kept (%s), so every start compiles them for half a minute; set "
        "NUMBA_CACHE_DIR to a folder with space that this user can write",
        reason,
    )


@functools.cache
def cache_folder() -> Path | None:
    """The folder of all compiled kernels of this process; None if no folder can be written."""
    tried = []
    for root in _roots():
        folder = root / f"{_PREFIX}{_key()}"
        try:
            if not folder.is_dir():
                folder.mkdir(parents=True)
                _remove_old(root)
            tempfile.TemporaryFile(dir=folder).close()
            os.utime(folder)
            return folder
        except OSError as error:
            tried.append(f"{root}: {error.strerror}")
    _warn("; ".join(tried))
    return None


def _roots() -> Iterator[Path]:
    """Folders that may hold compiled kernels, the preferred ones first."""
    if numba.config.CACHE_DIR:
        yield Path(numba.config.CACHE_DIR)
    yield _PACKAGE / "__pycache__"
    home = os.environ.get("HOME", "")
    if cache_home := os.environ.get("XDG_CACHE_HOME") or (home and f"{home}/.cache"):
        yield Path(cache_home) / _PACKAGE.name
    with contextlib.suppress(OSError):
        yield _private_folder(Path(tempfile.gettempdir()) / f"{_PACKAGE.name}-{os.geteuid()}")


def _private_folder(path: Path) -> Path:
    """Creates a folder beside those of other users, whose files would run as code of this user.

    Raises:
        OSError: it cannot be created, or another user may write to it.
    """
    path.mkdir(mode=0o700, exist_ok=True)
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise PermissionError(f"{path} belongs to another user")
    return path


def _key() -> str:
    """A hash of the sources of all kernels and of the versions that compile them."""
    digest = hashlib.sha256(
        f"{sys.implementation.cache_tag} {numba.__version__} {llvmlite.__version__}".encode()
    )
    for path in kernel_sources():
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def kernel_sources(package: Path = _PACKAGE) -> list[Path]:
    """The files with kernels, and with the functions and constants that kernels contain."""
    files = sorted(path for folder in _WITH_KERNELS for path in (package / folder).glob("*.py"))
    return [path for path in files if any(word in path.read_bytes() for word in (b"njit", b"from numba"))]


def _remove_old(root: Path) -> None:
    """Removes the folders of the sources that were used least recently."""
    folders = [path for path in root.glob(f"{_PREFIX}*") if path.is_dir() and not path.is_symlink()]
    folders.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for folder in folders[_KEPT_FOLDERS:]:
        shutil.rmtree(folder, ignore_errors=True)
