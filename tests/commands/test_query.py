"""`ovs3d query`: objects, cloud, masks and table against the known scene."""

from __future__ import annotations

import json
import re

import numpy as np
from helpers.box_scene import BOXES, HEIGHT, WIDTH, camera_ring, ray_cast
from helpers.command_line import COUNT, PROMPTS, ovs3d
from helpers.ply import read_ply
from PIL import Image

from ovs3d_ros.commands.query import _table
from ovs3d_ros.io.text_table import display_width
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.visualization.answer_views import best_view


def test_query_finds_boxes_and_their_size(answered):
    by_prompt = {entry["prompt"]: entry for entry in answered[1]}
    for box in BOXES:
        entry = by_prompt[box.name]
        keys = "prompt found verdict presence score objects candidate note"
        assert set(entry) == set(keys.split())
        assert entry["found"] and entry["presence"] > 0.5 and len(entry["objects"]) == 1
        thing = entry["objects"][0]
        assert {"center", "size", "num_gaussians"} <= set(thing)
        assert np.linalg.norm(np.subtract(thing["center"], box.center)) < 0.03
        np.testing.assert_allclose(np.sort(thing["size"]), np.sort(box.size), atol=0.05)
        assert thing["num_gaussians"] > 20 and 1 <= thing["views"] <= COUNT
    absent = by_prompt["purple box"]
    assert (
        absent["verdict"] == "no"
        and not absent["found"]
        and absent["presence"] < 0.2
        and absent["objects"] == []
    )
    assert all(by_prompt[box.name]["verdict"] == "yes" for box in BOXES)


def test_query_writes_a_labelled_cloud(answered):
    cloud = read_ply(answered[0] / "cloud.ply")
    assert cloud.dtype.names == ("x", "y", "z", "red", "green", "blue", "label", "instance", "score")
    points = np.stack([cloud[axis] for axis in "xyz"], axis=1)
    for label, box in enumerate(BOXES, start=1):
        chosen = points[cloud["label"] == label]
        inside = ((chosen > box.low - 0.03) & (chosen < box.high + 0.03)).all(axis=1)
        assert len(chosen) > 20 and inside.mean() > 0.95
        assert (cloud["score"][cloud["label"] == label] > 0.5).all()
    assert not (cloud["label"] == 4).any() and (cloud["label"] == 0).sum() > 200
    assert (cloud["instance"][cloud["label"] == 0] == 0).all()


def test_query_writes_accurate_masks_and_overlays(answered):
    masks = sorted((answered[0] / "masks").glob("*.png"))
    assert [m.name for m in masks] == [o.name for o in sorted((answered[0] / "overlays").glob("*.png"))]
    assert 1 <= len(masks) <= 8
    hits, unions = np.zeros(3), np.zeros(3)
    for path in masks:
        mask = np.asarray(Image.open(path))
        truth = ray_cast(camera_ring(COUNT)[int(path.stem)])[2]
        assert mask.shape == truth.shape == (HEIGHT, WIDTH) and mask.max() <= 3
        hits += [((mask == i) & (truth == i)).sum() for i in (1, 2, 3)]
        unions += [((mask == i) | (truth == i)).sum() for i in (1, 2, 3)]
        overlay = np.asarray(Image.open(answered[0] / "overlays" / path.name))
        assert overlay.shape[1] == 960 and overlay.shape[0] > 960 * HEIGHT // WIDTH, (
            "a legend below the picture"
        )
    assert (hits / unions > 0.65).all(), hits / unions
    lines = (answered[0] / "masks" / "classes.txt").read_text().splitlines()
    assert lines[0] == "1 red box" and lines[3] == "4 purple box"


def test_query_prints_a_table_and_json(mapped, capsys):
    assert ovs3d("query", mapped[0], "a red thing", "--max-instances", 1, "--json", "-") == 0
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert document["prompts"][0]["found"] and document["latency_ms"] > 0
    assert 0 <= document["observed"] < 0.5, "a table top is all that was seen"
    assert "a red thing" in err and "yes" in err, "the table steps aside for the JSON"
    assert (
        ovs3d("query", mapped[0], "purple box", "red box", "--mode", "argmax", "--negatives", "grey,green")
        == 0
    )
    rows = capsys.readouterr().out.splitlines()
    assert rows[0].startswith("prompt") and rows[1].split()[2] == "no" and rows[2].split()[2] == "yes"
    assert ("of the horizon" in rows[-1]) == (document["observed"] < 0.95), "not here, or not looked at yet"


