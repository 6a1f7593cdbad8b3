"""Nearest neighbours of points in space."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy.spatial import cKDTree

_SAMPLE = 256  # points whose distances to their last neighbour give the usual distance
_REACH = 5.0  # usual distances: a point farther than that from the others is a floater
_CHUNK = 100_000  # points queried at a time, to bound the memory of their distances


def nearest_neighbours(points: np.ndarray, count: int) -> np.ndarray:
    """Finds the nearest other points of each point.

    Args:
        points: [N, 3] metres, finite.
        count: number of neighbours of each.

    Returns:
        [N, count] int64 indices, nearest first; -1 where fewer lie within a few times the usual distance.
    """
    from scipy.spatial import cKDTree  # here, because it takes a tenth of a second and queries do without it

    points = np.asarray(points, np.float64)
    neighbours = np.full((len(points), count), -1, np.int64)
    if len(points) < 2:
        return neighbours
    tree = cKDTree(points)
    reach = _REACH * _usual_distance(tree, count)
    for start in range(0, len(points), _CHUNK):
        rows = np.arange(start, min(start + _CHUNK, len(points)))
        found = tree.query(points[rows], count + 1, distance_upper_bound=reach)[1]  # [R, count + 1], N = none
        others = found != rows[:, None]
        others[others.all(axis=1), -1] = False  # a point among many equal ones may not find itself
        found = found[others].reshape(len(rows), count)
        neighbours[rows] = np.where(found == len(points), -1, found)
    return neighbours


def _usual_distance(tree: cKDTree, count: int) -> float:
    """Median distance from a sample of points to their `count`-th neighbours."""
    sample = tree.data[:: max(1, tree.n // _SAMPLE)][:_SAMPLE]
    distances = tree.query(sample, [min(count + 1, tree.n)])[0]
    return max(float(np.median(distances)), 1e-6)
