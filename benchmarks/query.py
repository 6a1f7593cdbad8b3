"""Measures latency of text queries and memory of maps of different sizes. Prints JSON.

Run: python benchmarks/query.py [--sizes 50000 1000000] [--prompts 10] [--threads 2] [--repeats 30]

The script maps the demo scene and repeats the map side by side up to each size, so that queries find real
objects. Half of the prompts name objects of the scene. Texts are encoded before the timing starts, as the
pipeline caches them.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import time

import numpy as np
import torch

from ovs3d_ros.config import Config, override
from ovs3d_ros.datasets import open_dataset
from ovs3d_ros.demo.scene import SHIPPED
from ovs3d_ros.evaluation.calibration import map_scene
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.types import MapSnapshot

SEMANTIC = ("weight", "views", "selection")


def enlarge(snapshot: MapSnapshot, count: int) -> MapSnapshot:
    """Repeats a map side by side up to `count` Gaussians."""
    copies = -(-count // snapshot.num_gaussians)
    span = snapshot.gaussians["means"].amax(0) - snapshot.gaussians["means"].amin(0)

    def repeated(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.repeat(copies, *[1] * (tensor.dim() - 1))[:count].contiguous()

    gaussians = {name: repeated(tensor) for name, tensor in snapshot.gaussians.items()}
    copy_index = torch.arange(count) // snapshot.num_gaussians
    gaussians["means"][:, 0] += copy_index * (span[0] + 1.0)
    rows = torch.arange(count) % snapshot.num_gaussians
    return dataclasses.replace(
        snapshot,
        gaussians=gaussians,
        packed_codes=snapshot.packed_codes[rows],
        packed_levels=snapshot.packed_levels[rows],
        **{name: repeated(getattr(snapshot, name)) for name in SEMANTIC},
    )


def latencies(pipeline: Ovs3d, snapshot: MapSnapshot, prompts: list[str], repeats: int) -> np.ndarray:
    """Latencies [repeats] of queries in milliseconds, after one query to warm up."""
    pipeline.query(prompts, snapshot=snapshot)
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        pipeline.query(prompts, snapshot=snapshot)
        taken.append(1e3 * (time.perf_counter() - start))
    return np.array(taken)


def mib_per_100k(snapshot: MapSnapshot) -> dict[str, float]:
    """MiB per 100,000 Gaussians of a snapshot."""

    def mib(tensors) -> float:
        # With one level, two tensors share their memory.
        sizes = {t.data_ptr(): t.untyped_storage().nbytes() for t in tensors}
        return round(sum(sizes.values()) / snapshot.num_gaussians * 1e5 / 2**20, 2)

    semantics = [getattr(snapshot, name) for name in SEMANTIC]
    for codes in (snapshot.packed_codes, snapshot.packed_levels):
        semantics += [codes.values, codes.scales, codes.steps]
    return dict(geometry=mib(snapshot.gaussians.values()), semantics=mib(semantics))


def main() -> None:
    """Maps, asks and prints one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", type=int, default=[50_000, 1_000_000])
    parser.add_argument("--prompts", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2, help="of torch, while the queries run")
    parser.add_argument("--repeats", type=int, default=30)
    args = parser.parse_args()
    dataset = open_dataset(SHIPPED)
    pipeline = Ovs3d(override(Config(), {"clip.model": "bundled", "train.steps_per_keyframe": 5}))
    for _ in map_scene(pipeline, dataset):
        pass
    torch.set_num_threads(args.threads)
    there = [name for name in dataset.classes if name]
    absent = (SHIPPED / "absent.txt").read_text().split("\n")
    prompts = [*there[: args.prompts // 2], *filter(None, absent)][: args.prompts]
    snapshot = pipeline.snapshot()
    rows = []
    for size in args.sizes:
        taken = latencies(pipeline, enlarge(snapshot, size), prompts, args.repeats)
        rows.append(
            dict(
                gaussians=size,
                prompts=len(prompts),
                p50_ms=round(float(np.median(taken)), 1),
                p95_ms=round(float(np.percentile(taken, 95)), 1),
                min_ms=round(float(taken.min()), 1),
            )
        )
    document = dict(
        threads=args.threads,
        load=[round(v, 1) for v in os.getloadavg()],
        queries=rows,
        mib_per_100k_gaussians=mib_per_100k(snapshot),
    )
    sys.stdout.write(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
