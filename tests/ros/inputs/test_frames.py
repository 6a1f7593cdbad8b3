"""Published messages become frames: real publishers and subscriptions in one process."""

from __future__ import annotations

import importlib.util
import time

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytestmark = pytest.mark.ros

import cv2  # noqa: E402
from helpers.ros_env import HEIGHT, WIDTH, write_dataset  # noqa: E402
from helpers.ros_wire import (  # noqa: E402
    CAMERA,
    Robot,
    Transforms,
    connect,
    needs_tf,
    pose_at,
    wire,  # noqa: F401
    without_tf2_ros,
)
from rclpy.node import Node  # noqa: E402

from ovs3d_ros.datasets import open_dataset  # noqa: E402
from ovs3d_ros.ros import conversions  # noqa: E402
from ovs3d_ros.ros.inputs import tf  # noqa: E402
from ovs3d_ros.ros.play import Player  # noqa: E402


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return open_dataset(write_dataset(tmp_path_factory.mktemp("scene") / "tiny", count=3))


@pytest.mark.parametrize(
    "pose_source, depth_encoding, quality",
    [
        ("pose", "32FC1", "reliable"),
        ("odom", "16UC1", "reliable"),
        ("transform", "32FC1", "sensor_data"),
        pytest.param("tf", "32FC1", "reliable", marks=needs_tf),
    ],
)
def test_played_frames_arrive_unchanged(wire, dataset, pose_source, depth_encoding, quality):
    wire.inputs(pose_source=pose_source, qos__input=quality)
    player = Player(pose_source, depth_encoding, "map", dataset.has_depth, context=wire.context)
    wire.adopt(player)
    connect(wire, player._outputs.values())
    for i in range(len(dataset)):
        player.publish(dataset[i])
        wire.spin_until(lambda count=i + 1: len(wire.frames) == count)
    # tf2_ros, where it is installed, interpolates at a stamp that float64 has rounded by 0.1 microseconds.
    atol = 1e-4 if pose_source == "tf" and importlib.util.find_spec("tf2_ros") else 1e-9
    for sent, received in zip(dataset, wire.frames, strict=True):
        assert np.array_equal(received.image, sent.image)
        np.testing.assert_allclose(received.depth, sent.depth, atol=1e-6)
        np.testing.assert_allclose(received.camtoworld, sent.camtoworld, atol=atol)
        np.testing.assert_allclose(received.camera.K, sent.camera.K)
    stamps = [frame.stamp for frame in wire.frames]
    assert stamps == sorted(stamps)
    assert abs(stamps[-1] - time.time()) < 30


def test_extrinsics_move_odometry_to_the_camera(wire, dataset):
    wire.inputs(pose_source="odom", input__extrinsics=[0.1, 0.0, 0.5, -0.5, 0.5, -0.5, 0.5])
    player = Player("odom", "32FC1", "map", dataset.has_depth, context=wire.context)
    wire.adopt(player)
    connect(wire, player._outputs.values())
    player.publish(dataset[0])
    wire.spin_until(lambda: wire.frames)
    base, camera = dataset[0].camtoworld, wire.frames[0].camtoworld
    forward, right = base[:3, :3] @ [1, 0, 0], base[:3, :3] @ [0, -1, 0]  # x forward, y left, z up
    np.testing.assert_allclose(camera[:3, 2], forward, atol=1e-9)
    np.testing.assert_allclose(camera[:3, 0], right, atol=1e-9)
    np.testing.assert_allclose(camera[:3, 3], base[:3, 3] + 0.1 * forward + 0.5 * base[:3, 2], atol=1e-9)


@needs_tf
def test_tf_chain_is_interpolated_to_the_image_stamp(wire):
    transforms = Transforms(wire)
    mount = conversions.extrinsics_matrix((0.1, 0.0, 0.5, -0.5, 0.5, -0.5, 0.5), "mount")
    transforms.send(0.0, "base", "camera", mount, "/tf_static")  # before anyone listens
    wire.inputs(pose_source="tf", tf__timeout_s=20.0)
    robot = Robot(wire)
    connect(wire, [robot.publishers["image"], *transforms.publishers.values()])
    robot.send(10.03)
    for k in range(3):
        transforms.send(9.9 + k / 4, "map", "odom", pose_at(100.0))
    transforms.send(10.0, "odom", "base", pose_at(0.0))
    wire.spin(0.2)
    assert not wire.frames  # the transform after the image may still come
    transforms.send(10.1, "odom", "base", pose_at(1.0))
    wire.spin_until(lambda: wire.frames)
    np.testing.assert_allclose(wire.frames[0].camtoworld, pose_at(100.3) @ mount, atol=1e-6)


