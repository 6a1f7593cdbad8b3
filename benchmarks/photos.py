"""Measures an encoder on photographs of labelled rooms: segmentation, and what is found or not. Prints JSON.

    python benchmarks/photos.py DATA [DATA ...] [--names FILE] [--things NAME ...] [--maps FOLDER]
                                [--set clip.model=conse ...] [--json FILE]

All frames are mapped. Each class of DATA gets its IoU over the labelled views, all classes competing for each
pixel: by the features of the single photograph, by the lifted map, and by the refined map; and once alone, by
the default threshold of relevancy in the lifted map. Unlabelled pixels are ignored.

The map is asked for names of things that are there and of things that are not, given by FILE (default:
`presence.json` of DATA): {"present": ["sofa", ...], "absent": ["piano", ...]}. Labels serve the figures
alone. `--things` gives the mean IoU of some classes too. `--maps` keeps the maps and reuses them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from documents import map_folder, print_document

from ovs3d_ros.config import Config, override
from ovs3d_ros.config.yaml_io import parse_assignments
from ovs3d_ros.datasets import Dataset, open_dataset
from ovs3d_ros.encoders import encode_frame
from ovs3d_ros.evaluation.calibration import map_scene
from ovs3d_ros.evaluation.metrics import auroc, fpr_at_tpr, score_segmentation
from ovs3d_ros.evaluation.presence_names import NAMES_FILE, read_presence
from ovs3d_ros.evaluation.segmentation import pixel_segmenter
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.query.request import MAX_PROMPTS
from ovs3d_ros.semantics.lift import pixel_codes
from ovs3d_ros.types import Frame, MapSnapshot


def open_map(dataset: Dataset, settings: dict[str, Any], path: Path) -> Ovs3d:
    """The map of all frames of a dataset; read from `path` if that exists, else written there."""
    if path.exists():
        return Ovs3d.load(path, settings)
    pipeline = Ovs3d(override(Config(), settings))
    for _ in map_scene(pipeline, dataset):
        pass
    pipeline.save(path)
    return pipeline


def segment_photograph(
    pipeline: Ovs3d, snapshot: MapSnapshot, names: Sequence[str], frame: Frame
) -> np.ndarray:
    """Labels [H, W] of a frame, 1 + index of the name, by its own features alone; the levels vote as one."""
    height, width = frame.image.shape[:2]
    codes = pixel_codes(encode_frame(pipeline.clip, frame), snapshot.codec, width, height)  # [S, H, W, d + 1]
    cosines = sum(level @ snapshot.directions(pipeline.encode_text(names)) for level in codes)
    return (torch.as_tensor(cosines).argmax(-1) + 1).cpu().numpy()


def measure_segmentation(
    pipeline: Ovs3d, snapshot: MapSnapshot, dataset: Dataset, things: Sequence[str]
) -> dict[str, Any]:
    """IoU of each class over the labelled views: single photographs, lifted map, refined map."""
    frames = [frame for frame in dataset if frame.labels is not None]
    names = [name for name in dataset.classes if name]
    numbers = np.array([0, *map(dataset.classes.index, names)])
    field = pipeline.query(names, mode="argmax", snapshot=snapshot, refine=True).field
    lifted = pixel_segmenter(pipeline, snapshot, names, None)
    refined = pixel_segmenter(pipeline, snapshot, names, field)
    labels = dict(
        photographs=[segment_photograph(pipeline, snapshot, names, frame) for frame in frames],
        lifted=[lifted(frame.camera, frame.camtoworld) for frame in frames],
        refined=[refined(frame.camera, frame.camtoworld) for frame in frames],
    )
    truth = [frame.labels for frame in frames]
    scores = {
        kind: score_segmentation("dataset", [numbers[view] for view in views], truth, dataset.classes)
        for kind, views in labels.items()
    }
    shown = [name for name in names if any((view == dataset.classes.index(name)).any() for view in truth)]
    means = {kind: _mean([s.per_class[name] for name in shown]) for kind, s in scores.items()}
    rows = {name: {kind: round(s.per_class[name], 3) for kind, s in scores.items()} for name in shown}
    some = {kind: _mean([s.per_class[n] for n in things if n in shown]) for kind, s in scores.items()}
    return dict(views=len(frames), mean=means, names=rows) | (dict(things=some) if things else {})


def measure_alone(pipeline: Ovs3d, snapshot: MapSnapshot, dataset: Dataset) -> dict[str, Any]:
    """IoU of each class over the labelled pixels when it is asked for alone, and the mean."""
    names, classes = dataset.class_names, dataset.classes or []
    inter, union = np.zeros((2, len(names)))
    threshold = pipeline.queries.label_threshold(None)
    for frame in [frame for frame in dataset if frame.labels is not None]:
        _, scores = pipeline.render_relevancy(names, frame.camera, frame.camtoworld, snapshot)
        masks = (scores.cpu().numpy() >= threshold) & (frame.labels > 0)[..., None]
        truth = frame.labels[..., None] == np.array([classes.index(name) for name in names])
        inter += (masks & truth).sum((0, 1))
        union += (masks | truth).sum((0, 1))
    return dict(
        mean=_mean(inter[union > 0] / union[union > 0]),
        names={name: round(i / u, 3) for name, i, u in zip(names, inter, union, strict=True) if u},
    )


def measure_presence(
    pipeline: Ovs3d, snapshot: MapSnapshot, present: list[str], absent: list[str]
) -> dict[str, Any]:
    """How well the presence decision tells present from absent names."""
    names = [*present, *absent]
    answers = [
        pipeline.query(names[i : i + MAX_PROMPTS], snapshot=snapshot)
        for i in range(0, len(names), MAX_PROMPTS)
    ]
    presence, found = (np.concatenate([getattr(a, k) for a in answers]) for k in ("presence", "found"))
    truth = np.arange(len(names)) < len(present)
    return dict(
        auroc=round(auroc(presence, truth), 4),
        fpr_at_95_tpr=round(fpr_at_tpr(presence, truth), 4),
        present=len(present),
        found=int(found[truth].sum()),
        absent=len(absent),
        found_falsely=int(found[~truth].sum()),
        missed=[name for name, yes in zip(present, found[truth], strict=True) if not yes],
        false=[name for name, yes in zip(absent, found[~truth], strict=True) if yes],
        probabilities={name: round(float(p), 3) for name, p in zip(names, presence, strict=True)},
    )


def _mean(values: Sequence[float]) -> float | None:
    return round(float(np.mean(values)), 4) if len(values) else None


def main() -> None:
    """Maps, segments and asks; prints one JSON document."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="+", type=Path)
    parser.add_argument("--names", type=Path, help=f"default: {NAMES_FILE} of each dataset")
    parser.add_argument("--things", nargs="+", default=[], help="classes whose mean IoU is given beside")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE")
    parser.add_argument("--maps", type=Path, help="folder to keep the maps in")
    parser.add_argument("--json", type=Path, help="file for a copy of the output")
    options = parser.parse_args()
    settings = {"clip.model": "conse", "dino.model": "conse"} | parse_assignments(options.set)
    document: dict[str, Any] = dict(settings=settings)
    with map_folder(options.maps) as maps:
        for folder in options.data:
            dataset = open_dataset(folder)
            names = read_presence(options.names or folder / NAMES_FILE)
            pipeline = open_map(dataset, settings, maps / f"{dataset.name}.ovs3d")
            snapshot = pipeline.snapshot()
            document[dataset.name] = dict(
                encoder=pipeline.queries.encoder_name,
                gaussians=snapshot.num_gaussians,
                presence=measure_presence(pipeline, snapshot, names.present, names.absent),
                iou=measure_segmentation(pipeline, snapshot, dataset, options.things),
                alone=measure_alone(pipeline, snapshot, dataset),
            )
            sys.stderr.write(f"{dataset.name}: {json.dumps(document[dataset.name]['iou']['mean'])}\n")
    print_document(document, options.json)


if __name__ == "__main__":
    main()
