"""Measures segmentation of labelled scenes, lifted and refined, or of single annotated names. Prints JSON.

    python benchmarks/quality.py DATA [DATA ...] [--every 5] [--seeds 0 1 2] [--protocol dataset]
                                 [--held-out-names 3] [--ablate] [--set key=value ...] [--maps FOLDER]
                                 [--json FILE]

Every `--every`-th view is held out of the map and scored. `--every 0` maps and scores all views, as 3D-OVS
does. For its published scenes use `--every 0 --protocol 3dovs-a --set clip.model=ViT-B-16`; this has not been
run, as the scenes are not at hand. `--held-out-names` leaves names out of the vocabulary that the map is
refined for and queries them afterwards. `--ablate` repeats the measurement with one setting changed at a
time. `--maps` keeps the maps, and reuses maps with equal settings.

With `--protocol lerf` DATA are scenes with annotations. Each annotated name is queried alone; the results are
mIoU and localisation accuracy per scene and over scenes. For the published scenes (not run either):
    python benchmarks/quality.py lerf_ovs/figurines lerf_ovs/ramen lerf_ovs/teatime lerf_ovs/waldo_kitchen
        --every 0 --protocol lerf --set clip.model=ViT-B-16 clip.pretrained=openai
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from documents import map_folder, print_document, scene_parser

from ovs3d_ros.config import Config, leaves, override, stored_settings
from ovs3d_ros.config.yaml_io import parse_assignments
from ovs3d_ros.datasets import Dataset, open_dataset, split_holdout
from ovs3d_ros.evaluation import queries
from ovs3d_ros.evaluation.calibration import visible_classes
from ovs3d_ros.evaluation.ceiling import label_regions, true_classes
from ovs3d_ros.evaluation.metrics import PROTOCOLS, SegmentationScore, mean_over_scenes, score_segmentation
from ovs3d_ros.evaluation.segmentation import Segmenter, gaussian_segmenter, pixel_segmenter
from ovs3d_ros.map_file import load_map
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.semantics import alignment_views
from ovs3d_ros.types import MapSnapshot, RefinedField, UserError

# The settings that each ablation changes. Ablations of `refine.*` share one map.
ABLATIONS: dict[str, dict[str, Any]] = {
    "no sharpening": {"refine.sharpen_steps": 0},
    "no alignment (FDA)": {"refine.strength": 0.0},
    "nothing learned from the map": {"refine.adaptation": 0.0},
    "alignment without normals": {"refine.normal_scale": 10.0},
    "alignment without colour": {"refine.color_scale": 1e4},
    "KL in the check, not JS": {"refine.divergence": "kl"},
    "no re-balance of FDA in the check": {},
    "one background name": {"refine.background": ["object"]},
    "rank 16": {"map.codec_dim": 16},
    "rank 29": {"map.codec_dim": 29},
    "crop pyramid": {"clip.mode": "pyramid"},
    "crop pyramid, uniform selection": {"clip.mode": "pyramid", "lift.selection": "uniform"},
    "crop pyramid, faithful selection": {"clip.mode": "pyramid", "lift.selection": "faithful"},
    "crop pyramid, the smallest crops alone": {"clip.mode": "pyramid", "clip.crop_divisors": (8.0,)},
    "half the views": {},
}
HALF, UNBALANCED = "half the views", "no re-balance of FDA in the check"


def make_map(dataset: Dataset, views: Sequence[int], settings: dict[str, Any], path: Path) -> Path:
    """Maps some views of a dataset in order, as a robot would, unless `path` holds that map already.

    Without depth the sparse points of the dataset seed the map first, as in `ovs3d map`.
    """
    config = override(Config(), settings)
    if not path.exists() or _as_json(load_map(path)[1].meta["config"]) != _as_json(stored_settings(config)):
        pipeline = Ovs3d(config)
        if dataset.points is not None and not dataset.has_depth:
            pipeline.add_points(*dataset.points, dataset.camtoworlds[:, :3, 3])
        for index in views:
            if pipeline.add_frame(dataset[index]):
                pipeline.optimize(pipeline.config.train.steps_per_keyframe)
        for _ in pipeline.relift():
            pass
        pipeline.save(path)
    return path


def _as_json(settings: dict[str, Any]) -> str:
    """Settings as text for comparison; tuples of the configuration and lists of a map file become equal."""
    return json.dumps(settings, sort_keys=True)


class Scene:
    """A labelled dataset, its mapped and its scored views, and the names to segment."""

    def __init__(self, folder: Path, every: int, protocol: str) -> None:
        self.dataset, self.protocol = open_dataset(folder), protocol
        self.name = self.dataset.name
        scored, self.mapped = split(self.dataset, every)
        self.frames = [frame for frame in (self.dataset[i] for i in scored) if frame.labels is not None]
        self.classes = self.dataset.classes
        self.names = [name for name in self.classes if name]
        self._numbers = np.array([0, *map(self.classes.index, self.names)])

    def score(self, segment: Segmenter) -> SegmentationScore:
        """Scores the segmentation of the held-out views."""
        found = [self._numbers[segment(frame.camera, frame.camtoworld)] for frame in self.frames]
        return score_segmentation(self.protocol, found, [frame.labels for frame in self.frames], self.classes)

    def measure(self, pipeline: Ovs3d) -> tuple[dict[str, Any], dict[str, SegmentationScore]]:
        """Measures one map.

        Returns:
            Figures, and scores: `lifted`; `refined`; `refined_3d`, with labels chosen per Gaussian;
            `refined_visible`, the mean over names that the mapped views show well enough (`visible_classes`),
            with all names competing; `ceiling`, with true regions (`evaluation.ceiling`). The figure
            `accepted` is the decision of the check of `ovs3d refine` on the held-out views.
        """
        snapshot, started = pipeline.snapshot(), time.perf_counter()
        field = pipeline.query(self.names, mode="argmax", snapshot=snapshot, refine=True).field
        seconds = time.perf_counter() - started
        scores = dict(
            lifted=self.score(pixel_segmenter(pipeline, snapshot, self.names, None)),
            refined=self.score(pixel_segmenter(pipeline, snapshot, self.names, field)),
            refined_3d=self.score(gaussian_segmenter(pipeline, snapshot, self.names, field)),
        )
        scores["ceiling"] = self.score(
            pixel_segmenter(
                pipeline, snapshot, self.names, self.label_true_regions(pipeline, snapshot, field)
            )
        )
        scores["refined_visible"] = of_names(scores["refined"], visible_classes(self.dataset, self.mapped))
        row = {name: round(score.miou, 4) for name, score in scores.items()}
        *_, checked = pipeline.refine(self.names, self.frames)
        row |= dict(
            accuracy=round(scores["refined"].accuracy, 4),
            gaussians=snapshot.num_gaussians,
            refine_s=round(seconds, 1),
            accepted=checked.kept,
        )
        return row, scores

    def label_true_regions(self, pipeline: Ovs3d, snapshot: MapSnapshot, field: RefinedField) -> RefinedField:
        """The field with the labelled classes as regions."""
        frames = [*self.frames, *(self.dataset[i] for i in self.mapped)]
        return label_regions(field, snapshot, true_classes(pipeline, snapshot, frames, len(self.classes)))


def of_names(score: SegmentationScore, names: Sequence[str]) -> SegmentationScore:
    """The score with its mIoU taken over these names only."""
    ious = {name: iou for name, iou in score.per_class.items() if name in names and np.isfinite(iou)}
    return dataclasses.replace(
        score, miou=float(np.mean(list(ious.values()))) if ious else float("nan"), per_class=ious
    )


class AnnotatedScene:
    """A dataset with annotations: its mapped views, and annotated views to query each name alone in."""

    protocol = queries.PROTOCOL

    def __init__(self, folder: Path, every: int) -> None:
        self.dataset = open_dataset(folder)
        self.name = self.dataset.name
        scored, self.mapped = split(self.dataset, every)
        self.frames = [self.dataset[i] for i in self.dataset.annotated if i in scored]
        if not self.frames:
            raise UserError(
                f"{folder}: no annotated view is scored; give --every 0, and annotations as in lerf_ovs"
            )

    def measure(self, pipeline: Ovs3d) -> tuple[dict[str, Any], dict[str, SegmentationScore]]:
        """Measures one map; returns figures and its score."""
        pipeline.recalibrate()  # LERF's relevancy, also where no calibration of the encoder exists
        snapshot, threshold = pipeline.snapshot(), pipeline.label_threshold()
        score = queries.score_queries(
            [
                query_score
                for frame in self.frames
                for query_score in queries.score_frame(pipeline, snapshot, frame, threshold)
            ]
        )
        row = dict(
            lifted=round(score.miou, 4),
            accuracy=round(score.accuracy, 4),
            threshold=threshold,
            gaussians=snapshot.num_gaussians,
        )
        return row, dict(lifted=score)


def unbalanced_fda(divergence: torch.Tensor, correlation: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`fda` without re-balancing.

    Both terms are divided by the number of all pairs, so the more frequent kind dominates.
    """
    return tuple((part * divergence).mean() for part in (correlation.clamp_min(0), correlation.clamp_max(0)))


