"""The command line from end to end, on a scene whose every centimetre is known and an encoder that knows colours."""

from __future__ import annotations

import _thread
import json
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.box_scene import BOXES, CLASSES, HEIGHT, WIDTH, camera_ring, ray_cast, write_scene
from PIL import Image

from ovs3d_ros import cli
from ovs3d_ros.config import Config, leaves, override
from ovs3d_ros.config.yaml_io import load, parse_assignments, to_yaml
from ovs3d_ros.map_file import load_map

COUNT, HOLDOUT = 14, 7
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
    return cli.main([str(a) for a in arguments])


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Path:
    return write_scene(tmp_path_factory.mktemp("boxes") / "table", COUNT)


@pytest.fixture(scope="module")
def mapped(scene, tmp_path_factory) -> tuple[Path, dict]:
    """A map of the scene and what `map --json` said about it."""
    folder = tmp_path_factory.mktemp("map")
    assert (
        ovs3d(
            "map",
            scene,
            "-o",
            folder / "table.ovs3d",
            "--holdout",
            HOLDOUT,
            "--json",
            folder / "map.json",
            "--quiet",
            "--set",
            "train.final_steps=120",
            *SETTINGS,
        )
        == 0
    )
    return folder / "table.ovs3d", json.loads((folder / "map.json").read_text())


@pytest.fixture(scope="module")
def answered(mapped, tmp_path_factory) -> tuple[Path, list[dict]]:
    """The folder of a query for what is there and for what is not, and its objects.json."""
    out = tmp_path_factory.mktemp("answer") / "new" / "out"
    assert ovs3d("query", mapped[0], *PROMPTS, "purple box", "-o", out) == 0
    return out, json.loads((out / "objects.json").read_text())


def read_ply(path: Path) -> np.ndarray:
    """The vertices of a binary PLY of scalars, read independently of the code under test."""
    data = path.read_bytes()
    head, _, body = data.partition(b"end_header\n")
    lines = head.decode("ascii").splitlines()
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    count = int(next(line for line in lines if line.startswith("element vertex")).split()[2])
    kinds = {"float": "<f4", "uchar": "u1", "uint": "<u4"}
    fields = [(line.split()[2], kinds[line.split()[1]]) for line in lines if line.startswith("property")]
    table = np.frombuffer(body, dtype=fields)
    assert len(table) == count
    return table


def test_map_reports_what_it_did(mapped):
    report = mapped[1]
    assert set(report) == {
        "psnr_holdout",
        "psnr_holdout_aligned",
        "ssim_holdout",
        "num_gaussians",
        "keyframes",
        "steps",
        "seconds",
        "peak_memory_mib",
    }
    assert report["psnr_holdout"] > 18 and report["psnr_holdout_aligned"] >= report["psnr_holdout"] - 0.01
    assert 0.4 < report["ssim_holdout"] < 1
    assert report["keyframes"] == COUNT - COUNT // HOLDOUT and report["steps"] == 120
    params, snapshot = load_map(mapped[0])
    assert len(params["means"]) == report["num_gaussians"] > 500
    assert not {"003", "010"} & set(snapshot.names), "held-out frames are not mapped"
    assert report["seconds"] > 0 and 100 < report["peak_memory_mib"] < 20_000


def test_query_finds_things_where_they_are(answered):
    by_prompt = {entry["prompt"]: entry for entry in answered[1]}
    for box in BOXES:
        entry = by_prompt[box.name]
        assert set(entry) == {"prompt", "found", "verdict", "presence", "score", "objects"}
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


def test_query_writes_masks_that_match_the_truth_and_overlays(answered):
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


@pytest.fixture(scope="module")
def refined(mapped, scene, tmp_path_factory) -> tuple[Path, dict]:
    """The map refined for its classes, and what `refine --json` said about it."""
    folder = tmp_path_factory.mktemp("refined")
    assert (
        ovs3d(
            "refine",
            mapped[0],
            scene,
            "--names",
            *CLASSES,
            "-o",
            folder / "r.ovs3d",
            "--json",
            folder / "refine.json",
            "--quiet",
            *SETTINGS,
            "--set",
            "dino.model=helpers.color_encoder:ColorPatches",
            "--set",
            "refine.background=object",
        )
        == 0
    )
    return folder / "r.ovs3d", json.loads((folder / "refine.json").read_text())


def test_refine_checks_itself_on_views_kept_aside_and_stores_the_field(refined, mapped):
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


def test_query_refines_on_demand(mapped, tmp_path):
    report = tmp_path / "q.json"
    assert ovs3d("query", mapped[0], *PROMPTS, "--refine", "--json", report) == 0
    assert all(entry["found"] for entry in json.loads(report.read_text())["prompts"])


def test_export_is_a_standard_splat_file(mapped, tmp_path):
    assert ovs3d("export", mapped[0], "-o", tmp_path / "splat.ply") == 0
    params, _ = load_map(mapped[0])
    table = read_ply(tmp_path / "splat.ply")
    expected = [
        "x",
        "y",
        "z",
        "nx",
        "ny",
        "nz",
        "f_dc_0",
        "f_dc_1",
        "f_dc_2",
        "opacity",
        "scale_0",
        "scale_1",
        "scale_2",
        "rot_0",
        "rot_1",
        "rot_2",
        "rot_3",
    ]
    assert list(table.dtype.names) == expected
    np.testing.assert_array_equal(table["y"], params["means"][:, 1].numpy())
    np.testing.assert_array_equal(table["opacity"], params["opacity_logits"].numpy())
    np.testing.assert_array_equal(table["scale_2"], params["log_scales"][:, 2].numpy())


