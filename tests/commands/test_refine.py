"""`ovs3d refine` and `ovs3d eval`: scores before and after a refinement."""

from __future__ import annotations

import json

import numpy as np
import pytest
from helpers.box_scene import CLASSES
from helpers.command_line import COUNT, HOLDOUT, SETTINGS, assert_one_line, ovs3d

from ovs3d_ros.map_file import load_map


@pytest.mark.parametrize("protocol", ["dataset", "3dovs-a", "3dovs-d"])
def test_eval_scores_against_labels(protocol, mapped, scene, tmp_path):
    report = tmp_path / "eval.json"
    assert (
        ovs3d("eval", mapped[0], scene, "--protocol", protocol, "--holdout", HOLDOUT, "--json", report) == 0
    )
    score = json.loads(report.read_text())
    assert (
        set(score) == {"protocol", "miou", "accuracy", "per_class", "views", "refined"}
        and not score["refined"]
    )
    assert score["protocol"] == protocol and score["views"] == COUNT // HOLDOUT
    assert set(score["per_class"]) == set(CLASSES)
    assert score["miou"] > 0.65 and score["accuracy"] > 0.9
    assert score["miou"] == pytest.approx(np.mean(list(score["per_class"].values())), abs=0.02)


def test_refine_checks_held_out_views_and_stores_the_field(refined, mapped):
    path, report = refined
    assert (
        report["kept"] is True and report["checked"] == COUNT // HOLDOUT and report["names"] == list(CLASSES)
    )
    assert report["after"]["objective"] < report["before"]["objective"]
    assert load_map(mapped[0])[1].refined is None, "-o leaves the map itself alone"
    field = load_map(path)[1].refined
    assert (
        field.names == CLASSES
        and field.background == ("object",)
        and field.summary["checked"] == report["checked"]
    )


@pytest.mark.parametrize("protocol", ["dataset", "3dovs-d"])
def test_eval_scores_the_refined_field(protocol, refined, mapped, scene, tmp_path):
    scores = []
    for path in (mapped[0], refined[0]):
        report = tmp_path / "eval.json"
        assert ovs3d("eval", path, scene, "--protocol", protocol, "--holdout", HOLDOUT, "--json", report) == 0
        scores.append(json.loads(report.read_text()))
    assert not scores[0]["refined"] and scores[1]["refined"]
    assert scores[1]["miou"] > scores[0]["miou"] - 0.01


def test_map_with_its_keyframes_is_refined_without_data(scene, mapped, tmp_path, capsys):
    path, report = tmp_path / "kept.ovs3d", tmp_path / "refine.json"
    settings = [*SETTINGS, "--set", "map.keep_keyframes=true", "train.final_steps=60"]
    assert ovs3d("map", scene, "-o", path, "--holdout", HOLDOUT, *settings) == 0
    assert ovs3d("refine", path, "--names", *CLASSES, "--json", report) == 0
    figures = json.loads(report.read_text())
    assert figures["checked"] > 1 and figures["map"] == str(path)
    assert len(load_map(path, training=True)[1].training.keyframes) == len(load_map(path)[1].names)
    capsys.readouterr()
    assert ovs3d("refine", mapped[0], "--names", *CLASSES) == 2
    assert_one_line(capsys.readouterr().err, "holds no keyframes", "map.keep_keyframes=true")
