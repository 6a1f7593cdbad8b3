"""The camera's frame on /tf, for robots whose poses are messages of their own."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import synthetic

pytest.importorskip("rclpy")

from helpers.ros_wire import connect, needs_tf, wire  # noqa: F401

from ovs3d_ros.config import Config, override
from ovs3d_ros.ros import conversions
from ovs3d_ros.ros.outputs.camera_transform import CameraTransform
from ovs3d_ros.types import UserError

pytestmark = [pytest.mark.ros, needs_tf]


def test_camera_frame_is_broadcast_at_the_pose_of_each_frame(wire):
    received = []
    wire.node("listener").create_subscription(conversions.tf_message_type(), "/tf", received.append, 10)
    config = override(Config(), {"output.camera_tf": True, "input.world_frame": "odom"})
    camera = CameraTransform(wire.node("sender"), config)
    connect(wire, [camera._publisher])
    frame, header = synthetic.make_frames(1)[0], conversions.to_header(12.5, "/camera_optical")
    camera.send(frame, conversions.to_header(11.0, ""))
    camera.send(frame, conversions.to_header(11.0, "odom"))
    camera.send(frame, header)
    wire.spin_until(lambda: received)
    (transform,) = received[0].transforms
    assert (transform.header.frame_id, transform.child_frame_id) == ("odom", "camera_optical")
    assert transform.header.stamp == header.stamp
    matrix = conversions.from_transform(transform.transform, "tf")
    np.testing.assert_allclose(matrix, frame.camtoworld, atol=1e-9)
    assert len(received) == 1, "a frame without a name, or that is its own parent, is refused by tf2"


@pytest.mark.parametrize("source", ["tf", "odom", "transform", "pose_with_covariance"])
def test_second_parent_of_the_camera_is_refused(wire, source):
    config = override(Config(), {"output.camera_tf": True, "pose_source": source})
    with pytest.raises(UserError, match=rf"output\.camera_tf: with pose_source {source} .*set .* to false"):
        CameraTransform(wire.node("sender"), config)


def test_without_the_option_nothing_is_advertised(wire):
    node = wire.node("sender")
    CameraTransform(node, Config()).send(synthetic.make_frames(1)[0], conversions.to_header(1.0, "camera"))
    assert node.count_publishers("/tf") == 0
