"""Navigation outputs: a goal pose in front of an object, a grid of query scores on the ground; z is up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ovs3d_ros.geometry import quat_to_matrix
from ovs3d_ros.types import SemanticObject

UNKNOWN = -1
_MAX_CELLS = 1_000_000  # cells of a grid; a map with stray Gaussians far away gets larger cells
_EXTENT = (0.2, 99.8)  # percentiles of the map's points between which the grid lies


@dataclass(frozen=True, slots=True)
class Grid:
    """The ground seen from above.

    Attributes:
        origin: [2] x and y of the outer corner of cell (0, 0), metres.
        resolution: side of a cell, metres.
        cells: [rows along y, columns along x] int8: -1 unknown, else 0..100.
    """

    origin: np.ndarray
    resolution: float
    cells: np.ndarray


def goal_pose(item: SemanticObject, camtoworlds: np.ndarray, stand_off: float) -> np.ndarray:
    """A pose on the ground (z = 0) that faces an object from the side where the cameras stood.

    The goal lies towards the nearest keyframe that is at least `stand_off` away, and never beyond it: the
    robot has been there.

    Args:
        item: the object.
        camtoworlds: [K, 4, 4] poses of the keyframes; without any, the goal lies towards the origin.
        stand_off: distance from the object's box, metres.

    Returns:
        Pose [4, 4], x axis towards the object.
    """
    center = item.center[:2]
    eyes = camtoworlds[:, :2, 3] if len(camtoworlds) else np.zeros((1, 2))
    distances = np.linalg.norm(eyes - center, axis=1)
    far = distances >= stand_off
    best = np.where(far, distances, np.inf).argmin() if far.any() else distances.argmax()
    away = (eyes[best] - center) / distances[best] if distances[best] > 1e-6 else np.array([-1.0, 0.0])
    # Half the box's extent in that direction.
    reach = np.abs(quat_to_matrix(item.quat).T @ [*away, 0.0]) @ item.size / 2
    pose = np.eye(4)
    pose[:2, 3] = center + away * min(stand_off + reach, max(distances[best], stand_off))
    pose[:2, :2] = [[-away[0], away[1]], [-away[1], -away[0]]]
    return pose


def query_grid(points: np.ndarray, scores: np.ndarray, resolution: float) -> Grid:
    """The best score in each cell of the ground.

    Args:
        points: [N, 3] metres, of the whole map.
        scores: [N] 0..1; 0 for a point without a label.
        resolution: side of a cell in metres. Cells are larger where the map would need more than a million.

    Returns:
        The grid; without points one unknown cell, because RViz takes a grid without cells for an error.
    """
    if not len(points):
        return Grid(np.zeros(2), resolution, np.full((1, 1), UNKNOWN, np.int8))
    labelled = scores > 0
    low, high = np.percentile(points[:, :2], _EXTENT, axis=0)
    if labelled.any():
        low, high = (
            np.minimum(low, points[labelled, :2].min(0)),
            np.maximum(high, points[labelled, :2].max(0)),
        )
    resolution = max(resolution, float(np.sqrt(np.prod(high - low) / _MAX_CELLS)))
    resolution = max(resolution, float((high - low).max() / _MAX_CELLS))
    inside = ((points[:, :2] >= low) & (points[:, :2] <= high)).all(1)
    low = np.floor(low / resolution) * resolution
    columns, rows = (np.floor((high - low) / resolution).astype(int) + 1).tolist()
    x, y = np.floor((points[inside, :2] - low) / resolution).astype(int).T
    cells = np.full((rows, columns), UNKNOWN, np.int8)
    np.maximum.at(
        cells, (y.clip(0, rows - 1), x.clip(0, columns - 1)), np.round(100 * scores[inside]).astype(np.int8)
    )
    return Grid(low, resolution, cells)
