"""Oriented boxes around groups of points.

The kernels set numbers one by one: assigning a row, or an expression of whole arrays, takes Numba seconds to
compile, mostly for the error message of shapes that do not fit.
"""

from __future__ import annotations

import functools

import numpy as np

from ovs3d_ros.geometry import mean_up, rotation_to_axis
from ovs3d_ros.rasterize.kernel_cache import cached_njit
from ovs3d_ros.rasterize.thread_pool import ThreadPool, shared_pool

_ANGLES = np.radians(np.arange(0, 90, 5))
_ISOTROPY = 0.8  # two principal axes are arbitrary if the ratio of their standard deviations is above this
_TAIL = 0.02  # share of an object's Gaussians that may lie beyond either side of its box
_ANY_PAIR = np.array([(0, 1), (1, 2), (0, 2)])
_HORIZONTAL_PAIR = np.array([(0, 1)])
_SAMPLE = 2000  # Gaussians that measure a box
_ANGLE_SAMPLE = 250  # Gaussians that measure the rectangle at each angle


def oriented_boxes(
    points: np.ndarray, segments: np.ndarray, up: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes along the principal axes of point sets, 2nd to 98th percentile, longest axis first.

    Two principal axes of equal variance, as of a square table, are arbitrary, and a box along them may be 1.4
    times too wide. The box is then rotated about the third axis until it is tightest.

    Args:
        points: [M, 3] metres, set after set.
        segments: [K, 2] where each set starts and stops in `points`.
        up: [3] unit vector. The boxes stand upright: the third axis is `up`, and of the other two the longer
            comes first. None: along the principal axes in space.

    Returns:
        centers [K, 3], axes [K, 3, 3] (columns, a rotation), sizes [K, 3] in metres.
    """
    points = np.ascontiguousarray(points)
    means, covariances = _moments(points, segments)
    steps = sample_steps(segments[:, 1] - segments[:, 0])
    sets = [points[start:stop:step] for (start, stop), step in zip(segments, steps, strict=True)]
    stops = np.cumsum([len(part) for part in sets])
    pieces = np.stack([stops - [len(part) for part in sets], stops], axis=1)
    return fit_boxes(np.concatenate(sets), pieces, means, covariances, up, shared_pool(1))


def sample_steps(sizes: np.ndarray) -> np.ndarray:
    """Of how many points one measures the box round a set, for the sizes [K] of sets."""
    return 1 + sizes // _SAMPLE


def fit_boxes(
    points: np.ndarray,
    segments: np.ndarray,
    means: np.ndarray,
    covariances: np.ndarray,
    up: np.ndarray | None,
    pool: ThreadPool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes of sets whose moments are known, see `oriented_boxes`.

    Args:
        points: [S, 3] metres, points that measure the boxes, set after set.
        segments: [K, 2] where each set starts and stops in `points`.
        means: [K, 3] metres, of the sets.
        covariances: [K, 3, 3] square metres.
        up: see `oriented_boxes`.
        pool: runs it.
    """
    if up is None:
        pairs, axes = _ANY_PAIR, np.linalg.eigh(covariances)[1][:, :, ::-1].transpose(0, 2, 1)  # one per row
    else:
        pairs, axes = _HORIZONTAL_PAIR, _upright_axes(covariances, np.asarray(up, np.float64))
    axes = np.ascontiguousarray(axes)
    axes[np.linalg.det(axes) < 0, 1] *= -1
    centers, sizes = np.empty((2, len(segments), 3))
    pool.run(lambda *part: _fit(part, points, segments, means, axes, pairs, centers, sizes))
    return centers, axes.transpose(0, 2, 1), sizes


def vertical_axis(camtoworlds: np.ndarray, mode: str) -> np.ndarray | None:
    """The axis along which boxes stand upright, see `query.upright`; None: boxes lie along principal axes.

    REP 103 has z point up in a world frame. A map of photographs may have any axes, so "auto" takes z only if
    the cameras agree: their mean up direction is nearer to z than 45 degrees.

    Args:
        camtoworlds: [F, 4, 4] poses of the keyframes.
        mode: "auto", "always" or "never".
    """
    if mode == "never" or (mode == "auto" and not len(camtoworlds)):
        return None
    if mode == "auto":
        up = mean_up(camtoworlds)
        if up[2] <= np.sqrt(0.5) * np.linalg.norm(up):
            return None
    return np.array([0.0, 0.0, 1.0])


def _upright_axes(covariances: np.ndarray, up: np.ndarray) -> np.ndarray:
    """Axes [K, 3, 3] (rows): the horizontal principal axes of covariances [K, 3, 3], then `up`."""
    plane = _level_axes(tuple(up))
    turned = np.linalg.eigh(plane @ covariances @ plane.T)[1][:, :, ::-1].transpose(0, 2, 1)  # [K, 2, 2]
    return np.concatenate([turned @ plane, np.broadcast_to(up, (len(covariances), 1, 3))], axis=1)


@functools.lru_cache(maxsize=4)  # maps mostly have z point up
def _level_axes(up: tuple[float, ...]) -> np.ndarray:
    """Two axes [2, 3] (rows) at right angles to `up` and each other."""
    return rotation_to_axis(np.array(up))[:, :2].T


@cached_njit(nogil=True)
def _moments(points, segments):
    """Means [K, 3] and covariances [K, 3, 3] of the sets."""
    means, covariances = np.empty((len(segments), 3)), np.empty((len(segments), 3, 3))
    for k in range(len(segments)):
        start, stop = segments[k, 0], segments[k, 1]
        x0, y0, z0 = points[start, 0], points[start, 1], points[start, 2]
        sx = sy = sz = xx = xy = xz = yy = yz = zz = 0.0
        for i in range(start, stop):  # relative to a point of the set, so that squares lose no digits
            x, y, z = (
                np.float64(points[i, 0] - x0),
                np.float64(points[i, 1] - y0),
                np.float64(points[i, 2] - z0),
            )
            sx, sy, sz = sx + x, sy + y, sz + z
            xx, xy, xz = xx + x * x, xy + x * y, xz + x * z
            yy, yz, zz = yy + y * y, yz + y * z, zz + z * z
        count = stop - start
        sx, sy, sz = sx / count, sy / count, sz / count
        means[k, 0], means[k, 1], means[k, 2] = sx + x0, sy + y0, sz + z0
        c = covariances[k]
        c[0, 0], c[0, 1], c[0, 2] = xx / count - sx * sx, xy / count - sx * sy, xz / count - sx * sz
        c[1, 0], c[1, 1], c[1, 2] = c[0, 1], yy / count - sy * sy, yz / count - sy * sz
        c[2, 0], c[2, 1], c[2, 2] = c[0, 2], c[1, 2], zz / count - sz * sz
    return means, covariances


@cached_njit(nogil=True)
def _fit(part, points, segments, means, axes, pairs, centers, sizes):
    """Rotates `axes` [K, 3, 3] (rows) where `pairs` of them are arbitrary; measures the boxes along them."""
    for k in range(part[0], len(segments), part[1]):
        start, stop = segments[k, 0], segments[k, 1]
        local = _project_on_axes(points[start:stop], means[k], axes[k])
        for i in range(len(pairs)):
            a, b = pairs[i, 0], pairs[i, 1]
            deviation_a, deviation_b = _deviation(local[a]), _deviation(local[b])
            if min(deviation_a, deviation_b) >= _ISOTROPY * max(deviation_a, deviation_b):
                angle = _tightest_angle(
                    local[a, :: 1 + local.shape[1] // _ANGLE_SAMPLE],
                    local[b, :: 1 + local.shape[1] // _ANGLE_SAMPLE],
                )
                _rotate(local[a], local[b], angle)
                _rotate(axes[k, a], axes[k, b], angle)
        for i in range(3):
            centers[k, i] = means[k, i]
        for a in range(3):
            low, high = _percentile_span(local[a])
            sizes[k, a] = high - low
            for i in range(3):
                centers[k, i] += axes[k, a, i] * ((low + high) / 2)


@cached_njit(nogil=True)
def _deviation(values):
    """Standard deviation of the values."""
    total, squares = 0.0, 0.0
    for value in values:
        total += value
    mean = total / len(values)
    for value in values:
        squares += (value - mean) ** 2
    return np.sqrt(squares / len(values))


@cached_njit(nogil=True)
def _rotate(x, y, angle):
    """Rotates the coordinates x, y [S] of points in place."""
    cosine, sine = np.cos(angle), np.sin(angle)
    for i in range(len(x)):
        x[i], y[i] = x[i] * cosine + y[i] * sine, y[i] * cosine - x[i] * sine


@cached_njit(nogil=True)
def _project_on_axes(points, mean, axes):
    """Coordinates [3, S] of points [S, 3] along `axes` (rows), relative to the mean."""
    local = np.empty((3, len(points)))
    for i in range(len(points)):
        for a in range(3):
            local[a, i] = (
                (points[i, 0] - mean[0]) * axes[a, 0]
                + (points[i, 1] - mean[1]) * axes[a, 1]
                + (points[i, 2] - mean[2]) * axes[a, 2]
            )
    return local


@cached_njit(nogil=True)
def _tightest_angle(x, y):
    """The rotation in radians of both axes that gives the smallest rectangle round points x, y [S]."""
    best, smallest = 0.0, np.inf
    u, v = np.empty(len(x)), np.empty(len(x))
    for angle in _ANGLES:
        for i in range(len(x)):
            u[i], v[i] = x[i], y[i]
        _rotate(u, v, angle)
        low_x, high_x = _percentile_span(u)
        low_y, high_y = _percentile_span(v)
        area = (high_x - low_x) * (high_y - low_y)
        if area < smallest:
            best, smallest = angle, area
    return best


@cached_njit(nogil=True)
def _percentile_span(values):
    """The `_TAIL` and 1 - `_TAIL` quantiles of the values, interpolated linearly."""
    last = len(values) - 1
    below = int(_TAIL * last)
    share, above = _TAIL * last - below, min(below + 1, last)
    # Only the ends need to be sorted.
    lowest, highest = np.full(above + 1, np.inf), np.full(above + 1, -np.inf)
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
