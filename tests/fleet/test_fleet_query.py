"""`ovs3d fleet query`: the same answer as from each map, at once."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from helpers.box_scene import BOXES
from helpers.command_line import PROMPTS, SETTINGS, assert_one_line, ovs3d
from PIL import Image

from ovs3d_ros.fleet.parts import part_path
from ovs3d_ros.fleet.search import FleetIndex
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.types import UserError

ASKED = [*PROMPTS, "grey floor", "purple box", "teapot"]
UNCALIBRATED = "helpers.color_encoder:UncalibratedEncoder"


@pytest.fixture(scope="module")
def index(maps) -> FleetIndex:
    return FleetIndex.open(maps, {"compute.device": "cpu"})


def test_answer_is_that_of_each_map(maps, index):
    answer = index.query(ASKED, limit=100)
    assert answer.num_maps == 2 and not index.skipped
    for path in maps.glob("*.ovs3d"):
        own = Ovs3d.load(path, {"compute.device": "cpu"}).query(ASKED)
        for p, prompt in enumerate(ASKED):
            hits = [hit for hit in answer.hits if hit.map == path and hit.prompt == prompt]
            assert (hits[0].verdict if hits else "no") == own.verdicts[p], prompt
            for hit in hits:
                assert hit.presence == pytest.approx(own.presence[p], abs=0.05)


def test_things_are_where_they_stand(index):
    answer = index.query(PROMPTS, limit=100)
    assert answer.found.tolist() == [1, 2, 2] and answer.unsure.tolist() == [0, 0, 0]
    for box in BOXES:
        hits = [hit for hit in answer.hits if hit.prompt == box.name]
        assert {hit.map.stem for hit in hits} == ({"full"} if box.name == "red box" else {"full", "bare"})
        for stem in {hit.map.stem for hit in hits}:
            best = next(hit for hit in hits if hit.map.stem == stem)
            np.testing.assert_allclose(best.center, box.center, atol=0.05)
            np.testing.assert_allclose(best.size, box.size, atol=0.08)
            assert best.num_gaussians > 20 and 1 <= best.views <= 6 and best.score > 0.9
            assert best.keyframe_name == f"{best.keyframe:03d}" and best.time is not None


def test_limit_keeps_the_surest(index):
    every = index.query(["green box", "grey floor"], limit=100)
    for prompt in every.prompts:
        presences = [hit.presence for hit in every.hits if hit.prompt == prompt]
        assert presences == sorted(presences, reverse=True) and len(presences) >= 2
    one = index.query(["green box", "grey floor"], limit=1)
    assert [hit.prompt for hit in one.hits] == ["green box", "grey floor"]
    assert one.found.tolist() == [2, 2]


def test_bad_questions_are_refused(index):
    for prompts, options in (([], {}), ([""], {}), (["a"], {"threshold": 2.0}), (["a"], {"negatives": [""]})):
        with pytest.raises(UserError):
            index.query(prompts, **options)


def test_index_follows_the_maps(maps, tmp_path):
    for path in maps.glob("*.ovs3d"):
        shutil.copy(path, tmp_path)
    settings = {"compute.device": "cpu"}
    assert FleetIndex.open(tmp_path, settings).query(["red box"]).found.tolist() == [1]
    shutil.copy(tmp_path / "full.ovs3d", tmp_path / "bare.ovs3d")
    assert FleetIndex.open(tmp_path, settings).query(["red box"]).found.tolist() == [2]
    part_path(tmp_path / "bare.ovs3d").write_bytes(b"damaged")
    (tmp_path / "full.ovs3d").unlink()
    assert FleetIndex.open(tmp_path, settings).query(["red box"]).found.tolist() == [1]
    before = part_path(tmp_path / "bare.ovs3d").stat().st_mtime_ns
    FleetIndex.open(tmp_path, settings)
    assert part_path(tmp_path / "bare.ovs3d").stat().st_mtime_ns == before, "what is there is not made again"


def test_maps_that_cannot_be_searched_are_named(maps, tables, tmp_path, capsys):
    shutil.copy(maps / "full.ovs3d", tmp_path)
    plain = [
        "-o",
        tmp_path / "plain.ovs3d",
        "--no-clip",
        "--quiet",
        "--set",
        "train.final_steps=2",
        *SETTINGS,
    ]
    assert ovs3d("map", tables["full"], *plain) == 0
    (tmp_path / "torn.ovs3d").write_bytes((maps / "full.ovs3d").read_bytes()[:1000])
    capsys.readouterr()
    assert ovs3d("fleet", "query", tmp_path, "red box", "--json", "-") == 0
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert document["maps"] == 1 and set(document["skipped"]) == {"plain.ovs3d", "torn.ovs3d"}
    assert "not searched" in err and "no language features" in err and "truncated" in err


def test_pictures_show_the_things(maps, tmp_path, capsys):
    out = tmp_path / "out"
    assert ovs3d("fleet", "query", maps, "red box", "-o", out, "--set", "compute.device=cpu") == 0
    assert "red box: found in 1 of 2 maps" in capsys.readouterr().out
    document = json.loads((out / "hits.json").read_text())
    hit = document["hits"][0]
    assert hit["map"].endswith("full.ovs3d") and hit["verdict"] == "yes"
    picture = np.asarray(Image.open(out / hit["picture"]).convert("RGB")).astype(int)
    frame = np.argwhere((picture == [228, 87, 46]).all(-1))
    (top, left), (bottom, right) = frame.min(axis=0), frame.max(axis=0)
    inside = np.zeros(picture.shape[:2], bool)
    inside[top : bottom + 1, left : right + 1] = True
    red = picture[..., 0] > picture[..., 1:].max(axis=-1) + 60
    assert red.sum() > 50 and (red & inside).sum() > 0.9 * red.sum()
    assert inside.sum() < 0.4 * inside.size


def test_answer_replaces_an_earlier_one_and_nothing_else(maps, tmp_path, capsys):
    command = ["fleet", "query", maps, "-o", tmp_path, "--set", "compute.device=cpu"]
    assert ovs3d(*command, "red box", "green box") == 0
    (tmp_path / "mine.png").touch()
    first = {path.name for path in tmp_path.glob("*.png")}
    assert ovs3d(*command, "red box", "--limit", 1) == 0
    assert len(first) == 4 and {path.name for path in tmp_path.glob("*.png")} == {"001_full.png", "mine.png"}
    (tmp_path / "hits.json").write_text('{"mine": 1}')
    capsys.readouterr()
    assert ovs3d(*command, "red box") == 2
    assert_one_line(capsys.readouterr().err, "hits.json", "choose another folder")
    assert (tmp_path / "hits.json").read_text() == '{"mine": 1}'


def test_folder_without_maps_is_refused(tmp_path, capsys):
    assert ovs3d("fleet", "query", tmp_path, "red box") == 2
    assert_one_line(capsys.readouterr().err, "holds no maps", "ovs3d fleet map")
    assert ovs3d("fleet", "query", tmp_path / "none", "red box") == 2
    assert_one_line(capsys.readouterr().err, "no such folder")


def test_encoder_without_calibration_is_judged_by_the_name_bank(tables, tmp_path):
    arguments = ["-o", tmp_path / "full.ovs3d", "--quiet", "--set", "train.final_steps=5", *SETTINGS]
    arguments += ["--set", f"clip.model={UNCALIBRATED}"]
    assert ovs3d("map", tables["full"], *arguments) == 0
    own = Ovs3d.load(tmp_path / "full.ovs3d", {"compute.device": "cpu"}).query(ASKED)
    index = FleetIndex.open(tmp_path, {"compute.device": "cpu"})
    assert index.query(ASKED).found.astype(bool).tolist() == own.found.tolist()
    assert own.found[:3].all() and not own.found[-2:].any()
