"""The silence report names each cause; real publishers in one process provoke them."""

from __future__ import annotations

import time
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytestmark = pytest.mark.ros

from helpers.ros_wire import (  # noqa: E402
    Robot,
    Transforms,
    connect,
    needs_tf,
    pose_at,
    wire,  # noqa: F401
    without_tf2_ros,
)
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy  # noqa: E402

from ovs3d_ros.config import Config, override  # noqa: E402
from ovs3d_ros.ros import conversions  # noqa: E402
from ovs3d_ros.ros.outputs.diagnostics import Diagnostics  # noqa: E402


def wait_for_messages(wire, inputs, *roles: str) -> None:
    wire.spin_until(lambda: all(inputs.streams[role].received for role in roles))


@pytest.mark.parametrize("missing", ["image", "camera_info", "depth", "pose"])
def test_topic_without_publisher_is_named(wire, missing):
    inputs = wire.inputs()
    robot = Robot(wire, without=missing)
    connect(wire, robot.publishers.values())
    robot.send(10.0)
    wait_for_messages(wire, inputs, *robot.publishers)
    silence = inputs.report_silence()
    assert silence == (
        f"no publisher on /{missing} (0 Hz, reliable); remap the inputs, for example "
        f"--ros-args -r {missing}:=/camera/{missing}"
    )
    assert not wire.frames


def test_silence_report_lists_all_topics_and_ends_with_a_frame(wire):
    inputs = wire.inputs()
    assert "no publisher on /image, /camera_info, /depth, /pose (0 Hz, reliable)" in inputs.report_silence()
    assert inputs.silence
    robot = Robot(wire)
    connect(wire, robot.publishers.values())
    robot.send(11.0)
    wire.spin_until(lambda: wire.frames)
    assert inputs.silence == ""
    assert inputs.report_silence() == ""
    assert "/image" in inputs.report_silence()  # the next period has no frame


def test_silent_publisher_differs_from_missing_publisher(wire):
    inputs = wire.inputs()
    robot = Robot(wire)
    connect(wire, robot.publishers.values())
    robot.send(10.0, depth=None)
    wait_for_messages(wire, inputs, "image", "camera_info", "pose")
    silence = inputs.report_silence()
    assert silence == "nothing on /depth (0 Hz, reliable) though 1 publisher(s) offer reliable, volatile"


@pytest.mark.parametrize("late", ["pose", "depth"])
def test_stamps_of_unmatched_inputs_are_compared(wire, late):
    inputs = wire.inputs(tf__timeout_s=0.1)
    robot = Robot(wire)
    connect(wire, robot.publishers.values())
    header = conversions.to_header(5000.0, "map" if late == "pose" else "camera")
    robot.send(
        10.0,
        **{
            late: {
                "pose": conversions.PoseStamped(header=header, pose=conversions.to_pose(np.eye(4))),
                "depth": conversions.to_image(np.ones((12, 16), np.float32), "32FC1", header),
            }[late]
        },
    )
    wire.spin_until(lambda: inputs.diagnostic_values()[f"lost_{late}"])
    wait_for_messages(wire, inputs, *robot.publishers)
    silence = inputs.report_silence()
    assert f"newest image stamp 10.000, newest {late} stamp 5000.000, 4990.000 s ahead" in silence
    assert "input.sync_slop" in silence


def test_poses_later_than_timeout_are_reported(wire):
    inputs = wire.inputs(tf__timeout_s=0.1)
    robot = Robot(wire)
    connect(wire, robot.publishers.values())
    robot.send(11.5, pose=make_pose(10.0))
    wire.spin_until(lambda: inputs.diagnostic_values()["lost_pose"])
    assert inputs.report_silence() == (
        "1 images without a pose at their stamp "
        "(newest image stamp 11.500, newest pose stamp 10.000, 1.500 s behind); "
        "raise tf.timeout_s, which is 0.1 s, or publish poses sooner"
    )


def test_dropped_waiting_images_are_named_with_missing_input(wire):
    inputs = wire.inputs(tf__timeout_s=30.0)
    inputs.cameras[0]._sync.capacity = 2
    robot = Robot(wire)
    connect(wire, robot.publishers.values())
    robot.send(10.0)
    wire.spin_until(lambda: wire.frames)
    inputs.report_silence()
    for k in range(1, 6):
        robot.send(10.0 + k, pose=make_pose(10.0))
        wire.spin_until(
            lambda stamp=10.0 + k: all(
                inputs.streams[role].newest_stamp == stamp for role in ("image", "depth", "camera_info")
            )
        )
    assert inputs.diagnostic_values()["lost_overflow"] == 3
    silence = inputs.report_silence()
    assert silence.startswith(
        "3 images were dropped: at most 2 may wait for their depth and pose (newest image stamp "
    )
    assert "newest pose stamp 10.000, 5.000 s behind" in silence


