"""Maps halves of a labelled scene apart, merges them, and compares with the whole map. Prints JSON.

    python benchmarks/merge.py [DATA ...] [--every 5] [--by drive turns] [--maps FOLDER] [--set key=value ...]
                               [--json FILE]

Every `--every`-th view is held out and scored. Halves are the first and the second half of the drive, and
every other view in turns. `fused` is the merged map before it settles, `union` keeps the Gaussians of
both halves as they are. Default: the demo scene.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from ovs3d_ros.config import Config, override
from ovs3d_ros.config.yaml_io import parse_assignments
from ovs3d_ros.datasets import Dataset, open_dataset, split_holdout
from ovs3d_ros.demo.scene import SHIPPED
from ovs3d_ros.evaluation.metrics import psnr, score_segmentation
from ovs3d_ros.evaluation.segmentation import pixel_segmenter
from ovs3d_ros.map_file import load_map, save_map
from ovs3d_ros.merging import merge
from ovs3d_ros.merging.settle import settle_map
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.rasterize import make_rasterizer

WHOLE = "whole"
MAPPING_STEPS = 40  # a keyframe
STEPS = 20  # a keyframe, as `ovs3d merge` takes


def make_map(dataset: Dataset, views: Sequence[int], settings: dict[str, Any], path: Path) -> None:
    """Maps views as `ovs3d map` does, with equally many steps for each keyframe, unless the file is there."""
    if path.exists():
        return
    pipeline = Ovs3d(override(Config(), settings))
    for index in views:
        pipeline.add_frame(dataset[index])
    steps = MAPPING_STEPS * len(pipeline.keyframes)
    pipeline.optimize(steps, horizon=steps)
    for _ in pipeline.relift():
        pass
    pipeline.save(path)


def measure(path: Path, dataset: Dataset, scored: Sequence[int]) -> dict[str, float]:
    """PSNR and mIoU, lifted and refined, of a map on the scored views."""
    pipeline = Ovs3d.load(path)
    snapshot, names = pipeline.snapshot(), dataset.class_names
    frames = [dataset[index] for index in scored]
    views = [(frame.camera, frame.camtoworld) for frame in frames]
    colors = [pipeline.render(*view, snapshot).rgb.cpu().numpy() for view in views]
    row = dict(
        gaussians=snapshot.num_gaussians,
        psnr=float(np.mean([psnr(rgb, frame.image) for rgb, frame in zip(colors, frames, strict=True)])),
    )
    numbers = np.array([0, *(dataset.classes.index(name) for name in names)])
    refined = pipeline.query(names, mode="argmax", snapshot=snapshot, refine=True).field
    for kind, field in dict(lifted=None, refined=refined).items():
        segment = pixel_segmenter(pipeline, snapshot, names, field)
        labels = [numbers[segment(*view)] for view in views]
        score = score_segmentation("dataset", labels, [frame.labels for frame in frames], dataset.classes)
        row[kind] = score.miou
    return {key: round(value, 4) for key, value in row.items()}


def load(path: Path) -> merge.StoredMap:
    return merge.StoredMap(*load_map(path), path.name)


def merge_files(first: Path, second: Path, output: Path, steps: int = 0) -> float:
    """Merges two maps of one frame; returns seconds."""
    maps, started = (load(first), load(second)), time.perf_counter()
    merged = merge.merge_maps(*maps)
    merged = settle_map(merged, maps, make_rasterizer("cpu"), steps * len(merged.snapshot.names))
    seconds = time.perf_counter() - started
    save_map(output, merged.params, merged.snapshot)
    return round(seconds, 2)


def keep_all(first: Any, second: Any) -> tuple[np.ndarray, np.ndarray]:
    """In place of `choose_kept`: doubled surfaces stay doubled."""
    return np.ones(len(first.points), bool), np.ones(len(second.points), bool)


def measure_scene(
    dataset: Dataset, every: int, kinds: Sequence[str], settings: dict[str, Any], folder: Path
) -> Iterator[tuple[str, dict[str, float]]]:
    """Yields the figures of each map of one scene, under its name."""
    scored, mapped = split_holdout(len(dataset), every)
    half = len(mapped) // 2
    halves = dict(drive=(mapped[:half], mapped[half:]), turns=(mapped[::2], mapped[1::2]))

    def row(name: str, **figures: float) -> tuple[str, dict[str, float]]:
        return name, measure(file(name), dataset, scored) | figures

    def file(name: str) -> Path:
        return folder / f"{dataset.name}-{name}.ovs3d"

    make_map(dataset, mapped, settings, file(WHOLE))
    yield row(WHOLE)
    for kind in kinds:
        names = [f"{kind}-{part}" for part in "ab"]
        for views, name in zip(halves[kind], names, strict=True):
            make_map(dataset, views, settings, file(name))
        files = [file(name) for name in names]
        for how, steps in dict(merged=STEPS, fused=0).items():
            seconds = merge_files(*files, file(f"{kind}-{how}"), steps)
            yield row(f"{kind}-{how}", seconds=seconds)
        with mock.patch.object(merge, "choose_kept", keep_all):
            merge_files(*files, file(f"{kind}-union"))
        yield from map(row, (f"{kind}-union", *names))


def main() -> None:
    """Maps, merges, measures, and prints one JSON document."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="*", type=Path, default=[SHIPPED])
    parser.add_argument("--every", type=int, default=5)
    parser.add_argument("--by", nargs="+", choices=("drive", "turns"), default=["drive", "turns"])
    parser.add_argument("--maps", type=Path, help="keep the maps here, and use those that are there")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    document: dict[str, Any] = dict(cpus=os.cpu_count(), scenes={})
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.maps or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for path in args.data:
            dataset = open_dataset(path)
            rows = document["scenes"][dataset.name] = {}
            settings = parse_assignments(args.set)
            for name, row in measure_scene(dataset, args.every, args.by, settings, folder):
                rows[name] = row
                sys.stderr.write(f"{dataset.name:20} {name:16} {row}\n")
    text = json.dumps(document, indent=2)
    sys.stdout.write(text + "\n")
    if args.json:
        args.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
