"""Shapes of things whose labels are incomplete, in a room that is known exactly."""

from __future__ import annotations

import numpy as np
import pytest

from ovs3d_ros.query.completion import Shapes, complete_shapes, lay_out
from ovs3d_ros.query.relations import RELATIONS, Shape, is_related, make_shape
from ovs3d_ros.types import SemanticObject

UP = np.array([0.0, 0.0, 1.0])
THRESHOLD = 0.5
CONTESTED = 0.47  # relevancy of a name that lost a Gaussian to another one


def block(low, high, spacing: float = 0.03) -> np.ndarray:
    """Points [M, 3] on the surface of a block between two corners, metres."""
    low, high = np.array(low, float), np.array(high, float)
    axes = [np.linspace(a, b, max(2, round((b - a) / spacing) + 1)) for a, b in zip(low, high, strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    return points[((points == low) | (points == high)).any(1)]


CORNERS = [(x, y) for x in (1.5, 1.87) for y in (0.2, 0.57)]
NAMES = ("floor", "carpet", "box", "chair")
PARTS = (  # what the label says, other names that nearly fit, points
    ("floor", "", block((-2, -2, 0), (2.5, 2, 0.01))),
    ("carpet", "", block((-1, -1, 0.01), (-0.5, 0.8, 0.02))),
    ("floor", "carpet", block((-0.47, -1, 0.01), (0.8, 0.8, 0.02))),  # most of the carpet is called a floor
    ("box", "", block((0.1, 0, 0.02), (0.4, 0.3, 0.3))),
    ("box", "carpet", block((0.43, -0.1, 0.01), (0.6, 0.3, 0.02))),  # and some of it a box
    ("chair", "", block((1.5, 0.2, 0.42), (1.9, 0.6, 0.46))),
    ("chair", "", block((1.87, 0.2, 0.46), (1.9, 0.6, 0.9))),
    *(("", "", block((x, y, 0.02), (x + 0.03, y + 0.03, 0.39))) for x, y in CORNERS),  # no label at all
    ("", "", block((-1.8, 1.2, 0.5), (-1.0, 1.8, 0.52))),  # a table that nobody asked for
    *(("", "", block((x, 1.2, 0.02), (x + 0.05, 1.25, 0.48))) for x in (-1.8, -1.05)),
)


def complete(parts=PARTS, names=NAMES) -> Shapes:
    points = np.concatenate([part[2] for part in parts])
    points = points + np.random.default_rng(0).normal(0, 0.004, points.shape)
    labels = np.concatenate(
        [np.full(len(p), names.index(label) + 1 if label else 0) for label, _, p in parts]
    )
    relevancy = np.where(labels[:, None] == np.arange(1, len(names) + 1), 0.7, 0.1)
    start = 0
    for _, weak, part in parts:
        if weak:
            relevancy[start : start + len(part), names.index(weak)] = CONTESTED
        start += len(part)
    objects = [
        SemanticObject(name, k, k, 0.7, np.zeros(3), np.array([1.0, 0, 0, 0]), np.ones(3), 100, 5)
        for k, name in enumerate(names, 1)
    ]
    layout = lay_out(points.astype(np.float32), UP)
    return complete_shapes(objects, labels, layout, lambda label: relevancy[:, label - 1], THRESHOLD)


def shapes(parts=PARTS, names=NAMES) -> dict[str, Shape]:
    completed = complete(parts, names)
    return {name: completed[number] for number, name in enumerate(names, 1)}


@pytest.fixture(scope="module")
def room() -> dict[str, Shape]:
    return shapes()


def test_surface_goes_on_where_another_label_won(room):
    np.testing.assert_allclose(room["carpet"].size[:2], (1.8, 1.8), atol=0.15)
    assert is_related(room["box"], "on", room["carpet"])
    assert is_related(room["box"], "above", room["carpet"]) and is_related(
        room["carpet"], "under", room["box"]
    )
    assert not is_related(room["box"], "beside", room["carpet"])


def test_larger_surface_leaves_what_a_smaller_one_gained(room):
    def inside(points: np.ndarray) -> int:
        return int((np.abs(points[:, :2] - (-0.1, -0.1)) < 0.3).all(axis=1).sum())

    below, carpet = (inside(PARTS[index][2]) for index in (0, 2))
    assert below and inside(room["carpet"].points) == pytest.approx(carpet, rel=0.05)
    assert inside(room["floor"].points) == pytest.approx(below, rel=0.05)


def test_surface_ends_where_its_name_does_not_fit(room):
    assert is_related(room["chair"], "on", room["floor"])
    assert not is_related(room["chair"], "on", room["carpet"])


def test_thing_loses_what_lies_in_a_surface_beside_it(room):
    np.testing.assert_allclose(room["box"].size, (0.3, 0.3, 0.28), atol=0.04)


def test_thing_stands_on_legs_without_a_label(room):
    assert room["chair"].low[2] < 0.15  # it ends where the floor begins, within two slices
    np.testing.assert_allclose(room["chair"].size[:2], (0.4, 0.4), atol=0.05)


def test_thing_on_something_unnamed_is_not_on_the_floor():
    mug = ("mug", "", block((-1.78, 1.22, 0.52), (-1.6, 1.4, 0.65)))  # over a leg of the table
    room = shapes((*PARTS, mug), (*NAMES, "mug"))
    np.testing.assert_allclose(room["mug"].low[2], 0.52, atol=0.03)
    assert not is_related(room["mug"], "on", room["floor"])


def test_thing_above_nothing_has_no_feet():
    lamp = ("lamp", "", block((0.8, 1.2, 0.8), (1.1, 1.5, 1.0)))
    below = ("", "", block((0.85, 1.25, 0.02), (1.05, 1.45, 0.3)))
    room = shapes((*PARTS, lamp, below), (*NAMES, "lamp"))
    np.testing.assert_allclose(room["lamp"].size, make_shape(lamp[2], UP).size, atol=0.04)
    assert not is_related(room["lamp"], "on", room["floor"])


def test_what_stands_below_a_chair_is_no_part_of_it():
    ball = ("ball", "", block((1.6, 0.3, 0.02), (1.75, 0.45, 0.17)))
    without = shapes()["chair"]
    chair = shapes((*PARTS, ball), (*NAMES, "ball"))["chair"]
    assert len(chair.points) == len(without.points)
    np.testing.assert_allclose(chair.size, without.size, atol=0.02)


def test_order_of_asking_makes_no_difference(room):
    completed = complete()
    for number, name in reversed(list(enumerate(NAMES, 1))):
        np.testing.assert_array_equal(completed[number].points, room[name].points)


def test_things_that_are_too_far_apart_for_a_relation_are_known_without_their_shapes():
    rng, names = np.random.default_rng(1), tuple(f"thing {k}" for k in range(24))
    lows = rng.uniform(-3, 3, (len(names), 3)) * (1, 1, 0)
    sizes = rng.uniform(0.06, 1.2, (len(names), 3))
    parts = [(name, "", block(low, low + size)) for name, low, size in zip(names, lows, sizes, strict=True)]
    completed = complete(parts, names)
    numbers = range(1, len(names) + 1)
    pairs = [(a, b) for a in numbers for b in numbers if a != b]
    near = {pair for pair in pairs if completed.are_near(*pair)}
    related = {(a, b) for a, b in pairs for r in RELATIONS if is_related(completed[a], r, completed[b])}
    assert len(related) > 50 and related <= near
    assert len(near) < 0.9 * len(pairs)  # it leaves something out
