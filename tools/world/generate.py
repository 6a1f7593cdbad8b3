"""Generate scenes: `python tools/world/generate.py --split train --seeds 0-399 --out DIR --views 6`."""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
import time
import zlib
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

import cameras
import layouts
import render

QUALITY = {
    "views": render.Quality(samples=3, exact_geometry=False),
    "rooms": render.Quality(samples=3, exact_geometry=False),
    "walk": render.Quality(samples=16, exact_geometry=True),
}
logger = logging.getLogger("world")


def generate_scene(folder: Path, split: str, kind: str, seed: int, views: int, threads: int) -> None:
    """Compose and render one scene; the result depends on (split, kind, seed, views) only."""
    rng = np.random.default_rng([zlib.crc32(f"{split}/{kind}".encode()), seed])
    render.reset(threads)
    if kind == "walk":
        field_of_view = np.radians(62.0)
        scene, focus = layouts.walk_scene(rng, split)
        poses = cameras.walk_poses(rng, focus, views)
    elif kind == "rooms":
        field_of_view = np.radians(rng.uniform(52, 72))
        layout = layouts.walk_scene if rng.random() < 0.4 else layouts.furnished_scene
        scene, focus = layout(rng, split)
        poses = cameras.room_poses(scene, rng, focus, views)
    else:
        field_of_view = np.radians(rng.uniform(48, 66))
        scene, focus = layouts.training_scene(rng, split)
        poses = cameras.view_poses(scene, rng, focus, views, field_of_view)
    render.render_scene(folder, scene, poses, field_of_view, QUALITY[kind])


def parse_seeds(text: str) -> list[int]:
    """'3' or '0-9' (inclusive)."""
    first, _, last = text.partition("-")
    return list(range(int(first), int(last or first) + 1))


def main() -> None:
    """Command line entry; finished scenes are skipped, unfinished ones never show their final name."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--split", choices=["train", "varied", "val", "test"], required=True)
    parser.add_argument("--kind", choices=list(QUALITY), default="views")
    parser.add_argument("--seeds", type=parse_seeds, required=True, help="'3' or '0-9', inclusive")
    parser.add_argument("--views", type=int, default=6, help="frames per scene")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    for seed in args.seeds:
        final = args.out / f"scene_{seed:05d}"
        if final.exists():
            continue
        start = time.monotonic()
        partial = args.out / f".scene_{seed:05d}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        generate_scene(partial, args.split, args.kind, seed, args.views, args.threads)
        partial.rename(final)
        logger.info("%s: %d frames in %.1f s", final.name, args.views, time.monotonic() - start)


if __name__ == "__main__":
    main()
