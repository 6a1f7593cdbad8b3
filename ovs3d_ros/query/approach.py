"""Where a robot may stand to see a thing: free ground of a costmap; and the ground that it must avoid."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from scipy import ndimage

from ovs3d_ros.geometry import box_corners
from ovs3d_ros.query.navigation import UNKNOWN, Grid, goal_pose
from ovs3d_ros.types import SemanticObject, UserError

OCCUPIED = 100
_INSCRIBED = 99  # cost of nav2 from which the robot touches an obstacle
_MAX_START = 1.0  # metres from the camera to free ground: it stands on the robot, which may be long
_LEEWAY = 1.0  # metres by which a goal may be nearer or further than `stand_off`
_PER_METRE, _PER_COST = 0.2, 0.3  # what a metre beside the seen side counts, and the highest cost, in metres


def approach_pose(
    item: SemanticObject,
    costmap: Grid,
    camtoworlds: np.ndarray,
    robot: np.ndarray | None,
    stand_off: float,
    radius: float,
) -> np.ndarray:
    """A pose on free ground (z = 0) that the robot can reach and that faces an object.

    The goal lies on the side from which the object was seen: only ground counts that is connected, in the
    neighbourhood of the object, with the view that `navigation.goal_pose` chooses. Of that ground it takes
    the cell whose distance from the object is nearest to `stand_off`, with small terms for the way around
    the object and for the cost.

    Args:
        item: the object.
        costmap: costs 0..100 as nav2 publishes them (99: the robot touches an obstacle, 100: an obstacle), -1
            where nothing is known, in the frame of the map.
        camtoworlds: [K, 4, 4] poses of the keyframes.
        robot: [2] where it is, metres; None: not known, all free ground counts as reachable.
        stand_off: distance from the object's box, metres.
        radius: distance that the robot's centre keeps from occupied cells, metres.

    Returns:
        Pose [4, 4], x axis towards the object.

    Raises:
        UserError: the robot or the object is outside of the costmap, or no such ground exists.
    """
    free = _free(costmap, radius)
    reachable = free if robot is None else _reachable(free, costmap, robot)
    corners = box_corners(item.center, item.size, item.quat)[:, :2]
    room = stand_off + _LEEWAY
    near, window = _crop(costmap, corners.min(0) - room, corners.max(0) + room)
    thing = box_mask([item], near)
    if not thing.any():
        raise UserError(f"'{item.prompt}' lies outside of the costmap")
    distances = _metres_to(thing, near)
    free, reachable = free[window] & ~thing, reachable[window]
    seen = _seen_cell(free, near, goal_pose(item, camtoworlds, stand_off), item.center[:2])
    labels = _regions(free)
    possible = reachable & (labels == labels[seen]) & (np.abs(distances - stand_off) <= _LEEWAY)
    rows, columns = np.nonzero(possible & free)
    if not len(rows):
        raise UserError(
            f"no free ground within {room:.1f} m of '{item.prompt}' can be reached on the side from which it "
            "was seen; lower navigation.robot_radius or output.stand_off, or look at the costmap"
        )
    score = np.abs(distances[rows, columns] - stand_off)
    score += _PER_COST * near.cells[rows, columns] / OCCUPIED
    score += _PER_METRE * near.resolution * np.hypot(rows - seen[0], columns - seen[1])
    best = score.argmin()
    return _facing(_centers(near, rows[best], columns[best]), item.center[:2])


def box_mask(items: Sequence[SemanticObject], grid: Grid, margin: float = 0.0) -> np.ndarray:
    """The cells [rows, columns] of a grid below the boxes of objects, and a margin in metres around."""
    mask = np.zeros(grid.cells.shape, np.uint8)
    limit = 4 * max(mask.shape)  # cells; OpenCV counts in 32 bits
    for item in items:
        corners = box_corners(item.center, item.size, item.quat)[:, :2]
        cells = ((corners - grid.origin) / grid.resolution - 0.5).clip(-limit, limit)
        cv2.fillConvexPoly(mask, cv2.convexHull(np.round(cells).astype(np.int32)), 1)
    if margin <= 0 or not mask.any():
        return mask > 0
    return _metres_to(mask > 0, grid) <= margin


def keep_out_grid(items: Sequence[SemanticObject], resolution: float, margin: float) -> Grid:
    """A mask for nav2's keepout filter: 100 where objects stand and a margin around, else -1.

    nav2 leaves cells as they are where the mask is -1. Where the mask is 0, it would take ground that it does
    not know for free.

    Args:
        items: the objects to keep away from.
        resolution: side of a cell, metres.
        margin: metres around their boxes.

    Returns:
        The grid; without objects one cell of -1.
    """
    if not items:
        return Grid(np.zeros(2), resolution, np.full((1, 1), UNKNOWN, np.int8))
    corners = np.concatenate([box_corners(i.center, i.size, i.quat)[:, :2] for i in items])
    low = np.floor((corners.min(0) - margin) / resolution) * resolution - resolution
    columns, rows = np.ceil((corners.max(0) + margin - low) / resolution).astype(int) + 2
    grid = Grid(low, resolution, np.full((rows, columns), UNKNOWN, np.int8))
    grid.cells[box_mask(items, grid, margin)] = OCCUPIED
    return grid


def _free(costmap: Grid, radius: float) -> np.ndarray:
    """The cells [rows, columns] on which the robot's centre may be."""
    free = (costmap.cells >= 0) & (costmap.cells < _INSCRIBED)
    occupied = costmap.cells >= OCCUPIED
    if radius > 0 and occupied.any():
        free &= _metres_to(occupied, costmap) > radius
    return free