def test_unsure_prompt_shows_its_best_candidate(mapped, tmp_path, capsys):
    doubt = ["--set", "query.presence=1", "query.absent=0", "--json", tmp_path / "q.json"]
    assert ovs3d("query", mapped[0], *PROMPTS, *doubt) == 0
    rows = capsys.readouterr().out.splitlines()
    unsure = 0
    for entry, box in zip(json.loads((tmp_path / "q.json").read_text())["prompts"], BOXES, strict=True):
        assert (entry["candidate"] is None) == (entry["verdict"] != "unsure")
        if entry["verdict"] == "unsure":
            unsure += 1
            assert entry["objects"] == [] and entry["candidate"]["instance"] == 0
            assert np.linalg.norm(np.subtract(entry["candidate"]["center"], box.center)) < 0.05
            assert next(row for row in rows if row.startswith(box.name)).endswith(")?")
    assert unsure, "a probability of exactly 1 is rare"


def test_found_thing_without_a_place_says_why_and_where(mapped, tmp_path, capsys):
    scattered = ["--set", "query.instance_gap=0.0001", "--json", tmp_path / "q.json"]
    assert ovs3d("query", mapped[0], *PROMPTS, *scattered) == 0
    rows = capsys.readouterr().out.splitlines()
    for entry, box in zip(json.loads((tmp_path / "q.json").read_text())["prompts"], BOXES, strict=True):
        assert entry["found"] and not entry["objects"]
        assert re.match(r"its \d+ Gaussians form no group of query.min_instance", entry["note"])
        assert f"{box.name}: {entry['note']}" in rows
        assert np.linalg.norm(np.subtract(entry["candidate"]["center"], box.center)) < 0.5


def test_repeated_prompt_is_one_row(mapped, tmp_path, capsys):
    repeated = ["red box", "green box", " Red  BOX", "red box"]
    assert ovs3d("query", mapped[0], *repeated, "--json", tmp_path / "q.json") == 0
    once = json.loads((tmp_path / "q.json").read_text())["prompts"]
    assert [entry["prompt"] for entry in once] == ["red box", "green box"]
    assert all(len(entry["objects"]) == 1 for entry in once)
    assert len([row for row in capsys.readouterr().out.splitlines() if "box" in row]) == 2


def test_table_keeps_its_columns_with_wide_characters():
    names = ["roter Stuhl", "红色的椅子", "🪑", "chaise e\u0301lectrique", "\uff57\uff49\uff44\uff45", "👩‍🚀"]
    absent = dict(verdict="no", presence=0.1, objects=[], candidate=None, note=None)
    entries = [dict(prompt=name, **absent) for name in names]
    head, *rows = _table(entries, 1.0).splitlines()
    assert {display_width(row[: row.index(" no ")]) for row in rows} == {head.index("  found") + 1}
    assert [display_width(name) for name in names[:5]] == [11, 10, 2, 17, 8]


def test_query_refines_on_demand(mapped, tmp_path):
    report = tmp_path / "q.json"
    assert ovs3d("query", mapped[0], *PROMPTS, "--refine", "--json", report) == 0
    assert all(entry["found"] for entry in json.loads(report.read_text())["prompts"])


def test_best_view_shows_the_most_things_then_the_most_of_them(mapped):
    room = Ovs3d.load(mapped[0])
    snapshot = room.snapshot()
    result = room.query(PROMPTS, snapshot=snapshot)
    areas = []
    for camera, pose in zip(snapshot.cameras, snapshot.camtoworlds, strict=True):
        labels, _ = room.render_labels(result, camera.fitted(160), pose, snapshot)
        shown = np.bincount(labels.ravel(), minlength=len(PROMPTS) + 1)[1:]
        areas.append(((shown > 0).sum(), shown.sum() / labels.size))
    best = areas[best_view(room, snapshot, result)]
    assert best[0] == max(number for number, _ in areas)
    assert best[1] > 0.95 * max(share for number, share in areas if number == best[0])
    assert best[1] > 1.1 * min(share for _, share in areas), "the views differ"