def test_render_makes_a_video(mapped, tmp_path):
    assert ovs3d("render", mapped[0], "-o", tmp_path / "v.mp4", "--frames", 5, "--prompts", "red box") == 0
    video = cv2.VideoCapture(str(tmp_path / "v.mp4"))
    frames = []
    while (read := video.read())[0]:
        frames.append(read[1][..., ::-1].astype(int))
    assert len(frames) == 5 and frames[0].shape[1] == 2 * WIDTH
    tile = frames[0][HEIGHT // 4 : HEIGHT, :WIDTH]
    assert ((tile[..., 0] - tile[..., 1:].max(-1)) > 60).sum() > 50, "the red box is in the colour tile"
    assert np.abs(frames[0] - frames[2]).mean() > 2, "the camera moves"


def test_render_makes_pictures_along_the_keyframes(mapped, tmp_path, monkeypatch):
    def load_nothing(*_: object) -> None:
        raise AssertionError("a model was loaded that colours do not need")

    monkeypatch.setattr("ovs3d_ros.pipeline.make_clip", load_nothing)
    assert (
        ovs3d(
            "render",
            mapped[0],
            "-o",
            tmp_path / "v",
            "--frames",
            2,
            "--path",
            "keyframes",
            "--channels",
            "rgb",
        )
        == 0
    )
    pictures = sorted((tmp_path / "v").glob("*.png"))
    assert len(pictures) == 2
    first = np.asarray(Image.open(pictures[0])).astype(float)
    truth = ray_cast(camera_ring(COUNT)[0])[0]
    assert first.shape == truth.shape
    assert np.abs(first - truth).mean() < 25, "the first picture is the first keyframe's view"


def test_a_map_without_features_renders_but_does_not_answer(scene, tmp_path, capsys):
    path = tmp_path / "plain.ovs3d"
    assert ovs3d("map", scene, "-o", path, "--no-clip", "--json", "-", "--set", "train.final_steps=5") == 0
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert report["psnr_holdout"] is report["ssim_holdout"] is None and report["keyframes"] == COUNT
    assert "Gaussians from 14 keyframes" in err and "bundled" not in err
    assert ovs3d("render", path, "-o", tmp_path / "v", "--frames", 1) == 0
    assert ovs3d("query", path, "red box") == 2
    assert_one_line(capsys.readouterr().err, "no language features", "--no-clip")


def test_the_bundled_model_says_what_it_is_for(tmp_path, capsys):
    scene = write_scene(tmp_path / "two", 2)
    settings = ["--set", "train.final_steps=2", "--set", "compute.device=cpu"]
    assert ovs3d("map", scene, "-o", tmp_path / "m.ovs3d", "--quiet", *settings) == 0
    assert ovs3d("query", tmp_path / "m.ovs3d", "red box") == 0
    out, err = capsys.readouterr()
    assert "demo world only" in err and "--set clip.model=ViT-B-16" in err and "red box" in out
    assert load_map(tmp_path / "m.ovs3d")[1].meta["clip"].startswith("bundled/")


def test_the_command_runs_as_a_program(repository, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "ovs3d_ros.cli", "export", tmp_path / "no.ovs3d", "-o", tmp_path / "x.ply"],
        cwd=repository,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2 and done.stdout == ""
    assert_one_line(done.stderr, "no.ovs3d")


def assert_one_line(err: str, *words: str) -> None:
    assert err.startswith("ovs3d: error: ") and err.count("\n") == 1 and "Traceback" not in err, err
    for word in words:
        assert word in err, err


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
    "missing output folder": (["map", "nowhere", "-o", "{tmp}/no/m.ovs3d"], ["no/m.ovs3d", "create it"]),
    "output is a folder": (["map", "nowhere", "-o", "{tmp}"], ["is a folder"]),
    "missing data": (["map", "{tmp}/nowhere", "-o", "{tmp}/m.ovs3d"], ["nowhere", "no such"]),
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
    "unknown video": (["render", "{map}", "-o", "{tmp}/v.avi"], [".mp4"]),
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
def test_bad_input_is_one_line_and_exit_code_2(name, mapped, scene, tmp_path, capsys):
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


def test_interrupting_a_long_map_leaves_nothing_behind(scene, tmp_path, capsys):
    # Shells start background jobs with this signal ignored, and then nothing would end the run.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        threading.Timer(3.0, _thread.interrupt_main).start()
        assert (
            ovs3d("map", scene, "-o", tmp_path / "m.ovs3d", "--set", "train.final_steps=20000", *SETTINGS)
            == 130
        )
    finally:
        signal.signal(signal.SIGINT, before)
    assert "interrupted" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_help_and_config_load_nothing_heavy(repository):
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


def test_config_prints_every_parameter_and_reads_it_back(tmp_path, capsys):
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


def test_map_lifts_all_views_into_the_final_gaussians(mapped):
    _, past = load_map(mapped[0])
    newest = past.views[
        -len(past.views) // 4 :
    ]  # seeded by late keyframes, and seen by earlier ones all the same
    assert newest.mean() > 0.8 * mapped[1]["keyframes"]
