"""The `ovs3d` program itself: help, config and play."""

from __future__ import annotations

import subprocess
import sys

from helpers.command_line import assert_one_line, ovs3d

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
    for command in ("demo", "map", "query", "refine", "render", "eval", "export", "config", "play"):
        assert f"\n    {command} " in done.stdout


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
