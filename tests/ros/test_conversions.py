"""Message converters, parameters and shipped ROS files, in one process without discovery."""

from __future__ import annotations

import array
import importlib.util
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy")
pytestmark = pytest.mark.ros

from rclpy.serialization import deserialize_message, serialize_message  # noqa: E402

from ovs3d_ros.config import Config  # noqa: E402
from ovs3d_ros.ros import conversions  # noqa: E402
from ovs3d_ros.ros.environment import child_environment, find_config  # noqa: E402
from ovs3d_ros.sensors.calibration import make_rectifier  # noqa: E402
from ovs3d_ros.sensors.pixels import BitDepth  # noqa: E402
from ovs3d_ros.types import Camera, UserError  # noqa: E402

REPOSITORY = Path(__file__).resolve().parents[2]
HEADER = conversions.to_header(1_700_000_000.25, "map")


def through_the_wire(message):
    """The message after serialization and deserialization."""
    return deserialize_message(serialize_message(message), type(message))


@pytest.mark.parametrize(
    "encoding, make",
    [
        ("rgb8", lambda r: r.integers(0, 255, (6, 8, 3), np.uint8, endpoint=True)),
        ("mono8", lambda r: r.integers(0, 255, (6, 8), np.uint8, endpoint=True)),
        ("16UC1", lambda r: r.integers(0, 65535, (6, 8), np.uint16, endpoint=True)),
        ("32FC1", lambda r: r.random((6, 8), np.float32)),
    ],
)
def test_images_survive_the_wire(encoding, make):
    pixels = make(np.random.default_rng(0))
    message = through_the_wire(conversions.to_image(pixels, encoding, HEADER))
    assert (message.height, message.width, message.encoding) == (6, 8, encoding)
    assert np.array_equal(np.frombuffer(message.data, pixels.dtype).reshape(pixels.shape), pixels)
    if encoding == "rgb8":
        assert np.array_equal(conversions.from_image(message, "image", BitDepth()), pixels)
    elif encoding == "16UC1":
        np.testing.assert_allclose(conversions.from_depth(message, "depth", 1.0), pixels / 1000, rtol=1e-6)
    elif encoding == "32FC1":
        np.testing.assert_allclose(conversions.from_depth(message, "depth", 1.0), pixels)


@pytest.mark.parametrize("wrap", [bytes, lambda b: array.array("B", b)])
def test_compressed_images_are_read_from_any_buffer(wrap):
    pixels = np.random.default_rng(0).integers(0, 255, (6, 8, 3), np.uint8)
    data = cv2.imencode(".png", pixels[..., ::-1])[1].tobytes()
    message = conversions.CompressedImage(header=HEADER, format="rgb8; png compressed bgr8", data=wrap(data))
    assert np.array_equal(conversions.from_image(message, "image", BitDepth()), pixels)


def test_camera_info_there_and_back():
    K = np.array([[200.0, 0, 81.25], [0, 210.0, 60.75], [0, 0, 1]])
    message = through_the_wire(conversions.to_camera_info(Camera(K, 160, 120), HEADER))
    assert message.k[2] == 80.75  # ROS counts pixel centres as integers
    assert message.p[2] == 80.75
    calibration = conversions.from_camera_info(message)
    for rectified in (False, True):
        camera = make_rectifier(calibration, rectified, "camera_info").camera
        np.testing.assert_allclose(camera.K, K)
        assert (camera.width, camera.height) == (160, 120)


def test_poses_there_and_back():
    matrix = np.eye(4)
    matrix[:3, :3] = [[0, -1, 0], [1, 0, 0], [0, 0, 1]]  # a quarter turn about z
    matrix[:3, 3] = 1.0, -2.0, 3.0
    message = conversions.to_pose(matrix)
    assert message.orientation.z == pytest.approx(np.sqrt(0.5))
    assert message.orientation.w == pytest.approx(np.sqrt(0.5))
    np.testing.assert_allclose(conversions.from_pose(message, "pose"), matrix, atol=1e-12)
    stamped = through_the_wire(conversions.to_transform(matrix, HEADER, "camera"))
    np.testing.assert_allclose(conversions.from_transform(stamped.transform, "transform"), matrix, atol=1e-12)
    odometry = through_the_wire(conversions.to_odometry(matrix, HEADER, "camera"))
    np.testing.assert_allclose(conversions.from_pose(odometry.pose.pose, "odom"), matrix, atol=1e-12)
    same = conversions.extrinsics_matrix(
        (1.0, -2.0, 3.0, 0.0, 0.0, np.sqrt(0.5), np.sqrt(0.5)), "input.extrinsics"
    )
    np.testing.assert_allclose(same, matrix, atol=1e-12)