def make_pose(stamp: float) -> conversions.PoseStamped:
    header = conversions.to_header(stamp, "map")
    return conversions.PoseStamped(header=header, pose=conversions.to_pose(np.eye(4)))


def test_missing_calibration_is_reported_before_other_problems(wire):
    inputs = wire.inputs()
    robot = Robot(wire)
    connect(wire, robot.publishers.values())
    unknown = conversions.CameraInfo(header=conversions.to_header(10.0, "camera"), width=160, height=120)
    robot.send(10.0, camera_info=unknown)
    wire.spin_until(lambda: inputs.rejected == 1)
    broken = make_pose(10.1)
    broken.pose.position.x = float("nan")
    robot.send(10.1, camera_info=unknown, pose=broken)
    wire.spin_until(lambda: inputs.rejected == 2)
    assert "the camera is not calibrated" in inputs.problem
    assert "the camera is not calibrated" in inputs.report_silence()
    robot.send(10.2)
    wire.spin_until(lambda: wire.frames)
    assert inputs.problem == ""


def test_incompatible_qos_is_named_with_both_sides(wire):
    inputs = wire.inputs()
    Robot(wire, reliable=False)
    wire.spin_until(lambda: all(stream.incompatible for stream in inputs.streams.values()))
    assert (
        "nothing on /image (0 Hz, reliable): the publisher offers another quality of service "
        "(best effort, volatile); set qos.input=sensor_data" in inputs.report_silence()
    )


def test_latched_publisher_of_an_unlatched_input_is_named(wire):
    inputs = wire.inputs()
    robot = Robot(wire, without="depth")
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    depth = robot.node.create_publisher(conversions.Image, "depth", latched)
    connect(wire, [*robot.publishers.values(), depth])
    robot.send(10.0)
    wait_for_messages(wire, inputs, "image", "camera_info", "pose")
    silence = inputs.report_silence()
    assert "1 publisher(s) offer reliable, transient local; a message sent once" in silence


@needs_tf
@without_tf2_ros
@pytest.mark.parametrize(
    "cause, reason",
    [
        ("nothing", "no publisher on /tf and /tf_static"),
        (
            "best effort",
            "nothing on /tf (0 Hz, reliable): the publisher offers another quality of service "
            "(best effort, volatile); transforms must be published reliably",
        ),
        ("other camera", "there is no frame 'camera' (there are: base, map)"),
        ("two trees", "'camera' and 'map' are in separate trees, under 'robot' and 'map'"),
        ("old", "'camera' in 'map' is known from 5.000 to 5.000 s, the image is of 10.000 s"),
    ],
)
def test_missing_transform_is_named_with_its_reason(wire, cause, reason):
    inputs = wire.inputs(pose_source="tf", tf__timeout_s=0.1)
    if cause == "best effort":
        profile = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        wire.node("sloppy").create_publisher(conversions.tf_message_type(), "/tf", profile)
    elif cause != "nothing":
        transforms = Transforms(wire)
        connect(wire, transforms.publishers.values())
        transforms.send(5.0, "map", "camera" if cause == "old" else "base", pose_at(0.0))
        if cause == "two trees":
            transforms.send(5.0, "robot", "camera", pose_at(0.0))
    robot = Robot(wire, without="pose")
    connect(wire, robot.publishers.values())
    wire.spin(0.5)  # transforms and QoS events must arrive before the image
    robot.send(10.0)
    wire.spin_until(lambda: inputs.diagnostic_values()["lost_pose"])
    silence = inputs.report_silence()
    assert silence.startswith("no transform from camera to map: ") and reason in silence


@needs_tf
@without_tf2_ros
def test_ros_graph_is_queried_at_most_once_per_second(wire, monkeypatch):
    inputs = wire.inputs(pose_source="tf", tf__timeout_s=20.0)
    node, asked = wire.nodes[0], []
    ask = node.get_publishers_info_by_topic
    monkeypatch.setattr(node, "get_publishers_info_by_topic", lambda topic: asked.append(topic) or ask(topic))
    robot = Robot(wire, without="pose")
    connect(wire, robot.publishers.values())
    started = time.monotonic()
    robot.send(10.0)
    wait_for_messages(wire, inputs, "image", "camera_info", "depth")
    wire.spin(1.0)  # twenty lookups
    assert (
        inputs.diagnostic_values()["waiting"] == 1
        and 1 <= asked.count("/tf") <= 2 + time.monotonic() - started
    )
    Transforms(wire)
    wire.spin_until(lambda: "though 1 publisher(s)" in inputs.cameras[0]._poses.problem)


@needs_tf
def test_images_without_frame_id_are_reported_for_tf(wire):
    inputs = wire.inputs(tf__timeout_s=0.1, pose_source="tf")
    robot = Robot(wire, without="pose")
    robot.frame_id = ""
    connect(wire, robot.publishers.values())
    robot.send(10.0)
    wire.spin_until(lambda: inputs.diagnostic_values()["lost_pose"])
    assert "the images have no frame_id" in inputs.report_silence()


