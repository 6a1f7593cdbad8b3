"""Rigid motions, the pinhole camera, and the checks of poses, cameras and frames."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from helpers import synthetic

from ovs3d_ros.geometry import (
    OPENGL_TO_OPENCV,
    check_camera,
    check_coordinates,
    check_frame,
    check_pose,
    invert_rigid,
    matrix_to_quat,
    project,
    quat_to_matrix,
    rotation_angle,
    transform_points,
    unproject,
)
from ovs3d_ros.types import Camera, UserError


def rotation_about(axis, angle: float) -> np.ndarray:
    """Rodrigues' formula."""
    x, y, z = np.asarray(axis) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def random_rotations(count: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rotation_about(rng.normal(size=3), rng.uniform(0, np.pi)) for _ in range(count)]


HALF_TURNS = [rotation_about(axis, np.pi) for axis in ([1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 2, 3])]


def test_quaternions_match_matrices_in_every_branch() -> None:
    for rotation in [np.eye(3), *HALF_TURNS, *random_rotations(50)]:
        quat = matrix_to_quat(rotation)
        assert np.linalg.norm(quat) == pytest.approx(1) and quat[0] >= 0
        np.testing.assert_allclose(quat_to_matrix(quat), rotation, atol=1e-12)
        np.testing.assert_allclose(quat_to_matrix(-3.7 * quat), rotation, atol=1e-12)


def test_batched_quaternions_match_single_ones() -> None:
    rotations = np.array([np.eye(3), *HALF_TURNS, *random_rotations(6)]).reshape(3, 4, 3, 3)
    quats = matrix_to_quat(rotations)
    assert quats.shape == (3, 4, 4)
    for row in np.ndindex(3, 4):
        np.testing.assert_allclose(quats[row], matrix_to_quat(rotations[row]), atol=1e-12)


def test_quaternion_order_is_wxyz() -> None:
    quarter_about_z = [np.cos(np.pi / 4), 0, 0, np.sin(np.pi / 4)]
    np.testing.assert_allclose(quat_to_matrix(quarter_about_z) @ [1, 0, 0], [0, 1, 0], atol=1e-12)


@pytest.mark.parametrize("quat", [[0, 0, 0, 0], [np.nan, 0, 0, 1], [np.inf, 0, 0, 1]])
def test_quaternion_refuses_zero_and_nan(quat) -> None:
    with pytest.raises(UserError, match="pose source"):
        quat_to_matrix(np.array(quat))


def test_inverse_and_angle_of_rigid_transforms() -> None:
    for rotation in random_rotations(10):
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = rotation, [5.0, -3.0, 1e3]
        np.testing.assert_allclose(invert_rigid(pose) @ pose, np.eye(4), atol=1e-9)
    for angle in (0.0, 0.3, np.pi / 2, 3.1):
        turned = random_rotations(1)[0] @ rotation_about([1, 2, 3], angle)
        assert rotation_angle(random_rotations(1)[0], turned) == pytest.approx(angle, abs=1e-7)


def test_camera_axes_are_opencv() -> None:
    camera = synthetic.make_camera()
    pose = synthetic.look_at([0, 0, 0], [0, 5, 0])  # forward is the world's y, up its z
    pixels, z = project(np.array([[0.0, 2, 0], [0.5, 2, 0], [0, 2, 0.5]]), camera, pose)
    np.testing.assert_allclose(z, 2.0)
    np.testing.assert_allclose(pixels[0], camera.K[:2, 2])
    assert pixels[1, 0] > pixels[0, 0] and pixels[1, 1] == pytest.approx(pixels[0, 1])  # right is +u
    assert pixels[2, 1] < pixels[0, 1]  # up is -v
    np.testing.assert_allclose(OPENGL_TO_OPENCV @ [0, 1, -1, 1], [0, -1, 1, 1])


def test_unprojected_depth_lies_on_the_surface() -> None:
    camera, pose = synthetic.make_camera(), synthetic.orbit(3)[0]
    _, depth, labels = synthetic.ray_cast(camera, pose)
    world = transform_points(unproject(depth, camera), pose)
    for box in (synthetic.RED, synthetic.GREEN, synthetic.BLUE):
        local = (world[labels == box.label] - box.center) @ box.rotation
        outside = np.abs(np.abs(local) - np.array(box.size) / 2).min(-1)
        assert len(local) > 20 and outside.max() < 1e-5  # metres from the nearest face


