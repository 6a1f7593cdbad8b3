"""Registers maps from random places, and maps of different rooms, which must be refused. Prints JSON.

    python benchmarks/align.py FIRST SECOND [--others MAP ...] [--pairs 10] [--json FILE]

FIRST and SECOND are maps of one place in one frame, e.g. halves that `benchmarks/merge.py --maps` keeps. A
random rigid motion moves SECOND before each registration. One within 2 degrees and 10 cm is right. All pairs
of FIRST and the others are tried too.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from ovs3d_ros.map_file import load_map
from ovs3d_ros.merging.merge import StoredMap, move_map
from ovs3d_ros.merging.registration import register
from ovs3d_ros.rasterize import make_rasterizer
from ovs3d_ros.types import UserError

ANGLE, DISTANCE = 2.0, 0.1  # degrees and metres


def random_motion(seed: int) -> np.ndarray:
    motion = np.eye(4)
    motion[:3, :3] = Rotation.random(random_state=seed).as_matrix()
    motion[:3, 3] = np.random.default_rng(seed).uniform(-5, 5, 3)
    return motion


def align(first: StoredMap, second: StoredMap, seed: int, same: bool) -> dict[str, Any]:
    """One registration; `same` says whether the maps show one place in one frame."""
    motion = random_motion(seed)
    moved = move_map(second, second.snapshot.frame, np.linalg.inv(motion))
    started = time.perf_counter()
    row: dict[str, Any] = dict(first=first.name, second=second.name, seed=seed)
    try:
        found = register(first, moved, make_rasterizer("cpu"))
    except UserError as error:
        row |= dict(outcome="refused", reason=str(error))
    else:
        turn = found.motion[:3, :3].T @ motion[:3, :3]
        center = np.append(moved.params["means"].numpy().mean(0), 1.0)
        angle = float(np.degrees(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1))))
        distance = float(np.linalg.norm(((found.motion - motion) @ center)[:3]))
        right = same and angle < ANGLE and distance < DISTANCE
        row |= dict(outcome="right" if right else "wrong", degrees=round(angle, 3), metres=round(distance, 4))
        row |= dict(confidence=round(found.confidence, 3), agreement=round(found.judgement.agreement, 3))
        row |= dict(overlap=round(found.judgement.overlap, 3), margin=round(found.margin, 3))
    return row | dict(seconds=round(time.perf_counter() - started, 1))


def main() -> None:
    """Registers, and prints one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("--others", nargs="+", type=Path, default=[])
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    paths = (args.first, args.second, *args.others)
    maps = [StoredMap(*load_map(path), path.stem) for path in paths]
    trials = [(maps[0], maps[1], seed, True) for seed in range(args.pairs)]
    rooms = [maps[0], *maps[2:]]
    trials += [(a, b, seed, False) for seed, (a, b) in enumerate(itertools.combinations(rooms, 2))]
    rows = []
    for trial in trials:
        rows.append(align(*trial))
        sys.stderr.write(f"{rows[-1]}\n")
    kinds = {"same place": rows[: args.pairs], "other rooms": rows[args.pairs :]}
    counts = {
        kind: {
            outcome: sum(row["outcome"] == outcome for row in some)
            for outcome in ("right", "refused", "wrong")
        }
        for kind, some in kinds.items()
    }
    text = json.dumps(dict(counts=counts, rows=rows), indent=2)
    sys.stdout.write(text + "\n")
    if args.json:
        args.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
