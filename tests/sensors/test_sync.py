"""Images are matched with depth and poses by stamp; needs no ROS."""

from __future__ import annotations

import numpy as np
import pytest

from ovs3d_ros.geometry import rotation_angle
from ovs3d_ros.sensors.sync import FrameSynchronizer, PoseBuffer, StampBuffer, interpolate_pose


def pose(angle: float, x: float = 0.0) -> np.ndarray:
    """A turn about z by `angle` radians at (x, 0, 0)."""
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    matrix[0, 3] = x
    return matrix


def make(use_depth: bool = True, slop: float = 0.02, timeout: float = 1.0, **options) -> FrameSynchronizer:
    return FrameSynchronizer(
        PoseBuffer(slop, max_gap=0.5), slop, timeout, clock_jump=2.0, use_depth=use_depth, **options
    )


@pytest.mark.parametrize(
    "a, b, fraction", [(0.2, 1.0, 0.25), (3.0, 3.4, 0.5), (-0.1, -0.1, 0.7), (0.0, 1e-9, 0.5)]
)
def test_interpolated_poses_turn_at_a_constant_rate(a, b, fraction):
    middle = interpolate_pose(pose(a, 1.0), pose(b, 3.0), fraction)
    assert rotation_angle(middle[:3, :3], pose(a + fraction * (b - a))[:3, :3]) < 1e-7
    assert middle[0, 3] == pytest.approx(1.0 + 2.0 * fraction)


def test_interpolation_takes_the_shorter_arc():
    middle = interpolate_pose(pose(np.radians(170)), pose(np.radians(-170)), 0.5)
    assert rotation_angle(middle[:3, :3], pose(np.pi)[:3, :3]) < 1e-7


def test_pose_is_interpolated_to_the_image_stamp():
    sync = make(use_depth=False)
    sync.poses.add(10.0, pose(0.0, 0.0))
    sync.add_image(10.03, "image", now=0.0)
    assert sync.take_complete(0.0) == []  # the pose after the image may still come
    sync.poses.add(10.1, pose(0.1, 1.0))
    (match,) = sync.take_complete(0.0)
    assert match.image == "image"
    assert match.camtoworld[0, 3] == pytest.approx(0.3)
    assert rotation_angle(match.camtoworld[:3, :3], pose(0.03)[:3, :3]) < 1e-7


def test_long_gap_is_not_interpolated_but_near_pose_is_used():
    sync = make(use_depth=False)
    for stamp in (10.0, 12.0):
        sync.poses.add(stamp, pose(0.0, stamp))
    sync.add_image(10.01, "near", now=0.0)
    sync.add_image(11.0, "far", now=0.0)
    (match,) = sync.take_complete(0.0)
    assert (match.image, match.camtoworld[0, 3]) == ("near", 10.0)
    assert sync.take_complete(1.5) == []
    assert (sync.counts.lost_pose, sync.counts.matched, sync.waiting) == (1, 1, 0)


def test_last_pose_is_used_after_the_timeout():
    sync = make(use_depth=False)
    sync.poses.add(10.0, pose(0.0))
    sync.add_image(10.015, "image", now=0.0)
    assert sync.take_complete(0.9) == []
    assert len(sync.take_complete(1.0)) == 1


def test_depth_matches_an_image_only_within_the_tolerance():
    sync = make()
    sync.poses.add(10.0, pose(0.0))
    sync.add_image(10.0, "image", now=0.0)
    sync.add_depth(10.05, "late")
    assert sync.take_complete(0.0) == []
    sync.add_depth(10.01, "right")
    (match,) = sync.take_complete(0.0)
    assert match.depth == "right"


def test_depth_of_the_previous_image_is_not_used_too_early():
    sync = make()
    for stamp in (10.0, 10.01):
        sync.poses.add(stamp, pose(0.0))
    sync.add_depth(10.0, "of the image before")
    sync.add_image(10.01, "image", now=0.0)
    assert sync.take_complete(0.0) == []
    sync.add_depth(10.01, "its own")
    (match,) = sync.take_complete(0.0)
    assert match.depth == "its own"
    sync.add_image(10.015, "another", now=0.0)
    sync.poses.add(10.015, pose(0.0))
    (match,) = sync.take_complete(1.0)  # after the timeout, the nearest depth is used
    assert (match.image, match.depth) == ("another", "its own")


