"""Inputs that a latched publisher sends once, before the node subscribes, arrive; volatile ones too, once."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytestmark = pytest.mark.ros

from helpers.ros_wire import CAMERA, Robot, connect, wire  # noqa: E402, F401
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup  # noqa: E402
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy  # noqa: E402

from ovs3d_ros.config import Config, override  # noqa: E402
from ovs3d_ros.ros import conversions  # noqa: E402
from ovs3d_ros.ros.inputs.cameras import Inputs  # noqa: E402
from ovs3d_ros.ros.inputs.streams import Quality, Stream  # noqa: E402

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


def make_stream(wire, latched: bool) -> Stream:
    node, group = wire.node("receiver"), MutuallyExclusiveCallbackGroup()
    quality = Quality(VOLATILE, latched=latched)
    kind = conversions.CameraInfo
    return Stream(node, "camera_info", kind, "camera_info", quality, group, lambda *_: None, print)


def receive(stream: Stream, *numbers: int) -> None:
    """As on Jazzy, whose message information does not name the publisher."""
    for number in numbers:
        info = {"source_timestamp": 7 * number, "publication_sequence_number": number}
        stream._receive(conversions.CameraInfo(), info)


def test_latched_message_counts_once_where_publishers_are_unknown(wire):
    stream = make_stream(wire, latched=True)
    receive(stream, 1, 1, 2, 3, 3, 2)
    assert stream.received == 3


def test_losses_of_a_single_publisher_are_counted_where_publishers_are_unknown(wire):
    stream, node = make_stream(wire, latched=False), wire.node("camera")
    receive(stream, 1, 9)
    assert stream.lost == 0  # nothing is known of the publishers yet
    node.create_publisher(conversions.CameraInfo, "camera_info", VOLATILE)
    wire.spin_until(lambda: stream._node.count_publishers("camera_info") == 1)
    stream.update_rate(1.0)
    receive(stream, 10, 11, 14, 1, 2)  # two were lost, and then the publisher started again
    assert stream.lost == 2
    node.create_publisher(conversions.CameraInfo, "camera_info", VOLATILE)
    wire.spin_until(lambda: stream._node.count_publishers("camera_info") == 2)
    stream.update_rate(1.0)
    receive(stream, 3, 40, 4, 41)
    assert stream.lost == 2


@pytest.mark.parametrize("profile", [LATCHED, VOLATILE])
def test_calibration_of_a_camera_that_starts_again_arrives(wire, profile):
    inputs = wire.inputs()
    stream, node = inputs.streams["camera_info"], wire.node("calibration")
    matches = 2 if profile is LATCHED else 1
    for run in range(2):
        publisher = node.create_publisher(conversions.CameraInfo, "camera_info", profile)
        wire.spin_until(lambda new=publisher: new.get_subscription_count() == matches)
        for k in range(3 - run):
            stamp = 10.0 * run + k + 1
            publisher.publish(conversions.to_camera_info(CAMERA, conversions.to_header(stamp, "camera")))
            wire.spin_until(lambda stamp=stamp: stream.newest_stamp == stamp)
        node.destroy_publisher(publisher)
    assert stream.received == 5


@pytest.mark.parametrize("profile", [LATCHED, VOLATILE])
def test_path_of_a_loop_closure_arrives_once(wire, profile):
    publisher = wire.node("slam").create_publisher(conversions.Path, "keyframe_path", profile)
    header = conversions.to_header(10.0, "map")
    pose = conversions.PoseStamped(header=header, pose=conversions.to_pose(np.eye(4)))
    message = conversions.Path(header=header, poses=[pose])
    if profile is LATCHED:
        publisher.publish(message)
    config, paths = override(Config(), {"qos.input": "reliable"}), []
    Inputs(wire.node("receiver"), config, lambda *_: None, lambda path, *_: paths.append(path))
    if profile is VOLATILE:
        connect(wire, [publisher])
        publisher.publish(message)
    wire.spin_until(lambda: paths)
    wire.spin(0.3)
    assert paths == [message]
