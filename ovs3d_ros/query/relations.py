"""Where things are in relation to others, as far as geometry knows without a viewer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from ovs3d_ros.geometry import rotation_to_axis
from ovs3d_ros.query.boxes import oriented_boxes
from ovs3d_ros.sampling import evenly_spaced_indices

NEAR = 1.0  # metres between two things that are near each other, and at most between any that are related
_BESIDE = 0.25, 0.5  # metres, and share of the smaller thing's width, between two things side by side
_LEVEL = 0.3  # share of the lower thing's height that two things side by side have in common
_INSIDE = 0.5  # share of a thing that lies in what contains it
_ENCLOSED = 0.9  # share of the rim round a thing where what contains it stands
_SUPPORT = 0.2  # share of a thing's face, or of a rim round it, that lies against what holds it
_SURROUNDED = 0.4  # share of the rim from which a surface goes on under a thing; a neighbour has 3/8 at most
_OVERHANG = 0.1  # share of a place's width by which the middle of what rests on it may seem to be beside it
_COVERED = 0.5  # share of the smaller footprint where one thing is over the other, or of a rim on a wall
_FLAT = 0.5  # largest thickness of what hangs on a surface, as a share of its longest edge
_CONTACT = 0.05, 0.1  # metres, and share of a thing's height, between it and what holds it
_RIM = 0.1  # metres; what a thing rests on is hidden below it, and seen round it
_WALL_RIM = 0.25  # metres; a wall goes on below what hangs on it, and not below what stands at it
_REACH = 0.08  # metres between neighbours on a surface
_STEP, _MAX_STEPS = 0.04, 30  # metres between samples of a face, and samples along an edge
_SAMPLE = 3000  # points of a thing that are compared
_FEW = 50  # points of a thing that mostly show at once that another one is near


@dataclass(frozen=True)
class Shape:
    """What the map shows of a thing, in axes of which the third points up.

    Attributes:
        points: [M, 3] metres.
        center: [3] of its upright box.
        axes: [3, 3] of the box, in columns.
        size: [3] of the box, metres.
    """

    points: np.ndarray
    center: np.ndarray
    axes: np.ndarray
    size: np.ndarray

    @cached_property
    def low(self) -> np.ndarray:
        """The lowest corner [3] of the box round the box along the axes of the frame."""
        return self.center - np.abs(self.axes) @ self.size / 2

    @cached_property
    def high(self) -> np.ndarray:
        """The highest corner [3] of that box."""
        return self.center + np.abs(self.axes) @ self.size / 2

    @cached_property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """The lowest and the highest coordinates [3] of the points, some of which are outside the box."""
        return find_bounds(self.points)

    @cached_property
    def sample(self) -> np.ndarray:
        """The points [S, 3] that are compared with those of other things."""
        return self.points[evenly_spaced_indices(len(self.points), _SAMPLE)]

    def local(self, points: np.ndarray) -> np.ndarray:
        """Points [N, 3] in the axes of the box, from its center."""
        return (points - self.center) @ self.axes


def find_bounds(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and the highest coordinates [K] of points [M, K], M > 0."""
    columns = np.ascontiguousarray(points.T)  # NumPy is several times faster along rows
    return columns.min(1), columns.max(1)


def make_shape(points: np.ndarray, up: np.ndarray) -> Shape:
    """The shape of a thing from its points [M, 3] in metres, M > 0, and the direction [3] up."""
    return upright_shape(np.asarray(points, np.float64) @ rotation_to_axis(up))


def upright_shape(points: np.ndarray) -> Shape:
    """The shape of a thing from its points [M, 3] in metres, M > 0, in axes of which the third points up."""
    centers, axes, sizes = oriented_boxes(points, np.array([[0, len(points)]]), np.array([0.0, 0.0, 1.0]))
    return Shape(points, centers[0], axes[0], sizes[0])


class Rim:
    """The rim round a thing's footprint.

    Args:
        thing: see above.
    """

    def __init__(self, thing: Shape) -> None:
        half = thing.size[:2] / 2
        samples = _samples(half, _RIM)
        self._samples = samples[~(np.abs(samples) <= half).all(axis=1)]
        self._reach = half + _RIM + _REACH

    def is_at(self, local: np.ndarray) -> np.ndarray:
        """Which points [M, 2], in axes of the thing, are near enough to count on the rim or inside it."""
        return np.all(np.abs(local) <= self._reach, axis=1)

    def share(self, local: np.ndarray) -> float:
        """Share of the rim where points [M, 2] are, in axes of the thing."""
        return float(_is_close(self._samples, local[self.is_at(local)]).mean())


