"""Exit status and one-line reason of node and player when something is wrong."""

from __future__ import annotations

import signal

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("ovs3d_interfaces")
pytestmark = [pytest.mark.ros, pytest.mark.slow]

from helpers.ros_env import Process, write_dataset  # noqa: E402
from helpers.ros_session import SETTINGS, start_node  # noqa: E402

from ovs3d_ros.ros.environment import free_domain_id  # noqa: E402


@pytest.mark.parametrize(
    "settings, problem",
    [
        ({"map.max_gausians": 10}, "ovs3d: map.max_gausians: no such parameter; did you mean"),
        ({"clip.model": "nowhere:Encoder"}, "ovs3d: clip.model"),
        ({"output.camera_tf": "true", "pose_source": "tf"}, "ovs3d: output.camera_tf: with pose_source tf"),
        ({"output.vocabulary": "[red ball, '']"}, "ovs3d: output.vocabulary: name 2 is empty"),
    ],
)
def test_bad_settings_end_the_node_with_one_line(tmp_path, settings, problem):
    node = start_node(settings, free_domain_id(), tmp_path / "node.log")
    assert node.wait(120) == 2
    assert problem in node.output()
    assert "Traceback" not in node.output()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_node_starts_with_defaults_and_a_signal_ends_it(number: int, tmp_path):
    node = start_node({}, free_domain_id(), tmp_path / "node.log")
    node.wait_for("ready: poses from pose", 120)
    assert "text encoder bundled/" in node.output()
    assert node.stop(number, 120) == 0
    assert "Traceback" not in node.output()


def test_failing_mapping_thread_ends_node_with_status_1(tmp_path):
    domain_id = free_domain_id()
    node = start_node(
        {**SETTINGS, "clip.model": "helpers.color_encoder:BrokenEncoder"}, domain_id, tmp_path / "node.log"
    )
    player = Process(
        "ovs3d_ros.ros.play",
        [str(write_dataset(tmp_path / "tiny", 2)), "--wait", "60"],
        domain_id,
        tmp_path / "play.log",
    )
    assert node.wait(120) == 1
    assert "the mapping thread failed: the encoder broke" in node.output()
    player.stop()


def test_player_reports_missing_subscribers(tmp_path):
    player = Process(
        "ovs3d_ros.ros.play",
        [str(write_dataset(tmp_path / "tiny", 2)), "--wait", "0.5"],
        free_domain_id(),
        tmp_path / "play.log",
    )
    assert player.wait(120) == 2
    assert "nobody subscribes to /image, /camera_info, /pose after 0.5 s" in player.output()
