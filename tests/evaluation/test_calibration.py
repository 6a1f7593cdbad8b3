"""Calibration separates present from absent things, and its file changes the presence decision."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.box_scene import BOXES, write_scene

from ovs3d_ros import cli
from ovs3d_ros.datasets import open_dataset
from ovs3d_ros.evaluation.calibration import (
    SceneEvidence,
    ScenePrompts,
    choose_prompts,
    fit_calibration,
    leave_one_out,
)
from ovs3d_ros.query.presence import load_calibration
from ovs3d_ros.types import UserError

COUNT = 10
SETTINGS = [
    "--quiet",
    "--set",
    "map.image_size=0",
    "--set",
    "compute.device=cpu",
    "--set",
    "train.steps_per_keyframe=3",
]
ENCODER = "clip.model=helpers.color_encoder:UncalibratedEncoder"
ABSENT = "purple box, yellow cup, brown chair"


def ovs3d(*arguments: object) -> int:
    return cli.main([str(a) for a in arguments])


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> list[Path]:
    """Two rooms, each with a box that the other lacks."""
    folder = tmp_path_factory.mktemp("rooms")
    return [
        write_scene(folder / str(missing), COUNT, tuple(box for box in BOXES if box is not missing_box))
        for missing, missing_box in enumerate(BOXES[1:])
    ]


@pytest.fixture(scope="module")
def calibrated(scenes, tmp_path_factory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("calibration")
    assert (
        ovs3d(
            "calibrate",
            *scenes,
            "-o",
            folder / "c.json",
            "--absent",
            ABSENT,
            "--json",
            folder / "r.json",
            "--set",
            ENCODER,
            *SETTINGS,
        )
        == 0
    )
    return folder / "c.json", json.loads((folder / "r.json").read_text())


def test_prompts_are_visible_classes_and_classes_of_other_scenes(scenes):
    prompts = choose_prompts(
        open_dataset(scenes[0]), ["red box", "green box", "blue box", "grey floor", "brown chair"]
    )
    assert prompts == ScenePrompts(
        ["red box", "blue box", "grey floor", "box", "floor"], ["green box", "brown chair", "chair"]
    )


def test_calibration_separates_present_from_absent(calibrated):
    figures = calibrated[1]
    assert (
        figures["scenes"] == 2 and figures["all"]["prompts"] == 2 * 11 and figures["all"]["present"] == 2 * 5
    )
    assert figures["specific"]["auroc"] == 1.0 and figures["mean_iou"] > 0.6


def test_calibration_file_changes_the_presence_decision(calibrated, scenes, tmp_path):
    room = tmp_path / "room.ovs3d"
    assert (
        ovs3d("map", scenes[0], "-o", room, "--set", ENCODER, "--set", "train.final_steps=20", *SETTINGS) == 0
    )
    found, presence = {}, {}
    for name, extra in (("before", []), ("after", ["--set", f"query.calibration={calibrated[0]}"])):
        assert (
            ovs3d(
                "query",
                room,
                "red box",
                "blue box",
                "green box",
                "purple box",
                "--json",
                tmp_path / name,
                *extra,
            )
            == 0
        )
        entries = json.loads((tmp_path / name).read_text())["prompts"]
        found[name], presence[name] = [e["found"] for e in entries], [e["presence"] for e in entries]
    assert found["after"] == [True, True, False, False]
    assert min(presence["after"][:2]) > 0.9 and max(presence["after"][2:]) < max(presence["before"][2:])


def test_calibration_of_another_encoder_is_refused(calibrated, scenes, tmp_path, capsys):
    assert (
        ovs3d(
            "map",
            scenes[0],
            "-o",
            tmp_path / "m",
            "--set",
            "clip.model=helpers.color_encoder:OtherUncalibratedEncoder",
            "--set",
            f"query.calibration={calibrated[0]}",
            *SETTINGS,
        )
        == 2
    )
    err = capsys.readouterr().err
    assert "tests/uncalibrated" in err and "tests/other_uncalibrated" in err and "ovs3d calibrate" in err


@pytest.mark.parametrize(
    "text, words",
    [
        (None, "No such file"),
        ("{", "not a calibration"),
        ("[]", "not a calibration"),
        ('{"name": "e"}', "query"),
        ('{"name": "e", "query": {"tresholt": 1}}', "tresholt"),
        ('{"name": "e", "query": {"presence_weights": [1.0]}}', "weighs"),
    ],
)
def test_error_of_a_broken_calibration_file_names_the_fault(text, words, tmp_path):
    path = tmp_path / "c.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=words):
        load_calibration(str(path), "e")


def test_bad_arguments_give_a_one_line_error(scenes, tmp_path, capsys):
    (tmp_path / "bare").mkdir()
    for arguments, words in (
        (scenes[:1], "two labelled datasets"),
        ([*scenes, tmp_path / "bare"], "no dataset found"),
    ):
        assert ovs3d("calibrate", *arguments, "-o", tmp_path / "c.json", "--set", ENCODER, *SETTINGS) == 2
        assert words in capsys.readouterr().err and not (tmp_path / "c.json").exists()


def test_scene_without_prompts_is_refused_before_mapping(scenes, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("ovs3d_ros.commands.calibrate.Ovs3d", None)
    for name in ("one", "two"):  # equal classes, and two labelled views of ten
        room = shutil.copytree(scenes[0], tmp_path / name)
        for label in sorted((room / "labels").iterdir())[2:]:
            label.unlink()
    assert ovs3d("calibrate", tmp_path / "one", tmp_path / "two", "-o", tmp_path / "c.json", *SETTINGS) == 2
    err = capsys.readouterr().err
    assert "one: there is nothing to ask for" in err and err.count("\n") == 1


def test_full_disk_leaves_the_earlier_calibration(scenes, tmp_path, capsys, monkeypatch):
    (tmp_path / "c.json").write_text("earlier")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    assert ovs3d("calibrate", *scenes, "-o", tmp_path / "c.json", "--set", ENCODER, *SETTINGS) == 2
    output = capsys.readouterr()
    assert (
        "AUROC" in output.out
        and "No space left" in output.err
        and (tmp_path / "c.json").read_text() == "earlier"
    )


def make_evidence(rng: np.random.Generator, count: int = 60, noise: float = 0.05) -> SceneEvidence:
    """Evidence whose third column alone tells presence; its level is higher for general prompts."""
    present, general = rng.random(count) < 0.4, rng.random(count) < 0.5
    evidence = rng.normal(size=(count, 4))
    evidence[:, 2] = (
        np.where(present, 0.3, -0.1) + np.where(general, 0.5, 0.0) + noise * rng.normal(size=count)
    )
    iou = np.zeros((3, 25))
    iou[:, 7] = 0.8
    return SceneEvidence([""] * count, evidence, general, present, iou)


def test_fit_weights_the_deciding_column_per_kind_of_prompt():
    rng = np.random.default_rng(0)
    scenes = [make_evidence(rng) for _ in range(4)]
    fitted, figures = fit_calibration(scenes), leave_one_out(scenes)
    assert fitted["threshold"] == pytest.approx(0.3 + 7 * 0.025)
    assert np.abs(fitted["presence_weights"]).argmax() == 2 and fitted["presence_weights"][2] > 0
    middle = [-fitted[f"{kind}_bias"] / fitted[f"{kind}_weights"][2] for kind in ("presence", "general")]
    assert middle[0] == pytest.approx(0.1, abs=0.06) and middle[1] == pytest.approx(0.6, abs=0.06)
    assert figures["all"]["auroc"] > 0.99 and figures["mean_iou"] == pytest.approx(0.8)


def test_leave_one_out_ignores_the_scene_it_predicts():
    """The scenes have opposite rules, so the fit on one is wrong for the other."""
    first, second = make_evidence(np.random.default_rng(1)), make_evidence(np.random.default_rng(2))
    turned = SceneEvidence(second.prompts, -second.evidence, second.general, second.present, second.iou)
    assert leave_one_out([first, turned])["specific"]["auroc"] < 0.1


def test_fit_without_absent_prompts_is_refused():
    scene = make_evidence(np.random.default_rng(0))
    with pytest.raises(UserError, match="not"):
        fit_calibration(
            [
                SceneEvidence(
                    scene.prompts, scene.evidence, scene.general, np.ones_like(scene.present), scene.iou
                )
            ]
        )
