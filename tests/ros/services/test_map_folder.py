"""Names from clients never lead out of the map folder."""

from __future__ import annotations

import os

import pytest

from ovs3d_ros.io.atomic import atomic_write
from ovs3d_ros.ros.services.map_folder import MapFolder
from ovs3d_ros.types import UserError


@pytest.fixture
def folder(tmp_path) -> MapFolder:
    return MapFolder(str(tmp_path / "maps"))


def test_plain_names_are_files_in_the_folder(folder):
    assert folder.target("room 1.ovs3d", ".ovs3d", False).path == folder.path / "room 1.ovs3d"
    assert folder.path.is_dir()
    (folder.path / "küche.ovs3d").touch()
    assert folder.source("küche.ovs3d", ".ovs3d").is_file()


@pytest.mark.parametrize(
    "name, problem",
    [
        ("", "ends in .ovs3d"),
        (".ovs3d", "ends in .ovs3d"),
        ("room", "ends in"),
        ("room.ply", "ends in"),
        ("../room.ovs3d", "plain file name"),
        ("a/../../room.ovs3d", "plain"),
        ("/etc/room.ovs3d", "plain"),
        ("a/room.ovs3d", "plain"),
        ("..\\room.ovs3d", "plain"),
        ("a\0.ovs3d", "plain"),
        ("a\n.ovs3d", "plain"),
        (".room.ovs3d", "hidden"),
        ("..ovs3d", "hidden"),
        ("~/room.ovs3d", "plain"),
        ("x" * 300 + ".ovs3d", "longer than"),
    ],
)
def test_other_names_are_refused(folder, name, problem):
    folder.path.mkdir()
    for ask in (lambda: folder.source(name, ".ovs3d"), lambda: folder.target(name, ".ovs3d", True)):
        with pytest.raises(UserError, match=problem):
            ask()


def test_links_out_of_the_folder_are_refused(folder, tmp_path):
    outside = tmp_path / "outside.ovs3d"
    outside.write_text("secret")
    folder.path.mkdir()
    os.symlink(outside, folder.path / "link.ovs3d")
    os.symlink(tmp_path / "nowhere", folder.path / "dangling.ovs3d")
    os.symlink(folder.path / "loop.ovs3d", folder.path / "loop.ovs3d")
    for name in ("link.ovs3d", "dangling.ovs3d", "loop.ovs3d"):
        with pytest.raises(UserError, match="link"):
            folder.source(name, ".ovs3d")
        with pytest.raises(UserError, match="link"):
            folder.target(name, ".ovs3d", True)
    assert outside.read_text() == "secret"


def test_link_that_comes_after_the_check_is_not_followed(folder, tmp_path):
    (tmp_path / "outside").mkdir()
    outside = tmp_path / "outside" / "a.ply"
    outside.write_text("secret")
    target = folder.target("a.ply", ".ply", True)
    os.symlink(outside, folder.path / "a.ply")
    with atomic_write(target) as file:
        file.write(b"cloud")
    assert outside.read_text() == "secret"
    assert (folder.path / "a.ply").read_text() == "cloud" and not (folder.path / "a.ply").is_symlink()
    target = folder.target("a.ply", ".ply", True)
    folder.path.rename(tmp_path / "moved")
    folder.path.symlink_to(tmp_path / "outside")
    with pytest.raises(OSError, match="replaced by another one"), atomic_write(target):
        pass
    assert outside.read_text() == "secret"


def test_existing_files_are_overwritten_only_on_request(folder):
    folder.target("a.ply", ".ply", False).path.write_text("x")
    with pytest.raises(UserError, match=r"exists in .*set overwrite"):
        folder.target("a.ply", ".ply", False)
    assert folder.target("a.ply", ".ply", True).path == folder.path / "a.ply"
    (folder.path / "b.ply").mkdir()
    with pytest.raises(UserError, match="is a folder"):
        folder.target("b.ply", ".ply", True)


def test_missing_file_error_lists_existing_files(folder):
    with pytest.raises(UserError, match=r"a\.ovs3d: no such file in .*existing files: none"):
        folder.source("a.ovs3d", ".ovs3d")
    folder.target("b.ovs3d", ".ovs3d", False).path.touch()
    with pytest.raises(UserError, match=r"existing files: b\.ovs3d"):
        folder.source("a.ovs3d", ".ovs3d")


def test_unwritable_folder_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be created"):
        MapFolder(str(tmp_path / "file" / "maps")).target("a.ply", ".ply", False)
