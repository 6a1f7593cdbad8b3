"""A loop closure corrects keyframe poses; needs no ROS."""

from __future__ import annotations

import numpy as np

from ovs3d_ros.sensors.corrections import correct_poses

STAMPS = np.arange(10.0, 15.0)


def at(x: float, y: float = 0.0) -> np.ndarray:
    pose = np.eye(4)
    pose[:2, 3] = x, y
    return pose


def test_unmatched_keyframes_move_with_their_neighbours():
    old = np.array([at(x) for x in range(5)])
    path = np.array([at(1.0, 1.0), at(3.0, 3.0)])  # drift in y grew from keyframe 1 to 3
    new = correct_poses(STAMPS, old, np.array([11.001, 13.0]), path, slop=0.01)
    np.testing.assert_allclose(
        [new[k][:2, 3] for k in range(5)], [[0, 1], [1, 1], [2, 2], [3, 3], [4, 3]], atol=1e-9
    )


def test_keyframes_that_do_not_move_are_left_out():
    old = np.array([at(x) for x in range(5)])
    assert correct_poses(STAMPS, old, STAMPS, old, slop=0.01) == {}
    assert correct_poses(STAMPS, old, STAMPS + 500.0, old + 1.0, slop=0.01) == {}
    assert correct_poses(STAMPS, old, np.zeros(0), np.zeros((0, 4, 4)), slop=0.01) == {}
    assert correct_poses(np.zeros(0), np.zeros((0, 4, 4)), STAMPS, old, slop=0.01) == {}
    moved = old.copy()
    moved[4] = at(4.0, 0.5)
    assert list(correct_poses(STAMPS, old, STAMPS, moved, slop=0.01)) == [4]


def test_keyframes_may_come_in_any_order_of_stamps():
    order = np.array([3, 0, 4, 1, 2])  # two cameras, or a clock that jumped
    old = np.array([at(float(k)) for k in order])
    new = correct_poses(STAMPS[order], old, STAMPS[[1, 3]], np.array([at(1.0, 1.0), at(3.0, 3.0)]), slop=0.01)
    np.testing.assert_allclose(new[4][:2, 3], [2, 2], atol=1e-9)