class Idle:
    """A mapping thread without work."""

    error = None

    def stats(self) -> dict:
        return dict(
            frames_dropped=0,
            frames_featureless=0,
            ingest=True,
            training=True,
            keyframes=0,
            num_gaussians=0,
            depth_doubt="",
            pause_reason="",
            evicted=0,
            memory_mib=0,
            memory_limit_mib=0,
            keyframes_mib=0.0,
        )


def test_dropped_frames_are_reported_once(wire):
    worker, statuses = Idle(), []
    diagnostics = Diagnostics(wire.node("mapper"), Config())
    for dropped in (0, 3, 3, 5):
        worker.stats = lambda n=dropped: {**Idle().stats(), "frames_dropped": n}
        statuses.append(diagnostics._mapping_state(worker)[:2])
    assert [level for level, _ in statuses] == ["ok", "warn", "ok", "warn"]
    assert statuses[1][1].startswith("3 frames dropped") and statuses[3][1].startswith("2 frames dropped")


def test_pause_is_a_warning_with_its_reason(wire):
    worker, diagnostics = Idle(), Diagnostics(wire.node("mapper"), Config())
    worker.stats = lambda: {**Idle().stats(), "ingest": False, "pause_reason": "the pose moved 5.00 m"}
    assert diagnostics._mapping_state(worker)[:2] == ("warn", "frames are ignored: the pose moved 5.00 m")


def test_silence_is_logged_when_its_reason_changes(wire, monkeypatch):
    lines: list[str] = []
    node = wire.node("mapper")
    diagnostics = Diagnostics(node, Config())
    logger = SimpleNamespace(warning=lines.append, info=lines.append)
    monkeypatch.setattr(node, "get_logger", lambda: logger)
    reasons = iter(["", "no depth, stamp 10.5", "no depth, stamp 15.5", "no pose, stamp 3", "", ""])
    diagnostics.inputs = diagnostics._watched = SimpleNamespace(report_silence=lambda: next(reasons))
    for _ in range(6):
        diagnostics._report_silence()
    assert lines == [
        "no usable frame: no depth, stamp 10.5",
        "no usable frame: no pose, stamp 3",
        "usable frames arrive",
    ]


def test_doubt_about_depth_is_a_warning(wire):
    worker, diagnostics = Idle(), Diagnostics(wire.node("mapper"), Config())
    worker.stats = lambda: {**Idle().stats(), "keyframes": 9, "depth_doubt": "depth is 1850 m in the median"}
    level, message, _ = diagnostics._mapping_state(worker)
    assert (level, message) == ("warn", "9 keyframes, 0 Gaussians: depth is 1850 m in the median")
    worker.stats = lambda: {**Idle().stats(), "keyframes": 9}
    level, message, _ = diagnostics._mapping_state(worker)
    assert level == "warn" and "9 keyframes, 0 Gaussians: nothing could be seeded" in message


def test_silence_is_reported_in_simulation_without_clock(wire):
    inputs = wire.inputs(use_sim_time=True)
    node = wire.nodes[0]
    diagnostics = Diagnostics(node, override(Config(), {"input.silence": 0.5}))
    diagnostics.inputs, diagnostics.worker = inputs, Idle()
    statuses = []
    wire.node("listener").create_subscription(
        conversions.DiagnosticArray, "/diagnostics", lambda m: statuses.extend(m.status), 10
    )
    wire.spin_until(lambda: any("no usable frame: no publisher on /image" in s.message for s in statuses))


def test_large_share_of_lost_images_is_a_warning(wire):
    inputs = wire.inputs(tf__timeout_s=0.05)
    diagnostics = Diagnostics(wire.node("mapper"), Config())
    robot = Robot(wire)
    connect(wire, robot.publishers.values())
    inputs.update_rates()
    robot.send(10.0)
    wire.spin_until(lambda: wire.frames)
    inputs.update_rates()
    assert diagnostics._input_state(inputs)[:2] == ("ok", "1 frames")
    for k in range(1, 7):
        robot.send(10.0 + k, depth=None)
        wire.spin_until(lambda count=k: inputs.diagnostic_values()["lost_depth"] == count)
    robot.send(20.0)
    wire.spin_until(lambda: len(wire.frames) == 2)
    inputs.update_rates()
    level, message, _ = diagnostics._input_state(inputs)
    assert level == "warn"
    assert "6 of the last 8 images were lost: 6 without depth at their stamp" in message


def test_pose_jumps_are_counted(wire):
    inputs = wire.inputs()
    robot = Robot(wire)
    connect(wire, robot.publishers.values())
    for k, x in enumerate((0.0, 0.1, 5.0, 5.1)):
        stamp = 10.0 + k / 10
        pose = make_pose(stamp)
        pose.pose.position.x = x
        robot.send(stamp, pose=pose)
        wire.spin_until(lambda count=k + 1: len(wire.frames) == count)
    assert inputs.diagnostic_values()["pose_jumps"] == 1
