"""Times what a keyframe costs beside training: its CLIP features, their lift, and a snapshot. Prints JSON.

Run: python benchmarks/lift.py [--gaussians 50000] [--threads 2] [--set key=value ...]

The script maps the demo scene, fills the map up with Gaussians beside its own, then encodes and lifts each
keyframe again, and takes a snapshot after each.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time

import numpy as np
import torch

from ovs3d_ros.config import Config, override
from ovs3d_ros.config.yaml_io import parse_assignments
from ovs3d_ros.datasets import open_dataset
from ovs3d_ros.demo.scene import SHIPPED
from ovs3d_ros.encoders import encode_frame
from ovs3d_ros.evaluation.calibration import map_scene
from ovs3d_ros.mapping.keyframes import compress_crop_table
from ovs3d_ros.pipeline import Ovs3d


def fill_up(pipeline: Ovs3d, count: int) -> None:
    """Adds Gaussians beside those of the map until it holds `count`."""
    means = pipeline.map.params()["means"].detach().cpu().numpy()
    rng = np.random.default_rng(0)
    missing = max(count - len(means), 0)
    beside = means[rng.integers(len(means), size=missing)] + rng.normal(0, 0.02, (missing, 3))
    pipeline.add_points(beside, rng.integers(0, 256, (missing, 3)).astype(np.uint8))


def main() -> None:
    """Maps, encodes, lifts and prints one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gaussians", type=int, default=50_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE")
    args = parser.parse_args()
    dataset = open_dataset(SHIPPED)
    settings = {"clip.model": "bundled", "train.steps_per_keyframe": 5, **parse_assignments(args.set)}
    pipeline = Ovs3d(override(Config(), settings))
    for _ in map_scene(pipeline, dataset):
        pass
    fill_up(pipeline, args.gaussians)
    torch.set_num_threads(args.threads)
    frames = {frame.name: frame for frame in dataset}
    encoded, lifted, shown = [], [], []
    for keyframe in pipeline.keyframes:
        start = time.perf_counter()
        keyframe.crops = compress_crop_table(encode_frame(pipeline.clip, frames[keyframe.name]))
        middle = time.perf_counter()
        pipeline.map.lift(keyframe)
        encoded.append(1e3 * (middle - start))
        end = time.perf_counter()
        pipeline.snapshot()
        lifted.append(1e3 * (end - middle))
        shown.append(1e3 * (time.perf_counter() - end))
    document = dict(
        threads=args.threads,
        load=[round(v, 1) for v in os.getloadavg()],
        keyframes=len(encoded),
        gaussians=pipeline.stats["num_gaussians"],
        encode_ms=round(float(np.median(encoded)), 1),
        lift_ms=round(float(np.median(lifted)), 1),
        snapshot_ms=round(float(np.median(shown)), 1),
        both_p95_ms=round(float(np.percentile(np.add(encoded, lifted), 95)), 1),
    )
    sys.stdout.write(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
