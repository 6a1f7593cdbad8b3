"""Messages that cannot be used are rejected with a reason, and later ones become frames."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytestmark = pytest.mark.ros

from helpers.ros_env import HEIGHT, WIDTH  # noqa: E402
from helpers.ros_wire import (  # noqa: E402
    Robot,
    Transforms,
    connect,
    needs_tf,
    pose_at,
    wire,  # noqa: F401
    without_tf2_ros,
)

from ovs3d_ros.ros import conversions  # noqa: E402


@needs_tf
@without_tf2_ros
def test_broken_transforms_are_rejected_one_by_one(wire):
    inputs = wire.inputs(pose_source="tf")
    transforms = Transforms(wire)
    connect(wire, transforms.publishers.values())
    transforms.send(10.0, "map", "odom", pose_at(float("nan")))
    wire.spin_until(lambda: "/tf: 'odom': pose has NaN" in inputs.problem)
    transforms.send(10.0, "map", "camera", pose_at(0.0))
    transforms.send(10.0, "elsewhere", "camera", pose_at(0.0))
    wire.spin_until(lambda: "'camera' has two parents, 'map' and 'elsewhere'" in inputs.problem)


def make_bad_message(kind: str, header, world):
    """One broken message of a kind, by the input that it replaces."""
    image = conversions.to_image(np.zeros((HEIGHT, WIDTH, 3), np.uint8), "rgb8", header)
    if kind == "pose":
        pose = conversions.to_pose(np.eye(4))
        pose.position.x = float("nan")
        return {"pose": conversions.PoseStamped(header=world, pose=pose)}
    if kind == "frame":
        return {"pose": conversions.PoseStamped(header=header, pose=conversions.to_pose(np.eye(4)))}
    if kind == "size":
        return {"image": conversions.to_image(np.zeros((30, 40, 3), np.uint8), "rgb8", header)}
    if kind == "stamp":
        image.header = conversions.Header(frame_id="camera")
    elif kind == "data":
        image.data = bytes(7)
    elif kind == "encoding":
        image.encoding = "xyz12"
    elif kind == "depth":
        return {"depth": image}
    return {"image": image}


@pytest.mark.parametrize(
    "kind, problem",
    [
        ("encoding", "/image: encoding 'xyz12'"),
        ("data", "/image: 7 bytes of data"),
        ("stamp", "/image: header.stamp is 0"),
        ("size", "/image: image of 40x30 contradicts camera_info of 160x120"),
        ("pose", "/pose: pose has NaN"),
        ("frame", "/pose: poses are in frame 'camera', the map is in 'map'"),
        ("depth", "/depth: encoding 'rgb8' is not depth"),
    ],
)
def test_bad_message_is_rejected_and_next_frame_used(wire, kind, problem):
    inputs = wire.inputs()
    robot = Robot(wire)
    connect(wire, robot.publishers.values())
    robot.send(
        10.0,
        **make_bad_message(kind, conversions.to_header(10.0, "camera"), conversions.to_header(10.0, "map")),
    )
    wire.spin_until(lambda: inputs.rejected)
    assert problem in inputs.problem
    assert not wire.frames
    robot.send(11.0)
    wire.spin_until(lambda: wire.frames)
    assert inputs.problem == ""
    assert wire.frames[0].image.min() == 99


def test_unexpected_exception_rejects_only_its_message(wire, monkeypatch, caplog):
    inputs = wire.inputs()
    robot = Robot(wire)
    connect(wire, robot.publishers.values())
    with monkeypatch.context() as patch:
        patch.setattr(conversions, "from_stamped_pose", lambda *_: [][0])
        for stamp in (10.0, 10.1):
            robot.send(stamp, image=None)
        wire.spin_until(lambda: inputs.rejected == 2)
    assert "/pose: IndexError: list index out of range" in inputs.problem
    assert [record.exc_info is not None for record in caplog.records if "IndexError" in record.message] == [
        True,
        False,
    ]
    with monkeypatch.context() as patch:
        patch.setattr(conversions, "from_image", lambda *_: 1 / 0)
        robot.send(11.0)
        wire.spin_until(lambda: inputs.rejected == 3)
    assert "/image: ZeroDivisionError" in inputs.problem and not wire.frames
    robot.send(12.0)
    wire.spin_until(lambda: wire.frames)
