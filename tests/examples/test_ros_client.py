"""The ROS example against a real node that has mapped a small scene."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("ovs3d_interfaces")

from helpers.ros_session import Session, session  # noqa: F401

from ovs3d_ros.ros import conversions
from ovs3d_ros.ros.environment import child_environment

pytestmark = [pytest.mark.ros, pytest.mark.slow]
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "05_ros_client.py"


def run_example(domain_id: int, name: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(EXAMPLE), name],
        env=child_environment(domain_id),
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_client_hands_the_goal_to_navigation(session: Session) -> None:  # noqa: F811
    session.client.listen("/goal_pose", conversions.PoseStamped, 1)
    run = run_example(session.domain_id, "red ball")
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("Going to the red ball")
    goal = session.client.receive("/goal_pose", conversions.PoseStamped, 1)
    place = goal.pose.position
    assert goal.header.frame_id == "map"
    # The goal lies outside the ball, which is at the origin, and inside the room.
    assert 0.35 < np.hypot(place.x, place.y) < 4.0


def test_client_says_that_a_thing_is_not_here(session: Session) -> None:  # noqa: F811
    run = run_example(session.domain_id, "bicycle")
    assert run.returncode == 1
    assert "no bicycle here" in run.stderr
