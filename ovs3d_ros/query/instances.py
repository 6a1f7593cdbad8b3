"""From labelled Gaussians to things: clusters of one label, each with an oriented box."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numba import njit

from ovs3d_ros.config import QueryConfig
from ovs3d_ros.geometry import matrix_to_quat
from ovs3d_ros.types import SemanticObject

_TURNS = np.radians(np.arange(0, 90, 5))
_ALIKE = 0.8  # ratio of standard deviations above which two principal axes may be anyone's
_OUTSIDE = 0.02  # share of a thing's Gaussians that may lie beyond either side of its box
_SAMPLE, _TURN_SAMPLE = 2000, 250  # Gaussians a box is measured on, and those its turn about an axis is tried on
_BITS = 20  # of a voxel number along an axis
_NEAR = np.array([sum(1 << voxel for voxel in range(8)
                      if all(step // 3**a % 3 - 1 in (0, 2 * (voxel >> a & 1) - 1) for a in range(3))) for step in range(27)])
"""Voxels (a bit each) of a block of 2 x 2 x 2 that touch the neighbouring block at step (x, y, z) - 1 = digits of base 3."""


@dataclass(frozen=True, slots=True)
class _Clusters:
    """The instances of one prompt, best first.

    Attributes:
        rows: [M] Gaussians that carry its label.
        number: [M] instance of each, counted from 1; 0 = of none.
        scores: [K] mean relevancy.
        sizes: [K] Gaussians.
        views: [K] most keyframes that saw any of them.
        centers: [K, 3] metres.
        axes: [K, 3, 3] of the boxes, see `oriented_boxes`.
        extents: [K, 3] metres.
    """

    rows: np.ndarray
    number: np.ndarray
    scores: np.ndarray
    sizes: np.ndarray
    views: np.ndarray
    centers: np.ndarray
    axes: np.ndarray
    extents: np.ndarray


def find_objects(means: np.ndarray, labels: np.ndarray, scores: np.ndarray, views: np.ndarray, prompts: list[str],
                 config: QueryConfig, max_instances: int) -> tuple[list[SemanticObject], np.ndarray]:
    """Groups labelled Gaussians into instances with oriented boxes: by prompt, best first.

    Prompts are worked on side by side, on as many threads as torch has.

    Args:
        means: [N, 3] metres.
        labels: [N] 0 = none, else 1 + prompt index.
        scores: [N, P] relevancy.
        views: [N] keyframes that saw each Gaussian.
        prompts: the P prompts.
        config: gap and smallest size of an instance.
        max_instances: per prompt, 0 = all.

    Returns:
        The objects and the instance number [N] of each Gaussian (0 = none).
    """
    counts = np.bincount(labels, minlength=len(prompts) + 1)[1:]

    def clusters_of(p: int) -> _Clusters:
        rows = np.flatnonzero(labels == p + 1)
        return _clusters(rows, means[rows], scores[rows, p], views[rows], config, max_instances)

    largest_first = [int(p) for p in np.argsort(-counts, kind="stable") if counts[p]]
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        clusters = dict(zip(largest_first, pool.map(clusters_of, largest_first)))
    objects, instances = [], np.zeros(len(labels), np.int64)
    for p, found in sorted(clusters.items()):
        instances[found.rows] = np.where(found.number > 0, found.number + len(objects), 0)
        quats = matrix_to_quat(found.axes)
        for k in range(len(found.sizes)):
            objects.append(SemanticObject(
                prompt=prompts[p], label=p + 1, instance=len(objects) + 1, score=float(found.scores[k]),
                center=found.centers[k], quat=quats[k], size=found.extents[k],
                num_gaussians=int(found.sizes[k]), views=int(found.views[k])))
    return objects, instances


def _clusters(rows: np.ndarray, points: np.ndarray, scores: np.ndarray, views: np.ndarray, config: QueryConfig,
              limit: int) -> _Clusters:
    """Instances among Gaussians `rows` [M] of one label, at `points` [M, 3]; at most `limit`, 0 = all."""
    component, count = connected_components(points, config.instance_gap)
    order, starts = _grouped(component, count)
    sizes = np.diff(starts)
    totals = np.add.reduceat(scores[order], starts[:-1], dtype=float)
    seen = np.maximum.reduceat(views[order], starts[:-1])
    ranked = np.argsort(-totals / np.sqrt(sizes), kind="stable")
    chosen = ranked[sizes[ranked] >= config.min_instance][:limit or None]
    centers, axes, extents = oriented_boxes(points[order], np.stack([starts[:-1], starts[1:]], 1)[chosen])
    number = np.zeros(count, np.int64)
    number[chosen] = np.arange(1, len(chosen) + 1)
    return _Clusters(rows, number[component], totals[chosen] / sizes[chosen], sizes[chosen], seen[chosen], centers, axes,
                     extents)


def connected_components(points: np.ndarray, gap: float) -> tuple[np.ndarray, int]:
    """Joins points whose voxels of side `gap` touch, corners included.

    Args:
        points: [M, 3] metres.
        gap: metres; voxels are made larger where the points spread over more than a million of them along an axis.

    Returns:
        Component number [M], counted from 0, and how many there are.
    """
    if not len(points):
        return np.zeros(0, np.int64), 0
    return _joined(np.ascontiguousarray(points), float(gap))


@njit(cache=True, nogil=True)
def _joined(points, gap):
    """Components of voxels that touch: union-find over blocks of 2 x 2 x 2 of them, which all touch each other."""
    block_of, keys, filled, table, bits = _blocks(points, gap)
    parent = np.arange(len(keys))
    for block in range(len(keys)):
        for step in range(14, 27):  # the half of the neighbours that come later; the others find this one
            if filled[block] & _NEAR[step]:
                offset = (((step // 9 - 1) << 2 * _BITS) + ((step // 3 % 3 - 1) << _BITS) + step % 3 - 1)
                other = table[_slot(table, keys, keys[block] + offset, bits)]
                if other >= 0 and filled[other] & _NEAR[26 - step]:
                    a, b = _root(parent, block), _root(parent, other)
                    parent[max(a, b)] = min(a, b)
    number, components = np.empty(len(keys), np.int64), 0
    for block in range(len(keys)):  # a root comes before its followers
        root = _root(parent, block)
        if root == block:
            number[block], components = components, components + 1
        else:
            number[block] = number[root]
    return number[block_of], components


@njit(cache=True, nogil=True)
def _blocks(points, gap):
    """The block of each point, keys of the blocks, a bit for each filled voxel in them, and a hash table of 2^bits slots
    to blocks."""
    count, low, high = len(points), np.full(3, np.inf), np.full(3, -np.inf)
    for i in range(count):
        for a in range(3):
            low[a], high[a] = min(low[a], points[i, a]), max(high[a], points[i, a])
    # On the grid of the origin, so that a cluster does not fall apart because another one appeared elsewhere.
    side = max(gap, np.max(high - low) * 4 / (1 << _BITS))
    first = np.floor(low / side) - 2
    bits, blocks, last, block = 10, 0, -1, -1
    keys, filled, block_of = np.empty(count, np.int64), np.zeros(count, np.uint8), np.empty(count, np.int64)
    table = np.full(1 << bits, -1, np.int32)
    for i in range(count):
        key, bit = 0, 0
        for a in range(3):
            voxel = int(np.floor(points[i, a] / side) - first[a])
            key, bit = (key << _BITS) + (voxel >> 1), 2 * bit + (voxel & 1)
        if key != last:  # points lie about as they were seen
            last, slot = key, _slot(table, keys, key, bits)
            block = table[slot]
            if block < 0:
                block = blocks
                table[slot], keys[block] = block, key
                blocks += 1
                if 2 * blocks > len(table):
                    bits += 2
                    table = _table(keys, blocks, bits)
        block_of[i] = block
        filled[block] |= 1 << bit
    return block_of, keys[:blocks], filled, table, bits


@njit(cache=True, nogil=True)
def _table(keys, blocks, bits):
    """A hash table of 2^bits slots that holds the first `blocks` keys."""
    table = np.full(1 << bits, -1, np.int32)
    for block in range(blocks):
        table[_slot(table, keys, keys[block], bits)] = block
    return table


@njit(cache=True, nogil=True)
def _slot(table, keys, key, bits):
    """Where a block is in the table, or the empty slot where it would be (Fibonacci hashing)."""
    mask = (1 << bits) - 1
    slot = ((key * -0x61C8864680B583EB) >> (64 - bits)) & mask
    while table[slot] >= 0 and keys[table[slot]] != key:
        slot = (slot + 1) & mask
    return slot


@njit(cache=True, nogil=True)
def _root(parent, i):
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@njit(cache=True, nogil=True)
def _grouped(number, count):
    """Indices [M] sorted by number [M] below `count`, keeping their order, and where each number starts [count + 1]."""
    starts = np.zeros(count + 1, np.int64)
    for n in number:
        starts[n + 1] += 1
    starts = np.cumsum(starts)
    order, place = np.empty(len(number), np.int64), starts.copy()
    for i, n in enumerate(number):
        order[place[n]] = i
        place[n] += 1
    return order, starts


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
        local = _along_axes(points[start:stop:1 + (stop - start) // _SAMPLE], means[k], axes[k])
        for a, b in ((0, 1), (1, 2), (0, 2)):
            spread_a, spread_b = local[a].std(), local[b].std()
            if min(spread_a, spread_b) >= _ALIKE * max(spread_a, spread_b):
                angle = _tightest(local[a, ::1 + local.shape[1] // _TURN_SAMPLE],
                                  local[b, ::1 + local.shape[1] // _TURN_SAMPLE])
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
            local[a, i] = ((points[i, 0] - mean[0]) * axes[a, 0] + (points[i, 1] - mean[1]) * axes[a, 1]
                           + (points[i, 2] - mean[2]) * axes[a, 2])
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
    lowest, highest = np.full(above + 1, np.inf), np.full(above + 1, -np.inf)  # only the ends need to be in order
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
    return (lowest[below] * (1 - share) + lowest[above] * share,
            highest[below] * (1 - share) + highest[above] * share)
