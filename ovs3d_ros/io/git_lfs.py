"""Recognises pointers of Git LFS, small text files that stand for files that were not downloaded."""

from __future__ import annotations

from pathlib import Path

from ovs3d_ros.types import UserError

_FIRST_LINE = b"version https://git-lfs.github.com/spec/"


def check_no_lfs_pointer(path: Path) -> None:
    """Raises UserError if the file is a pointer of Git LFS; readers call it when they cannot read a file."""
    try:
        with open(path, "rb") as file:
            head = file.read(len(_FIRST_LINE))
    except OSError:
        return
    if head == _FIRST_LINE:
        raise UserError(
            f"{path}: only a Git LFS pointer, not the file itself; download it with `git lfs pull`"
        )
