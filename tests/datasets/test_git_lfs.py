"""Pointers of Git LFS are named as such in every file that a dataset may consist of."""

from __future__ import annotations

import pytest
from helpers import datasets_on_disk as disk

from ovs3d_ros.map_file import load_map
from ovs3d_ros.types import UserError

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0123456789abcdef\nsize 123456\n"


@pytest.mark.parametrize(
    "writer, name",
    [
        ("nerfstudio", "images/b.png"),
        ("nerfstudio", "transforms.json"),
        ("nerfstudio", "points.ply"),
        ("nerfstudio", "depth.npy"),
        ("colmap_binary", "sparse/images.bin"),
        ("colmap_text", "sparse/0/cameras.txt"),
        ("llff", "poses_bounds.npy"),
    ],
)
def test_git_lfs_pointers_are_recognised(tmp_path, writer, name):
    root = disk.WRITERS[writer](tmp_path)
    if writer == "nerfstudio":
        document = disk.transforms()
        document["frames"][0]["depth_file_path"] = "depth.npy" if name == "depth.npy" else None
        disk.write_transforms(root, document | ({"ply_file_path": name} if name.endswith("ply") else {}))
    (root / name).write_text(POINTER)
    message = disk.refusal(root)
    assert f"{name}: only a Git LFS pointer" in message and "`git lfs pull`" in message


def test_map_file_as_git_lfs_pointer_is_recognised(tmp_path):
    (tmp_path / "room.ovs3d").write_text(POINTER)
    with pytest.raises(UserError, match=r"room\.ovs3d: only a Git LFS pointer"):
        load_map(tmp_path / "room.ovs3d")
