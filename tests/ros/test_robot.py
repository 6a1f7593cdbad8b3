"""A robot with two cameras and a transform tree drives a real node: mapping, loop closure and clock jump.

One node serves the module; its tests run in order.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("ovs3d_interfaces")
from helpers.ros_env import (
    FOCAL,
    HEIGHT,
    SPHERES,
    WIDTH,
    look_at,
    render,
    use_child_environment,
    wait_until,
)
from helpers.ros_session import SETTINGS, Client, start_node
from helpers.ros_wire import needs_tf
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_srvs.srv import SetBool

from ovs3d_ros.geometry import invert_rigid, matrix_to_quat
from ovs3d_ros.ros import conversions
from ovs3d_ros.ros.environment import free_domain_id
from ovs3d_ros.ros.outputs.publishers import LATCHED
from ovs3d_ros.types import Camera

pytestmark = [pytest.mark.ros, pytest.mark.slow, needs_tf]
CAMERA = Camera(np.array([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]]), WIDTH, HEIGHT)
STOPS = 6


def base_pose(angle: float) -> np.ndarray:
    """A pose on a circle around the spheres, x axis towards them."""
    pose = np.eye(4)
    pose[:2, :2] = [[-np.cos(angle), np.sin(angle)], [-np.sin(angle), -np.cos(angle)]]
    pose[:2, 3] = 2.6 * np.cos(angle), 2.6 * np.sin(angle)
    return pose


EYE = np.array([2.6, 0.0, 1.3])
MOUNTS = {
    "front": invert_rigid(base_pose(0.0)) @ look_at(EYE, np.array([0.0, 0.0, 0.25])),
    "rear": invert_rigid(base_pose(0.0)) @ look_at(EYE, np.array([6.0, 0.0, 0.8])),
}


def numbers(matrix: np.ndarray) -> list[float]:
    """x y z qx qy qz qw."""
    w, x, y, z = matrix_to_quat(matrix[:3, :3])
    return [float(v) for v in (*matrix[:3, 3], x, y, z, w)]


class Robot:
    """Publishes images of two cameras and the transforms map -> odom -> base -> camera."""

    def __init__(self, client: Client):
        self.node = client.node
        self.start = float(int(time.time()))
        self.correction = np.eye(4)  # odom in map
        profile = QoSProfile(depth=30)
        kinds = {
            "image": conversions.Image,
            "camera_info": conversions.CameraInfo,
            "depth": conversions.Image,
        }
        self.publishers = {
            f"{camera}/{name}": self.node.create_publisher(kind, f"/{camera}/{name}", profile)
            for camera in MOUNTS
            for name, kind in kinds.items()
        }
        self.tf_message = conversions.tf_message_type()
        self.tf = self.node.create_publisher(self.tf_message, "/tf", profile)
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        static = self.node.create_publisher(self.tf_message, "/tf_static", latched)
        static.publish(
            self.tf_message(
                transforms=[
                    conversions.to_transform(mount, conversions.to_header(0.0, "base"), f"{camera}_optical")
                    for camera, mount in MOUNTS.items()
                ]
            )
        )
        self.path = self.node.create_publisher(conversions.Path, "/keyframe_path", 1)
        self.publishers |= {"tf": self.tf, "tf_static": static, "path": self.path}

    def stamp(self, stop: int) -> float:
        return self.start + 0.5 * stop

    def look(self, stop: int, cameras=tuple(MOUNTS)) -> None:
        """Sends the images of a stop, with transforms shortly before and after their stamp."""
        angle, stamp = 0.2 * stop, self.stamp(stop)
        for moment in (-0.02, 0.02):
            world, odom = (conversions.to_header(stamp + moment, frame) for frame in ("map", "odom"))
            self.tf.publish(
                self.tf_message(
                    transforms=[
                        conversions.to_transform(self.correction, world, "odom"),
                        conversions.to_transform(base_pose(angle + moment), odom, "base"),
                    ]
                )
            )
        for camera in cameras:
            rgb, depth = render(base_pose(angle) @ MOUNTS[camera])
            header = conversions.to_header(stamp, f"{camera}_optical")
            self.publishers[f"{camera}/camera_info"].publish(conversions.to_camera_info(CAMERA, header))
            self.publishers[f"{camera}/depth"].publish(conversions.to_image(depth, "32FC1", header))
            self.publishers[f"{camera}/image"].publish(conversions.to_image(rgb, "rgb8", header))


class Drive:
    """A node, and a client that acts as the robot."""

    def __init__(self, folder):
        domain_id = free_domain_id()
        extrinsics = [v for mount in MOUNTS.values() for v in numbers(mount)]
        self.node = start_node(
            {
                **SETTINGS,
                "pose_source": "tf",
                "input.cameras": "[front, rear]",
                "input.extrinsics": extrinsics,
                "tf.timeout_s": 20.0,
                "map.directory": folder,
            },
            domain_id,
            folder / "node.log",
        )
        self.client = Client(domain_id)
        self.robot = Robot(self.client)
        self.frames = 0

    def run(self) -> None:
        self.node.wait_for("ready", 120)
        wait_until(lambda: all(p.get_subscription_count() for p in self.robot.publishers.values()), 30)
        for stop in range(STOPS):
            self.robot.look(stop)
            time.sleep(0.3)
        self.settle(2 * STOPS)

    def settle(self, frames: int) -> None:
        """Waits until this many more frames are mapped and the mapping thread is idle."""
        self.frames += frames
        wait_until(
            lambda: (
                self.client.value(": mapping", "frames_received") == self.frames
                and self.client.diagnostic(": mapping")[1].get("idle") == "True"
            ),
            90,
            lambda: f"{self.client.diagnostic(': input')}\n{self.node.output()}",
        )

    def keyframes(self) -> tuple[np.ndarray, np.ndarray]:
        """Published stamps and poses."""
        path = self.client.receive("/ovs3d/keyframes", conversions.Path, LATCHED)
        return (
            np.array([conversions.to_seconds(p.header.stamp) for p in path.poses]),
            np.array([conversions.from_pose(p.pose, "path") for p in path.poses]),
        )

    def red_ball(self) -> np.ndarray:
        answer = self.client.query("red ball")
        assert answer.found == [True]
        position = answer.objects[0].pose.position
        return np.array([position.x, position.y, position.z])

    def close(self) -> None:
        self.client.close()
        self.node.stop(9)


@pytest.fixture(scope="module")
def drive(tmp_path_factory) -> Iterator[Drive]:
    with pytest.MonkeyPatch.context() as patch:
        use_child_environment(patch)
        drive = Drive(tmp_path_factory.mktemp("node"))
        try:
            drive.run()
            yield drive
        finally:
            drive.close()


def test_two_cameras_fill_one_map_with_poses_from_tf(drive):
    wait_until(lambda: len(drive.keyframes()[0]) == 2 * STOPS, 20, lambda: str(drive.keyframes()[0]))
    stamps, poses = drive.keyframes()
    for stop in range(STOPS):
        taken = poses[np.abs(stamps - drive.robot.stamp(stop)) < 1e-3]
        for camera, mount in MOUNTS.items():
            truth = base_pose(0.2 * stop) @ mount
            assert min(np.abs(pose - truth).max() for pose in taken) < 1e-3, (stop, camera)
    assert np.linalg.norm(drive.red_ball() - SPHERES[0][0]) < SPHERES[0][1]
    values = drive.client.diagnostic(": input")[1]
    assert (values["frames"], values["lost_pose"], values["lost_depth"]) == (str(2 * STOPS), "0", "0")
    assert values["front/image messages"] == values["rear/image messages"] == str(STOPS)


def test_silent_camera_is_named(drive):
    sent, deadline = 0, time.monotonic() + 30
    while (
        "rear: nothing on /rear/image (0 Hz" not in (said := drive.client.diagnostic(": input")[0])
        or "front" in said
    ):
        drive.robot.look(STOPS, cameras=["front"])
        sent += 1
        assert time.monotonic() < deadline, said
        time.sleep(0.2)
    drive.settle(sent)


def set_max_speed(drive, value: float) -> None:
    parameter = Parameter("input.max_speed", value=value).to_parameter_msg()
    (result,) = drive.client.call(SetParameters, "set_parameters", parameters=[parameter]).results
    assert result.successful, result.reason


def test_jump_of_the_localisation_pauses_ingest(drive):
    set_max_speed(drive, 2.0)
    keyframes, ignored = drive.keyframes()[0], drive.client.value(": mapping", "frames_ignored")
    drive.robot.correction = np.eye(4)
    drive.robot.correction[0, 3] = 5.0
    drive.robot.look(STOPS + 1)
    wait_until(
        lambda: drive.client.value(": mapping", "frames_ignored") == ignored + 2,
        30,
        lambda: str(drive.client.diagnostic(": mapping")),
    )
    assert "frames are ignored: the pose moved" in drive.client.diagnostic(": mapping")[0]
    drive.robot.correction = np.eye(4)
    set_max_speed(drive, 0.0)
    assert drive.client.call(SetBool, "set_ingest", data=True).success
    wait_until(lambda: "frames are ignored" not in drive.client.diagnostic(": mapping")[0], 20)
    drive.settle(2)
    assert len(drive.keyframes()[0]) == len(keyframes)


def test_loop_closure_moves_keyframes_and_gaussians(drive):
    before, (stamps, old) = drive.red_ball(), drive.keyframes()
    correction = np.eye(4)
    correction[:2, :2] = [[np.cos(0.1), -np.sin(0.1)], [np.sin(0.1), np.cos(0.1)]]
    correction[:3, 3] = 0.5, -0.2, 0.0
    header = conversions.to_header(drive.robot.stamp(STOPS), "map")
    path = conversions.Path(
        header=header,
        poses=[  # every other stop: the keyframes of SLAM are not ours
            conversions.PoseStamped(
                header=conversions.to_header(drive.robot.stamp(stop), "map"),
                pose=conversions.to_pose(correction @ base_pose(0.2 * stop)),
            )
            for stop in range(0, STOPS + 1, 2)
        ],
    )
    drive.robot.path.publish(path)
    wait_until(lambda: "keyframes moved" in drive.node.output(), 30, drive.node.output)
    wait_until(lambda: np.abs(drive.keyframes()[1][: len(old)] - old).max() > 0.1, 20)
    new_stamps, new = drive.keyframes()
    np.testing.assert_allclose(new_stamps, stamps)
    np.testing.assert_allclose(new, correction @ old, atol=5e-3)
    np.testing.assert_allclose(drive.red_ball(), correction[:3, :3] @ before + correction[:3, 3], atol=0.02)
    version = drive.client.query("red ball").map_version
    drive.robot.path.publish(path)  # SLAM repeats its path; nothing is left to move
    wait_until(lambda: drive.client.value(": input", "keyframe_path messages") == 2, 20)
    assert drive.client.query("red ball").map_version == version
    drive.robot.correction = correction


def test_bad_paths_are_rejected(drive):
    pose = conversions.to_pose(np.eye(4))
    pose.position.x = float("nan")
    header = conversions.to_header(drive.robot.stamp(0), "map")
    for path, problem in (
        (conversions.Path(header=header, poses=[conversions.PoseStamped(header=header, pose=pose)]), "NaN"),
        (conversions.Path(header=conversions.to_header(1.0, "odom")), "the path is in frame 'odom'"),
    ):
        deadline = time.monotonic() + 20
        while problem not in drive.node.output():  # rejections are logged once per input.silence
            drive.robot.path.publish(path)
            time.sleep(0.2)
            assert time.monotonic() < deadline, drive.node.output()


def test_clock_jump_keeps_the_map_and_mapping_continues(drive):
    ball, (stamps, _) = drive.red_ball(), drive.keyframes()
    received = drive.client.value(": mapping", "frames_received")
    drive.robot.start -= 5000.0

    def mapped() -> bool:  # images may be lost while the streams jump one after the other
        for stop in range(STOPS, STOPS + 3):
            drive.robot.look(stop)
        time.sleep(0.3)
        return drive.client.value(": mapping", "frames_received") >= received + 6

    wait_until(mapped, 60, lambda: str(drive.client.diagnostic(": input")))
    assert drive.client.value(": input", "clock_jumps") >= 2  # of each camera
    wait_until(lambda: drive.keyframes()[0].min() < stamps.min() - 1000, 30)
    assert len(drive.keyframes()[0]) > len(stamps)
    np.testing.assert_allclose(drive.red_ball(), ball, atol=0.1)
    assert drive.node.child.poll() is None and "Traceback" not in drive.node.output()
