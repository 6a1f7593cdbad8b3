"""Rigid motions and the pinhole camera.

Conventions of the whole package:
- camera axes: OpenCV, x right, y down, z forward; world in metres, any orientation;
- `camtoworld` [4, 4] float64 takes camera points to the world; `viewmat` is its inverse;
- `K` [3, 3] in pixels; pixel centres lie at +0.5, so pixel (0, 0) covers [0, 1) x [0, 1);
- quaternions are wxyz (xyzw exists only in `sensors/messages.py` and `ros/conversions.py`);
- images RGB uint8 [H, W, 3]; depth float32 z in metres, 0 = none.
"""

from __future__ import annotations

import numpy as np

from ovs3d_ros.types import Camera, Frame, UserError

OPENGL_TO_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])
# Maps are float32: coordinates beyond this leave no digits for a scene, and products of them leave its range.
MAX_COORDINATE = 1e9  # metres from the origin
SH_C0 = 0.28209479177387814  # spherical harmonic Y_00, so that colour = 0.5 + SH_C0 * dc
MAX_IMAGE_SIDE = 2**16  # pixels
MAX_STAMP = 2.0**31  # seconds: ROS messages count them in 32 bits


def invert_rigid(transform: np.ndarray) -> np.ndarray:
    """Inverse of a rigid transform [4, 4], exact up to rounding (no general matrix inverse)."""
    rotation, translation = transform[:3, :3], transform[:3, 3]
    inverse = np.eye(4)
    inverse[:3, :3] = rotation.T
    inverse[:3, 3] = -rotation.T @ translation
    return inverse


def mean_up(camtoworlds: np.ndarray) -> np.ndarray:
    """The mean of the up directions of cameras [F, 4, 4]: [3], shorter than 1 where they differ; F > 0."""
    return -np.asarray(camtoworlds, np.float64)[:, :3, 1].mean(axis=0)  # y of a camera points down


def rotation_to_axis(axis: np.ndarray) -> np.ndarray:
    """A rotation [3, 3] whose last column is `axis` [3], of any length but 0; the other two are arbitrary."""
    axis = axis / np.linalg.norm(axis)
    across = np.cross(axis, np.eye(3)[np.abs(axis).argmin()])
    across /= np.linalg.norm(across)
    return np.stack([across, np.cross(axis, across), axis], axis=1)


def quat_to_matrix(quat: np.ndarray) -> np.ndarray:
    """Rotation matrix [3, 3] of a quaternion wxyz [4] of any non-zero length.

    Raises:
        UserError: the quaternion is zero or not finite.
    """
    quat = np.asarray(quat, dtype=np.float64)
    norm = np.linalg.norm(quat)
    if not np.isfinite(norm) or norm < 1e-9:
        raise UserError(f"quaternion {quat.tolist()} is not a rotation; check the pose source")
    return unit_quats_to_matrices(quat / norm)


def unit_quats_to_matrices(quats: np.ndarray) -> np.ndarray:
    """Rotation matrices [..., 3, 3] of unit quaternions wxyz [..., 4]."""
    w, x, y, z = np.moveaxis(quats, -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def matrix_to_quat(rotation: np.ndarray) -> np.ndarray:
    """Unit quaternions wxyz [..., 4], w >= 0, of rotation matrices [..., 3, 3] (Shepperd's method)."""
    m = np.moveaxis(np.asarray(rotation, dtype=np.float64), (-2, -1), (0, 1))  # [3, 3, ...]
    x, y, z = m[0, 0], m[1, 1], m[2, 2]
    wx, wy, wz = m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]
    xy, xz, yz = m[1, 0] + m[0, 1], m[0, 2] + m[2, 0], m[2, 1] + m[1, 2]
    # 4 q q^T, shape [4, 4, ...].
    rows = np.array(
        [
            [1 + x + y + z, wx, wy, wz],
            [wx, 1 + x - y - z, xy, xz],
            [wy, xy, 1 - x + y - z, yz],
            [wz, xz, yz, 1 - x - y + z],
        ]
    )
    pivot = np.argmax(np.einsum("ii...->i...", rows), axis=0)  # of the largest of w^2, x^2, y^2, z^2
    quat = np.moveaxis(np.take_along_axis(rows, pivot[None, None], axis=0)[0], 0, -1)
    return quat * np.where(quat[..., :1] < 0, -1, 1) / np.linalg.norm(quat, axis=-1, keepdims=True)


