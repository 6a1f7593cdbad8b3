"""Poses that other programs scaled or rounded are read as the motions they mean."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import datasets_on_disk as disk

from ovs3d_ros.datasets import open_dataset
from ovs3d_ros.datasets.poses import read_pose
from ovs3d_ros.types import UserError


def turned() -> np.ndarray:
    """A pose whose rotation has no round entries."""
    pose = np.eye(4)
    pose[:3, :3] = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    pose[:3, :3] *= np.sign(np.linalg.det(pose[:3, :3]))
    pose[:3, 3] = 1.0, 2.0, 3.0
    return pose


@pytest.mark.parametrize("factor", [0.0011842, 7.0])
def test_factor_of_a_homogeneous_matrix_is_undone(tmp_path, factor):
    np.testing.assert_allclose(read_pose(turned() * factor, "x"), turned(), atol=1e-12)
    root, document = disk.write_nerfstudio(tmp_path), disk.transforms()
    for frame in document["frames"]:
        frame["transform_matrix"] = (np.array(frame["transform_matrix"]) * factor).tolist()
    disk.write_transforms(root, document)
    np.testing.assert_allclose(open_dataset(root).camtoworlds, disk.CAMTOWORLDS, atol=1e-12)


def test_rounded_rotation_becomes_the_nearest_rotation():
    pose = read_pose(turned().round(3), "x")
    np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-12)
    assert np.abs(pose - turned()).max() < 1e-3


def test_exact_poses_are_not_touched():
    assert (read_pose(turned(), "x") == turned()).all()
    single = turned().astype(np.float32)
    assert (read_pose(single, "x") == single).all()


@pytest.mark.parametrize("change", [(0, 0, 1.1), (3, 3, -1.0), (3, 3, 0.0), (3, 0, 0.5), (0, 0, np.nan)])
def test_other_matrices_are_refused(change):
    pose = turned()
    pose[change[0], change[1]] = change[2]
    with pytest.raises(UserError, match=r"^x: "):
        read_pose(pose, "x")


def test_rounded_rotations_of_colmap_and_llff_are_read(tmp_path):
    root = disk.write_colmap_text(tmp_path / "colmap")
    path = root / "sparse" / "0" / "images.txt"
    path.write_text("1 0.501 0.501 -0.501 0.501 2 3 -1 7 a.png\n\n2 1 0 0 0 0 0 0 7 b.png\n\n")
    np.testing.assert_allclose(open_dataset(root).camtoworlds, disk.CAMTOWORLDS, atol=1e-9)
    root = disk.write_llff(tmp_path / "llff")
    table = np.load(root / "poses_bounds.npy")
    columns = [0, 1, 2, 5, 6, 7, 10, 11, 12]
    table[:, columns] *= 1.001
    np.save(root / "poses_bounds.npy", table)
    np.testing.assert_allclose(open_dataset(root).camtoworlds, disk.CAMTOWORLDS, atol=1e-9)
