"""Share of the horizon that a map shows. A thing that is not found may stand where no camera has looked."""

from __future__ import annotations

import numpy as np

from ovs3d_ros.map_frame import poses_to_map
from ovs3d_ros.types import MapSnapshot

_SECTORS = 36  # sectors the horizon is divided into
_MAX_SLOPE = 0.6  # tangent of the largest elevation on the horizon, 31 degrees
_SAMPLE = 50_000  # Gaussians that are examined
_SURFACE_OPACITY = 0.3  # a Gaussian is a surface above this opacity
_MIN_GAUSSIANS = 3  # Gaussians that fill a sector


def horizon_coverage(snapshot: MapSnapshot) -> float:
    """Share of the horizon, 0..1, on which the map shows a surface, seen from the median keyframe position.

    The up direction is the mean over the cameras. A share of 1 does not mean that every corner was seen. Well
    below 1, a thing that was not found may stand where no camera has looked yet.
    """
    poses = poses_to_map(snapshot.camtoworlds, snapshot.frame)
    step = 1 + snapshot.num_gaussians // _SAMPLE
    surface = (snapshot.gaussians["opacities"][::step] > _SURFACE_OPACITY) & (snapshot.weight[::step] > 0)
    if not len(poses) or not bool(surface.any()):
        return 0.0
    frame = _upright(-poses[:, :3, 1].mean(axis=0))
    middle = np.median(poses[:, :3, 3], axis=0)
    points = (snapshot.gaussians["means"][::step][surface].cpu().numpy() - middle) @ frame  # [M, 3], z up
    level = np.abs(points[:, 2]) < _MAX_SLOPE * np.hypot(points[:, 0], points[:, 1])
    angles = np.arctan2(points[level, 1], points[level, 0])
    sectors = np.floor((angles / (2 * np.pi) + 0.5) * _SECTORS).astype(np.int64) % _SECTORS
    return float((np.bincount(sectors, minlength=_SECTORS) >= _MIN_GAUSSIANS).mean())


def _upright(up: np.ndarray) -> np.ndarray:
    """Rotation [3, 3] whose last column points up."""
    up = up / max(float(np.linalg.norm(up)), 1e-9)
    across = np.cross(up, np.eye(3)[np.abs(up).argmin()])
    across /= max(float(np.linalg.norm(across)), 1e-9)
    return np.stack([across, np.cross(up, across), up], axis=1)
