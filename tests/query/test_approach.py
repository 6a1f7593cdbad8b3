"""Goals on costmaps with known answers, and masks for nav2's keepout filter."""

from __future__ import annotations

import numpy as np
import pytest

from ovs3d_ros.query.approach import approach_pose, box_mask, keep_out_grid
from ovs3d_ros.query.navigation import Grid
from ovs3d_ros.types import SemanticObject, UserError

CELL = 0.05
SEEN = np.tile(np.eye(4), (1, 1, 1))
SEEN[0, :3, 3] = 5.0, 3.0, 1.2  # east of the sofa
ROBOT = np.array([6.0, 1.0])


def sofa(center=(3.0, 3.0, 0.4), size=(0.8, 2.0, 0.8), quat=(1.0, 0.0, 0.0, 0.0)) -> SemanticObject:
    return SemanticObject("sofa", 1, 1, 0.9, np.array(center), np.array(quat), np.array(size), 99, 3)


def room() -> Grid:
    """Eight by six metres of free ground between walls, with the sofa as an obstacle."""
    cells = np.zeros((120, 160), np.int8)
    cells[[0, -1]] = cells[:, [0, -1]] = 100
    cells[box_mask([sofa()], Grid(np.zeros(2), CELL, cells))] = 100
    return Grid(np.zeros(2), CELL, cells)


def block(grid: Grid, x: tuple[float, float], y: tuple[float, float], cost: int = 100) -> None:
    (left, right), (low, high) = (np.round(np.array(side) / CELL).astype(int) for side in (x, y))
    grid.cells[low:high, left:right] = cost


def approach(grid: Grid, item=None, robot=ROBOT, stand_off=0.8, radius=0.3) -> np.ndarray:
    return approach_pose(item or sofa(), grid, SEEN, robot, stand_off, radius)


def distance_to_sofa(place: np.ndarray) -> float:
    outside = np.abs(place[:2] - [3.0, 3.0]) - [0.4, 1.0]
    return float(np.linalg.norm(outside.clip(0)))


def test_goal_faces_the_thing_from_the_seen_side_at_the_stand_off():
    pose = approach(room())
    np.testing.assert_allclose(pose[:3, 3], [3.0 + 0.4 + 0.8, 3.0, 0.0], atol=1.5 * CELL)
    np.testing.assert_allclose(pose[:2, 0], [-1, 0], atol=0.05)
    assert np.linalg.det(pose[:3, :3]) == pytest.approx(1.0)


def test_goal_keeps_the_radius_from_obstacles():
    grid = room()
    block(grid, (3.9, 4.6), (2.4, 3.6))  # a table where the goal would be
    for radius in (0.2, 0.45):
        place = approach(grid, radius=radius)[:2, 3]
        occupied = np.argwhere(grid.cells == 100)[:, ::-1] * CELL + CELL / 2
        assert np.linalg.norm(occupied - place, axis=1).min() > radius
        assert abs(distance_to_sofa(place) - 0.8) <= 0.5
        assert place[0] > 3.0, "still east of the sofa's middle"


def test_inscribed_and_unknown_cells_are_no_goals_and_cheap_ones_go_first():
    for cost in (99, -1):
        grid = room()
        block(grid, (3.5, 8.0), (2.0, 4.0), cost)
        place = approach(grid, radius=0.0)[:2, 3]
        assert grid.cells[tuple((place[::-1] / CELL).astype(int))] == 0, cost
        block(grid, (0.05, 5.5), (0.05, 5.9), cost)
        with pytest.raises(UserError, match=r"no free ground within 1\.8 m of 'sofa'"):
            approach(grid, radius=0.0)
    grid = room()
    block(grid, (3.9, 4.5), (2.8, 4.0), 90)
    assert grid.cells[tuple((approach(grid)[:2, 3][::-1] / CELL).astype(int))] == 0


def test_ground_behind_a_wall_is_no_goal():
    grid = room()
    block(grid, (3.6, 3.7), (0.0, 6.0))  # the robot is in the next room, and no door leads to the sofa's
    west = SEEN.copy()
    west[0, 0, 3] = 1.0
    with pytest.raises(UserError, match="side from which it was seen"):
        approach_pose(sofa(), grid, west, ROBOT, 0.8, 0.1)
    block(grid, (3.6, 3.7), (0.2, 1.2), 0)  # a door
    assert approach_pose(sofa(), grid, west, ROBOT, 0.8, 0.1)[0, 3] < 2.6


def test_without_the_robots_place_all_free_ground_counts():
    grid = room()
    block(grid, (5.5, 5.6), (0.0, 6.0))
    with pytest.raises(UserError, match="can be reached"):
        approach(grid)
    assert approach(grid, robot=None)[0, 3] == pytest.approx(4.2, abs=0.1)


def test_robot_or_thing_outside_of_the_costmap_is_said():
    with pytest.raises(UserError, match=r"no free ground around the camera, which is at \(20.00, 1.00\)"):
        approach(room(), robot=np.array([20.0, 1.0]))
    with pytest.raises(UserError, match="'sofa' lies outside of the costmap"):
        approach(room(), sofa(center=(30.0, 3.0, 0.4)))
    with pytest.raises(UserError, match="'sofa' lies outside of the costmap"):
        approach(room(), sofa(center=(1e12, 3.0, 0.4)))


def test_mug_on_a_table_is_approached_from_the_edge_of_the_table():
    grid = room()
    block(grid, (5.0, 6.0), (4.0, 5.0))
    mug = sofa(center=(5.5, 4.5, 0.8), size=(0.1, 0.1, 0.1))
    place = approach(grid, mug, stand_off=0.3)[:2, 3]
    assert 0.5 < np.abs(place - [5.5, 4.5]).max() < 1.0


def test_keep_out_mask_covers_things_and_leaves_the_rest_unknown():
    turned = sofa(quat=(np.cos(np.pi / 8), 0.0, 0.0, np.sin(np.pi / 8)))
    grid = keep_out_grid([turned, sofa(center=(6.0, 3.0, 0.4))], CELL, 0.2)
    assert set(np.unique(grid.cells)) == {-1, 100}
    rows, columns = np.indices(grid.cells.shape)
    centers = grid.origin + (np.stack([columns, rows], -1) + 0.5) * CELL
    for item, angle in ((turned, np.pi / 4), (sofa(center=(6.0, 3.0, 0.4)), 0.0)):
        axes = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        outside = np.linalg.norm((np.abs((centers - item.center[:2]) @ axes) - [0.4, 1.0]).clip(0), axis=-1)
        assert (grid.cells[outside < 0.2 - 1.5 * CELL] == 100).all()
        other = np.linalg.norm(centers - item.center[:2], axis=-1) < 1.5
        assert (grid.cells[(outside > 0.2 + 1.5 * CELL) & other] == -1).all()
    assert keep_out_grid([], CELL, 0.2).cells.tolist() == [[-1]]
