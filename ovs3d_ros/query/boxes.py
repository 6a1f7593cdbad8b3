"""Oriented boxes around groups of points."""

from __future__ import annotations

import numpy as np
from numba import njit

_TURNS = np.radians(np.arange(0, 90, 5))
_ALIKE = 0.8  # ratio of standard deviations above which two principal axes may be anyone's
_OUTSIDE = 0.02  # share of a thing's Gaussians that may lie beyond either side of its box
_SAMPLE, _TURN_SAMPLE = (
    2000,
    250,
)  # Gaussians a box is measured on, and those its turn about an axis is tried on


def oriented_boxes(points: np.ndarray, segments: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes along the principal axes of point sets, between their 2nd and 98th percentiles, longest axis first.

    Where two principal axes spread alike, as on a square table, they are arbitrary, and a box along them may be 1.4 times
    too wide: there it is turned to the tightest.

    Args:
        points: [M, 3] metres, set after set.
        segments: [K, 2] where each set starts and stops in `points`.

    Returns:
        centers [K, 3], axes [K, 3, 3] (columns, a rotation), sizes [K, 3] in metres.
    """
    points = np.ascontiguousarray(points)
    means, covariances = _moments(points, segments)
    axes = np.ascontiguousarray(np.linalg.eigh(covariances)[1][:, :, ::-1].transpose(0, 2, 1))  # one per row
    axes[np.linalg.det(axes) < 0, 2] *= -1
    centers, sizes = np.empty((2, len(segments), 3))
    _fit(points, segments, means, axes, centers, sizes)
    return centers, axes.transpose(0, 2, 1), sizes


@njit(cache=True, nogil=True)
def _moments(points, segments):
    """Means [K, 3] and covariances [K, 3, 3] of the sets."""
    means, covariances = np.zeros((len(segments), 3)), np.zeros((len(segments), 3, 3))
    for k in range(len(segments)):
        start, stop = segments[k]
        for i in range(start, stop):
            means[k] += points[i]
        means[k] /= stop - start
        for i in range(start, stop):
            for a in range(3):
                for b in range(3):
                    covariances[k, a, b] += (points[i, a] - means[k, a]) * (points[i, b] - means[k, b])
        covariances[k] /= stop - start
    return means, covariances


@njit(cache=True, nogil=True)
def _fit(points, segments, means, axes, centers, sizes):
    """Turns `axes` [K, 3, 3] (rows) where they are arbitrary, and measures the boxes along them."""
    for k in range(len(segments)):
        start, stop = segments[k]
        local = _along_axes(points[start : stop : 1 + (stop - start) // _SAMPLE], means[k], axes[k])
        for a, b in ((0, 1), (1, 2), (0, 2)):
            spread_a, spread_b = local[a].std(), local[b].std()
            if min(spread_a, spread_b) >= _ALIKE * max(spread_a, spread_b):
                angle = _tightest(
                    local[a, :: 1 + local.shape[1] // _TURN_SAMPLE],
                    local[b, :: 1 + local.shape[1] // _TURN_SAMPLE],
                )
                for rows in (local, axes[k]):
                    turned = rows[a] * np.cos(angle) + rows[b] * np.sin(angle)
                    rows[b] = rows[b] * np.cos(angle) - rows[a] * np.sin(angle)
                    rows[a] = turned
        centers[k] = means[k]
        for a in range(3):
            low, high = _span(local[a])
            sizes[k, a] = high - low
            centers[k] += axes[k, a] * ((low + high) / 2)


@njit(cache=True, nogil=True)
def _along_axes(points, mean, axes):
    """Coordinates [3, S] of points [S, 3] along `axes` (rows), from the mean."""
    local = np.empty((3, len(points)))
    for i in range(len(points)):
        for a in range(3):
            local[a, i] = (
                (points[i, 0] - mean[0]) * axes[a, 0]
                + (points[i, 1] - mean[1]) * axes[a, 1]
                + (points[i, 2] - mean[2]) * axes[a, 2]
            )
    return local


@njit(cache=True, nogil=True)
def _tightest(x, y):
    """The turn of both axes that makes the smallest rectangle round the points x, y [S]."""
    best, smallest = 0.0, np.inf
    for angle in _TURNS:
        low_x, high_x = _span(x * np.cos(angle) + y * np.sin(angle))
        low_y, high_y = _span(y * np.cos(angle) - x * np.sin(angle))
        area = (high_x - low_x) * (high_y - low_y)
        if area < smallest:
            best, smallest = angle, area
    return best


@njit(cache=True, nogil=True)
def _span(values):
    """The percentiles between which all but `_OUTSIDE` lie on either side, interpolated linearly."""
    last = len(values) - 1
    below = int(_OUTSIDE * last)
    share, above = _OUTSIDE * last - below, min(below + 1, last)
    lowest, highest = (
        np.full(above + 1, np.inf),
        np.full(above + 1, -np.inf),
    )  # only the ends need to be in order
    for value in values:
        if value < lowest[above]:
            place = above
            while place > 0 and lowest[place - 1] > value:
                lowest[place] = lowest[place - 1]
                place -= 1
            lowest[place] = value
        if value > highest[above]:
            place = above
            while place > 0 and highest[place - 1] < value:
                highest[place] = highest[place - 1]
                place -= 1
            highest[place] = value
    return (
        lowest[below] * (1 - share) + lowest[above] * share,
        highest[below] * (1 - share) + highest[above] * share,
    )
