"""The `ovs3d` program itself: help, config and play."""

from __future__ import annotations

import subprocess
import sys

import pytest
from helpers.command_line import assert_one_line, ovs3d

from ovs3d_ros.commands.arguments import make_parser
from ovs3d_ros.commands.inputs import repeat_set
from ovs3d_ros.config import Config, leaves, override
from ovs3d_ros.config.yaml_io import load, parse_assignments, to_yaml


def test_cli_runs_as_a_program(repository, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "ovs3d_ros.cli", "export", tmp_path / "no.ovs3d", "-o", tmp_path / "x.ply"],
        cwd=repository,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2 and done.stdout == ""
    assert_one_line(done.stderr, "no.ovs3d")


def test_help_and_config_import_nothing_heavy(repository):
    code = (
        "import sys; from ovs3d_ros.cli import main; assert main(['config']) == 0\n"
        "try: main(['--help'])\nexcept SystemExit as e: assert e.code == 0\n"
        "assert not {'torch', 'cv2', 'numba', 'rclpy'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    for command in ("demo", "map", "query", "refine", "render", "eval", "export", "info", "config", "play"):
        assert f"\n    {command} " in done.stdout


@pytest.mark.parametrize(
    "command",
    [
        ["query", "no.ovs3d", "red"],
        ["render", "no.ovs3d", "-o", "v.mp4"],
        ["export", "no.ovs3d", "-o", "x.ply"],
        ["info", "no"],
        ["map", "no", "-o", "m.ovs3d"],
        ["eval", "no.ovs3d", "no"],
        ["refine", "no.ovs3d", "no", "--names", "a"],
        ["calibrate", "no", "no", "-o", "c.json"],
    ],
)
def test_missing_input_is_reported_before_torch_loads(command, repository):
    code = (
        f"import sys; from ovs3d_ros.cli import main; assert main({command}) == 2\n"
        "assert not {'torch', 'cv2', 'numba'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert_one_line(done.stderr, "no such")


@pytest.mark.parametrize(
    ("command", "option"),
    [(["refine", "m.ovs3d", "room"], "--names"), (["render", "m.ovs3d", "-o", "v.mp4"], "--prompts")],
)
def test_names_may_be_given_one_option_each(command, option):
    options = make_parser().parse_args([*command, option, "red mug", "lamp", option, "chair"])
    assert getattr(options, option[2:]) == ["red mug", "lamp", "chair"]


def test_one_set_takes_several_assignments(capsys):
    assert ovs3d("config", "--set", "train.final_steps=7", "query.negatives=[a, b]", "pose_source=tf") == 0
    out = capsys.readouterr().out
    assert all(line in out for line in ("final_steps: 7\n", "negatives: [a, b]\n", "pose_source: tf\n"))


def test_set_leaves_other_words_alone():
    words = ["--set", "clip.model=a", "clip.pretrained=b", "room=1.ovs3d", "map.x=1", "--", "clip.model=a"]
    assert repeat_set(words) == words[:2] + ["--set"] + words[2:]
    assert repeat_set(["map", "--set", "map.x=1"]) == ["map", "--set", "map.x=1"]


def test_config_output_reads_back(tmp_path, capsys):
    settings = ["train.final_steps=7", "query.negatives=object,stuff", "clip.model=ViT-B-16"]
    assert ovs3d("config", *(word for s in settings for word in ("--set", s))) == 0
    text = capsys.readouterr().out
    wanted = override(Config(), parse_assignments(settings))
    assert text == to_yaml(wanted)
    (tmp_path / "c.yaml").write_text(text)
    assert list(leaves(load(tmp_path / "c.yaml"))) == list(leaves(wanted))


def test_play_without_ros_names_the_remedy(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "rclpy", None)
    for name in [name for name in sys.modules if name.startswith("ovs3d_ros.ros.")]:
        monkeypatch.delitem(sys.modules, name)
    assert ovs3d("play", "anything") == 2
    assert_one_line(capsys.readouterr().err, "rclpy", "pip install")
