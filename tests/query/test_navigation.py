"""Goal poses and grids on scenes with known answers."""

from __future__ import annotations

import numpy as np
import pytest

from ovs3d_ros.query.navigation import UNKNOWN, goal_pose, query_grid
from ovs3d_ros.types import SemanticObject


def thing(size=(0.4, 0.2, 0.3), quat=(1.0, 0.0, 0.0, 0.0)) -> SemanticObject:
    return SemanticObject(
        "thing", 1, 1, 0.9, np.array([2.0, 1.0, 0.5]), np.array(quat), np.array(size), 99, 3
    )


def cameras(*places) -> np.ndarray:
    poses = np.tile(np.eye(4), (len(places), 1, 1))
    poses[:, :3, 3] = places
    return poses


def test_goal_stands_off_on_the_seen_side():
    goal = goal_pose(thing(), cameras((2.0, 9.0, 1.0), (6.0, 1.0, 1.2)), stand_off=0.8)
    np.testing.assert_allclose(goal[:3, 3], [2.0 + 0.2 + 0.8, 1.0, 0.0], atol=1e-9)
    np.testing.assert_allclose(goal[:3, 0], [-1, 0, 0], atol=1e-9)
    assert np.linalg.det(goal[:3, :3]) == pytest.approx(1.0)
    turned = thing(quat=(np.sqrt(0.5), 0, 0, np.sqrt(0.5)))  # the short side faces the camera
    assert goal_pose(turned, cameras((6.0, 1.0, 1.2)), 0.8)[0, 3] == pytest.approx(2.0 + 0.1 + 0.8)


def test_goal_lies_between_camera_and_object():
    assert goal_pose(thing(), cameras((2.9, 1.0, 1.2)), 0.8)[0, 3] == pytest.approx(2.9)
    assert goal_pose(thing(), cameras((2.1, 1.0, 1.2)), 0.8)[0, 3] == pytest.approx(2.8)
    assert np.isfinite(goal_pose(thing(), cameras((2.0, 1.0, 3.0)), 0.8)).all()  # seen from above only
    assert np.isfinite(goal_pose(thing(), np.zeros((0, 4, 4)), 0.8)).all()


def test_grid_holds_best_scores_and_unknown_cells():
    points = np.array([[0.02, 0.02, 0], [0.03, 0.01, 9], [0.07, 0.02, 0], [0.17, 0.13, 0]])
    grid = query_grid(points, np.array([0.2, 0.9, 0.0, 0.5]), 0.05)
    np.testing.assert_allclose(grid.origin, [0.0, 0.0], atol=1e-9)
    assert grid.cells.shape == (3, 4) and grid.cells.dtype == np.int8
    assert (grid.cells[0, 0], grid.cells[0, 1], grid.cells[2, 3], grid.cells[1, 1]) == (90, 0, 50, UNKNOWN)


def test_grid_ignores_far_strays():
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.uniform(-2, 2, (5000, 3)), [[1e6, 0, 0]]])
    assert query_grid(points, np.zeros(5001), 0.05).cells.size < 10_000
    asked = np.zeros(5001)
    asked[-1] = 0.7  # a labelled stray is kept, in larger cells
    grid = query_grid(points, asked, 0.05)
    assert grid.cells.size <= 1_100_000 and grid.cells.max() == 70


def test_grid_of_an_empty_map_is_one_unknown_cell():
    assert query_grid(np.zeros((0, 3)), np.zeros(0), 0.05).cells.tolist() == [[UNKNOWN]]
    assert query_grid(np.zeros((1, 3)), np.zeros(1), 0.05).cells.shape == (1, 1)
