"""Camera paths stay near the keyframes and look where the keyframes looked."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.box_scene import camera_ring

from ovs3d_ros.commands.camera_paths import keyframe_path, look_at, orbit_path

UP = np.array([0.0, 0.0, 1.0])


def assert_rigid(path: np.ndarray) -> None:
    rotations = path[:, :3, :3]
    np.testing.assert_allclose(
        rotations @ rotations.transpose(0, 2, 1), np.broadcast_to(np.eye(3), rotations.shape), atol=1e-9
    )
    np.testing.assert_allclose(np.linalg.det(rotations), 1.0, atol=1e-9)


def test_cameras_around_a_table_give_a_full_orbit():
    ring = camera_ring(12)
    path = orbit_path(ring, distance=1.5, count=40)
    assert_rigid(path)
    eyes = path[:, :3, 3]
    np.testing.assert_allclose(np.linalg.norm(eyes[:, :2], axis=1), 1.25, atol=0.02)
    np.testing.assert_allclose(eyes[:, 2], 0.95, atol=0.02)
    angles = np.unwrap(np.arctan2(eyes[:, 1], eyes[:, 0]))
    assert abs(angles[-1] - angles[0]) == pytest.approx(2 * np.pi * 39 / 40, abs=0.01), (
        "closed, without a seam"
    )
    assert (path[:, :3, 1] @ UP < -0.5).all(), "image down is world down"
    to_middle = np.array([0, 0, 0.08]) - eyes
    cosine = np.einsum("nk,nk->n", path[:, :3, 2], to_middle) / np.linalg.norm(to_middle, axis=1)
    assert (cosine > 0.999).all()


def test_cameras_on_an_arc_give_a_swing_within_it():
    arc = camera_ring(36)[:9]  # 80 degrees of the circle
    eyes = orbit_path(arc, distance=1.5, count=40)[:, :3, 3]
    nearest = np.linalg.norm(eyes[:, None] - arc[None, :, :3, 3], axis=-1).min(axis=1)
    assert nearest.max() < 0.2
    turned = np.ptp(np.degrees(np.arctan2(eyes[:, 1], eyes[:, 0])))
    assert 50 < turned < 81


def test_turning_camera_keeps_its_place_and_looks_outwards():
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    eyes = np.stack([0.1 * np.cos(angles), 0.1 * np.sin(angles), np.full(24, 1.4)], axis=1)
    spin = np.stack(
        [look_at(eye, eye + [np.cos(a), np.sin(a), -0.2], UP) for eye, a in zip(eyes, angles, strict=True)]
    )
    path = orbit_path(spin, distance=2.0, count=30)
    assert_rigid(path)
    assert np.ptp(path[:, :3, 3], axis=0).max() < 1e-9 and np.linalg.norm(path[0, :3, 3] - [0, 0, 1.4]) < 0.05
    assert np.abs(path[:, :3, 2].mean(axis=0)[:2]).max() < 0.01, "every direction once"


def test_single_keyframe_has_both_paths():
    pose = camera_ring(5)[2:3]
    assert_rigid(orbit_path(pose, 1.5, 8))
    np.testing.assert_allclose(keyframe_path(pose, 3), np.repeat(pose, 3, axis=0), atol=1e-9)


def test_keyframe_path_is_smooth_and_meets_every_keyframe():
    ring = camera_ring(12)
    path = keyframe_path(ring, 111)  # ten poses per stretch
    assert_rigid(path)
    np.testing.assert_allclose(path[::10], ring, atol=1e-9)
    steps = np.linalg.norm(np.diff(path[:, :3, 3], axis=0), axis=1)
    assert steps.max() < 2.0 * np.median(steps)
    np.testing.assert_allclose(np.linalg.norm(path[10:-10, :2, 3], axis=1), 1.25, atol=0.02)
