"""Poses of the robot are led to the camera by /tf_static or by the extrinsics, or are refused."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytestmark = pytest.mark.ros

from helpers.ros_wire import Robot, Transforms, connect, needs_tf, pose_at, wire  # noqa: E402, F401

from ovs3d_ros.ros import conversions  # noqa: E402

MOUNT = (0.1, 0.0, 0.5, -0.5, 0.5, -0.5, 0.5)
MATRIX = conversions.extrinsics_matrix(MOUNT, "mount")


class Drive:
    """A robot that publishes images and poses of a frame of its own."""

    def __init__(self, wire, source: str, child: str):
        self.robot, self.child = Robot(wire, without="pose"), child
        kind = conversions.Odometry if source == "odom" else conversions.TransformStamped
        self.poses = self.robot.node.create_publisher(kind, source, 10)
        self.odometry = source == "odom"
        connect(wire, [*self.robot.publishers.values(), self.poses])

    def send(self, stamp: float, pose: np.ndarray) -> None:
        make = conversions.to_odometry if self.odometry else conversions.to_transform
        self.poses.publish(make(pose, conversions.to_header(stamp, "map"), self.child))
        self.robot.send(stamp)


@needs_tf
@pytest.mark.parametrize("source", ["odom", "transform"])
def test_static_transform_leads_to_the_camera(wire, source):
    transforms = Transforms(wire)
    transforms.send(0.0, "base_link", "camera", MATRIX, "/tf_static")  # before anyone listens
    wire.inputs(pose_source=source, tf__timeout_s=20.0)
    Drive(wire, source, "/base_link").send(10.0, pose_at(3.0))
    wire.spin_until(lambda: wire.frames)
    np.testing.assert_allclose(wire.frames[0].camtoworld, pose_at(3.0) @ MATRIX, atol=1e-9)


@needs_tf
def test_static_transforms_lead_odometry_to_each_of_two_cameras(wire):
    transforms, mounts = Transforms(wire), {"front": MATRIX, "rear": pose_at(-0.4) @ MATRIX}
    inputs = wire.inputs(pose_source="odom", input__cameras=list(mounts), tf__timeout_s=20.0)
    robots = {name: Robot(wire, camera=name, without="pose") for name in mounts}
    odometry = robots["front"].node.create_publisher(conversions.Odometry, "odom", 10)
    outputs = [odometry, *(p for robot in robots.values() for p in robot.publishers.values())]
    connect(wire, [*outputs, transforms.publishers["/tf_static"]])
    for name, mount in mounts.items():
        transforms.send(0.0, "base_link", name, mount, "/tf_static")
    odometry.publish(conversions.to_odometry(pose_at(3.0), conversions.to_header(10.0, "map"), "base_link"))
    for robot in robots.values():
        robot.send(10.0)
    wire.spin_until(lambda: len(wire.frames) == 2)
    for frame in wire.frames:
        np.testing.assert_allclose(frame.camtoworld, pose_at(3.0) @ mounts[frame.sensor], atol=1e-9)
    for camera in inputs.cameras:
        np.testing.assert_allclose(camera.mount, mounts[camera.name], atol=1e-9)


@pytest.mark.parametrize("extrinsics, expected", [(MOUNT, MATRIX), ((0, 0, 0, 0, 0, 0, 1), np.eye(4))])
def test_pose_with_covariance_is_that_of_the_robot_if_extrinsics_are_set(wire, extrinsics, expected):
    wire.inputs(pose_source="pose_with_covariance", input__extrinsics=[float(x) for x in extrinsics])
    robot = Robot(wire, without="pose")
    kind = conversions.PoseWithCovarianceStamped
    poses = robot.node.create_publisher(kind, "pose_with_covariance", 10)
    connect(wire, [*robot.publishers.values(), poses])
    poses.publish(conversions.to_pose_with_covariance(pose_at(3.0), conversions.to_header(10.0, "map")))
    robot.send(10.0)
    wire.spin_until(lambda: wire.frames)
    np.testing.assert_allclose(wire.frames[0].camtoworld, pose_at(3.0) @ expected, atol=1e-9)


@needs_tf
@pytest.mark.parametrize("source", ["odom", "transform"])
def test_poses_of_an_unconnected_frame_are_refused(wire, source):
    inputs = wire.inputs(pose_source=source, tf__timeout_s=0.1)
    Drive(wire, source, "base_link").send(10.0, pose_at(3.0))
    wire.spin_until(lambda: inputs.diagnostic_values()["lost_pose"])
    silence = inputs.report_silence()
    assert silence.startswith("the poses are those of 'base_link', images are in 'camera', and /tf_static")
    assert "no publisher on /tf_static" in silence and "set input.extrinsics" in silence
    assert not wire.frames


@pytest.mark.parametrize("source", ["odom", "transform"])
@pytest.mark.parametrize("extrinsics, expected", [(MOUNT, MATRIX), ((0, 0, 0, 0, 0, 0, -1), np.eye(4))])
def test_extrinsics_that_are_set_lead_to_the_camera(wire, source, extrinsics, expected):
    wire.inputs(pose_source=source, input__extrinsics=[float(x) for x in extrinsics])
    Drive(wire, source, "base_link").send(10.0, pose_at(3.0))
    wire.spin_until(lambda: wire.frames)
    np.testing.assert_allclose(wire.frames[0].camtoworld, pose_at(3.0) @ expected, atol=1e-9)


def test_odometry_without_child_frame_is_that_of_the_camera(wire):
    wire.inputs(pose_source="odom")
    Drive(wire, "odom", "").send(10.0, pose_at(3.0))
    wire.spin_until(lambda: wire.frames)
    np.testing.assert_allclose(wire.frames[0].camtoworld, pose_at(3.0))


def test_odometry_of_a_second_frame_is_rejected(wire):
    inputs = wire.inputs(pose_source="odom")
    drive = Drive(wire, "odom", "camera")
    drive.send(10.0, pose_at(3.0))
    wire.spin_until(lambda: wire.frames)
    drive.child = "other"
    drive.send(11.0, pose_at(4.0))
    wire.spin_until(lambda: inputs.rejected)
    assert "poses of several frames, 'camera' and 'other'" in inputs.problem
