"""The README: short, and each of its commands and programs runs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from test_launch import argument_names

from ovs3d_ros.cli import make_parser
from ovs3d_ros.datasets import open_dataset
from ovs3d_ros.demo.scene import SHIPPED

REPOSITORY = Path(__file__).resolve().parents[2]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def test_readme_has_at_most_150_lines():
    assert len(README.splitlines()) <= 150
    assert README.index("![") < README.index("**A ROS 2 node")  # the picture comes first


def test_readme_commands_are_understood():
    lines = re.findall(r"^ovs3d (.+?)(?: *#.*)?$", README, re.MULTILINE)
    assert len(lines) >= 3
    commands = [make_parser().parse_args(shlex.split(line)).command for line in lines]
    assert {"map", "query"} <= set(commands)


def test_readme_launch_arguments_exist():
    used = set(re.findall(r"\b(\w+):=", README))
    assert "preset" in used and used <= argument_names()


@pytest.mark.slow
def test_readme_programs_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    ask, build = re.findall(r"```python\n(.+?)```", README, re.DOTALL)
    frames = [frame for frame, _ in zip(open_dataset(SHIPPED), range(3), strict=False)]
    images = [(f.stamp, f.image, f.camera.K, f.camtoworld) for f in frames]
    assert "ViT-B-16" in build and "optimize(30)" in build
    exec(build.replace("ViT-B-16", "bundled").replace("optimize(30)", "optimize(2)"), {"images": images})
    exec(ask, {})
    assert re.search(r"^red mug: (not )?here \(\d\.\d\d\)$", capsys.readouterr().out, re.MULTILINE)