def slerp(a: np.ndarray, b: np.ndarray, fraction: float) -> np.ndarray:
    """The quaternion [4] that lies at `fraction` (0..1) of the shorter arc from unit quaternion `a` to `b`.

    Source: Shoemake, "Animating rotation with quaternion curves", SIGGRAPH 1985.
    """
    # For one pose, SciPy's Slerp and Rotation take 3 to 5 times as long (benchmarks/libraries.py): odometry
    # comes at 200 Hz, one pose at a time.
    cosine = float(a @ b)
    if cosine < 0:
        b, cosine = -b, -cosine
    angle = np.arccos(min(cosine, 1.0))
    if angle < 1e-6:  # sin(angle) loses its digits; the chord is exact enough
        return (1 - fraction) * a + fraction * b
    return (np.sin((1 - fraction) * angle) * a + np.sin(fraction * angle) * b) / np.sin(angle)


def check_pose(camtoworld: np.ndarray, name: str) -> np.ndarray:
    """Returns the pose as float64 [4, 4] if it is a finite rigid motion.

    Raises:
        UserError: a wrong shape, non-finite entries, or a rotation block that is off by more than 1e-3.
    """
    pose = np.asarray(camtoworld, dtype=np.float64)
    if pose.shape != (4, 4):
        raise UserError(f"{name}: pose has shape {pose.shape}, expected 4 x 4")
    if not np.isfinite(pose).all():
        raise UserError(f"{name}: pose has NaN or infinite entries; drop this frame or fix the pose source")
    check_coordinates(pose[:3, 3], name)
    rotation = pose[:3, :3]
    if np.abs(rotation @ rotation.T - np.eye(3)).max() > 1e-3 or np.linalg.det(rotation) < 0:
        raise UserError(
            f"{name}: the upper left 3 x 3 block of the pose is not a rotation (scaled or mirrored?)"
        )
    if np.abs(pose[3] - [0, 0, 0, 1]).max() > 1e-6:
        raise UserError(f"{name}: the last row of the pose is {pose[3].tolist()}, expected 0 0 0 1")
    return pose


def check_coordinates(points: np.ndarray, name: str) -> np.ndarray:
    """Returns points [..., 3] in metres as float64 if a map can hold them.

    Raises:
        UserError: a coordinate is NaN, infinite or beyond `MAX_COORDINATE`.
    """
    points = np.asarray(points, dtype=np.float64)
    if not np.isfinite(points).all():
        raise UserError(f"{name}: has points that are not finite; remove them")
    farthest = np.abs(points).max(initial=0.0)
    if farthest > MAX_COORDINATE:
        raise UserError(
            f"{name}: lies {farthest:g} m from the origin, farther than {MAX_COORDINATE:g} m; check its "
            "source and the unit, which is metres"
        )
    return points


def check_stamp(stamp: float, name: str) -> float:
    """Returns a stamp in seconds if ROS messages can hold it.

    Raises:
        UserError: it is NaN, infinite or beyond `MAX_STAMP`.
    """
    if not abs(stamp) < MAX_STAMP:  # NaN too
        raise UserError(f"{name}: the stamp {stamp:g} s is no time; give seconds, below {MAX_STAMP:g}")
    return stamp


def check_camera(camera: Camera, name: str) -> Camera:
    """Returns the camera if its intrinsics are plausible.

    Raises:
        UserError: the image is empty, entries are not finite, the focal length is not positive or
            implausible, or the principal point lies far outside the image.
    """
    K, width, height = camera.K, camera.width, camera.height
    if K.shape != (3, 3) or not (np.abs(K) <= np.finfo(np.float32).max).all():
        raise UserError(f"{name}: intrinsics must be a finite 3 x 3 matrix, got {K.tolist()}")
    if width < 1 or height < 1:
        raise UserError(f"{name}: image size {width}x{height} is empty")
    side = max(width, height)
    if side > MAX_IMAGE_SIDE:
        raise UserError(f"{name}: image size {width}x{height} is absurd; at most {MAX_IMAGE_SIDE} px a side")
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    if not (0.05 * side < fx < 100 * side and 0.05 * side < fy < 100 * side):
        raise UserError(f"{name}: focal length ({fx:g}, {fy:g}) px is absurd for a {width}x{height} image")
    if not (-width < cx < 2 * width and -height < cy < 2 * height):
        raise UserError(
            f"{name}: principal point ({cx:g}, {cy:g}) lies far outside the {width}x{height} image"
        )
    return camera