def test_image_without_depth_is_dropped_after_the_timeout():
    sync = make()
    sync.poses.add(10.0, pose(0.0))
    sync.add_image(10.0, "image", now=0.0)
    assert sync.take_complete(2.0) == []
    assert (sync.counts.lost_depth, sync.waiting) == (1, 0)


def test_matches_are_sorted_whatever_the_order_of_arrival():
    sync = make()
    for stamp in (10.4, 10.0, 10.2):
        sync.add_image(stamp, f"image {stamp}", now=0.0)
    for stamp in (10.2, 10.4, 10.0):
        sync.add_depth(stamp, f"depth {stamp}")
        sync.poses.add(stamp, pose(0.0, stamp))
    matches = sync.take_complete(0.0)
    assert [m.stamp for m in matches] == [10.0, 10.2, 10.4]
    assert all(m.depth == f"depth {m.stamp}" and m.camtoworld[0, 3] == m.stamp for m in matches)


def test_full_buffer_drops_and_counts_the_oldest_image():
    sync = make(use_depth=False, capacity=3)
    for i in range(5):
        sync.add_image(10.0 + i / 10, i, now=0.0)
    assert (sync.waiting, sync.counts.lost_overflow) == (3, 2)
    sync.poses.add(10.2, pose(0.0))
    assert [m.image for m in sync.take_complete(0.0)] == [2]


def test_poses_may_be_as_late_as_the_timeout_allows():
    sync, matches = make(timeout=5.0), []
    for k in range(300):  # ten seconds at 30 Hz
        now = k / 30
        sync.add_image(100 + now, k, now)
        sync.add_depth(100 + now, k)
        sync.poses.add(100 + now - 4.5, pose(0.0))
        matches += sync.take_complete(now)
    assert [(m.image, m.depth) for m in matches] == [(k, k) for k in range(300 - 135)]
    assert (sync.counts.lost_overflow, sync.counts.lost_pose, sync.waiting) == (0, 0, 135)


def test_images_without_poses_are_buffered_until_the_timeout():
    sync = make(timeout=2.0)
    for k in range(600):
        sync.add_image(100 + k / 30, k, k / 30)
        sync.add_depth(100 + k / 30, k)
    assert 60 < sync.waiting <= 91 and sync.waiting + sync.counts.lost_overflow == 600
    assert 60 < len(sync._depths.items) <= 92


def test_clock_jump_empties_the_buffers_and_matching_goes_on():
    sync = make()
    sync.poses.add(100.0, pose(0.0, 7.0))
    sync.add_depth(100.0, "old depth")
    sync.add_image(100.1, "old image", now=0.0)
    sync.add_image(50.0, "new image", now=0.1)
    assert (sync.waiting, sync.counts.clock_jumps) == (1, 1)
    assert sync.poses.at(100.0, accept_nearest=True) is None
    sync.note_stamp("pose", 50.0)
    sync.poses.add(50.0, pose(0.0, 1.0))
    sync.add_depth(50.0, "new depth")
    (match,) = sync.take_complete(0.2)
    assert (match.image, match.depth, match.camtoworld[0, 3]) == ("new image", "new depth", 1.0)
    assert sync.counts.clock_jumps == 1


def test_slight_disorder_of_stamps_is_no_clock_jump():
    sync = make()
    sync.add_image(100.0, "a", now=0.0)
    sync.add_image(99.0, "b", now=0.0)
    sync.add_depth(97.5, "a stream that lags")
    assert sync.counts.clock_jumps == 0
    assert sync.waiting == 2


def test_item_of_equal_stamp_is_replaced():
    buffer = StampBuffer(2)
    for item in ("first", "second"):
        buffer.add(1.0, item)
    buffer.add(2.0, "third")
    assert buffer.items == ["second", "third"]
    buffer.add(3.0, "fourth")
    assert buffer.stamps == [2.0, 3.0]