def split(dataset: Dataset, every: int) -> tuple[Sequence[int], Sequence[int]]:
    """Indices of the scored views and of the mapped views."""
    return split_holdout(len(dataset), every) if every else (range(len(dataset)),) * 2


def ask_for_new_names(
    scene: Scene, pipeline: Ovs3d, snapshot: MapSnapshot, count: int
) -> dict[str, list[float]]:
    """IoU of names the map was not refined for, without and with refinement in the query; its seconds."""
    labelled = sorted({int(n) for frame in scene.frames for n in np.unique(frame.labels)} - {0})
    held_out = [scene.classes[n] for n in labelled[:: max(1, len(labelled) // count)] if scene.classes[n]][
        :count
    ]
    figures: dict[str, list[float]] = dict(at_once=[], refined=[], seconds=[])
    for name in held_out:
        for _ in pipeline.refine([other for other in scene.names if other != name]):
            pass
        snapshot = pipeline.snapshot()
        at_once = pipeline.query(scene.names, mode="argmax", snapshot=snapshot)
        figures["at_once"].append(_iou(scene, pipeline, snapshot, at_once, name))
        started = time.perf_counter()
        refined = pipeline.query(scene.names, mode="argmax", snapshot=snapshot, refine=True)
        figures["seconds"].append(round(time.perf_counter() - started, 1))
        figures["refined"].append(_iou(scene, pipeline, snapshot, refined, name))
    return figures


def _iou(scene: Scene, pipeline: Ovs3d, snapshot: MapSnapshot, result: Any, name: str) -> float:
    """IoU of one name; the prompts of the result are all names of the scene."""

    def segment(camera, camtoworld) -> np.ndarray:
        return pipeline.render_labels(result, camera, camtoworld, snapshot)[0]

    return round(scene.score(segment).per_class[name], 4)


def run(
    scenes: list[Scene] | list[AnnotatedScene],
    seeds: Sequence[int],
    settings: dict[str, Any],
    maps: Path,
    held_out: int,
    label: str,
) -> dict[str, Any]:
    """Measures all scenes and seeds with one setting.

    Returns a row for each, the mean over scenes and its deviation over seeds.
    """
    stored = {leaf.path for leaf, _ in leaves() if leaf.stored}
    remade = {key: value for key, value in settings.items() if key in stored}
    tag = "".join(f"-{key}={value}" for key, value in remade.items()).replace("/", "_")
    rows, means, new_names = {}, [], []
    for seed in seeds:
        scores = {}
        for scene in scenes:
            views = scene.mapped[::2] if label == HALF else scene.mapped
            path = maps / f"{scene.name}-{seed}{tag}{'-half' if label == HALF else ''}.ovs3d"
            make_map(scene.dataset, views, remade | {"compute.seed": seed}, path)
            pipeline = Ovs3d.load(path, settings | {"compute.seed": seed})
            with (
                mock.patch.object(alignment_views, "fda", unbalanced_fda)
                if label == UNBALANCED
                else contextlib.nullcontext()
            ):
                rows[f"{scene.name}, seed {seed}"], scores[scene.name] = scene.measure(pipeline)
            if held_out:
                new_names.append(ask_for_new_names(scene, pipeline, pipeline.snapshot(), held_out))
            sys.stderr.write(f"{label}: {scene.name}, seed {seed}: {rows[f'{scene.name}, seed {seed}']}\n")
        means.append(
            {
                kind: mean_over_scenes(scenes[0].protocol, {n: s[kind] for n, s in scores.items()})
                for kind in next(iter(scores.values()))
            }
        )
    summary = {
        kind: dict(
            mean=round(float(np.mean([m[kind].miou for m in means])), 4),
            accuracy=round(float(np.mean([m[kind].accuracy for m in means])), 4),
            sd_over_seeds=round(float(np.std([m[kind].miou for m in means])), 4),
            sd_over_scenes=round(float(np.std([row[kind] for row in rows.values()])), 4),
        )
        for kind in means[0]
    }
    document = dict(summary=summary, rows=rows)
    if new_names:
        document["names_held_out"] = {
            key: round(float(np.mean([v for each in new_names for v in each[key]])), 4)
            for key in new_names[0]
        } | dict(count=sum(len(e["seconds"]) for e in new_names))
    return document


def main() -> None:
    """Maps and segments the scenes and prints one JSON document."""
    parser = scene_parser(__doc__)
    parser.add_argument("--protocol", choices=[*PROTOCOLS, queries.PROTOCOL], default="dataset")
    parser.add_argument("--held-out-names", type=int, default=0, help="number of held-out names per scene")
    parser.add_argument("--ablate", nargs="*", choices=ABLATIONS, help="ablations to run; default: all")
    options = parser.parse_args()
    settings = {"clip.model": "bundled"} | parse_assignments(options.set)
    queries_names = options.protocol == queries.PROTOCOL
    if queries_names and options.held_out_names:
        parser.error("--held-out-names: protocol lerf does not refine; leave it out")
    scenes = [
        AnnotatedScene(folder, options.every)
        if queries_names
        else Scene(folder, options.every, options.protocol)
        for folder in options.data
    ]
    with map_folder(options.maps) as maps:
        document: dict[str, Any] = dict(
            protocol=options.protocol, processors=os.cpu_count(), settings=settings
        )
        document["as set"] = run(scenes, options.seeds, settings, maps, options.held_out_names, "as set")
        for name in (options.ablate or ABLATIONS) if options.ablate is not None else ():
            document[name] = run(scenes, options.seeds, settings | ABLATIONS[name], maps, 0, name)
    print_document(document, options.json)


if __name__ == "__main__":
    main()
