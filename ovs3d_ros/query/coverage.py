"""Share of the horizon that a map shows. A thing that is not found may stand where no camera has looked."""

from __future__ import annotations

import numpy as np

from ovs3d_ros.geometry import mean_up, rotation_to_axis
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
    up = mean_up(poses) if len(poses) else np.zeros(3)
    if not up.any() or not bool(surface.any()):
        return 0.0
    frame = rotation_to_axis(up)
    middle = np.median(poses[:, :3, 3], axis=0)
    points = (snapshot.gaussians["means"][::step][surface].cpu().numpy() - middle) @ frame  # [M, 3], z up
    level = np.abs(points[:, 2]) < _MAX_SLOPE * np.hypot(points[:, 0], points[:, 1])
    angles = np.arctan2(points[level, 1], points[level, 0])
    sectors = np.floor((angles / (2 * np.pi) + 0.5) * _SECTORS).astype(np.int64) % _SECTORS
    return float((np.bincount(sectors, minlength=_SECTORS) >= _MIN_GAUSSIANS).mean())
