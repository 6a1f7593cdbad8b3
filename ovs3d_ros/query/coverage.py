"""How much of its surroundings a map shows: what is not in the map may be absent, or where no camera has looked."""

from __future__ import annotations

import numpy as np

from ovs3d_ros.types import MapSnapshot

_SECTORS = 36  # of the horizon
_BAND = 0.6  # tangent of the elevation up to which something counts as on the horizon: 31 degrees
_SAMPLE = 50_000  # Gaussians looked at
_SOLID, _ENOUGH = 0.3, 3  # opacity from which a Gaussian is a surface, and how many of them fill a sector


def horizon_coverage(snapshot: MapSnapshot) -> float:
    """Share of the horizon on which the map shows something, seen from the middle of the keyframes: 0..1.

    Up is the mean of the cameras' own. 1 does not mean that every corner was seen, but well below 1 something asked for
    may just as well stand where no camera has looked yet.
    """
    poses = snapshot.camtoworlds
    step = 1 + snapshot.num_gaussians // _SAMPLE
    solid = (snapshot.gaussians["opacities"][::step] > _SOLID) & (snapshot.weight[::step] > 0)
    if not len(poses) or not bool(solid.any()):
        return 0.0
    frame = _upright(-poses[:, :3, 1].mean(axis=0))
    middle = np.median(poses[:, :3, 3], axis=0)
    points = (snapshot.gaussians["means"][::step][solid].cpu().numpy() - middle) @ frame  # [M, 3], z up
    level = np.abs(points[:, 2]) < _BAND * np.hypot(points[:, 0], points[:, 1])
    angles = np.arctan2(points[level, 1], points[level, 0])
    sectors = np.floor((angles / (2 * np.pi) + 0.5) * _SECTORS).astype(np.int64) % _SECTORS
    return float((np.bincount(sectors, minlength=_SECTORS) >= _ENOUGH).mean())


def _upright(up: np.ndarray) -> np.ndarray:
    """Rotation [3, 3] whose last column points up."""
    up = up / max(float(np.linalg.norm(up)), 1e-9)
    across = np.cross(up, np.eye(3)[np.abs(up).argmin()])
    across /= max(float(np.linalg.norm(across)), 1e-9)
    return np.stack([across, np.cross(up, across), up], axis=1)