def check_frame(frame: Frame) -> None:
    """Raises UserError unless image, intrinsics, pose, depth and mask of a frame can be used."""
    name = frame.name or f"frame at {frame.stamp:.3f} s"
    check_stamp(frame.stamp, name)
    check_pose(frame.camtoworld, name)
    check_camera(frame.camera, name)
    if frame.image.dtype != np.uint8 or frame.image.ndim != 3 or frame.image.shape[2] != 3:
        raise UserError(
            f"{name}: image is {frame.image.dtype} {frame.image.shape}, expected uint8 [H, W, 3] RGB"
        )
    size = (frame.camera.height, frame.camera.width)
    if frame.image.shape[:2] != size:
        raise UserError(
            f"{name}: image is {frame.image.shape[1]}x{frame.image.shape[0]} but its intrinsics are for "
            f"{size[1]}x{size[0]}: publish the camera_info that belongs to this image size"
        )
    if frame.depth is not None:
        if frame.depth.shape != size or frame.depth.dtype != np.float32:
            raise UserError(
                f"{name}: depth is {frame.depth.dtype} {frame.depth.shape}, expected float32 {size} in metres"
            )
        if not np.isfinite(frame.depth).all() or (frame.depth < 0).any():
            raise UserError(f"{name}: depth has NaN, infinite or negative values; mark missing depth as 0")
    if frame.mask is not None and (frame.mask.shape != size or frame.mask.dtype != np.bool_):
        raise UserError(f"{name}: mask is {frame.mask.dtype} {frame.mask.shape}, expected bool {size}")


def project(points: np.ndarray, camera: Camera, camtoworld: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Projects world points [P, 3]; returns pixels [P, 2] and depths z [P] in metres.

    Pixels of points at z <= 0 are meaningless: mask them by depth.
    """
    viewmat = invert_rigid(camtoworld)
    local = points @ viewmat[:3, :3].T + viewmat[:3, 3]
    z = local[:, 2]
    safe = np.where(np.abs(z) < 1e-9, 1e-9, z)
    K = camera.K
    pixels = np.stack(
        [K[0, 0] * local[:, 0] / safe + K[0, 2], K[1, 1] * local[:, 1] / safe + K[1, 2]], axis=1
    )
    return pixels, z


def unproject(depth: np.ndarray, camera: Camera) -> np.ndarray:
    """Camera-frame points [H, W, 3] in metres of a z-depth image [H, W] (0 stays at the origin)."""
    height, width = depth.shape
    K = camera.K
    x = (np.arange(width) + 0.5 - K[0, 2]) / K[0, 0]
    y = (np.arange(height) + 0.5 - K[1, 2]) / K[1, 1]
    return np.stack([x[None, :] * depth, y[:, None] * depth, depth], axis=-1)


def transform_points(points: np.ndarray, transform: np.ndarray) -> np.ndarray:
    """Applies a rigid transform [4, 4] to points [..., 3]."""
    return points @ transform[:3, :3].T + transform[:3, 3]


def box_corners(center: np.ndarray, size: np.ndarray, quat: np.ndarray) -> np.ndarray:
    """The corners [8, 3] of a box; bits 2, 1, 0 of a corner's index say on which side of x, y, z it lies.

    Args:
        center: [3].
        size: [3] lengths of the edges along the box's own axes.
        quat: [4] wxyz, from the box's axes to the frame of `center`.
    """
    sides = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
    return center + (sides * size) @ quat_to_matrix(quat).T


def rotation_angle(a: np.ndarray, b: np.ndarray) -> float:
    """Angle in radians between two rotation matrices [3, 3]."""
    cosine = (np.trace(a.T @ b) - 1) / 2
    return float(np.arccos(np.clip(cosine, -1.0, 1.0)))
