"""Real publishers and subscriptions in one process, spun by the test; imported only if rclpy is installed."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator

import numpy as np
import pytest
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from helpers.ros_env import HEIGHT, WIDTH, has_messages, use_child_environment
from ovs3d_ros.config import Config, override
from ovs3d_ros.ros import conversions
from ovs3d_ros.ros.environment import free_domain_id
from ovs3d_ros.ros.inputs.cameras import Inputs
from ovs3d_ros.types import Camera, Frame

needs_tf = pytest.mark.skipif(
    not has_messages("tf2_msgs"),
    reason="tf2_msgs not installed; pip install ./tests/tf2_msgs",
)
without_tf2_ros = pytest.mark.skipif(
    importlib.util.find_spec("tf2_ros") is not None,
    reason="tf2_ros is installed, and its rules and messages differ",
)
CAMERA = Camera(np.array([[130.0, 0, WIDTH / 2], [0, 130.0, HEIGHT / 2], [0, 0, 1]]), WIDTH, HEIGHT)


class Wire:
    """Nodes in one context, spun by the test."""

    def __init__(self, context: Context):
        self.context = context
        self.executor = SingleThreadedExecutor(context=context)
        self.nodes: list[Node] = []
        self.frames: list[Frame] = []

    def node(self, name: str, **parameters) -> Node:
        overrides = [Parameter(key, value=value) for key, value in parameters.items()]
        return self.adopt(Node(name, context=self.context, parameter_overrides=overrides))

    def adopt(self, node: Node) -> Node:
        self.executor.add_node(node)
        self.nodes.append(node)
        return node

    def inputs(self, **changes) -> Inputs:
        node = self.node("receiver", use_sim_time=changes.pop("use_sim_time", False))
        config = override(
            Config(), {"qos.input": "reliable", **{k.replace("__", "."): v for k, v in changes.items()}}
        )
        return Inputs(node, config, lambda frame, header: self.frames.append(frame), lambda *path: None)

    def spin_until(
        self, condition, seconds: float = 30.0, explain=lambda: "it did not happen in time"
    ) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, explain()
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
    """Publishes messages on the input topics, optionally of a named camera; `without` omits a topic."""

    def __init__(
        self,
        wire: Wire,
        image_type=conversions.Image,
        image_topic="image",
        reliable: bool = True,
        camera: str = "",
        without: str = "",
    ):
        self.node = wire.node(f"robot_{camera}")
        self.frame_id = camera or "camera"
        profile = QoSProfile(
            depth=10, reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
        )
        self.publishers = {
            name: self.node.create_publisher(kind, f"{camera}/{name}" if camera else name, profile)
            for name, kind in {
                image_topic: image_type,
                "camera_info": conversions.CameraInfo,
                "depth": conversions.Image,
                "pose": conversions.PoseStamped,
            }.items()
            if name != without
        }

    def send(self, stamp: float, **messages) -> None:
        """Sends one message per topic; an argument replaces the message of its topic, None omits it."""
        header, world = conversions.to_header(stamp, self.frame_id), conversions.to_header(stamp, "map")
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


class Transforms:
    """Publishes /tf, and /tf_static latched."""

    def __init__(self, wire: Wire):
        self.node, kind = wire.node("transforms"), conversions.tf_message_type()
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.kind = kind
        self.publishers = {
            "/tf": self.node.create_publisher(kind, "/tf", 10),
            "/tf_static": self.node.create_publisher(kind, "/tf_static", latched),
        }

    def send(self, stamp: float, parent: str, child: str, matrix: np.ndarray, topic: str = "/tf") -> None:
        header = conversions.to_header(stamp, parent)
        self.publishers[topic].publish(
            self.kind(transforms=[conversions.to_transform(matrix, header, child)])
        )


def pose_at(x: float) -> np.ndarray:
    pose = np.eye(4)
    pose[0, 3] = x
    return pose
