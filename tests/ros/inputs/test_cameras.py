"""Names and extrinsics of several cameras are checked."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy")
pytestmark = pytest.mark.ros

from ovs3d_ros.config import Config, override  # noqa: E402
from ovs3d_ros.ros.inputs.cameras import check_cameras, chosen_extrinsics, split_extrinsics  # noqa: E402
from ovs3d_ros.types import UserError  # noqa: E402


@pytest.mark.parametrize(
    "names", [["front", ""], ["a", "a"], ["a b"], ["/front"], ["1st"], ["a/b"], ["größe"]]
)
def test_camera_names_must_be_valid_in_topics(names):
    with pytest.raises(UserError, match=r"input\.cameras"):
        check_cameras(tuple(names))


def test_odometry_needs_extrinsics_of_each_camera():
    config = override(Config(), {"pose_source": "odom"})
    one = override(config, {"input.extrinsics": [1.0, 0, 0, 0, 0, 0, 1]})
    with pytest.raises(UserError, match="for each of the 2 cameras, got 7"):
        split_extrinsics(one, 2)
    assert chosen_extrinsics(config, 2) == [None, None]  # not set: /tf_static leads to the cameras
    with pytest.raises(UserError, match="expected 7 numbers"):
        split_extrinsics(override(config, {"input.extrinsics": [0.0] * 14}), 1)
    assert len(split_extrinsics(Config(), 2)) == 2