@needs_tf
def test_camera_frame_and_depth_scale_replace_what_the_driver_says(wire):
    headers = []
    inputs = wire.inputs(pose_source="tf", input__camera_frame="optical", input__depth_scale=0.001)
    inputs.cameras[0]._on_frame = lambda frame, header: (wire.frames.append(frame), headers.append(header))
    transforms, robot = Transforms(wire), Robot(wire, without="pose")
    connect(wire, [robot.publishers["image"], *transforms.publishers.values()])
    transforms.send(0.0, "map", "optical", pose_at(3.0), "/tf_static")
    header = conversions.to_header(10.0, "")
    depth = conversions.to_image(np.full((HEIGHT, WIDTH), 1850.0, np.float32), "32FC1", header)
    image = conversions.to_image(np.full((HEIGHT, WIDTH, 3), 99, np.uint8), "rgb8", header)
    robot.send(10.0, image=image, depth=depth)
    wire.spin_until(lambda: wire.frames)
    assert wire.frames[0].camtoworld[0, 3] == 3.0 and headers[0].frame_id == "optical"
    np.testing.assert_allclose(wire.frames[0].depth, 1.85, rtol=1e-6)


@needs_tf
@without_tf2_ros
def test_transforms_are_used_after_clock_jump_before_first_image(wire, monkeypatch):
    monkeypatch.setattr(tf, "CAPACITY", 5)
    wire.inputs(pose_source="tf")
    transforms, robot = Transforms(wire), Robot(wire, without="pose")
    connect(wire, [robot.publishers["image"], *transforms.publishers.values()])
    for start in (500.0, 10.0):
        for k in range(5):
            transforms.send(start + k / 10, "map", "camera", pose_at(start))
            wire.spin(0.02)
    robot.send(10.25)
    wire.spin_until(lambda: wire.frames)
    assert wire.frames[0].camtoworld[0, 3] == 10.0


def test_compressed_images_become_frames(wire):
    wire.inputs(input__image_transport="compressed")
    robot = Robot(wire, conversions.CompressedImage, "image/compressed")
    connect(wire, robot.publishers.values())
    pixels = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    data = cv2.imencode(".png", pixels[..., ::-1])[1].tobytes()
    header = conversions.to_header(10.0, "camera")
    robot.send(
        10.0, **{"image/compressed": conversions.CompressedImage(header=header, format="png", data=data)}
    )
    wire.spin_until(lambda: wire.frames)
    assert np.array_equal(wire.frames[0].image, pixels)


def test_compressed_depth_becomes_depth(wire):
    wire.inputs(input__depth_transport="compressedDepth")
    robot = Robot(wire, without="depth")
    depth = wire.node("depth").create_publisher(conversions.CompressedImage, "depth/compressedDepth", 10)
    connect(wire, [*robot.publishers.values(), depth])
    millimetres = np.random.default_rng(0).integers(500, 5000, (HEIGHT, WIDTH)).astype(np.uint16)
    header = conversions.to_header(10.0, "camera")
    # The PNG follows the 12-byte header of compressed_depth_image_transport.
    data = bytes(12) + cv2.imencode(".png", millimetres)[1].tobytes()
    depth.publish(conversions.CompressedImage(header=header, format="16UC1; compressedDepth png", data=data))
    robot.send(10.0)
    wire.spin_until(lambda: wire.frames)
    np.testing.assert_allclose(wire.frames[0].depth, millimetres / 1000.0, atol=1e-6)


