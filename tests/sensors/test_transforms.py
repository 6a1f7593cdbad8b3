"""The transform tree chains and interpolates transforms; needs no ROS."""

from __future__ import annotations

import numpy as np
import pytest

from ovs3d_ros.sensors.transforms import TransformTree
from ovs3d_ros.types import UserError


def turn(angle: float, x: float = 0.0) -> np.ndarray:
    """A turn about z by `angle` radians at (x, 0, 0)."""
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    matrix[0, 3] = x
    return matrix


@pytest.fixture
def tree() -> TransformTree:
    """map -> odom -> base -> camera (static), and a lidar on base; the robot drives 1 m/s, turns 1 rad/s."""
    tree = TransformTree(slop=0.02, max_gap=0.5, capacity=10)
    tree.add("/base", "camera", 0.0, turn(0.0, 0.5), static=True)
    tree.add("base", "lidar", 0.0, turn(np.pi, -0.5), static=True)
    for k in range(5):
        tree.add("odom", "base", 10 + k / 10, turn(k / 10, k / 10), static=False)
    for k in range(3):
        tree.add("map", "odom", 9.9 + k / 4, turn(0.0, 100.0), static=False)
    return tree


def test_chains_are_interpolated_link_by_link(tree):
    pose = tree.at("map", "camera", 10.25)
    np.testing.assert_allclose(pose, turn(0.0, 100.0) @ turn(0.25, 0.25) @ turn(0.0, 0.5), atol=1e-9)
    np.testing.assert_allclose(tree.at("camera", "map", 10.25) @ pose, np.eye(4), atol=1e-9)


def test_static_chain_is_known_at_any_time(tree):
    np.testing.assert_allclose(tree.at("camera", "lidar", 5000.0), turn(np.pi, -1.0), atol=1e-9)


def test_nearest_transform_is_used_only_when_accepted(tree):
    assert tree.at("map", "camera", 10.41, accept_nearest=False) is None
    assert tree.at("map", "camera", 10.41, accept_nearest=True) is not None
    assert tree.at("map", "camera", 10.45, accept_nearest=True) is None
    assert tree.explain_missing("map", "camera", 10.45) == (
        "'base' in 'odom' is known from 10.000 to 10.400 s, the image is of 10.450 s"
    )
    assert tree.explain_missing("map", "camera", 10.2) == ""


def test_error_of_a_gap_names_its_parameter(tree):
    tree.add("odom", "base", 12.0, turn(0.0), static=False)
    tree.add("map", "odom", 10.9, turn(0.0), static=False)
    assert tree.at("odom", "camera", 11.0) is None
    assert "in a gap of more than 0.5 s; raise input.pose_gap" in tree.explain_missing("odom", "camera", 11.0)


def test_only_the_newest_transforms_are_kept(tree):
    for k in range(100):
        tree.add("odom", "base", 20 + k / 10, turn(0.0), static=False)
    assert tree.at("odom", "base", 20.0) is None
    assert tree.at("odom", "base", 29.45) is not None
    with pytest.raises(UserError, match="more than 5000 frames"):
        for k in range(6000):
            tree.add("map", f"made_up_{k}", 0.0, turn(0.0), static=True)


def test_clear_keeps_static_transforms_only(tree):
    tree.clear()
    assert tree.frames == ["base", "camera", "lidar"]
    with pytest.raises(UserError, match="there is no frame 'map'"):
        tree.at("map", "camera", 10.25)
    tree.add("map", "base", 1.0, turn(0.0, 3.0), static=False)  # has another parent than before
    assert tree.at("map", "camera", 1.0)[0, 3] == 3.5


def test_full_buffer_takes_transforms_after_a_clock_jump():
    tree = TransformTree(slop=0.02, max_gap=0.5, capacity=10, clock_jump=2.0)
    for start in (500.0, 0.0):  # without images, `clear` is not called
        for k in range(20):
            tree.add("map", "camera", start + k / 10, turn(0.0, start), static=False)
        tree.add("map", "camera", start + 0.1, turn(0.0, start), static=False)  # late by less than a jump
        assert tree.at("map", "camera", start + 1.75)[0, 3] == start
    assert tree.at("map", "camera", 501.75) is None


def test_two_parents_and_loops_are_refused(tree):
    with pytest.raises(UserError, match="'base' has two parents, 'odom' and 'map'"):
        tree.add("map", "base", 10.0, turn(0.0), static=False)
    tree.add("camera", "map", 10.0, turn(0.0), static=False)
    with pytest.raises(UserError, match="form a loop"):
        tree.at("map", "camera", 10.0)


def test_separate_trees_are_named(tree):
    tree.add("elsewhere", "thing", 0.0, turn(0.0), static=True)
    with pytest.raises(UserError, match=r"'thing' and 'map' are in separate trees.*localises the robot"):
        tree.at("map", "thing", 10.0)
