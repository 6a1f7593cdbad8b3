"""RGB-D at camera rate into a real node: every image is counted, even if the machine is too slow.

benchmarks/streaming.py measures times; a test asserts none, because they depend on the load of the machine.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("ovs3d_interfaces")
pytestmark = [pytest.mark.ros, pytest.mark.slow]

from helpers.ros_env import BOOTSTRAP_MARK  # noqa: E402


def test_every_image_of_a_stream_is_accounted_for(repository):
    environment = {k: v for k, v in os.environ.items() if k != BOOTSTRAP_MARK} | {
        "PYTHONPATH": str(repository)
    }
    run = subprocess.run(
        [sys.executable, "benchmarks/streaming.py", "--seconds", "8", "--views", "10"],
        cwd=repository,
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout)
    assert result["unaccounted"] == 0, result
    assert result["images_sent"] > 20 and result["mapped"] >= 1 and result["queries"] >= 1, result
    assert result["memory_mib"]["most"] < result["memory_mib"]["start"] + 1500, result
