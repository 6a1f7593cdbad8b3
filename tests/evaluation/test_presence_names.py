"""Calibration with names of things that are there and that are not, without labels."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.box_scene import write_scene

from ovs3d_ros import cli
from ovs3d_ros.evaluation import presence_names
from ovs3d_ros.evaluation.calibration import fit_logistic
from ovs3d_ros.evaluation.presence_names import NameEvidence, fit_names, leave_one_name_out
from ovs3d_ros.query.bank_presence import BIAS, WEIGHTS
from ovs3d_ros.query.presence import logistic_regression

SETTINGS = ["--quiet", "--set", "map.image_size=0", "compute.device=cpu", "train.steps_per_keyframe=3"]
SETTINGS += ["--set", "clip.model=helpers.color_encoder:UncalibratedEncoder"]
PRESENT = ["red box", "green box", "blue box", "grey floor", "red thing"]
ABSENT = ["purple cup", "yellow chair", "orange sofa", "pink lamp", "violet plate", "brown dog"]


def ovs3d(*arguments: object) -> int:
    return cli.main([str(a) for a in arguments])


@pytest.fixture(scope="module")
def room(tmp_path_factory) -> Path:
    """A room without labels, with names."""
    folder = write_scene(tmp_path_factory.mktemp("names") / "room", 6)
    shutil.rmtree(folder / "labels")
    (folder / "classes.txt").unlink(missing_ok=True)
    transforms = json.loads((folder / "transforms.json").read_text())
    for frame in transforms["frames"]:
        frame.pop("label_file_path", None)
    (folder / "transforms.json").write_text(json.dumps(transforms))
    (folder / "presence.json").write_text(json.dumps({"present": PRESENT, "absent": ABSENT}))
    return folder


def make_names(shift: float, count: int = 40) -> NameEvidence:
    """Evidence of an encoder for which everything ranks higher than for others, by `shift`."""
    rng = np.random.default_rng(0)
    present = np.arange(count) < count // 2
    evidence = np.where(present, 2.0, 0.0)[:, None] + shift + 0.3 * rng.normal(size=(count, 4))
    return NameEvidence([f"name {i}" for i in range(count)], evidence, present)


def test_names_correct_a_decision_that_finds_everything():
    asked = make_names(shift=4.0)
    before = logistic_regression(asked.evidence, WEIGHTS, BIAS)
    after = logistic_regression(asked.evidence, *fit_names(asked))
    assert (before[~asked.present] > 0.6).all()
    assert (after[asked.present] > 0.6).all() and (after[~asked.present] < 0.4).all()
    figures = leave_one_name_out(asked)
    assert figures["tpr_at_half"] == 1.0 and figures["fpr_at_half"] == 0.0 and figures["prompts"] == 40


def test_weights_stay_near_those_of_the_bank():
    asked = make_names(shift=0.0)
    weights, _ = fit_names(asked)
    free, _ = fit_logistic(asked.evidence, asked.present)
    prior = np.array(WEIGHTS)
    assert np.linalg.norm(weights - prior) < 0.5 * np.linalg.norm(free - prior)


def test_each_name_is_predicted_by_a_fit_on_the_others(monkeypatch):
    asked = make_names(shift=0.0, count=12)
    names = np.array(
        ["Sofa", *asked.names[1:6], "sofa", *asked.names[7:]]
    )  # there in one room, not in another
    fits = []

    def fit(given: NameEvidence, rows: np.ndarray):
        fits.append(sorted({name.casefold() for name in names[~rows]}))
        return fit_names(given, rows)

    monkeypatch.setattr(presence_names, "fit_names", fit)
    leave_one_name_out(NameEvidence(names.tolist(), asked.evidence, asked.present))
    assert sorted(fits) == sorted([name] for name in {name.casefold() for name in names})


def test_names_calibrate_without_labels_and_the_file_decides(room, tmp_path, capsys):
    assert ovs3d("calibrate", room, "--names", "-o", tmp_path / "c.json", *SETTINGS) == 0
    assert "11 prompts" in capsys.readouterr().out
    document = json.loads((tmp_path / "c.json").read_text())
    assert document["name"] == "tests/uncalibrated" and len(document["query"]["bank_weights"]) == 4
    assert ovs3d("map", room, "-o", tmp_path / "m", "--set", "train.final_steps=5", *SETTINGS) == 0
    presence = {}
    for bias in (-50.0, 50.0):
        document["query"]["bank_bias"] = bias
        (tmp_path / "c.json").write_text(json.dumps(document))
        setting = f"query.calibration={tmp_path / 'c.json'}"
        report = tmp_path / "q.json"
        assert ovs3d("query", tmp_path / "m", "red box", "--json", report, "--set", setting) == 0
        presence[bias] = json.loads(report.read_text())["prompts"][0]["presence"]
    assert presence[-50.0] < 0.01 and presence[50.0] > 0.99


def test_too_few_names_are_refused_before_mapping(room, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("ovs3d_ros.commands.calibrate.Ovs3d", None)
    few = shutil.copytree(room, tmp_path / "few")
    (few / "presence.json").write_text(json.dumps({"present": PRESENT, "absent": ABSENT[:2]}))
    assert ovs3d("calibrate", few, "--names", "-o", tmp_path / "c.json", *SETTINGS) == 2
    assert "at least 5 names" in capsys.readouterr().err
    (few / "presence.json").unlink()
    assert ovs3d("calibrate", few, "--names", "-o", tmp_path / "c.json", *SETTINGS) == 2
    assert "presence.json" in capsys.readouterr().err
    arguments = ("--names", "--absent", "dog", "-o", tmp_path / "c.json", *SETTINGS)
    assert ovs3d("calibrate", room, *arguments) == 2
    assert "--absent" in capsys.readouterr().err
