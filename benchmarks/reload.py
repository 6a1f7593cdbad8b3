"""Compares a map that was saved, loaded and continued with one that was never closed. Prints JSON.

Run: python benchmarks/reload.py [SCENE] [--seeds 0 1 2] [--steps 600]

Half of the frames are mapped, the map is saved and loaded, and the others follow: with its keyframes
(`map.keep_keyframes`), without them, and without any saving. Every eighth frame is kept aside: PSNR is over
these views, mIoU over their labels by argmax over all names.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ovs3d_ros.config import Config, override
from ovs3d_ros.datasets import Dataset, open_dataset, split_holdout
from ovs3d_ros.demo.scene import SHIPPED
from ovs3d_ros.evaluation.metrics import psnr, score_segmentation
from ovs3d_ros.evaluation.segmentation import pixel_segmenter
from ovs3d_ros.pipeline import Ovs3d


def add(pipeline: Ovs3d, dataset: Dataset, indices: Sequence[int], steps: int) -> None:
    """Maps frames as a robot does, then optimises and lifts."""
    for index in indices:
        if pipeline.add_frame(dataset[index]):
            pipeline.optimize(pipeline.config.train.steps_per_keyframe)
    pipeline.optimize(steps)
    for _ in pipeline.relift():
        pass


def measure(pipeline: Ovs3d, dataset: Dataset, held_out: Sequence[int]) -> dict[str, float]:
    """PSNR in dB and mIoU over the views that were kept aside."""
    snapshot, frames = pipeline.snapshot(), [dataset[index] for index in held_out]
    rendered = [pipeline.render(f.camera, f.camtoworld, snapshot).rgb.cpu().numpy() for f in frames]
    names, classes = dataset.class_names, dataset.classes or []
    segment, numbers = (
        pixel_segmenter(pipeline, snapshot, names, None),
        np.array([0, *map(classes.index, names)]),
    )
    found = [numbers[segment(f.camera, f.camtoworld)] for f in frames]
    score = score_segmentation("dataset", found, [f.labels for f in frames], classes)
    return dict(
        psnr=float(np.mean([psnr(image, f.image) for image, f in zip(rendered, frames, strict=True)])),
        miou=score.miou,
    )


def main() -> None:
    """Maps in three ways, and prints one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scene", nargs="?", type=Path, default=SHIPPED)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=600, help="after each half of the frames")
    parser.add_argument("--settings", nargs="*", default=["clip.model=bundled"])
    args = parser.parse_args()
    dataset = open_dataset(args.scene)
    held_out, mapped = split_holdout(len(dataset), 8)
    half = len(mapped) // 2
    settings = dict(item.split("=", 1) for item in args.settings) | {"map.keep_keyframes": True}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "half.ovs3d"
        ways: dict[str, Callable[[Ovs3d], Ovs3d]] = {
            "never closed": lambda pipeline: pipeline,
            "with keyframes": lambda _: Ovs3d.load(path, training=True),
            "without keyframes": lambda _: Ovs3d.load(path),
        }
        rows: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
        for seed in args.seeds:
            pipeline = Ovs3d(override(Config(), settings | {"compute.seed": seed}))
            add(pipeline, dataset, mapped[:half], args.steps)
            pipeline.save(path)
            for way, continued in ways.items():
                room = continued(pipeline)
                add(room, dataset, mapped[half:], args.steps)
                rows[way].append(measure(room, dataset, held_out))
    document = {
        way: {key: [round(row[key], 4) for row in values] for key in values[0]}
        for way, values in rows.items()
    }
    sys.stdout.write(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
