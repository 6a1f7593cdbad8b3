"""`ros2 run ovs3d_ros ask` against a real node that has mapped a small scene."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("ovs3d_interfaces")

from helpers.ros_env import use_child_environment
from helpers.ros_session import SETTINGS, Session, session, start_node  # noqa: F401

from ovs3d_ros.ros import conversions
from ovs3d_ros.ros.environment import child_environment, free_domain_id

pytestmark = [pytest.mark.ros, pytest.mark.slow]
SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "ask"


def start(domain_id: int, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *arguments],
        env=child_environment(domain_id),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(domain_id: int, *arguments: str) -> tuple[int, str, str]:
    process = start(domain_id, *arguments)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def first_line(process: subprocess.Popen) -> str:
    """The first line on standard error that neither the middleware wrote nor the wait for a node."""
    assert process.stderr is not None
    others = "[rmw_fastrtps", "waiting for /"  # finding the node may take longer on a busy machine
    return next(line for line in process.stderr if not any(words in line for words in others))


def test_one_word_gives_a_table_with_places(session: Session) -> None:
    code, out, err = run(session.domain_id, "red ball", "bicycle")
    assert code == 0, err
    head, ball, bicycle = out.splitlines()
    assert head.split() == ["prompt", "found", "presence", "objects", "position", "(m)", "size", "(m)"]
    assert ball.startswith("red ball  yes") and bicycle.startswith("bicycle   no")
    place = [float(v) for v in ball[ball.index("(") + 1 : ball.index(")")].split(",")]
    assert np.linalg.norm(place[:2]) < 0.15, "the ball is at the origin"
    assert bicycle.split()[-3:] == ["0", "-", "-"]


def test_json_has_the_objects(session: Session) -> None:
    code, out, err = run(session.domain_id, "red ball", "--json")
    assert code == 0, err
    (entry,) = json.loads(out)
    assert entry["found"] and entry["verdict"] == "yes" and entry["frame"] == "map"
    (ball,) = entry["objects"]
    assert ball["id"] > 0 and np.linalg.norm(ball["quat"]) == pytest.approx(1, abs=1e-3)
    assert all(0.1 < side < 1.5 for side in ball["size"])


def test_go_sends_the_goal_to_navigation(session: Session) -> None:
    session.client.listen("/goal_pose", conversions.PoseStamped, 1)
    code, _, err = run(session.domain_id, "red ball", "--go")
    assert code == 0 and "sent (" in err
    goal = session.client.receive("/goal_pose", conversions.PoseStamped, 1)
    assert 0.35 < np.hypot(goal.pose.position.x, goal.pose.position.y) < 4.0


def test_go_without_a_thing_says_so_and_fails(session: Session) -> None:
    code, out, err = run(session.domain_id, "bicycle", "--go")
    assert code == 1 and out.splitlines()[1].startswith("bicycle  no")
    assert "nothing was found of bicycle" in err and "sent (" not in err


def test_watch_sends_a_goal_once_for_each_thing(session: Session) -> None:
    session.client.listen("/goal_pose", conversions.PoseStamped, 1)
    process = start(session.domain_id, "red ball", "--go", "--watch", "0.2")
    assert first_line(process).startswith("sent (")
    time.sleep(2.0)  # it asks again and again
    process.send_signal(signal.SIGINT)
    err = process.communicate(timeout=60)[1]
    assert process.returncode == 0 and "sent (" not in err


def test_watch_prints_until_it_is_interrupted(session: Session) -> None:
    process = start(session.domain_id, "red ball", "--watch", "0.2")
    head, ball = process.stdout.readline(), process.stdout.readline()
    process.send_signal(signal.SIGINT)
    err = process.communicate(timeout=60)[1]
    assert process.returncode == 0 and "Traceback" not in err
    assert head.startswith("prompt") and ball.startswith("red ball  yes")


def test_watch_waits_for_the_first_map_and_says_that_the_node_is_gone(tmp_path) -> None:
    domain_id = free_domain_id()
    with pytest.MonkeyPatch.context() as patch:
        use_child_environment(patch)
        node = start_node(SETTINGS, domain_id, tmp_path / "node.log")
        try:
            node.wait_for("ready", 120)
            process = start(domain_id, "red ball", "--watch", "0.2", "--timeout", "4")
            assert "no map yet" in first_line(process) and process.poll() is None
            assert node.stop() == 0
            out, err = process.communicate(timeout=60)
        finally:
            node.stop(signal.SIGKILL)
    assert process.returncode == 1 and not out
    assert "waiting for /ovs3d/query" in err.splitlines() and "no node offers /ovs3d/query" in err


def test_without_a_node_it_says_what_to_do(session: Session) -> None:
    code, out, err = run(session.domain_id, "mug", "--node", "nobody", "--timeout", "1")
    assert code == 1 and not out
    assert "no node offers /nobody/query" in err and "--node" in err and "Traceback" not in err


def test_refused_names_are_said_in_one_line(session: Session) -> None:
    code, out, err = run(session.domain_id, " ")
    assert code == 1 and not out and "prompt 1 is empty" in err.splitlines()[-1]
