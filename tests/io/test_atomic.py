"""Files are written atomically, and only regular files are replaced."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np
import pytest
import torch

from ovs3d_ros.commands import common
from ovs3d_ros.io import ply
from ovs3d_ros.io.atomic import atomic_write, check_target, write_tensors, write_text
from ovs3d_ros.mapping.gaussians import PARAMETERS
from ovs3d_ros.types import UserError


def write_splats(path: Path) -> None:
    shapes = dict(zip(PARAMETERS, [(2, 3), (2, 3), (2, 4), (2,), (2, 3), (2, 0, 3)], strict=True))
    ply.write_ply(path, {name: torch.ones(shape) for name, shape in shapes.items()})


def write_points(path: Path) -> None:
    ply.write_cloud(path, np.zeros((2, 3)), np.zeros((2, 3), np.uint8))


WRITERS = {
    "splats": write_splats,
    "points": write_points,
    "text": lambda path: write_text(path, "words"),
    "JSON": lambda path: common.write_json(str(path), [1]),
    "tensors": lambda path: write_tensors(path, {"a": torch.zeros(1)}, "{}"),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_full_disk_leaves_earlier_file_and_no_temporary_file(write, tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_text("earlier")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises((UserError, OSError), match="No space left"):
            write(path)
    assert path.read_text() == "earlier" and list(tmp_path.iterdir()) == [path]
    write(path)
    assert path.read_bytes() != b"earlier" and list(tmp_path.iterdir()) == [path]


def test_pipe_is_refused_and_stays_a_pipe(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(UserError, match="device or a pipe"):
        check_target(pipe)
    with pytest.raises(UserError, match="device or a pipe"):
        check_target(Path("/dev/zero"))
    with pytest.raises(OSError, match="not a regular file"):
        write_tensors(pipe, {"a": torch.zeros(1)}, "{}")
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_link_stays_a_link_and_its_file_is_replaced(tmp_path):
    (tmp_path / "store").mkdir()
    real, link = tmp_path / "store" / "real", tmp_path / "link"
    real.write_text("old")
    link.symlink_to(real)
    write_text(link, "new")
    assert link.is_symlink() and real.read_text() == "new"
    link.unlink()
    link.symlink_to(tmp_path / "no" / "where")
    with pytest.raises(UserError, match="does not exist; create it"):
        check_target(link)


def test_longest_file_name_works_and_a_longer_one_is_refused(tmp_path):
    path = tmp_path / ("n" * 249 + ".ovs3d")
    write_tensors(check_target(path), {"a": torch.zeros(1)}, "{}")
    assert path.is_file()
    with pytest.raises(UserError, match="name too long"):
        check_target(tmp_path / ("n" * 256))


def test_new_file_follows_umask_and_replaced_file_keeps_mode(tmp_path):
    path = tmp_path / "file"
    before = os.umask(0o027)
    try:
        write_tensors(path, {"a": torch.zeros(1)}, "{}")
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        path.chmod(0o600)
        write_text(path, "again")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        os.umask(before)


def test_interruption_leaves_the_earlier_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("earlier")
    with pytest.raises(KeyboardInterrupt), atomic_write(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "earlier" and list(tmp_path.iterdir()) == [path]