@pytest.mark.parametrize("pose_source", ["pose", pytest.param("tf", marks=[needs_tf, without_tf2_ros])])
def test_messages_that_arrive_during_subscription_are_used(wire, monkeypatch, pose_source):
    """With a camera that already runs, another thread of the executor calls back at once."""
    create, header = Node.create_subscription, conversions.to_header(10.0, "camera")
    world = conversions.to_header(10.0, "map")
    first = {
        "/camera_info": conversions.to_camera_info(CAMERA, header),
        "/image": conversions.to_image(np.full((HEIGHT, WIDTH, 3), 99, np.uint8), "rgb8", header),
        "/depth": conversions.to_image(np.ones((HEIGHT, WIDTH), np.float32), "32FC1", header),
        "/pose": conversions.PoseStamped(header=world, pose=conversions.to_pose(np.eye(4))),
    }
    if pose_source == "tf":
        broken = conversions.to_transform(pose_at(float("nan")), world, "camera")
        first["/tf"] = conversions.tf_message_type()(transforms=[broken])

    info = {"publication_sequence_number": 1, "publisher_gid": {"data": bytes(16)}}

    def subscribe_and_call_back(self, kind, topic, callback, *arguments, **options):
        subscription = create(self, kind, topic, callback, *arguments, **options)
        if topic in first:
            callback(first[topic], info)  # twice for a latched topic, which has two subscriptions
        return subscription

    monkeypatch.setattr(Node, "create_subscription", subscribe_and_call_back)
    inputs = wire.inputs(pose_source=pose_source)
    assert {name: stream.received for name, stream in inputs.streams.items()} == dict.fromkeys(
        inputs.streams, 1
    )
    if pose_source == "tf":
        assert "/tf: 'camera': pose has NaN" in inputs.problem and inputs.rejected == 1
    else:
        assert len(wire.frames) == 1 and not inputs.rejected


def test_images_wait_for_the_calibration(wire):
    wire.inputs()
    robot = Robot(wire)
    connect(wire, robot.publishers.values())
    robot.send(10.0, camera_info=None)
    wire.spin(0.3)
    assert not wire.frames
    robot.send(10.1)
    wire.spin_until(lambda: len(wire.frames) == 2)


def test_sensor_data_accepts_best_effort_publishers(wire):
    wire.inputs(qos__input="sensor_data")
    robot = Robot(wire, reliable=False)
    connect(wire, robot.publishers.values())
    for k in range(50):
        robot.send(10.0 + k)
        wire.spin(0.05)
        if wire.frames:
            break
    assert wire.frames


def test_frames_continue_after_clock_jump(wire):
    wire.inputs()
    robot = Robot(wire)
    connect(wire, robot.publishers.values())
    for count, stamp in enumerate((100.0, 101.0, 10.0, 11.0), start=1):
        robot.send(stamp)
        if stamp != 10.0:  # the streams jump one after the other: one frame may be lost
            wire.spin_until(lambda stamp=stamp: wire.frames and wire.frames[-1].stamp == stamp)
        else:
            wire.spin(0.2)
        assert len(wire.frames) <= count


def test_messages_lost_from_full_queue_are_counted(wire):
    inputs = wire.inputs(qos__depth=2)
    robot = Robot(wire)
    connect(wire, robot.publishers.values())
    robot.send(10.0)
    wire.spin_until(lambda: wire.frames)
    for k in range(8):
        robot.send(10.1 + 0.1 * k)
    time.sleep(0.5)  # they arrive while nobody takes them
    wire.spin_until(lambda: inputs.streams["image"].received >= 3)
    robot.send(11.0)
    wire.spin_until(lambda: inputs.streams["image"].newest_stamp == 11.0)
    image = inputs.streams["image"]
    assert image.received + image.lost == 10 and image.lost > 0
    assert inputs.lost_images == image.lost == inputs.diagnostic_values()["image lost"]


def test_two_cameras_have_separate_topics_and_frames(wire):
    wire.inputs(input__cameras=["front", "rear"])
    for camera in ("front", "rear"):
        robot = Robot(wire, camera=camera)
        connect(wire, robot.publishers.values())
        robot.send(10.0)
        wire.spin_until(lambda name=camera: wire.frames and wire.frames[-1].sensor == name)
        assert wire.frames[-1].name == f"{camera}/10.000000"
    assert len(wire.frames) == 2
