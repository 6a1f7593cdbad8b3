"""Real publishers and subscriptions in one process: what is published comes out as frames."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytestmark = pytest.mark.ros

import cv2  # noqa: E402
import rclpy  # noqa: E402
from rclpy.context import Context  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.node import Node  # noqa: E402
from rclpy.qos import QoSProfile, ReliabilityPolicy  # noqa: E402

from ovs3d_ros.config import Config, override  # noqa: E402
from ovs3d_ros.datasets import open_dataset  # noqa: E402
from ovs3d_ros.ros import conversions  # noqa: E402
from ovs3d_ros.ros.environment import free_domain_id  # noqa: E402
from ovs3d_ros.ros.inputs import Inputs  # noqa: E402
from ovs3d_ros.ros.play import Player  # noqa: E402
from ovs3d_ros.types import Camera, Frame  # noqa: E402
from ros_env import HEIGHT, WIDTH, use_child_environment, write_dataset  # noqa: E402

CAMERA = Camera(np.array([[130.0, 0, WIDTH / 2], [0, 130.0, HEIGHT / 2], [0, 0, 1]]), WIDTH, HEIGHT)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return open_dataset(write_dataset(tmp_path_factory.mktemp("scene") / "tiny", count=3))


class Wire:
    """A subscribing and a publishing node in one context, spun by hand."""

    def __init__(self, context: Context):
        self.context = context
        self.executor = SingleThreadedExecutor(context=context)
        self.nodes: list[Node] = []
        self.frames: list[Frame] = []

    def node(self, name: str) -> Node:
        return self.adopt(Node(name, context=self.context))

    def adopt(self, node: Node) -> Node:
        self.executor.add_node(node)
        self.nodes.append(node)
        return node

    def inputs(self, **changes) -> Inputs:
        config = override(
            Config(), {"qos.input": "reliable", **{k.replace("__", "."): v for k, v in changes.items()}}
        )
        return Inputs(self.node("receiver"), config, lambda frame, header: self.frames.append(frame))

    def spin_until(self, condition, seconds: float = 10.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "it did not happen in time"
            self.executor.spin_once(timeout_sec=0.02)

    def spin(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.executor.spin_once(timeout_sec=0.02)


@pytest.fixture
def wire(monkeypatch) -> Iterator[Wire]:
    domain_id = free_domain_id()
    use_child_environment(monkeypatch)
    context = Context()
    rclpy.init(context=context, args=[], domain_id=domain_id)
    wire = Wire(context)
    yield wire
    wire.executor.shutdown()
    for node in wire.nodes:
        node.destroy_node()
    rclpy.shutdown(context=context)


class Robot:
    """Publishes single messages on the input topics."""

    def __init__(self, wire: Wire, image_type=conversions.Image, image_topic="image", reliable: bool = True):
        self.wire = wire
        self.node = wire.node("robot")
        profile = QoSProfile(
            depth=10, reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
        )
        self.publishers = {
            name: self.node.create_publisher(kind, name, profile)
            for name, kind in {
                image_topic: image_type,
                "camera_info": conversions.CameraInfo,
                "depth": conversions.Image,
                "pose": conversions.PoseStamped,
            }.items()
        }

    def send(self, stamp: float, **messages) -> None:
        """Sends the usual messages of one moment; those given by name replace them, None leaves one out."""
        header, world = conversions.to_header(stamp, "camera"), conversions.to_header(stamp, "map")
        usual = {
            "pose": conversions.PoseStamped(header=world, pose=conversions.to_pose(np.eye(4))),
            "camera_info": conversions.to_camera_info(CAMERA, header),
            "depth": conversions.to_image(np.ones((HEIGHT, WIDTH), np.float32), "32FC1", header),
            "image": conversions.to_image(np.full((HEIGHT, WIDTH, 3), 99, np.uint8), "rgb8", header),
        }
        for name, message in {**usual, **messages}.items():
            if message is not None and name in self.publishers:
                self.publishers[name].publish(message)


def connect(wire: Wire, publishers) -> None:
    wire.spin_until(lambda: all(p.get_subscription_count() for p in publishers))


@pytest.mark.parametrize(
    "pose_source, depth_encoding, quality",
    [("pose", "32FC1", "reliable"), ("odom", "16UC1", "reliable"), ("transform", "32FC1", "sensor_data")],
)
def test_played_frames_arrive_as_they_are_on_disk(wire, dataset, pose_source, depth_encoding, quality):
    wire.inputs(pose_source=pose_source, qos__input=quality)
    player = Player(pose_source, depth_encoding, "map", dataset.has_depth, context=wire.context)
    wire.adopt(player)
    connect(wire, player._outputs.values())
    for i in range(len(dataset)):
        player.publish(dataset[i])
        wire.spin_until(lambda count=i + 1: len(wire.frames) == count)
    for sent, received in zip(dataset, wire.frames, strict=True):
        assert np.array_equal(received.image, sent.image)
        np.testing.assert_allclose(received.depth, sent.depth, atol=1e-6)
        np.testing.assert_allclose(received.camtoworld, sent.camtoworld, atol=1e-9)
        np.testing.assert_allclose(received.camera.K, sent.camera.K)
    stamps = [frame.stamp for frame in wire.frames]
    assert stamps == sorted(stamps)
    assert abs(stamps[-1] - time.time()) < 30


def test_odometry_is_moved_to_the_camera_by_the_extrinsics(wire, dataset):
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


def test_compressed_images_are_taken(wire):
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


def broken(kind: str, header, world):
    """One broken message of a kind, by the input it replaces."""
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
def test_garbage_is_rejected_with_its_reason_and_the_next_frame_is_taken(wire, kind, problem):
    inputs = wire.inputs()
    robot = Robot(wire)
    connect(wire, robot.publishers.values())
    robot.send(
        10.0, **broken(kind, conversions.to_header(10.0, "camera"), conversions.to_header(10.0, "map"))
    )
    wire.spin_until(lambda: inputs.rejected)
    assert problem in inputs.problem
    assert not wire.frames
    robot.send(11.0)
    wire.spin_until(lambda: wire.frames)
    assert inputs.problem == ""
    assert wire.frames[0].image.min() == 99


def test_images_wait_for_the_calibration(wire):
    wire.inputs()
    robot = Robot(wire)
    connect(wire, robot.publishers.values())
    robot.send(10.0, camera_info=None)
    wire.spin(0.3)
    assert not wire.frames
    robot.send(10.1)
    wire.spin_until(lambda: len(wire.frames) == 2)


def test_silence_names_what_is_missing(wire):
    inputs = wire.inputs()
    assert "no publisher on /image, /camera_info, /depth, /pose (0 Hz, reliable)" in inputs.report_silence()
    robot = Robot(wire)
    connect(wire, robot.publishers.values())
    robot.send(10.0, depth=None)
    wire.spin(0.2)
    silence = inputs.report_silence()
    assert silence.startswith("nothing on /depth (0 Hz, reliable) though 1 publisher(s) offer reliable")
    assert "/image" not in silence
    robot.send(11.0)
    wire.spin_until(lambda: wire.frames)
    assert inputs.report_silence() == ""


def test_silence_explains_clocks_that_differ(wire):
    inputs = wire.inputs(tf__timeout_s=0.1)
    robot = Robot(wire)
    connect(wire, robot.publishers.values())
    world = conversions.to_header(5000.0, "map")
    robot.send(10.0, pose=conversions.PoseStamped(header=world, pose=conversions.to_pose(np.eye(4))))
    wire.spin(0.4)
    silence = inputs.report_silence()
    assert "newest image stamp 10.000" in silence
    assert "newest pose stamp 5000.000" in silence


def test_silence_explains_incompatible_quality_of_service(wire):
    inputs = wire.inputs()
    Robot(wire, reliable=False)
    wire.spin_until(lambda: all(stream.incompatible for stream in inputs.streams.values()))
    assert (
        "/image (0 Hz, reliable): the publisher offers another quality of service; set qos.input=sensor_data"
        in inputs.report_silence()
    )


def test_sensor_data_takes_best_effort_and_reliable_publishers(wire):
    wire.inputs(qos__input="sensor_data")
    robot = Robot(wire, reliable=False)
    connect(wire, robot.publishers.values())
    for k in range(50):
        robot.send(10.0 + k)
        wire.spin(0.05)
        if wire.frames:
            break
    assert wire.frames


def test_a_clock_set_back_does_not_stop_the_frames(wire):
    wire.inputs()
    robot = Robot(wire)
    connect(wire, robot.publishers.values())
    for count, stamp in enumerate((100.0, 101.0, 10.0, 11.0), start=1):
        robot.send(stamp)
        if stamp != 10.0:  # the streams jump one after the other: one frame may be lost
            wire.spin_until(lambda: wire.frames and wire.frames[-1].stamp == stamp)
        else:
            wire.spin(0.2)
        assert len(wire.frames) <= count
