"""Cubic cells of the world: which one a point lies in, and which ones a camera sees."""

from __future__ import annotations

import math

import numpy as np
import torch

from ovs3d_ros.types import Camera, Keyframe

_BITS = 21  # of each coordinate of a cell's number
_OFFSET = 1 << (_BITS - 1)
_FARTHEST = 8  # cells: a camera sees no farther
_STRIDE = 7  # of pixels
_FAR_QUANTILE, _MARGIN = 0.98, 1.1  # of the depth: beyond are outliers
_HALF_DIAGONAL = math.sqrt(3) / 2


def cell_numbers(points: torch.Tensor, side: float) -> np.ndarray:
    """The number [N] int64 of the cell of each point [N, 3]; cells are cubes of `side` metres."""
    return _number(np.floor(points.cpu().numpy() / np.float32(side)).astype(np.int64))


def seen_cells(camera: Camera, camtoworld: np.ndarray, reach: float, side: float) -> np.ndarray:
    """Numbers [C] of the cells that a camera may see, behind others or not, up to `reach` metres.

    A cell counts as the sphere round it, so none is missed.
    """
    radius, reach = _HALF_DIAGONAL * side, min(reach, _FARTHEST * side)
    eye = camtoworld[:3, 3]
    steps = np.arange(-math.ceil((reach + radius) / side), math.ceil((reach + radius) / side) + 1)
    cells = np.floor(eye / side).astype(np.int64) + np.stack(np.meshgrid(steps, steps, steps), -1).reshape(
        -1, 3
    )
    x, y, z = camtoworld[:3, :3].T @ ((cells + 0.5) * side - eye).T
    inside = (z > -radius) & (z < reach + radius)
    for across, size, focal, centre in (
        (x, camera.width, camera.K[0, 0], camera.K[0, 2]),
        (y, camera.height, camera.K[1, 1], camera.K[1, 2]),
    ):
        for sign, edge in ((1, (size - centre) / focal), (-1, centre / focal)):
            inside &= edge * z - sign * across > -radius * math.hypot(1, edge)
    return _number(cells[inside])


def viewing_reach(keyframe: Keyframe, median_depth: float) -> float:
    """How far a keyframe sees, metres: by its depth, else twice the median depth of the scene."""
    depth = keyframe.depth
    if depth is None or not (depth > 0).any():
        return 2 * median_depth
    return _MARGIN * float(depth[depth > 0][::_STRIDE].quantile(_FAR_QUANTILE))


def _number(cells: np.ndarray) -> np.ndarray:
    x, y, z = (np.clip(cells[..., i] + _OFFSET, 0, 2 * _OFFSET - 1) for i in range(3))
    return (x << 2 * _BITS) | (y << _BITS) | z
