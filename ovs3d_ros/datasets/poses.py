"""Poses as files store them: scaled homogeneous matrices and rounded rotations."""

from __future__ import annotations

import numpy as np

from ovs3d_ros.geometry import check_pose

_MAX_ROUNDING = 5e-3  # deviation of R R^T from the identity; three decimals leave up to 2e-3


def read_pose(matrix: np.ndarray, name: str) -> np.ndarray:
    """The rigid motion [4, 4] float64 that a matrix from a file means.

    A homogeneous matrix may have any positive factor. A rotation rounded to three decimals becomes the
    nearest rotation (the orthogonal polar factor, Higham 1986).

    Raises:
        UserError: see `geometry.check_pose`.
    """
    pose = np.array(matrix, dtype=np.float64)
    if pose.shape == (4, 4) and np.isfinite(pose).all() and pose[3, 3] > 0 and not pose[3, :3].any():
        pose = pose / pose[3, 3]
    if pose.shape == (4, 4) and np.isfinite(pose).all():
        deviation = np.abs(pose[:3, :3] @ pose[:3, :3].T - np.eye(3)).max()
        if 1e-6 < deviation < _MAX_ROUNDING:  # float32 leaves less
            left, _, right = np.linalg.svd(pose[:3, :3])
            pose[:3, :3] = left @ right
    return check_pose(pose, name)
