"""Completes the shapes of things before relations are judged: what labels give them too little or too much.

Labels compete, so most of a carpet may carry the label of the floor it lies on, the legs of a chair none, and
some of a carpet that of the box on it. What is on, beside or under what then follows from the geometry of the
whole map and from weaker evidence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ovs3d_ros.geometry import rotation_to_axis
from ovs3d_ros.query.boxes import oriented_boxes
from ovs3d_ros.query.components import connected_components, group_indices
from ovs3d_ros.query.relations import Shape, rim_share, upright_shape
from ovs3d_ros.query.voxels import sort_into_voxels
from ovs3d_ros.rasterize.thread_pool import shared_pool
from ovs3d_ros.types import SemanticObject

_WEAK = 0.9  # of the threshold of labels: relevancy at which a surface goes on
_THIN, _FLAT = 0.05, 0.8  # metres from the median height, and share of a surface's Gaussians within it
_REACH, _SPREAD = 0.08, 2.0  # metres: side of voxels that touch on a surface, and how far it may go on
_SPILL = 0.03, 0.05  # metres from a surface, and outside the footprint of what is above it
_ROUND = 0.4  # share of the rim round a thing that shows the surface it stands on
_SLICE, _GAP, _DEPTH = 0.05, 0.1, 1.0  # metres: slices below a thing, without a point at most, in all at most
_LEVEL = 0.03  # metres above the lower end of a thing where the surface that it stands on may seem to be
_MARGIN = 0.03  # metres by which feet may stand out
_LOW = 0.1  # metres; a lower thing has no feet
_LEAST = 12  # Gaussians that a thing keeps
_COLUMN, _COLUMNS = 0.5, 1000  # metres, side of a column of a map, and columns along an axis at most


@dataclass(frozen=True, slots=True)
class _Columns:
    """N points in upright columns of a square grid.

    Attributes:
        first: [2] metres, where the grid starts.
        side: metres, of a column.
        count: columns along the second axis.
        order: [N] indices of the points, column by column.
        starts: where the points of each column start in `order`, and the end.
    """

    first: np.ndarray
    side: float
    count: int
    order: np.ndarray
    starts: np.ndarray

    def near(self, points: np.ndarray, margin: float) -> np.ndarray:
        """Indices of the points in columns within a margin in metres of the bounds of some points [M, 3]."""
        low, high = points[:, :2].min(0) - margin, points[:, :2].max(0) + margin
        last = np.array([(len(self.starts) - 1) // self.count, self.count]) - 1
        (x0, y0), (x1, y1) = (
            ((corner - self.first) / self.side).clip(0, last).astype(int) for corner in (low, high)
        )
        rows = [
            self.order[self.starts[x * self.count + y0] : self.starts[x * self.count + y1 + 1]]
            for x in range(x0, x1 + 1)
        ]
        return np.concatenate(rows)


def _sort_into_columns(points: np.ndarray) -> _Columns:
    first, extent = points[:, :2].min(0), np.ptp(points[:, :2], axis=0)
    side = max(_COLUMN, extent.max() / _COLUMNS)
    shape = (extent / side).astype(int) + 1
    cells = ((points[:, :2] - first) / side).astype(np.int64)
    return _Columns(
        first, side, int(shape[1]), *group_indices(cells[:, 0] * shape[1] + cells[:, 1], int(shape.prod()))
    )


@dataclass(slots=True)
class _Room:
    """The things that an answer found in a map.

    Attributes:
        points: [N, 3] metres of all Gaussians, the third axis up.
        columns: of the points.
        instances: [N] number of the object of each, 0 = none.
        areas: [K + 1] square metres of the footprint of each object; 0 (none) counts as the largest.
        rows: indices of the Gaussians of each object; changed by each step.
        heights: metres, of the objects that are flat surfaces.
        bounds: the lowest and the highest corner [2, 3] of these.
    """

    points: np.ndarray
    columns: _Columns
    instances: np.ndarray
    areas: np.ndarray
    rows: dict[int, np.ndarray]
    heights: dict[int, float]
    bounds: dict[int, np.ndarray]

    def is_at(self, surface: int, points: np.ndarray) -> bool:
        """Whether the bounds of points [M, 3] touch those of a surface, within a few centimetres."""
        low, high = self.bounds[surface]
        return bool((points.min(0) < high + _SPILL[1]).all() and (points.max(0) > low - _SPILL[1]).all())


def complete_shapes(
    objects: Sequence[SemanticObject],
    instances: np.ndarray,
    means: np.ndarray,
    relevancy: Callable[[int], np.ndarray],
    threshold: float,
    up: np.ndarray,
) -> dict[int, Shape]:
    """The shapes of the objects of an answer, by their number.

    1. A flat surface (a carpet, the floor) goes on over connected Gaussians of its height that fit its name
       nearly well enough for a label, unless they have the label of a smaller thing. They leave other shapes.
    2. What of another thing lies in such a surface, outside the footprint of that thing's rest, leaves it.
    3. A thing without a surface round its lower end gets the Gaussians below it, down to the first surface
       round them: the legs of a chair.

    Args:
        objects: of the answer.
        instances: [N] number of the object of each Gaussian, 0 = none.
        means: [N, 3] metres.
        relevancy: of a label, counted from 1: [N].
        threshold: relevancy from which a Gaussian carries a label.
        up: [3].
    """
    if not objects:
        return {}
    room = _make_room(instances, np.asarray(means, np.float64) @ rotation_to_axis(up))
    labels = {item.instance: item.label for item in objects}
    taker = np.zeros(len(instances), np.int64)
    for k in sorted(labels, key=lambda k: -room.areas[k]):  # smaller surfaces lie on larger
        taker[_grow_surface(room, k, relevancy, labels[k], threshold)] = k
    for k in labels:
        takers = taker[room.rows[k]]  # surfaces take from larger things alone
        _keep(room, k, (takers == 0) | (takers == k))
    for k in labels:
        _drop_spill(room, k)
    owner = np.zeros(len(instances), np.int64)
    for k in labels:
        owner[room.rows[k]] = k
    return {k: _stand(room, k, owner) for k in labels}


def _make_room(instances: np.ndarray, points: np.ndarray) -> _Room:
    """The things before any step."""
    order, starts = group_indices(instances, int(instances.max()) + 1)
    segments = np.stack([starts[1:-1], starts[2:]], axis=1)  # without those of no object
    areas = np.append(
        np.inf, oriented_boxes(points[order], segments, np.array([0.0, 0.0, 1.0]))[2][:, :2].prod(1)
    )
    rows = {k: order[start:stop] for k, (start, stop) in enumerate(segments, 1)}
    return _Room(points, _sort_into_columns(points), instances, areas, rows, {}, {})


def _keep(room: _Room, number: int, chosen: np.ndarray) -> None:
    """Keeps the chosen Gaussians of an object, if there are enough."""
    if chosen.sum() >= _LEAST:
        room.rows[number] = room.rows[number][chosen]


def _grow_surface(
    room: _Room, number: int, relevancy: Callable[[int], np.ndarray], label: int, threshold: float
) -> np.ndarray:
    """Lets a flat object grow over its surface; the indices that it gained."""
    heights, own = room.points[:, 2], room.rows[number]
    height = float(np.median(heights[own]))
    if (np.abs(heights[own] - height) < _THIN).mean() < _FLAT:
        return own[:0]
    room.heights[number] = height
    own = own[heights[own] < height + _THIN]  # what is higher is no part of a surface
    others = room.columns.near(room.points[own], _SPREAD)
    others = others[np.abs(heights[others] - height) < _THIN]
    instances = room.instances[others]
    others = others[(room.areas[instances] >= room.areas[number]) & (instances != number)]
    others = others[relevancy(label)[others] >= _WEAK * threshold]
    # The grid of a map has this type of points too, so that the kernel is compiled once.
    grid = sort_into_voxels(room.points[np.concatenate([own, others])].astype(np.float32), _REACH).fine
    pieces = connected_components(np.ones(len(own) + len(others), np.int16), grid, shared_pool(1)).number
    gained = others[np.isin(pieces[len(own) :], pieces[: len(own)])]
    room.rows[number] = np.concatenate([own, gained])
    grown = room.points[room.rows[number]]
    room.bounds[number] = np.stack([grown.min(0), grown.max(0)])
    return gained


def _drop_spill(room: _Room, number: int) -> None:
    """Takes from a thing what lies in a larger surface beside the rest of the thing."""
    if number in room.heights:
        return
    for other, height in room.heights.items():
        own = room.rows[number]
        if room.areas[other] <= room.areas[number] or not room.is_at(other, room.points[own]):
            continue
        rest = np.abs(room.points[own, 2] - height) >= _SPILL[0]
        if not rest.all() and 2 * rest.sum() >= len(own) and rest.sum() >= _LEAST:
            shape = upright_shape(room.points[own[rest]])
            inside = np.abs(shape.local(room.points[own])[:, :2]) <= shape.size[:2] / 2 + _SPILL[1]
            _keep(room, number, rest | inside.all(axis=1))


def _stand(room: _Room, number: int, owner: np.ndarray) -> Shape:
    """The shape of a thing with its feet, from the object [N] that each Gaussian belongs to by now."""
    own = room.points[room.rows[number]]
    shape = upright_shape(own)
    if shape.size[2] < _LOW:
        return shape
    low = shape.low[2]
    near = room.columns.near(own, 0.2)
    near = near[(room.points[near, 2] < low + _LEVEL) & (room.points[near, 2] > low - _DEPTH)]
    near = near[owner[near] != number]
    points = room.points[near]
    if rim_share(shape, points[points[:, 2] > low - _SLICE]) >= _ROUND:
        return shape
    is_foot = (np.abs(shape.local(points)[:, :2]) <= shape.size[:2] / 2 + _MARGIN).all(axis=1)
    is_foot &= room.areas[room.instances[near]] >= room.areas[number]  # smaller things may stand below
    feet, gap = np.zeros(len(near), bool), 0.0
    for top in np.arange(low, low - _DEPTH, -_SLICE):
        part = (points[:, 2] <= top) & (points[:, 2] > top - _SLICE)
        if rim_share(shape, points[part]) >= _ROUND:
            return upright_shape(np.concatenate([own, points[feet]]))
        gap = 0.0 if (is_foot & part).any() else gap + _SLICE
        if gap > _GAP + 1e-9:
            break
        feet |= is_foot & part
    return shape
