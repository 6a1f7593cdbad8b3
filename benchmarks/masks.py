"""Compares two ways to label the pixels of a view by an answer, in IoU and in time. Prints JSON.

Run: python benchmarks/masks.py SCENE... [--maps out/maps] [--every 8] [--settings clip.model=bundled]

"labels" is what the project does: pixels take the labels of the Gaussians they show. "codes" blends the
codes of features first and decides per pixel, as 3D-OVS does. Each scene is mapped without every 8th view,
and asked for all names of its class list and for its last three alone. The IoU is over all pixels of the
views that were kept aside, averaged over names.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from quality import make_map, split

from ovs3d_ros.datasets import open_dataset
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.query.labelling import best_found
from ovs3d_ros.types import Camera, Frame, MapSnapshot, QueryResult

SIZE = 320  # longest side of the masks, pixels
Mask = Callable[[Camera, np.ndarray], np.ndarray]


def masks(pipeline: Ovs3d, snapshot: MapSnapshot, result: QueryResult) -> dict[str, Mask]:
    """The two ways to label a view, by name."""

    def by_labels(camera: Camera, pose: np.ndarray) -> np.ndarray:
        return pipeline.render_labels(result, camera, pose, snapshot)[0]

    def by_codes(camera: Camera, pose: np.ndarray) -> np.ndarray:
        _, scores = pipeline.render_relevancy(result.prompts, camera, pose, snapshot)
        flat = best_found(scores.flatten(0, 1), result.found, result.query.threshold)
        return flat.reshape(scores.shape[:2]).numpy()

    return {"labels": by_labels, "codes": by_codes}


def compare(
    pipeline: Ovs3d, snapshot: MapSnapshot, names: list[str], frames: list[Frame], classes: list[str]
) -> dict[str, tuple[float, list[float]]]:
    """Mean IoU over the names, and the milliseconds of every view, for each way."""
    result = pipeline.query(names, snapshot=snapshot)
    numbers, row = np.array([0, *map(classes.index, names)]), {}
    for way, mask in masks(pipeline, snapshot, result).items():
        hits, unions, taken = np.zeros(len(names)), np.zeros(len(names)), []
        for frame in frames:
            camera = frame.camera.fitted(SIZE)
            size = camera.width, camera.height
            assert frame.labels is not None, "only views with labels are scored"
            truth = cv2.resize(frame.labels.astype(np.uint16), size, interpolation=cv2.INTER_NEAREST)
            start = time.perf_counter()
            found = numbers[mask(camera, frame.camtoworld)]
            taken.append(1e3 * (time.perf_counter() - start))
            for i, number in enumerate(numbers[1:]):
                hits[i] += ((found == number) & (truth == number)).sum()
                unions[i] += ((found == number) | (truth == number)).sum()
        row[way] = float((hits[unions > 0] / unions[unions > 0]).mean()), taken
    return row


def main() -> None:
    """Maps every scene, asks, and prints one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenes", nargs="+", type=Path)
    parser.add_argument("--maps", type=Path, default=Path("out/maps"), help="where maps are kept")
    parser.add_argument("--every", type=int, default=8, help="every n-th view is kept aside")
    parser.add_argument("--settings", nargs="*", default=["clip.model=bundled"])
    args = parser.parse_args()
    settings = dict(item.split("=", 1) for item in args.settings)
    ious, times = defaultdict(list), defaultdict(list)
    for folder in args.scenes:
        dataset = open_dataset(folder)
        held, mapped = split(dataset, args.every)
        path = make_map(dataset, mapped, settings, args.maps / f"{folder.name}.ovs3d")
        pipeline = Ovs3d.load(path, settings)
        names, frames = (
            dataset.class_names,
            [f for f in map(dataset.__getitem__, held) if f.labels is not None],
        )
        for asked in (names, names[-3:]):
            row = compare(pipeline, pipeline.snapshot(), asked, frames, dataset.classes)
            for way, (iou, taken) in row.items():
                key = f"{way}, {'all names' if asked is names else 'three names'}"
                ious[key].append(iou)
                times[key] += taken
    document = {
        key: dict(
            scenes=len(values),
            iou=round(float(np.mean(values)), 3),
            p50_ms=round(float(np.median(times[key])), 1),
            p95_ms=round(float(np.percentile(times[key], 95)), 1),
        )
        for key, values in ious.items()
    }
    sys.stdout.write(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
