"""Inputs that a latched publisher sends once, before the node subscribes, arrive; volatile ones too, once."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytestmark = pytest.mark.ros

from helpers.ros_wire import CAMERA, Robot, connect, wire  # noqa: E402, F401
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy  # noqa: E402

from ovs3d_ros.config import Config, override  # noqa: E402
from ovs3d_ros.ros import conversions  # noqa: E402
from ovs3d_ros.ros.inputs.cameras import Inputs  # noqa: E402

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
VOLATILE = QoSProfile(depth=1)
BEST_EFFORT = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)


@pytest.mark.parametrize("quality", ["reliable", "sensor_data"])
@pytest.mark.parametrize("stamp", [0.0, 3.0])
def test_calibration_latched_before_the_node_starts_arrives(wire, quality, stamp):
    robot = Robot(wire, without="camera_info")
    publisher = robot.node.create_publisher(conversions.CameraInfo, "camera_info", LATCHED)
    header = conversions.Header() if stamp == 0 else conversions.to_header(stamp, "camera")
    publisher.publish(conversions.to_camera_info(CAMERA, header))
    inputs = wire.inputs(qos__input=quality)
    connect(wire, robot.publishers.values())
    wire.spin_until(lambda: inputs.streams["camera_info"].received)
    robot.send(10.0)
    wire.spin_until(lambda: wire.frames)
    assert inputs.rejected == 0


@pytest.mark.parametrize("profile", [LATCHED, VOLATILE, BEST_EFFORT])
def test_each_calibration_counts_once(wire, profile):
    inputs = wire.inputs(qos__input="sensor_data")
    node = wire.node("calibration")
    publisher = node.create_publisher(conversions.CameraInfo, "camera_info", profile)
    wire.spin_until(lambda: publisher.get_subscription_count() == (2 if profile is LATCHED else 1))
    stream = inputs.streams["camera_info"]
    for k in range(1, 4):
        publisher.publish(conversions.to_camera_info(CAMERA, conversions.to_header(10.0 + k, "camera")))
        wire.spin_until(lambda stamp=10.0 + k: stream.newest_stamp == stamp)
        wire.spin(0.1)
    assert (stream.received, stream.lost, stream.incompatible) == (3, 0, 0)


@pytest.mark.parametrize("profile", [LATCHED, VOLATILE])
def test_path_of_a_loop_closure_arrives_once(wire, profile):
    publisher = wire.node("slam").create_publisher(conversions.Path, "keyframe_path", profile)
    header = conversions.to_header(10.0, "map")
    pose = conversions.PoseStamped(header=header, pose=conversions.to_pose(np.eye(4)))
    message = conversions.Path(header=header, poses=[pose])
    if profile is LATCHED:
        publisher.publish(message)
    config, paths = override(Config(), {"qos.input": "reliable"}), []
    Inputs(wire.node("receiver"), config, lambda *_: None, lambda path, stream: paths.append(path))
    if profile is VOLATILE:
        connect(wire, [publisher])
        publisher.publish(message)
    wire.spin_until(lambda: paths)
    wire.spin(0.3)
    assert paths == [message]
