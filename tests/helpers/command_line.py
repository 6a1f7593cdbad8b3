"""What the tests of the command line share: a call of the command, its settings, and checks of its output."""

from __future__ import annotations

from helpers.box_scene import BOXES
from ovs3d_ros import cli

COUNT, HOLDOUT = 14, 7  # frames of the scene; every HOLDOUT-th is held out
PROMPTS = [box.name for box in BOXES]
SETTINGS = [
    "--set",
    "clip.model=helpers.color_encoder:ColorEncoder",
    "--set",
    "map.image_size=0",
    "--set",
    "compute.device=cpu",
]


def ovs3d(*arguments: object) -> int:
    """Runs the command line and returns its exit code."""
    return cli.main([str(a) for a in arguments])


def assert_one_line(err: str, *words: str) -> None:
    """Asserts that standard error is one error line that contains the words."""
    assert err.startswith("ovs3d: error: ") and err.count("\n") == 1 and "Traceback" not in err, err
    for word in words:
        assert word in err, err
