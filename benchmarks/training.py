"""Measures what training by RDA and FDA adds to a refinement, loss by loss. Prints JSON.

    python benchmarks/training.py DATA [DATA ...] [--every 5] [--seed 0] [--steps 100] [--maps FOLDER]
                                  [--json FILE]

Each labelled scene is mapped once, with every `--every`-th view held out, and refined for its classes with
each of `ROWS`. A row is the mIoU of the labels of the Gaussians in the held-out views, and its seconds.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from documents import map_folder, print_document
from quality import Scene, make_map

from ovs3d_ros.evaluation.segmentation import gaussian_segmenter
from ovs3d_ros.pipeline import Ovs3d

LIFTED_ONLY = {"refine.sharpen_steps": 0, "refine.strength": 0.0}
# Settings of each row; `steps` stands for the steps of the command.
ROWS: dict[str, dict[str, Any]] = {
    "lifted": LIFTED_ONLY,
    "lifted, trained": LIFTED_ONLY | {"refine.train_steps": "steps"},
    "refined": {},
    "refined, trained": {"refine.train_steps": "steps"},
    "without the attracting side of FDA": {"refine.train_steps": "steps", "refine.attract": 0.0},
    "without the repelling side of FDA": {"refine.train_steps": "steps", "refine.repel": 0.0},
    "without FDA": {"refine.train_steps": "steps", "refine.attract": 0.0, "refine.repel": 0.0},
    "KL for JS": {"refine.train_steps": "steps", "refine.divergence": "kl"},
}


def measure(scene: Scene, path: Path, settings: dict[str, Any]) -> dict[str, float]:
    """mIoU of a refinement of the map at `path` with settings, and its seconds."""
    pipeline = Ovs3d.load(path, settings, training=True)
    pipeline.prepare_check()
    started = time.perf_counter()
    for _ in pipeline.refine(scene.names):
        pass
    seconds = time.perf_counter() - started
    snapshot = pipeline.snapshot()
    score = scene.score(gaussian_segmenter(pipeline, snapshot, scene.names, snapshot.refined))
    return dict(miou=round(score.miou, 4), seconds=round(seconds, 1))


def main() -> None:
    """Maps and refines the scenes and prints one JSON document."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="+", type=Path)
    parser.add_argument("--every", type=int, default=5, help="hold out every n-th view")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=100, help="training steps")
    parser.add_argument("--maps", type=Path, help="folder to keep the maps in")
    parser.add_argument("--json", type=Path, help="file for a copy of the output")
    options = parser.parse_args()
    common = {"clip.model": "bundled", "compute.seed": options.seed}
    rows: dict[str, dict[str, Any]] = {name: {} for name in ROWS}
    with map_folder(options.maps) as maps:
        for scene in (Scene(folder, options.every, "dataset") for folder in options.data):
            path = maps / f"{scene.name}-{options.seed}-kept.ovs3d"
            make_map(scene.dataset, scene.mapped, common | {"map.keep_keyframes": True}, path)
            for name, settings in ROWS.items():
                chosen = {
                    key: options.steps if value == "steps" else value for key, value in settings.items()
                }
                rows[name][scene.name] = measure(scene, path, common | chosen)
    means = {name: round(float(np.mean([s["miou"] for s in row.values()])), 4) for name, row in rows.items()}
    document = dict(processors=os.cpu_count(), steps=options.steps, mean=means, rows=rows)
    print_document(document, options.json)


if __name__ == "__main__":
    main()