def is_related(thing: Shape, relation: str, place: Shape) -> bool:
    """Whether a thing is, say, "on" a place; both in the same axes.

    - on: it rests on the place or on a part of it (a seat, a board); or it is flat, hangs against it, and the
      place goes on below.
    - in: it rests on a part of the place, and most of it lies in the place's box.
    - above: it is over half of the place, or the place is under half of it. What rests on a place is above
      it, unless the place is over it too, as a shelf is.
    - under: the place is above it.
    - beside: they are on one level, apart by little for their size, and neither is on, in, above or under the
      other.
    - near: less than a metre apart.

    Args:
        thing: what is somewhere.
        relation: one of `RELATIONS`.
        place: where it is.
    """
    if (np.maximum(thing.low - place.high, place.low - thing.high)[:2] > NEAR).any():
        return False
    return _TESTS[relation](thing, place)


def _is_on(thing: Shape, place: Shape) -> bool:
    return _rests_on(thing, place) or _hangs_on(thing, place)


def _is_in(thing: Shape, place: Shape) -> bool:
    depth = place.high[2] - thing.low[2]
    if depth < max(_CONTACT[0], _INSIDE * thing.size[2]):
        return False
    inside = np.abs(place.local(thing.sample)) <= place.size / 2 + _CONTACT[0] / 2
    if inside.all(axis=1).mean() < _INSIDE:
        return False
    return _rests_on(thing, place) or _contact(thing, place, 2, -1).rim.mean() >= _ENCLOSED


def _is_above(thing: Shape, place: Shape) -> bool:
    if not (_rests_on(thing, place) or _is_over(thing, place)):
        return False
    roof = place.points[place.points[:, 2] > thing.high[2], :2]
    return _is_close(thing.sample[:, :2], _near_bounds(roof, *thing.bounds, _REACH)).mean() < _COVERED


def _is_under(thing: Shape, place: Shape) -> bool:
    return _is_above(place, thing)


def _is_beside(thing: Shape, place: Shape) -> bool:
    width = min(shape.size[:2].max() for shape in (thing, place))
    height = min(shape.size[2] for shape in (thing, place))
    common = min(thing.high[2], place.high[2]) - max(thing.low[2], place.low[2])
    if common < _LEVEL * height - _CONTACT[0]:  # a map often lacks the lowest part of a thing
        return False
    if not _is_within(thing, place, _BESIDE[0] + _BESIDE[1] * width, axes=2):
        return False
    both = (thing, place), (place, thing)
    return not any(test(a, b) for test in (_is_on, _is_in, _is_above) for a, b in both)


def _is_near(thing: Shape, place: Shape) -> bool:
    return _is_within(thing, place, NEAR, axes=3)


def _rests_on(thing: Shape, place: Shape) -> bool:
    """Whether the lower face of a thing lies on points of a place, and its middle over the place."""
    contact = _contact(thing, place, axis=2, side=-1, is_top=True)
    if contact.rim.mean() >= _SURROUNDED:
        return True
    off_center = np.abs(place.local(thing.center)[:2]) / place.size[:2]
    if (off_center > 0.5 + _OVERHANG).any():
        return False
    if max(contact.face.mean(), contact.rim.mean()) >= _SUPPORT:
        return True
    # The top of a high shelf is hardly seen.
    return abs(thing.low[2] - place.high[2]) <= _tolerance(thing.size[2]) and _is_over(thing, place)


def _hangs_on(thing: Shape, place: Shape) -> bool:
    """Whether a thing is flat and one of its upright faces lies against points of a place, also below it."""
    flat = int(thing.size[:2].argmin())
    if thing.size[flat] > _FLAT * thing.size.max() or thing.size[2] < _CONTACT[0]:
        return False
    for side in (-1, 1):
        contact = _contact(thing, place, axis=flat, side=side, rim=_WALL_RIM)
        if contact.below.mean() >= _SUPPORT and contact.rim.mean() >= _COVERED:
            return True
    return False


@dataclass(frozen=True, slots=True)
class _Contact:
    """Which samples of a face, of its rim, and of the lower end of the rim have a place against them."""

    face: np.ndarray
    rim: np.ndarray
    below: np.ndarray


