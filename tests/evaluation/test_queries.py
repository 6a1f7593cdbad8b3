"""Protocol lerf, on hand-made relevancy maps, and on a lerf_ovs folder through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers import datasets_on_disk as disk
from helpers.box_scene import FOCAL, HEIGHT, WIDTH, camera_ring, ray_cast
from helpers.color_encoder import ColorEncoder
from PIL import Image

from ovs3d_ros import cli, geometry
from ovs3d_ros.datasets import open_dataset
from ovs3d_ros.evaluation.metrics import mean_over_scenes
from ovs3d_ros.evaluation.queries import (
    QueryScore,
    is_located,
    mask_iou,
    score_frame,
    score_queries,
    smooth_relevancy,
)
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.query.bank_presence import BankPresence
from ovs3d_ros.query.presence import PresenceCalibration
from ovs3d_ros.types import Annotation, Camera, Frame, UserError

VIEWS, ANNOTATED = 14, (3, 10)
SETTINGS = [
    "--set",
    "clip.model=helpers.color_encoder:ColorEncoder",
    "--set",
    "map.image_size=0",
    "--set",
    "compute.device=cpu",
]
NAMES = ["red box", "green box", "blue box", "red thing"]


def rectangle(top: int, bottom: int, left: int, right: int) -> np.ndarray:
    pixels = np.zeros((40, 60), dtype=bool)
    pixels[top:bottom, left:right] = True
    return pixels


MUG = Annotation(rectangle(10, 20, 10, 20), rectangle(10, 20, 10, 20))


def test_iou_of_pixels_that_reach_the_threshold():
    scores = np.full((40, 60), 0.2)
    scores[10:20, 15:25] = 0.6  # half of the mug, and as much beside it
    assert mask_iou(scores, MUG, 0.6) == pytest.approx(50 / 150)
    scores[10:20, 20:25] = 0.5
    assert mask_iou(scores, MUG, 0.6) == pytest.approx(50 / 100)
    assert mask_iou(scores, MUG, 0.2) == pytest.approx(100 / 2400)
    assert mask_iou(scores, MUG, 0.7) == 0.0
    assert mask_iou(scores, Annotation(MUG.mask & False, MUG.boxes), 0.7) == 0.0
    with pytest.raises(ValueError, match="differ in shape"):
        mask_iou(scores[:-1], MUG, 0.5)


def test_peak_counts_in_any_box_and_nowhere_else():
    two = Annotation(MUG.mask, MUG.boxes | rectangle(30, 36, 40, 46))
    scores = np.zeros((40, 60))
    scores[31:36, 41:46] = 1.0
    assert is_located(scores, two) and not is_located(scores, MUG)
    assert not is_located(np.full((40, 60), 0.7), MUG), "the same everywhere is nowhere"


def test_peak_is_that_of_the_smoothed_map():
    """29 pixels at 986: 59 at 2000, so a thing of 40 pixels with 0.6 weighs more than one hot pixel."""
    boxes = np.zeros((1500, 2000), dtype=bool)
    boxes[100:140, 100:140] = True
    scores = np.zeros(boxes.shape, dtype=np.float32)
    scores[boxes], scores[1000, 1000] = 0.6, 1.0
    assert is_located(scores, Annotation(boxes, boxes))
    spike = np.zeros((1500, 2000))
    spike[700, 900] = 1.0
    assert (smooth_relevancy(spike) > 0).sum() == 59**2
    assert smooth_relevancy(spike)[671:730, 871:930].min() == pytest.approx(59**-2)
    assert (smooth_relevancy(spike[:738, :986]) > 0).sum() == 29**2
    small = np.zeros((20, 30))
    small[4, 4] = 1.0
    np.testing.assert_array_equal(smooth_relevancy(small), small)


def test_pairs_of_view_and_name_have_equal_weight():
    scores = [
        QueryScore("a", "mug", 0.2, True),
        QueryScore("a", "sofa", 0.9, True),
        QueryScore("b", "mug", 0.4, False),
        QueryScore("b", "lamp", 0.7, True),
    ]
    score = score_queries(scores)
    assert (score.protocol, score.views) == ("lerf", 2)
    assert score.miou == pytest.approx(2.2 / 4) and score.accuracy == pytest.approx(3 / 4)
    assert score.per_class == pytest.approx({"mug": 0.3, "sofa": 0.9, "lamp": 0.7})
    table = mean_over_scenes("lerf", {"one": score, "two": score_queries(scores[:1])})
    assert table.miou == pytest.approx((0.55 + 0.2) / 2) and table.accuracy == pytest.approx((0.75 + 1) / 2)
    with pytest.raises(UserError, match=r"no annotated views; the scene needs lerf_ovs annotations"):
        score_queries([])


def test_names_of_a_frame_do_not_compete():
    """Two names for the same pixels are both found."""

    class Rendered:
        """Replaces a pipeline; the relevancy of each name is given."""

        def render_relevancy(self, prompts, camera, camtoworld, snapshot):
            highest = {"mug": 0.9, "cup": 0.8, "sofa": 0.3}
            return None, torch.tensor(
                np.stack([np.where(MUG.mask, highest[name], 0.1) for name in prompts], axis=-1)
            )

    camera = Camera(np.diag([60.0, 60.0, 1.0]), 60, 40)
    frame = Frame(
        0.0,
        np.zeros((40, 60, 3), np.uint8),
        camera,
        np.eye(4),
        name="a",
        annotations=dict.fromkeys(("mug", "cup", "sofa"), MUG),
    )
    assert score_frame(Rendered(), None, frame, 0.5) == [
        QueryScore("a", "mug", 1.0, True),
        QueryScore("a", "cup", 1.0, True),
        QueryScore("a", "sofa", 0.0, True),
    ]
    assert score_frame(Rendered(), None, Frame(0.0, frame.image, camera, np.eye(4)), 0.5) == []


def corners(mask: np.ndarray) -> list[list[float]]:
    """The outline of the largest part of a mask, as points."""
    found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return max(found, key=cv2.contourArea)[:, 0].astype(float).tolist()


def write_lerf_ovs(root: Path) -> Path:
    """Writes the table as a lerf_ovs scene: COLMAP binaries, JPEG, annotations at twice the size."""
    scene = root / "lerf_ovs" / "table"
    (scene / "images").mkdir(parents=True)
    images, points = [], []
    for i, pose in enumerate(camera_ring(VIEWS)):
        rgb, depth, labels = ray_cast(pose)
        name = f"frame_{i + 1:05d}.jpg"
        Image.fromarray(rgb).save(scene / "images" / name, quality=95, subsampling=0)
        toworld = geometry.invert_rigid(pose)
        images.append((i + 1, geometry.matrix_to_quat(toworld[:3, :3]), toworld[:3, 3], name, []))
        camera = Camera(np.array([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]]), WIDTH, HEIGHT)
        xyz = geometry.transform_points(geometry.unproject(depth, camera)[depth > 0], pose)[::9]
        points += [(*p, *c) for p, c in zip(xyz, rgb[depth > 0][::9].tolist(), strict=True)]
        if i in ANNOTATED:
            large = cv2.resize(labels, (2 * WIDTH, 2 * HEIGHT), interpolation=cv2.INTER_NEAREST)
            shapes = {name: corners(large == 1 + NAMES.index(name) % 3) for name in NAMES}
            disk.write_annotation(
                root / "lerf_ovs" / "label" / "table",
                name,
                (2 * WIDTH, 2 * HEIGHT),
                [disk.outlined(name, shape) for name, shape in shapes.items()],
            )
    disk.write_binaries(scene / "sparse" / "0", (WIDTH, HEIGHT, FOCAL, WIDTH / 2, HEIGHT / 2), images, points)
    return scene


@pytest.fixture(scope="module")
def mapped(tmp_path_factory) -> tuple[Path, Path]:
    """A scene of lerf_ovs, and its map."""
    root = tmp_path_factory.mktemp("lerf")
    scene = write_lerf_ovs(root)
    assert (
        cli.main(
            [
                "map",
                str(scene),
                "-o",
                str(root / "table.ovs3d"),
                "--quiet",
                "--set",
                "train.final_steps=60",
                *SETTINGS,
            ]
        )
        == 0
    )
    return scene, root / "table.ovs3d"


def test_eval_command_scores_a_lerf_ovs_folder(mapped, tmp_path, capsys):
    scene, path = mapped
    assert (
        cli.main(["eval", str(path), str(scene), "--protocol", "lerf", "--json", str(tmp_path / "e.json")])
        == 0
    )
    score = json.loads((tmp_path / "e.json").read_text())
    assert set(score) == {
        "protocol",
        "miou",
        "accuracy",
        "per_class",
        "views",
        "refined",
        "threshold",
        "queries",
    }
    assert (score["protocol"], score["views"], score["queries"], score["refined"]) == ("lerf", 2, 8, False)
    assert score["threshold"] == 0.9, "the encoder's own"
    assert set(score["per_class"]) == set(NAMES) and score["accuracy"] == 1.0
    assert min(score["per_class"].values()) > 0.3 and score["miou"] > 0.6, score
    assert score["per_class"]["red thing"] == score["per_class"]["red box"], "names do not compete"
    assert (
        f"lerf: mIoU {score['miou']:.3f}, localisation accuracy 1.000, 2 views, lifted"
        in capsys.readouterr().out
    )


def test_scores_match_the_rendered_relevancy(mapped, tmp_path):
    """Compares with masks from the ray caster, at another threshold."""
    scene, path = mapped
    assert (
        cli.main(
            [
                "eval",
                str(path),
                str(scene),
                "--protocol",
                "lerf",
                "--threshold",
                "0.7",
                "--json",
                str(tmp_path / "e.json"),
            ]
        )
        == 0
    )
    score = json.loads((tmp_path / "e.json").read_text())
    pipeline, dataset, ious = Ovs3d.load(path), open_dataset(scene), []
    for index in ANNOTATED:
        truth = ray_cast(camera_ring(VIEWS)[index])[2]
        for name in NAMES:
            scores = pipeline.render_relevancy(
                [name], dataset.cameras[index], dataset.camtoworlds[index], pipeline.snapshot()
            )[1][..., 0].numpy()
            mask = truth == 1 + NAMES.index(name) % 3
            ious.append(((scores >= 0.7) & mask).sum() / ((scores >= 0.7) | mask).sum())
    assert score["threshold"] == 0.7 and score["miou"] == pytest.approx(np.mean(ious), abs=0.02)


BAD = {
    "not annotated": (
        ["{map}", "{bare}", "--protocol", "lerf"],
        "has no annotations; put the JSON files of lerf_ovs",
    ),
    "annotated only": (
        ["{map}", "{scene}"],
        "has no labels; put index PNGs into labels/ and their names into "
        "classes.txt, or score its annotations with --protocol lerf",
    ),
    "annotated elsewhere": (
        ["{map}", "{scene}", "--protocol", "lerf", "--holdout", "8"],
        "none of the views to evaluate is annotated; leave out --holdout",
    ),
    "threshold": (
        ["{map}", "{scene}", "--protocol", "lerf", "--threshold", "2"],
        "threshold 2.0: give a relevancy",
    ),
    "threshold of an argmax": (
        ["{map}", "{scene}", "--threshold", "0.5"],
        "protocol dataset has no threshold",
    ),
    "unknown protocol": (["{map}", "{scene}", "--protocol", "3dovs-b"], "3dovs-c, 3dovs-d, dataset, lerf"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_evaluations_give_a_one_line_error(name, mapped, tmp_path, capsys):
    arguments, message = BAD[name]
    bare = disk.write_nerfstudio(tmp_path / "bare")
    assert (
        cli.main(["eval", *(word.format(map=mapped[1], scene=mapped[0], bare=bare) for word in arguments)])
        == 2
    )
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


def test_protocol_is_lerfs_relevancy_also_without_a_calibration(mapped, tmp_path, monkeypatch):
    monkeypatch.setattr(ColorEncoder, "calibration", None)
    monkeypatch.setattr(BankPresence, "relevancy", None)  # of the map's own range: not to be asked
    arguments = ["eval", *map(str, mapped[::-1]), "--protocol", "lerf", "--json", str(tmp_path / "e.json")]
    assert cli.main(arguments) == 0
    assert json.loads((tmp_path / "e.json").read_text())["threshold"] == PresenceCalibration().threshold
