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
from ovs3d_ros.query.relations import NEAR, Rim, Shape, find_bounds, upright_shape
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

    def near(self, low: np.ndarray, high: np.ndarray, margin: float) -> np.ndarray:
        """Indices of the points in columns within a margin in metres of bounds [2 or more]."""
        last = np.array([(len(self.starts) - 1) // self.count, self.count]) - 1
        (x0, y0), (x1, y1) = (
            ((corner[:2] - self.first) / self.side).clip(0, last).astype(int)
            for corner in (low - margin, high + margin)
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


@dataclass(frozen=True, slots=True)
class Layout:
    """The Gaussians of a map as shapes are completed from them: the same for all queries to a snapshot.

    Attributes:
        points: [N, 3] metres, the third axis up.
        columns: of the points.
    """

    points: np.ndarray
    columns: _Columns


def lay_out(means: np.ndarray, up: np.ndarray) -> Layout:
    """The layout of Gaussians with means [N, 3] in metres, and a direction [3] up."""
    points = np.asarray(means, np.float64) @ rotation_to_axis(up)
    return Layout(points, _sort_into_columns(points))


@dataclass(slots=True)
class _Thing:
    """What is known of an object.

    Attributes:
        number: of the object.
        area: square metres of the footprint of its labels.
        rows: indices of its Gaussians; changed by each step.
        points: [M, 3] metres, of these.
        shape: of the points; None: it is not measured.
    """

    number: int
    area: float
    rows: np.ndarray
    points: np.ndarray
    shape: Shape | None

    def keep(self, chosen: np.ndarray) -> None:
        """Keeps the chosen Gaussians, if there are enough."""
        if _LEAST <= chosen.sum() < len(chosen):
            self.take(self.rows[chosen], self.points[chosen])

    def take(self, rows: np.ndarray, points: np.ndarray) -> None:
        """Has other Gaussians from now on, with their points [M, 3]."""
        self.rows, self.points, self.shape = rows, points, None

    def upright(self) -> Shape:
        """The shape of the points."""
        if self.shape is None:
            self.shape = upright_shape(self.points)
        return self.shape


@dataclass(frozen=True, slots=True)
class _Surface:
    """A flat thing after it has grown.

    Attributes:
        number: of the object.
        area: square metres of the footprint of its labels.
        height: metres.
        low: the lowest corner [3] of its bounds.
        high: the highest.
        gained: indices of the Gaussians that it grew by.
    """

    number: int
    area: float
    height: float
    low: np.ndarray
    high: np.ndarray
    gained: np.ndarray


@dataclass(frozen=True, slots=True)
class _Room:
    """The things that an answer found in a map.

    Attributes:
        layout: of all Gaussians.
        instances: [N] number of the object of each, 0 = none.
        areas: [K + 1] square metres of the footprint of each object; 0 (none) counts as the largest.
        things: by number.
    """

    layout: Layout
    instances: np.ndarray
    areas: np.ndarray
    things: dict[int, _Thing]


class Shapes:
    """The shapes of the objects of an answer, by their number. Each is completed when it is first asked for.

    Args:
        room: the things after their surfaces are complete.
        owner: [N] number of the object that each Gaussian belongs to by now, 0 = none.
    """

    def __init__(self, room: _Room, owner: np.ndarray) -> None:
        self._room, self._owner = room, owner
        self._done: dict[int, Shape] = {}
        self._circles = {number: _circle(thing) for number, thing in room.things.items()}

    def __getitem__(self, number: int) -> Shape:
        if number not in self._done:
            self._done[number] = _stand(self._room, self._room.things[number], self._owner)
        return self._done[number]

    def are_near(self, thing: int, place: int) -> bool:
        """Whether any relation may hold between two objects, as far as is known without their shapes."""
        (x, y, reach), (other_x, other_y, other_reach) = self._circles[thing], self._circles[place]
        return max(abs(x - other_x), abs(y - other_y)) <= NEAR + reach + other_reach


def complete_shapes(
    objects: Sequence[SemanticObject],
    instances: np.ndarray,
    layout: Layout,
    relevancy: Callable[[int], np.ndarray],
    threshold: float,
) -> Shapes:
    """The shapes of the objects of an answer.

    1. A flat surface (a carpet, the floor) goes on over connected Gaussians of its height that fit its name
       nearly well enough for a label, unless they have the label of a smaller thing. They leave other shapes.
    2. What of another thing lies in such a surface, outside the footprint of that thing's rest, leaves it.
    3. A thing without a surface round its lower end gets the Gaussians below it, down to the first surface
       round them: the legs of a chair.

    Args:
        objects: of the answer.
        instances: [N] number of the object of each Gaussian, 0 = none.
        layout: of the Gaussians.
        relevancy: of a label, counted from 1: [N].
        threshold: relevancy from which a Gaussian carries a label.
    """
    labels = {item.instance: item.label for item in objects}
    room = _make_room(instances, layout, list(labels))
    taker, owner = np.zeros((2, len(instances)), np.int64)
    surfaces = []
    for k in sorted(labels, key=lambda k: -room.areas[k]):  # smaller surfaces lie on larger
        surface = _grow_surface(room, room.things[k], relevancy, labels[k], threshold)
        if surface is not None:
            surfaces.append(surface)
            taker[surface.gained] = k
    for thing in room.things.values():
        takers = taker[thing.rows]  # surfaces take from larger things alone
        thing.keep((takers == 0) | (takers == thing.number))
    for thing in room.things.values():
        _drop_spill(thing, surfaces)
    for thing in room.things.values():
        owner[thing.rows] = thing.number
    return Shapes(room, owner)


def _make_room(instances: np.ndarray, layout: Layout, numbers: Sequence[int]) -> _Room:
    """The things of these numbers before any step."""
    count = int(instances.max(initial=0))
    if not count:
        return _Room(layout, instances, np.full(1, np.inf), {})
    order, starts = group_indices(instances, count + 1)
    order, starts = order[starts[1] :], starts[1:] - starts[1]  # without those of no object
    points, segments = layout.points[order], np.stack([starts[:-1], starts[1:]], axis=1)
    centers, axes, sizes = oriented_boxes(points, segments, np.array([0.0, 0.0, 1.0]))
    areas, things = np.append(np.inf, sizes[:, :2].prod(1)), {}
    for k in numbers:
        mine = points[starts[k - 1] : starts[k]]
        shape = Shape(mine, centers[k - 1], axes[k - 1], sizes[k - 1])
        things[k] = _Thing(k, areas[k], order[starts[k - 1] : starts[k]], mine, shape)
    return _Room(layout, instances, areas, things)


def _grow_surface(
    room: _Room, thing: _Thing, relevancy: Callable[[int], np.ndarray], label: int, threshold: float
) -> _Surface | None:
    """Lets a flat object grow over its surface; None: it is not flat."""
    points, columns = room.layout.points, room.layout.columns
    heights = thing.points[:, 2]
    height = float(np.median(heights))
    if (np.abs(heights - height) < _THIN).mean() < _FLAT:
        return None
    within = heights < height + _THIN  # what is higher is no part of a surface
    if not within.all():
        thing.take(thing.rows[within], thing.points[within])
    others = columns.near(*find_bounds(thing.points), _SPREAD)
    others = others[np.abs(points[others, 2] - height) < _THIN]
    instances = room.instances[others]
    others = others[(room.areas[instances] >= thing.area) & (instances != thing.number)]
    others = others[relevancy(label)[others] >= _WEAK * threshold]
    # The grid of a map has this type of points too, so that the kernel is compiled once.
    both = np.concatenate([thing.points, points[others]])
    grid = sort_into_voxels(both.astype(np.float32), _REACH).fine
    pieces = connected_components(np.ones(len(both), np.int16), grid, shared_pool(1)).number
    own = len(thing.rows)
    gained = others[np.isin(pieces[own:], pieces[:own])]
    if len(gained):
        thing.take(np.concatenate([thing.rows, gained]), np.concatenate([thing.points, points[gained]]))
    return _Surface(thing.number, thing.area, height, *find_bounds(thing.points), gained)


def _drop_spill(thing: _Thing, surfaces: Sequence[_Surface]) -> None:
    """Takes from a thing what lies in a larger surface beside the rest of the thing."""
    if any(surface.number == thing.number for surface in surfaces):
        return
    low, high = find_bounds(thing.points)
    for surface in surfaces:
        if surface.area <= thing.area or not _touch((low, high), (surface.low, surface.high)):
            continue
        rest = np.abs(thing.points[:, 2] - surface.height) >= _SPILL[0]
        count = rest.sum()
        if count < len(rest) <= 2 * count and count >= _LEAST:
            shape = upright_shape(thing.points[rest])
            inside = np.abs(shape.local(thing.points)[:, :2]) <= shape.size[:2] / 2 + _SPILL[1]
            thing.keep(rest | inside.all(axis=1))
            low, high = find_bounds(thing.points)


def _touch(a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]) -> bool:
    """Whether the bounds of two things touch, within a few centimetres."""
    return bool((a[0] < b[1] + _SPILL[1]).all() and (a[1] > b[0] - _SPILL[1]).all())


def _circle(thing: _Thing) -> tuple[float, float, float]:
    """The middle of a thing and how far the box of its completed shape may reach from there, in metres.

    A box along any axes may reach the square root of 2 times as far as its points. That holds for the feet,
    which are in the box of the labels, and again for the box round all.
    """
    low, high = find_bounds(thing.points)
    (x, y), reach = (low + high)[:2] / 2, np.linalg.norm((high - low)[:2]) / 2
    return float(x), float(y), float(2 * reach + 2 * _MARGIN)


def _stand(room: _Room, thing: _Thing, owner: np.ndarray) -> Shape:
    """The shape of a thing with its feet, from the object [N] that each Gaussian belongs to by now."""
    shape = thing.upright()
    if shape.size[2] < _LOW:
        return shape
    low, rim = shape.low[2], Rim(shape)
    near = room.layout.columns.near(*shape.bounds, 0.2)
    heights = room.layout.points[near, 2]
    near = near[(heights < low + _LEVEL) & (heights > low - _DEPTH)]
    near = near[owner[near] != thing.number]
    points = room.layout.points[near]
    local = shape.local(points)[:, :2]
    is_near = rim.is_at(local)
    near, points, local = near[is_near], points[is_near], local[is_near]
    if rim.share(local[points[:, 2] > low - _SLICE]) >= _ROUND:
        return shape
    is_foot = (np.abs(local) <= shape.size[:2] / 2 + _MARGIN).all(axis=1)
    is_foot &= room.areas[room.instances[near]] >= thing.area  # smaller things may stand below
    feet, gap = np.zeros(len(near), bool), 0.0
    for top in np.arange(low, low - _DEPTH, -_SLICE):
        part = (points[:, 2] <= top) & (points[:, 2] > top - _SLICE)
        if rim.share(local[part]) >= _ROUND:
            return upright_shape(np.concatenate([thing.points, points[feet]])) if feet.any() else shape
        gap = 0.0 if (is_foot & part).any() else gap + _SLICE
        if gap > _GAP + 1e-9:
            break
        feet |= is_foot & part
    return shape