def test_project_inverts_unproject_at_pixel_centres() -> None:
    camera, pose = synthetic.make_camera(9, 7), synthetic.orbit(3)[2]
    depth = np.random.default_rng(0).uniform(0.5, 4, (7, 9))
    pixels, z = project(transform_points(unproject(depth, camera), pose).reshape(-1, 3), camera, pose)
    u, v = np.meshgrid(np.arange(9) + 0.5, np.arange(7) + 0.5)
    np.testing.assert_allclose(pixels, np.stack([u.ravel(), v.ravel()], 1), atol=1e-9)
    np.testing.assert_allclose(z, depth.ravel(), atol=1e-9)


def test_scaled_camera_sees_the_same_fraction_of_the_image() -> None:
    camera, pose = synthetic.make_camera(64, 48), synthetic.orbit(3)[1]
    points = np.random.default_rng(0).uniform(-0.5, 0.5, (20, 3))
    full, _ = project(points, camera, pose)
    half, _ = project(points, camera.scaled(32, 24), pose)
    np.testing.assert_allclose(half, full / 2, atol=1e-9)
    assert camera.fitted(0) is camera and camera.fitted(100) is camera
    fitted = camera.fitted(16)
    assert (fitted.width, fitted.height) == (16, 12)


def translated(distance: float) -> np.ndarray:
    pose = np.eye(4)
    pose[1, 3] = -distance
    return pose


def broken_poses():
    scaled, mirrored, skewed, nan, row = (synthetic.orbit(3)[1].copy() for _ in range(5))
    scaled[:3, :3] *= 1.1
    mirrored[:3, 0] *= -1
    skewed[:3, 0] += 0.1 * skewed[:3, 1]
    nan[0, 3] = np.nan
    row[3] = [0, 0, 0.1, 1]
    return [
        (scaled, "rotation"),
        (mirrored, "rotation"),
        (skewed, "rotation"),
        (nan, "NaN"),
        (row, "last row"),
        (np.eye(3), "shape"),
        (translated(np.float32(3e38)), "1e\\+09 m"),
        (translated(1e39), "check its source and the unit"),
        (np.zeros((4, 4)), "rotation"),
    ]


@pytest.mark.parametrize("pose, word", broken_poses())
def test_check_pose_refuses_non_rigid_poses(pose, word: str) -> None:
    with pytest.raises(UserError, match=word) as caught:
        check_pose(pose, "frame 7")
    assert "frame 7" in str(caught.value)


def test_check_pose_accepts_float32_precision() -> None:
    pose = synthetic.orbit(3)[0]
    np.testing.assert_allclose(check_pose(pose.astype(np.float32), "x"), pose, atol=1e-6)


def broken_cameras():
    good = synthetic.make_camera()

    def changed(row: int, column: int, value: float) -> Camera:
        K = good.K.copy()
        K[row, column] = value
        return Camera(K, good.width, good.height)

    return [
        (changed(0, 0, np.nan), "finite"),
        (changed(0, 0, 0.0), "focal"),
        (changed(1, 1, -60.0), "focal"),
        (changed(0, 0, 1e6), "focal"),
        (changed(0, 2, 5000.0), "principal"),
        (changed(0, 1, 1e39), "finite"),
        (Camera(good.K, 0, 48), "empty"),
        (Camera(good.K * [[1e6], [1e6], [1]], 64_000_000, 48_000_000), "at most 65536 px"),
        (Camera(np.eye(4), 64, 48), "3 x 3"),
    ]


@pytest.mark.parametrize("camera, word", broken_cameras())
def test_check_camera_refuses_implausible_intrinsics(camera: Camera, word: str) -> None:
    with pytest.raises(UserError, match=word):
        check_camera(camera, "frame 7")


@pytest.mark.parametrize("stamp", [np.nan, np.inf, 2.0**31, -1e39])
def test_stamps_that_no_message_holds_are_refused(stamp: float) -> None:
    frame = dataclasses.replace(synthetic.make_frames(1)[0], stamp=stamp)
    with pytest.raises(UserError, match="is no time; give seconds"):
        check_frame(frame)


def test_points_that_no_map_holds_are_refused() -> None:
    assert check_coordinates(np.full((2, 3), 6e6, np.float32), "room.ply").dtype == np.float64  # UTM
    assert check_coordinates(np.zeros((0, 3)), "room.ply").shape == (0, 3)
    with pytest.raises(UserError, match=r"room\.ply: lies 1e\+39 m from the origin"):
        check_coordinates(np.array([[0, 1, 2], [0, 1e39, 0]]), "room.ply")
