"""Bad input of every command: exit code 2, one line, and nothing written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from helpers.command_line import assert_one_line, ovs3d

BAD = {
    "unknown parameter before anything else": (
        ["map", "nowhere", "-o", "x", "--set", "map.max_gausians=5"],
        ["map.max_gausians", "no such parameter"],
    ),
    "value out of range": (["map", "nowhere", "-o", "x", "--set", "seed.opacity=7"], ["seed.opacity", "7"]),
    "not an assignment": (["query", "{map}", "red", "--set", "clip.model"], ["key=value"]),
    "missing configuration": (
        ["map", "{scene}", "-o", "x", "--config", "no.yaml"],
        ["no.yaml", "ovs3d config"],
    ),
    "missing output folder": (["map", "{scene}", "-o", "{tmp}/no/m.ovs3d"], ["no/m.ovs3d", "create it"]),
    "output is a folder": (["map", "{scene}", "-o", "{tmp}"], ["is a folder"]),
    "missing data": (["map", "{tmp}/nowhere", "-o", "{tmp}/m.ovs3d"], ["nowhere", "no such"]),
    "similar data": (["map", "{tmp}/bear", "-o", "{tmp}/m.ovs3d"], ["no such", "Did you mean", "bare?"]),
    "similar map": (["query", "{tmp}/hal.ovs3d", "red"], ["no such map", "Did you mean", "half.ovs3d?"]),
    "map into a PLY": (
        ["map", "{scene}", "-o", "{tmp}/x.ply"],
        ["x.ply: map writes a map", "-o x.ovs3d", "`ovs3d export x.ovs3d -o x.ply`"],
    ),
    "refine into a video": (
        ["refine", "{map}", "{scene}", "--names", "a", "-o", "{tmp}/x.MP4"],
        ["refine writes a map", "-o x.ovs3d"],
    ),
    "export to KSPLAT": (["export", "{map}", "-o", "{tmp}/x.ksplat"], ["x.ksplat", ".ply", ".splat", ".spz"]),
    "export without a suffix": (["export", "{map}", "-o", "{tmp}/x"], [".ply", ".splat"]),
    "calibration into YAML": (["calibrate", "{scene}", "{scene}", "-o", "{tmp}/c.yaml"], ["-o c.json"]),
    "no dataset": (["map", "{tmp}", "-o", "{tmp}/m.ovs3d"], ["no dataset found", "transforms.json"]),
    "hold-out of everything": (["map", "{scene}", "-o", "{tmp}/m", "--holdout", "1"], ["--holdout 1"]),
    "hold-out of nothing": (
        ["map", "{scene}", "-o", "{tmp}/m", "--holdout", "99"],
        ["--holdout 99", "14 frames"],
    ),
    "missing map": (["query", "{tmp}/no.ovs3d", "red"], ["no.ovs3d", "ovs3d map"]),
    "truncated map": (["query", "{tmp}/half.ovs3d", "red"], ["half.ovs3d", "truncated"]),
    "not a map": (
        ["export", "{scene}/transforms.json", "-o", "{tmp}/x.ply"],
        ["transforms.json", "not a readable map"],
    ),
    "map from another encoder": (
        ["query", "{map}", "red", "--set", "clip.model=helpers.color_encoder:OtherEncoder"],
        ["tests/colors", "tests/other"],
    ),
    "broken import string": (
        ["query", "{map}", "red", "--set", "clip.model=no_such:Encoder"],
        ["no_such:Encoder"],
    ),
    "empty prompt": (["query", "{map}", "red box", "  "], ["prompt 2 is empty"]),
    "no prompt": (["query", "{map}"], ["PROMPT", "--help"]),
    "overlong prompt": (["query", "{map}", "x" * 300], ["300 characters"]),
    "threshold": (["query", "{map}", "red", "--threshold", "3"], ["threshold 3.0", "0 to 1"]),
    "answer folder is a file": (
        ["query", "{map}", "red", "-o", "{scene}/transforms.json"],
        ["cannot create"],
    ),
    "unknown channel": (
        ["render", "{map}", "-o", "{tmp}/v", "--channels", "rgb,ultraviolet"],
        ["ultraviolet"],
    ),
    "segmentation of nothing": (
        ["render", "{map}", "-o", "{tmp}/v", "--channels", "segmentation"],
        ["--prompts"],
    ),
    "unknown video": (["render", "{map}", "-o", "{tmp}/v.avi"], ["v.avi", ".mp4 or .webm"]),
    "unknown protocol": (["eval", "{map}", "{scene}", "--protocol", "x"], ["--protocol x", "3dovs-a"]),
    "unlabelled data": (["eval", "{map}", "{tmp}/bare"], ["no labels", "classes.txt"]),
    "refine without names": (["refine", "{map}", "{scene}"], ["--names"]),
    "refine without data": (["refine", "{map}", "{tmp}/nowhere", "--names", "a"], ["nowhere", "no such"]),
    "refine with an empty name": (["refine", "{map}", "{scene}", "--names", "a", " "], ["name 2 is empty"]),
    "refine one name alone": (
        [
            "refine",
            "{map}",
            "{scene}",
            "--names",
            "object",
            "--set",
            "refine.background=object",
            "--set",
            "dino.model=helpers.color_encoder:ColorPatches",
        ],
        ["at least two"],
    ),
    "refine with another scene": (
        ["refine", "{map}", "{tmp}/moved", "--names", "a"],
        ["moved", "none of its poses"],
    ),
    "unknown command": (["fly"], ["fly", "--help"]),
    "unknown option": (["config", "--colour"], ["--colour"]),
}


def _copy_moved(scene: Path, target: Path) -> None:
    """The scene with all poses moved by a metre."""
    shutil.copytree(scene, target)
    document = json.loads((target / "transforms.json").read_text())
    for frame in document["frames"]:
        frame["transform_matrix"][0][3] += 1.0
    (target / "transforms.json").write_text(json.dumps(document))


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gives_one_line_and_exit_code_2(name, mapped, scene, tmp_path, capsys):
    (tmp_path / "half.ovs3d").write_bytes(mapped[0].read_bytes()[: mapped[0].stat().st_size // 2])
    shutil.copytree(scene, tmp_path / "bare", ignore=shutil.ignore_patterns("labels", "classes.txt"))
    _copy_moved(scene, tmp_path / "moved")
    arguments, words = BAD[name]
    before = sorted(p for p in tmp_path.rglob("*"))
    capsys.readouterr()
    assert ovs3d(*(a.format(map=mapped[0], scene=scene, tmp=tmp_path) for a in arguments)) == 2
    out, err = capsys.readouterr()
    assert_one_line(err, *words)
    assert out == "" and sorted(p for p in tmp_path.rglob("*")) == before, "nothing was written"