@pytest.mark.parametrize(
    "field, value, problem",
    [("x", float("nan"), "NaN"), ("x", float("inf"), "NaN or infinite"), ("w", 0.0, "is not a rotation")],
)
def test_broken_poses_name_their_topic(field, value, problem):
    message = conversions.to_pose(np.eye(4))
    setattr(message.orientation if field == "w" else message.position, field, value)
    with pytest.raises(UserError, match=f"/odom: .*{problem}"):
        conversions.from_pose(message, "/odom")


def test_extrinsics_need_seven_numbers():
    with pytest.raises(UserError, match="x y z qx qy qz qw, got 3"):
        conversions.extrinsics_matrix((0.0, 0.0, 0.0), "input.extrinsics")


def test_stamps_round_to_nanoseconds():
    assert conversions.to_time(1.5).nanosec == 500_000_000
    assert conversions.to_time(0.9999999999).sec == 1
    assert conversions.to_seconds(conversions.to_time(1_700_000_000.123456)) == pytest.approx(
        1_700_000_000.123456, abs=3e-7
    )


def test_plain_clouds_have_the_layout_rviz_reads():
    points = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
    message = through_the_wire(
        conversions.to_cloud(points, np.array([[255, 128, 1], [0, 0, 7]], np.uint8), HEADER)
    )
    assert [(f.name, f.offset, f.datatype) for f in message.fields] == [
        ("x", 0, 7),
        ("y", 4, 7),
        ("z", 8, 7),
        ("rgb", 12, 7),
    ]
    assert (message.height, message.width, message.point_step, message.row_step) == (1, 2, 16, 32)
    table = conversions.from_cloud(message)
    assert table["y"].tolist() == [2.0, 5.0]
    assert table["rgb"].view(np.uint32).tolist() == [0xFF8001, 7]


def test_labelled_clouds_carry_label_instance_and_score():
    message = through_the_wire(
        conversions.to_cloud(
            np.zeros((3, 3)),
            np.zeros((3, 3), np.uint8),
            HEADER,
            label=np.array([0, 1, 2**31], np.uint32),
            instance=np.array([0, 3, 4], np.uint32),
            score=np.array([0.1, 0.5, 1.0], np.float32),
        )
    )
    assert [(f.name, f.datatype) for f in message.fields][4:] == [("label", 6), ("instance", 6), ("score", 7)]
    table = conversions.from_cloud(message)
    assert table["label"].tolist() == [0, 1, 2**31]
    assert table["score"].tolist() == pytest.approx([0.1, 0.5, 1.0])


def test_empty_clouds_are_valid():
    message = conversions.to_cloud(np.zeros((0, 3)), np.zeros((0, 3), np.uint8), HEADER)
    assert (message.width, len(conversions.from_cloud(message))) == (0, 0)


def test_label_map_explains_the_numbers():
    text = conversions.to_label_map(["red mug", "sofa"], [True, False], [0.91234, 0.2], 7, 12.5).data
    assert json.loads(text) == {
        "map_version": 7,
        "keyframe_stamp": 12.5,
        "labels": [
            {"label": 1, "prompt": "red mug", "found": True, "presence": 0.9123},
            {"label": 2, "prompt": "sofa", "found": False, "presence": 0.2},
        ],
    }


def test_child_environment_has_profile_and_no_bootstrap_mark():
    base = {"_ROS_WHEELS_BOOTSTRAP_COMPLETE": "1", "LD_LIBRARY_PATH": "/elsewhere", "HOME": "/home/robot"}
    environment = child_environment(7, base)
    assert environment["ROS_DOMAIN_ID"] == "7"
    assert environment["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "SYSTEM_DEFAULT"
    assert Path(environment["FASTDDS_DEFAULT_PROFILES_FILE"]).is_file()
    assert "LD_LIBRARY_PATH" not in environment
    assert "_ROS_WHEELS_BOOTSTRAP_COMPLETE" not in environment
    assert child_environment(7, {"LD_LIBRARY_PATH": "/opt/ros/lib"})["LD_LIBRARY_PATH"] == "/opt/ros/lib"
    with pytest.raises(UserError, match=r"config/none\.xml of ovs3d_ros is not installed"):
        find_config("none.xml")


def test_missing_tf2_msgs_names_the_packages_to_install(monkeypatch):
    if importlib.util.find_spec("tf2_ros") is not None:
        pytest.skip("tf2_ros is installed")
    from ovs3d_ros.ros.inputs.tf import make_transform_buffer

    monkeypatch.setitem(sys.modules, "tf2_msgs.msg", None)  # as if it were not installed
    with pytest.raises(UserError, match=r"apt install .*tf2-msgs.*pip install \./tests/tf2_msgs"):
        make_transform_buffer(None, Config().input, None, None)