def _contact(
    thing: Shape, place: Shape, axis: int, side: int, *, rim: float = _RIM, is_top: bool = False
) -> _Contact:
    """Contact of a face of a thing's box with the points of a place.

    Args:
        thing: has the face.
        place: has the points.
        axis: of the box, which the face is perpendicular to.
        side: -1 or 1, the end of the axis where the face is.
        rim: width of the rim round the face, metres.
        is_top: count only where the place ends at the face, as a table does and a wall behind it does not.
    """
    plane = [other for other in range(3) if other != axis]
    half = thing.size[plane] / 2
    samples, tolerance = _samples(half, rim), _tolerance(thing.size[axis])
    # Far along one axis is far from a rectangle that is turned about the third by any angle.
    margin = np.sqrt(2) * max(rim + _REACH, tolerance)
    low, high = place.bounds
    is_far = (np.maximum(thing.low - high, low - thing.high) > margin).any()
    local = thing.local(place.points[:0] if is_far else place.points)
    local = local[(np.abs(local[:, plane]) <= half + rim + _REACH).all(axis=1)]
    gap = side * local[:, axis] - thing.size[axis] / 2
    touched = _is_close(samples, local[np.abs(gap) <= tolerance][:, plane])
    if is_top:
        beyond = (gap < -tolerance) & (gap > -max(thing.size[axis], _RIM))
        touched &= ~_is_close(samples, local[beyond][:, plane])
    on_face = (np.abs(samples) <= half).all(axis=1)
    below = samples[:, 1] < -half[1] - rim / 2  # the second coordinate of an upright face is the height
    return _Contact(touched[on_face], touched[~on_face], touched[below])


def _tolerance(height: float) -> float:
    """How far, in metres, what holds a thing of such a height may seem to be from it."""
    return _CONTACT[0] + _CONTACT[1] * height


def _samples(half: np.ndarray, rim: float) -> np.ndarray:
    """Samples [S, 2] of a rectangle from -half to half [2], and of a rim round it."""
    first, second = (_spread(h + rim) for h in half)
    return np.stack([np.repeat(first, len(second)), np.tile(second, len(first))], axis=1)


def _spread(half: float) -> np.ndarray:
    """Samples of -half..half, both ends and the middle among them."""
    return np.linspace(-half, half, 2 * min(_MAX_STEPS // 2, int(np.ceil(half / _STEP))) + 1)


def _is_over(upper: Shape, lower: Shape) -> bool:
    """Whether a thing is over another, at half of the smaller footprint at least, and nowhere lower there."""
    a, b = upper.sample, lower.sample
    near_a, near_b = _near_bounds(a, *lower.bounds, _REACH), _near_bounds(b, *upper.bounds, _REACH)
    is_upper_smaller = np.prod(upper.size[:2]) <= np.prod(lower.size[:2])
    if not len(near_a) or not len(near_b):
        return False
    over = near_a[_is_close(near_a[:, :2], near_b[:, :2])]
    if is_upper_smaller and len(over) < _COVERED * len(a):
        return False
    under = near_b[_is_close(near_b[:, :2], near_a[:, :2])]
    if not is_upper_smaller and len(under) < _COVERED * len(b):
        return False
    return bool(np.quantile(over[:, 2], 0.1) >= np.quantile(under[:, 2], 0.9) - _CONTACT[0])


def _is_close(samples: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Which samples [N, 2] have a point [M, 2] within reach."""
    if not len(points):
        return np.zeros(len(samples), bool)
    tree = cKDTree(points, compact_nodes=False, balanced_tree=False)
    return np.isfinite(tree.query(samples, distance_upper_bound=_REACH)[0])


def _is_within(a: Shape, b: Shape, distance: float, axes: int) -> bool:
    """Whether points of two things are within a distance in metres along the first axes."""
    points, others = a.sample[:, :axes], b.sample[:, :axes]
    few = (part[evenly_spaced_indices(len(part), _FEW)] for part in (points, others))
    if cdist(*few).min() <= distance:
        return True
    points = _near_bounds(points, *b.bounds, distance)
    others = _near_bounds(others, *a.bounds, distance)
    if not len(points) or not len(others):
        return False
    tree = cKDTree(points, compact_nodes=False, balanced_tree=False)
    bound = np.nextafter(distance, np.inf)
    return bool(np.isfinite(tree.query(others, distance_upper_bound=bound)[0]).any())


def _near_bounds(points: np.ndarray, low: np.ndarray, high: np.ndarray, distance: float) -> np.ndarray:
    """Those of points [M, 2 or more] that are within a distance of bounds [3] along the first two axes."""
    x, y = points[:, 0], points[:, 1]
    near = (x >= low[0] - distance) & (x <= high[0] + distance)
    near &= (y >= low[1] - distance) & (y <= high[1] + distance)
    return points[near]


_TESTS = {
    "on": _is_on,
    "in": _is_in,
    "under": _is_under,
    "above": _is_above,
    "beside": _is_beside,
    "near": _is_near,
}
RELATIONS = tuple(_TESTS)
