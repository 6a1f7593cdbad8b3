"""Files are written atomically, and only regular files are replaced."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

import ovs3d_ros
from ovs3d_ros.commands import common
from ovs3d_ros.io import ply
from ovs3d_ros.io.atomic import atomic_write, atomic_write_path, check_target, remove_leftovers, write_text
from ovs3d_ros.io.pictures import save_picture
from ovs3d_ros.io.tensors import read_tensors, write_tensors
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
    "picture": lambda path: save_picture(path, Image.new("RGB", (4, 3))),
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
    with pytest.raises(KeyboardInterrupt), atomic_write(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert path.read_text() == "earlier" and list(tmp_path.iterdir()) == [path]


def test_temporary_file_replaced_by_a_link_is_not_written_through(tmp_path):
    victim, path = tmp_path / "victim", tmp_path / "file"
    victim.write_text("precious")
    for writer in (atomic_write(path), atomic_write_path(path, ".mp4")):
        with pytest.raises(OSError), writer as handle:
            (temporary,) = (entry for entry in tmp_path.iterdir() if entry.name.endswith(".part"))
            if isinstance(handle, Path):
                assert stat.S_IMODE(temporary.stat().st_mode) == 0o700  # nobody else puts a link into it
                handle.symlink_to(victim)
            else:
                temporary.unlink()
                temporary.symlink_to(victim)
                handle.write(b"attack")
                handle.flush()
        assert victim.read_text() == "precious" and list(tmp_path.iterdir()) == [victim]


def test_writers_by_path_keep_the_mode_and_leave_nothing(tmp_path):
    path = tmp_path / "file.mp4"
    path.write_text("old")
    path.chmod(0o640)
    with atomic_write_path(path, ".mp4") as temporary:
        assert temporary.suffix == ".mp4"
        temporary.write_text("new")
    assert path.read_text() == "new" and stat.S_IMODE(path.stat().st_mode) == 0o640
    with pytest.raises(FileNotFoundError), atomic_write_path(path, ".mp4"):
        pass  # the writer wrote nothing
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_tensor_files_are_those_of_safetensors(tmp_path):
    tensors = {
        "half": torch.randn(3, 5).half(),
        "double": torch.randn(2, dtype=torch.float64),
        "single": torch.randn(4, 1),
        "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(7),
        "short": torch.tensor([-1, 2], dtype=torch.int16),
    }
    write_tensors(tmp_path / "a", tensors, '{"ä": 1}')
    save_file(tensors, tmp_path / "b", metadata={"ovs3d": '{"ä": 1}'})
    for path in (tmp_path / "a", tmp_path / "b"):
        with safe_open(path, framework="pt") as file:
            assert file.metadata() == {"ovs3d": '{"ä": 1}'} and set(file.keys()) == set(tensors)
        read, text = read_tensors(path)
        assert text == '{"ä": 1}' and all(torch.equal(read[name], tensors[name]) for name in tensors)
        assert all(read[name].dtype == tensors[name].dtype for name in tensors)


KILLED_WRITER = """
import os, sys
from pathlib import Path
from ovs3d_ros.io.atomic import atomic_write, atomic_write_path
path = Path(sys.argv[1])
with atomic_write(path) if sys.argv[2] == "file" else atomic_write_path(path, ".mp4") as handle:
    handle.write_text("half") if isinstance(handle, Path) else handle.write(b"half")
    print("writing", flush=True)
    sys.stdin.readline()
"""


@pytest.mark.parametrize("kind", ["file", "path"])
def test_what_a_killed_writer_leaves_is_removed_at_the_next_start(kind, tmp_path):
    command = [sys.executable, "-c", KILLED_WRITER, str(tmp_path / "room.ovs3d"), kind]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout.readline() == b"writing\n"
        (leftover,) = tmp_path.iterdir()
        os.utime(leftover, (0, 0))
        check_target(tmp_path / "other")
        assert leftover.exists(), "the file of a living writer was removed"
        writer.kill()
    check_target(tmp_path / "other")
    assert list(tmp_path.iterdir()) == []


def test_only_old_files_of_ours_are_removed(tmp_path):
    old = [tmp_path / name for name in (f".ovs3d-{'0a' * 8}.part", f".{'0a' * 8}.part")]
    kept = [
        tmp_path / name
        for name in ("a.part", ".a.part", ".ovs3d-0a.part", f"x.{'0a' * 8}.part", ".tmp0a1b2c")
    ]
    young = tmp_path / f".{'1b' * 8}.part"
    for path in (*old, *kept, young):
        path.touch()
        os.utime(path, None if path == young else (0, 0))
    link = tmp_path / f".{'2c' * 8}.part"
    link.symlink_to(kept[0])
    remove_leftovers(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([*kept, young, link])
    remove_leftovers(tmp_path / "missing")


def test_package_writes_through_the_atomic_writers():
    direct = re.compile(
        r"\.write_text\(|\.write_bytes\(|\bnp\.save\([a-z_]+ /|fromarray\(.*\.save\(|save_file\(|imwrite\("
    )
    found = [
        f"{path.name}: {line.strip()}"
        for path in sorted(Path(ovs3d_ros.__file__).parent.rglob("*.py"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if direct.search(line)
    ]
    # --json of the player may name a pipe or /dev/stdout.
    assert [line for line in found if not line.startswith("play.py: options.json")] == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a link away")
def test_link_of_another_user_is_not_followed(tmp_path):
    victim, link = tmp_path / "victim", tmp_path / "room.ovs3d"
    victim.write_text("precious")
    link.symlink_to(victim)
    os.lchown(link, 12345, 12345)
    with pytest.raises(UserError, match="a link that belongs to another user"):
        write_text(link, "map")
    assert victim.read_text() == "precious" and sorted(tmp_path.iterdir()) == [link, victim]
    os.chown(tmp_path, 12345, 12345)  # the owner of the folder may place links in it
    write_text(link, "map")
    assert victim.read_text() == "map"
