"""Nearest neighbours of points in space, found through the cells of a grid.

The result is exact, except that a point far from all others has fewer neighbours, or none.
"""

from __future__ import annotations

import numpy as np
from numba import njit

_SAMPLE = 256  # points whose neighbour distances determine the cell size
_RINGS = 4  # rings of cells searched around a point; more distant points count as floaters
_BITS = 20  # per axis of a cell number; three of them make a key


def nearest_neighbours(points: np.ndarray, count: int) -> np.ndarray:
    """The nearest other points of each point.

    Args:
        points: [N, 3] metres, finite.
        count: number of neighbours, at most 64.

    Returns:
        [N, count] int64 indices, nearest first; -1 where fewer points lie within about four typical distances.
    """
    points = np.ascontiguousarray(points, np.float32)
    result = np.full((len(points), count), -1, np.int64)
    if len(points) > 1:
        size = _typical_distance(points, count)
        # Cells count from the median: one distant stray must not push all other points into the last cell.
        center, half = np.median(points, axis=0), 1 << _BITS - 1
        cells = np.floor((points - center) / size).clip(2 - half, half - 3).astype(np.int64) + half
        keys = (cells[:, 0] << 2 * _BITS) + (cells[:, 1] << _BITS) + cells[:, 2]
        order = np.argsort(keys, kind="stable")
        occupied, starts = np.unique(keys[order], return_index=True)
        _search(points, cells, order, occupied, np.append(starts, len(points)), np.float32(size), result)
    return result


def _typical_distance(points: np.ndarray, count: int) -> float:
    """Median distance to the `count`-th neighbour of a sample of points."""
    sample = points[:: max(1, len(points) // _SAMPLE)][:_SAMPLE].astype(np.float64)
    kth = min(count, len(points) - 1)
    distances = [np.partition(np.square(points - point).sum(1), kth)[kth] for point in sample]
    return max(float(np.sqrt(np.median(distances))), 1e-6)


@njit(cache=True, nogil=True)
def _search(points, cells, order, occupied, starts, size, result):
    """Fills `result` ring by ring, until no nearer point can lie in the next ring."""
    count = result.shape[1]
    distances = np.empty(count, np.float32)
    for i in range(len(points)):
        found = 0
        for ring in range(_RINGS + 1):
            if found == count and distances[count - 1] <= ((ring - 1) * size) ** 2:
                break
            for x in range(-ring, ring + 1):
                for y in range(-ring, ring + 1):
                    edge = abs(x) == ring or abs(y) == ring
                    for z in range(-ring, ring + 1, 1 if edge or ring == 0 else 2 * ring):
                        key = (
                            ((cells[i, 0] + x) << 2 * _BITS) + ((cells[i, 1] + y) << _BITS) + cells[i, 2] + z
                        )
                        row = np.searchsorted(occupied, key)
                        if row == len(occupied) or occupied[row] != key:
                            continue
                        for position in range(starts[row], starts[row + 1]):
                            j = order[position]
                            if j != i:
                                distance = (
                                    (points[i, 0] - points[j, 0]) ** 2
                                    + (points[i, 1] - points[j, 1]) ** 2
                                    + (points[i, 2] - points[j, 2]) ** 2
                                )
                                found = _insert(distance, j, found, distances, result[i])


@njit(cache=True, nogil=True)
def _insert(distance, j, found, distances, row):
    """Inserts point j into the sorted row if it is near enough; returns the new number of entries."""
    if found == len(row) and distance >= distances[found - 1]:
        return found
    place = min(found, len(row) - 1)
    while place > 0 and distances[place - 1] > distance:
        distances[place], row[place] = distances[place - 1], row[place - 1]
        place -= 1
    distances[place], row[place] = distance, j
    return min(found + 1, len(row))