def _reachable(free: np.ndarray, costmap: Grid, robot: np.ndarray) -> np.ndarray:
    """The free cells that are connected with the one nearest to the robot."""
    rows, columns = np.nonzero(free)
    distances = np.linalg.norm(_centers(costmap, rows, columns) - robot, axis=-1)
    if not len(rows) or distances.min() > _MAX_START:
        place = ", ".join(f"{v:.2f}" for v in robot)
        raise UserError(f"the costmap has no free ground around the camera, which is at ({place})")
    labels = _regions(free)
    nearest = distances.argmin()
    return labels == labels[rows[nearest], columns[nearest]]


def _crop(costmap: Grid, low: np.ndarray, high: np.ndarray) -> tuple[Grid, tuple[slice, slice]]:
    """The part of a costmap between two corners, at least one cell, and where it is."""
    shape = np.array(costmap.cells.shape[::-1])
    first = np.floor((low - costmap.origin) / costmap.resolution).clip(0, shape - 1).astype(int)
    last = np.ceil((high - costmap.origin) / costmap.resolution).clip(first + 1, shape).astype(int)
    window = slice(first[1], last[1]), slice(first[0], last[0])
    origin = costmap.origin + first * costmap.resolution
    return Grid(origin, costmap.resolution, costmap.cells[window]), window


def _seen_cell(free: np.ndarray, near: Grid, view: np.ndarray, center: np.ndarray) -> tuple[int, int]:
    """A cell on the side from which an object was seen.

    The free cell nearest to `view`, which looks at the object; one on the line through both if there are
    any. Without any free cell, the first one.
    """
    rows, columns = np.nonzero(free)
    if not len(rows):
        return 0, 0
    offsets = _centers(near, rows, columns) - center
    away, wanted = -view[:2, 0], float(np.linalg.norm(view[:2, 3] - center))
    beside = np.abs(offsets @ [-away[1], away[0]])
    on_line = (offsets @ away > 0) & (beside <= near.resolution)
    if on_line.any():
        rows, columns, offsets = rows[on_line], columns[on_line], offsets[on_line]
    best = np.linalg.norm(offsets - wanted * away, axis=-1).argmin()
    return int(rows[best]), int(columns[best])


def _metres_to(mask: np.ndarray, grid: Grid) -> np.ndarray:
    """The distance of each cell from the nearest one in a mask that is not empty."""
    return grid.resolution * np.asarray(ndimage.distance_transform_edt(~mask))


def _regions(mask: np.ndarray) -> np.ndarray:
    """Numbers from 1 of the connected parts of a mask; 0 outside of it."""
    labels = np.zeros(mask.shape, np.int32)
    ndimage.label(mask, output=labels)
    return labels


def _centers(grid: Grid, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """World coordinates [..., 2] of the centres of cells."""
    return grid.origin + (np.stack([columns, rows], axis=-1) + 0.5) * grid.resolution


def _facing(place: np.ndarray, target: np.ndarray) -> np.ndarray:
    x, y = (target - place) / np.linalg.norm(target - place)
    pose = np.eye(4)
    pose[:2, 3] = place
    pose[:2, :2] = [[x, -y], [y, x]]
    return pose
