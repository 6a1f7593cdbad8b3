"""Relations between things whose surfaces are known exactly."""

from __future__ import annotations

import numpy as np
import pytest

from ovs3d_ros.geometry import rotation_to_axis
from ovs3d_ros.query.relations import RELATIONS, is_related, make_shape

UP = np.array([0.0, 0.0, 1.0])


def block(low, high, spacing: float = 0.03) -> np.ndarray:
    """Points [M, 3] on the surface of a block between two corners, metres."""
    low, high = np.array(low, float), np.array(high, float)
    axes = [np.linspace(a, b, max(2, round((b - a) / spacing) + 1)) for a, b in zip(low, high, strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    return points[((points == low) | (points == high)).any(1)]


def unseen(points: np.ndarray, low, high) -> np.ndarray:
    """The points outside a block: things hide what they stand on."""
    return points[~((points >= low) & (points <= high)).all(1)]


LEGS = [block((x, y, 0), (x + 0.05, y + 0.05, 0.7)) for x in (-0.6, 0.55) for y in (-0.35, 0.3)]
TABLE_TOP = block((-0.6, -0.35, 0.68), (0.6, 0.35, 0.72))
BOARDS = [block((2, -0.2, z), (3, 0.2, z + 0.02)) for z in (0.1, 0.5, 0.9)]
SIDES = [block((x, -0.2, 0), (x + 0.02, 0.2, 0.92)) for x in (1.98, 3.0)]
THINGS = {
    "floor": unseen(block((-2, -2, -0.02), (4, 1.5, 0), 0.04), (0.7, -1.2, -0.1), (1.7, -0.8, 0.1)),
    "wall": block((-2, 1.5, 0), (4, 1.55, 2.4), 0.04),
    "table": np.concatenate([unseen(TABLE_TOP, (-0.25, -0.15, 0.7), (0.15, 0.15, 0.8)), *LEGS]),
    "mug": block((0.3, 0.1, 0.72), (0.38, 0.18, 0.82)),
    "tray": block((-0.25, -0.15, 0.72), (0.15, 0.15, 0.74)),  # no point of the table below it was seen
    "jug": block((-0.1, -0.05, 0.74), (0.0, 0.05, 0.95)),
    "lamp": block((-0.15, -0.15, 1.4), (0.15, 0.15, 1.6)),
    "crate": block((-0.2, -0.2, 0), (0.2, 0.2, 0.3)),
    "chair": np.concatenate(
        [
            block((0.8, -0.2, 0.42), (1.2, 0.2, 0.46)),
            block((1.17, -0.2, 0.46), (1.2, 0.2, 0.95)),
            *(block((x, y, 0), (x + 0.03, y + 0.03, 0.42)) for x in (0.8, 1.17) for y in (-0.2, 0.17)),
        ]
    ),
    "cushion": block((0.82, -0.18, 0.46), (1.15, 0.18, 0.54)),
    "shelf": np.concatenate([*BOARDS, *SIDES]),
    "clock": block((2.4, -0.05, 0.52), (2.5, 0.05, 0.62)),
    "vase": block((2.6, -0.05, 0.92), (2.7, 0.05, 1.2)),
    "basket": np.concatenate(
        [
            block((3.2, -0.2, 0), (3.6, 0.2, 0.02)),
            *(block((x, -0.2, 0), (x + 0.02, 0.2, 0.3)) for x in (3.2, 3.58)),
            *(block((3.2, y, 0), (3.6, y + 0.02, 0.3)) for y in (-0.2, 0.18)),
        ]
    ),
    "ball": block((3.3, -0.1, 0.03), (3.5, 0.1, 0.23)),
    "picture": block((0, 1.47, 1.4), (0.6, 1.5, 1.8)),
    "cupboard": block((-1.5, 1.2, 0), (-0.9, 1.5, 1.8)),
    "rug": block((0.7, -1.2, 0), (1.7, -0.8, 0.01)),  # hides the floor
    "suitcase": block((-1.9, -1.9, 0), (-1.5, -1.7, 0.5)),
}
ON = {
    ("table", "floor"),
    ("crate", "floor"),
    ("chair", "floor"),
    ("shelf", "floor"),
    ("basket", "floor"),
    ("cupboard", "floor"),
    ("rug", "floor"),
    ("suitcase", "floor"),
    ("mug", "table"),
    ("tray", "table"),
    ("jug", "tray"),
    ("cushion", "chair"),
    ("clock", "shelf"),
    ("vase", "shelf"),
    ("ball", "basket"),
    ("picture", "wall"),
}
EITHER = {("jug", "table"), ("ball", "floor"), ("wall", "floor")}  # people would say both yes and no
RNG = np.random.default_rng(0)


def shapes(turn: np.ndarray) -> dict:
    """The things with 5 mm of noise, in a frame turned by `turn` [3, 3]."""
    noisy = {name: points + RNG.normal(0, 0.005, points.shape) for name, points in THINGS.items()}
    return {name: make_shape(points @ turn.T, turn @ UP) for name, points in noisy.items()}


@pytest.fixture(scope="module")
def room() -> dict:
    return shapes(np.eye(3))


def related(room: dict, relation: str) -> set[tuple[str, str]]:
    return {(a, b) for a in room for b in room if a != b and is_related(room[a], relation, room[b])}


def test_things_rest_and_hang_on_others_and_on_nothing_else(room):
    assert related(room, "on") - EITHER == ON


def test_up_may_be_any_direction():
    tilted = shapes(rotation_to_axis(np.array([0.3, -0.8, 0.4])))
    assert related(tilted, "on") - EITHER == ON


def test_things_are_in_what_surrounds_them(room):
    found = related(room, "in")
    assert {("ball", "basket"), ("clock", "shelf")} <= found
    assert found <= {("ball", "basket"), ("clock", "shelf"), ("cushion", "chair")}


def test_above_is_over_and_under_its_opposite(room):
    above = related(room, "above")
    assert {
        ("lamp", "table"),
        ("lamp", "crate"),
        ("table", "crate"),
        ("mug", "table"),
        ("tray", "crate"),
    } <= above
    assert {("vase", "shelf"), ("jug", "tray")} <= above
    wrong = {("lamp", "chair"), ("lamp", "mug"), ("vase", "clock"), ("clock", "shelf"), ("crate", "table")}
    assert not above & (wrong | {("picture", "wall"), ("cushion", "table"), ("mug", "chair")})
    assert related(room, "under") == {(b, a) for a, b in above}


def test_things_side_by_side_are_on_one_level_and_close(room):
    beside = related(room, "beside")
    assert beside == {(b, a) for a, b in beside}
    assert {("chair", "table"), ("basket", "shelf"), ("mug", "tray"), ("cupboard", "wall")} <= beside
    wrong = {("mug", "table"), ("lamp", "jug"), ("crate", "table"), ("vase", "clock"), ("suitcase", "table")}
    assert not beside & (wrong | {("ball", "basket"), ("rug", "floor"), ("suitcase", "basket")})


def test_flat_things_are_beside_a_thing_whose_foot_was_not_seen():
    plate, higher = block((0, 0, 0.7), (0.2, 0.2, 0.71)), block((0, 0, 0.9), (0.2, 0.2, 0.91))
    vase = block((0.3, 0.05, 0.74), (0.4, 0.15, 0.95))  # stands where the plate lies
    assert is_related(make_shape(plate, UP), "beside", make_shape(vase, UP))
    assert is_related(make_shape(vase, UP), "beside", make_shape(plate, UP))
    assert not is_related(make_shape(plate, UP), "beside", make_shape(higher + [0.3, 0, 0], UP))


def test_near_is_less_than_a_metre(room):
    near = related(room, "near")
    assert {("chair", "table"), ("lamp", "table"), ("mug", "tray"), ("shelf", "chair")} <= near
    assert not near & {
        ("suitcase", "basket"),
        ("cupboard", "shelf"),
        ("suitcase", "table"),
        ("vase", "table"),
    }


def test_distant_things_are_in_no_relation(room):
    assert not any(is_related(room["suitcase"], relation, room["basket"]) for relation in RELATIONS)
