"""Measures a fleet: mapping on one and two workers, the index against the maps, and its query. Prints JSON.

Run: python benchmarks/fleet.py map [--datasets 24] [--workers 1 2] [--set KEY=VALUE ...]
     python benchmarks/fleet.py agree MAPS        folder of maps of rendered rooms (bundled encoder)
     python benchmarks/fleet.py query MAPS [--maps 200] [--objects 10000] [--repeats 20]

`query` repeats the index of the maps until it has so many maps; each copy gets other noise in its codes. If
lancedb is installed, it searches the same vectors too: one per object, and one per region.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from ovs3d_ros.config import Config, override
from ovs3d_ros.config.yaml_io import parse_assignments
from ovs3d_ros.demo.scene import SHIPPED
from ovs3d_ros.fleet.cluster import Resources
from ovs3d_ros.fleet.driver import FleetOptions, map_fleet
from ovs3d_ros.fleet.indexing import open_parts
from ovs3d_ros.fleet.manifest import DONE
from ovs3d_ros.fleet.parts import IndexedMap
from ovs3d_ros.fleet.search import FleetIndex
from ovs3d_ros.offline.mapping import Source
from ovs3d_ros.pipeline import Ovs3d

NOISE = 0.02  # of the codes of a copy, in lengths of a code
NAMES = [line.split(" ", 1)[1] for line in (SHIPPED / "classes.txt").read_text().splitlines()[1:]]
ABSENT = (SHIPPED / "absent.txt").read_text().splitlines()
CPU = {"compute.device": "cpu"}


def map_datasets(count: int, workers: list[int], settings: dict) -> list[dict]:
    """Seconds that copies of the demo scene take, for each number of workers, with a warm kernel cache."""
    rows = []
    with tempfile.TemporaryDirectory() as work:
        copies = [Path(shutil.copytree(SHIPPED, Path(work) / f"room{i:03d}")) for i in range(count)]
        for number in [workers[0], *workers]:  # the first run warms up
            folder = Path(work) / f"maps{len(rows)}"
            sources = [Source(path, "nerfstudio") for path in copies[: count if rows else 1]]
            options = FleetOptions(workers=number, resources=Resources(memory=1.0))
            started = time.perf_counter()
            records = map_fleet(sources, folder, override(Config(), CPU | settings), options)
            seconds = time.perf_counter() - started
            done = sum(record.state == DONE for record in records)
            rows.append(dict(workers=number, datasets=len(records), done=done, seconds=round(seconds, 1)))
    for row in rows[1:]:
        row["speed_up"] = round(rows[1]["seconds"] / row["seconds"], 2)
    return rows[1:]


def agree(folder: Path) -> dict:
    """How the index agrees with a query of each map: verdicts, probabilities and places."""
    prompts = list(dict.fromkeys([*NAMES, *ABSENT, *(name.split()[-1] for name in NAMES)]))
    index = FleetIndex.open(folder, CPU)
    answer = index.query(prompts, limit=10_000)
    same_verdict, same_found, differences, distances = [], [], [], []
    for path in sorted(folder.glob("*.ovs3d")):
        pipeline = Ovs3d.load(path, CPU)
        snapshot = pipeline.snapshot()
        for prompt in prompts:
            own = pipeline.query([prompt], snapshot=snapshot)
            hits = [hit for hit in answer.hits if hit.map.name == path.name and hit.prompt == prompt]
            verdict = hits[0].verdict if hits else "no"
            same_verdict.append(verdict == own.verdicts[0])
            same_found.append((verdict == "yes") == own.found[0])
            if hits:
                differences.append(abs(hits[0].presence - own.presence[0]))
            if own.objects and verdict == "yes":
                distances.append(min(np.linalg.norm(hits[0].center - item.center) for item in own.objects))
    return dict(
        maps=index.num_maps,
        prompts=len(prompts),
        same_verdict=round(float(np.mean(same_verdict)), 4),
        same_found=round(float(np.mean(same_found)), 4),
        presence_difference_mean=round(float(np.mean(differences)), 4),
        things=len(distances),
        distance_median_m=round(float(np.median(distances)), 3),
        distance_p90_m=round(float(np.quantile(distances, 0.9)), 3),
    )


def copy_part(part: IndexedMap, number: int) -> IndexedMap:
    """A part of another map: other noise in its codes."""
    random = np.random.default_rng(number)
    codes = part.regions.codes
    noise = random.standard_normal(codes.shape, np.float32) * np.float32(NOISE / codes.shape[1] ** 0.5)
    noise[:, -1] = 0
    return replace(
        part, path=Path(f"map{number:05d}.ovs3d"), regions=replace(part.regions, codes=codes + noise)
    )


def milliseconds(ask: Callable[[], float], repeats: int) -> dict[str, float]:
    """Median and 95th percentile of what `ask` returns, and its mean CPU time, after one call to warm up."""
    ask()
    started = time.process_time()
    taken = [ask() for _ in range(repeats)]
    cpu = 1e3 * (time.process_time() - started) / repeats
    median, p95 = np.quantile(taken, [0.5, 0.95])
    return dict(median_ms=round(float(median), 2), p95_ms=round(float(p95), 2), cpu_ms=round(cpu, 2))


def ask(index: FleetIndex, prompts: list[str]) -> float:
    """Latency of a question in milliseconds."""
    return index.query(prompts).latency_ms


def query(folder: Path, maps: int, objects: int, repeats: int) -> dict:
    """Latency of questions to an index of many maps, without the encoding of the texts."""
    parts, _ = open_parts(folder, CPU, lambda done, total: None)
    parts = [copy_part(parts[i % len(parts)], i) for i in range(maps)]
    index = FleetIndex(parts, CPU)
    report = dict(maps=maps, regions=index.num_regions)
    for prompts in (NAMES[5:6], NAMES[5:10], ABSENT[:1]):
        report[", ".join(prompts)] = milliseconds(partial(ask, index, prompts), repeats)
    features = [part.regions.codes @ part.extended.T for part in parts]
    largest = [np.argsort(-part.regions.counts)[: objects // maps] for part in parts]
    sets = dict(
        objects=np.concatenate([f[rows] for f, rows in zip(features, largest, strict=True)]),
        regions=np.concatenate(features),
    )
    text = Ovs3d.load(sorted(folder.glob("*.ovs3d"))[0], CPU).encode_text(NAMES[5:6]).numpy()[0]
    report["nearest_20"] = {name: nearest(vectors, text, repeats) for name, vectors in sets.items()}
    return report


def nearest(vectors: np.ndarray, text: np.ndarray, repeats: int) -> dict:
    """Time to find the 20 vectors nearest to a text: a scan of a memory-mapped array, and LanceDB."""
    report = dict(vectors=len(vectors), dimensions=vectors.shape[1])
    with tempfile.TemporaryDirectory() as work:
        np.save(Path(work) / "vectors.npy", vectors.astype(np.float32))
        mapped = np.load(Path(work) / "vectors.npy", mmap_mode="r")

        def scan() -> float:
            started = time.perf_counter()
            cosines = mapped @ text
            best = np.argpartition(-cosines, 20)[:20]
            best[np.argsort(-cosines[best])].tolist()
            return 1e3 * (time.perf_counter() - started)

        report["numpy"] = milliseconds(scan, repeats)
        report["lancedb"] = lance(Path(work), vectors, text, repeats)
    return report


def lance(work: Path, vectors: np.ndarray, text: np.ndarray, repeats: int) -> dict | None:
    """The same search in LanceDB without an index, which is exact too; None if it is not installed."""
    try:
        import lancedb
        import pyarrow
    except ImportError:
        return None
    values = pyarrow.array(vectors.astype(np.float32).reshape(-1))
    column = pyarrow.FixedSizeListArray.from_arrays(values, vectors.shape[1])
    table = lancedb.connect(str(work / "lance")).create_table("v", pyarrow.table({"vector": column}))

    def search() -> float:
        started = time.perf_counter()
        table.search(text).distance_type("cosine").limit(20).to_arrow()
        return 1e3 * (time.perf_counter() - started)

    return milliseconds(search, repeats)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    actions = parser.add_subparsers(dest="action", required=True)
    mapping = actions.add_parser("map")
    mapping.add_argument("--datasets", type=int, default=24)
    mapping.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    mapping.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="parameters of the maps"
    )
    actions.add_parser("agree").add_argument("folder", type=Path)
    asking = actions.add_parser("query")
    asking.add_argument("folder", type=Path)
    asking.add_argument("--maps", type=int, default=200)
    asking.add_argument("--objects", type=int, default=10_000)
    asking.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.action == "map":
        report = map_datasets(options.datasets, options.workers, parse_assignments(options.set))
    elif options.action == "agree":
        report = agree(options.folder)
    else:
        report = query(options.folder, options.maps, options.objects, options.repeats)
    json.dump(report, sys.stdout, indent=2)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
