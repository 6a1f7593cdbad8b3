"""`ovs3d map`: the map, its report and its warnings."""

from __future__ import annotations

import _thread
import json
import shutil
import signal
import threading
from pathlib import Path

import numpy as np
import torch
from helpers.box_scene import HEIGHT, WIDTH, write_scene
from helpers.command_line import COUNT, HOLDOUT, SETTINGS, assert_one_line, ovs3d
from PIL import Image

from ovs3d_ros.datasets import open_dataset
from ovs3d_ros.map_file import load_map
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.types import Frame


def test_map_reports_quality_and_cost(mapped):
    report = mapped[1]
    assert set(report) == {
        "psnr_holdout",
        "psnr_holdout_aligned",
        "ssim_holdout",
        "psnr_training",
        "frames",
        "num_gaussians",
        "keyframes",
        "steps",
        "masked_share",
        "metres_per_unit",
        "seconds",
        "peak_memory_mib",
    }
    assert report["psnr_holdout"] > 18 and report["psnr_holdout_aligned"] >= report["psnr_holdout"] - 0.01
    assert 0.4 < report["ssim_holdout"] < 1
    assert report["psnr_training"] > 18 and report["frames"] == COUNT - COUNT // HOLDOUT
    assert report["keyframes"] == COUNT - COUNT // HOLDOUT and report["steps"] == 120
    params, snapshot = load_map(mapped[0])
    assert len(params["means"]) == report["num_gaussians"] > 500
    assert not {"003", "010"} & set(snapshot.names), "held-out frames are not mapped"
    assert report["seconds"] > 0 and 100 < report["peak_memory_mib"] < 20_000


def test_map_lifts_all_views_into_the_final_gaussians(mapped):
    _, past = load_map(mapped[0])
    # Late keyframes seeded these Gaussians; earlier keyframes see them too.
    newest = past.views[-len(past.views) // 4 :]
    assert newest.mean() > 0.8 * mapped[1]["keyframes"]


def test_map_without_features_renders_but_refuses_queries(scene, tmp_path, capsys):
    path = tmp_path / "plain.ovs3d"
    assert ovs3d("map", scene, "-o", path, "--no-clip", "--json", "-", "--set", "train.final_steps=5") == 0
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert report["psnr_holdout"] is report["ssim_holdout"] is None and report["keyframes"] == COUNT
    assert "Gaussians from 14 keyframes of 14 frames" in err and "training PSNR" in err
    assert "bundled" not in err
    assert ovs3d("render", path, "-o", tmp_path / "v", "--frames", 1) == 0
    assert ovs3d("query", path, "red box") == 2
    assert_one_line(capsys.readouterr().err, "no language features", "--no-clip")


def test_map_warns_about_the_bundled_model(tmp_path, capsys):
    scene = write_scene(tmp_path / "two", 2)
    settings = ["--set", "train.final_steps=2", "--set", "compute.device=cpu"]
    assert ovs3d("map", scene, "-o", tmp_path / "m.ovs3d", "--quiet", *settings) == 0
    assert ovs3d("query", tmp_path / "m.ovs3d", "red box") == 0
    out, err = capsys.readouterr()
    assert "demo world only" in err and "--set clip.model=ViT-B-16" in err and "red box" in out
    assert load_map(tmp_path / "m.ovs3d")[1].meta["clip"].startswith("bundled/")


def test_interrupted_map_writes_nothing(scene, tmp_path, capsys):
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


def mask_frames(root: Path, rows: int) -> None:
    """Masks the upper rows of every frame."""
    grey = np.full((HEIGHT, WIDTH), 255, np.uint8)
    grey[:rows] = 0
    Image.fromarray(grey).save(root / "mask.png")
    document = json.loads((root / "transforms.json").read_text())
    for frame in document["frames"]:
        frame["mask_path"] = "mask.png"
    (root / "transforms.json").write_text(json.dumps(document))


def test_masks_of_a_dataset_are_used(scene, tmp_path, capsys):
    root, out = shutil.copytree(scene, tmp_path / "masked"), tmp_path / "m.json"
    command = ("map", root, "-o", tmp_path / "m.ovs3d", "--no-clip", "--holdout", HOLDOUT, "--json", out)
    mask_frames(root, HEIGHT // 4)
    assert ovs3d(*command, "--set", "train.final_steps=5") == 0
    assert "masks leave out 25 % of the pixels" in capsys.readouterr().out
    assert json.loads(out.read_text())["masked_share"] == 0.25
    mask_frames(root, HEIGHT)
    assert ovs3d(*command, "--quiet") == 2
    assert_one_line(capsys.readouterr().err, "its masks leave out every pixel")


def test_masked_pixels_are_not_scored(scene, mapped, tmp_path):
    """Protocol A of 3D-OVS counts what is predicted where nothing is labelled as an error."""
    root = shutil.copytree(scene, tmp_path / "masked")
    scores = []
    for rows in (0, HEIGHT // 2):
        mask_frames(root, rows)
        out = tmp_path / f"{rows}.json"
        assert ovs3d("eval", mapped[0], root, "--protocol", "3dovs-a", "--json", out, "--quiet") == 0
        scores.append(json.loads(out.read_text())["accuracy"])
    assert scores[1] > scores[0] > 0.3, scores


def psnr_of(path: Path, frames: list[Frame]) -> float:
    """Mean PSNR of a map at frames, dB."""
    room = Ovs3d.load(path, encode=False)
    errors = [
        float((room.render(f.camera, f.camtoworld).rgb - torch.from_numpy(f.image) / 255).square().mean())
        for f in frames
    ]
    return float(-10 * np.log10(errors).mean())


def test_map_grows_by_other_data_and_forgets_nothing(scene, tmp_path, capsys):
    document = json.loads((scene / "transforms.json").read_text())
    halves = []
    for number, frames in enumerate((document["frames"][:7], document["frames"][7:])):
        halves.append(scene / f"half_{number}.json")
        halves[-1].write_text(json.dumps(document | dict(frames=frames)))
    settings = [*SETTINGS, "--set", "train.final_steps=100", "map.keep_keyframes=true"]
    first, both = tmp_path / "first.ovs3d", tmp_path / "both.ovs3d"
    assert ovs3d("map", halves[0], "-o", first, "--quiet", *settings) == 0
    growth = ["--onto", first, "-o", both, "--quiet", "--json", tmp_path / "map.json"]
    assert ovs3d("map", halves[1], *growth) == 0
    report = json.loads((tmp_path / "map.json").read_text())
    assert report["keyframes"] == report["frames"] == COUNT and report["steps"] == 200
    assert len(load_map(both, training=True)[1].training.keyframes) == COUNT
    dataset = open_dataset(scene)
    old, new = [dataset[i] for i in range(7)], [dataset[i] for i in range(7, COUNT)]
    assert psnr_of(both, old) > psnr_of(first, old) - 1
    assert psnr_of(both, new) > psnr_of(first, new) + 1
    plain = tmp_path / "plain.ovs3d"
    assert ovs3d("map", halves[0], "-o", plain, "--no-clip", "--quiet", "--set", "train.final_steps=5") == 0
    assert ovs3d("map", halves[1], "--onto", plain, "-o", both, "--no-clip") == 2
    assert_one_line(capsys.readouterr().err, "holds no keyframes", "map.keep_keyframes=true")
