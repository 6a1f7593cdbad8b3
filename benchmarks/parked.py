"""Asks a map that grows and whose rooms are parked, with and without what it remembers of them. Prints JSON.

Run: python benchmarks/parked.py [--map room.ovs3d] [--sizes 200000 1000000] [--repeats 10] [--threads 2]

The script maps the demo scene, or loads a map of it, and parks copies of it side by side, in parcels as a
drive does, up to each size. Then it parks one parcel more before each round of questions, so that each round
sees another snapshot. A round asks ten names that were asked before, and ten others for the first time; each
question is also asked with nothing remembered. Times are those of all processors.
"""

from __future__ import annotations

import argparse
import gc
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from documents import print_document
from query import SETTINGS, make_map
from scale import PROMPTS, SPACING

from ovs3d_ros.io.row_file import ROWS
from ovs3d_ros.mapping.blocks import Parcel
from ovs3d_ros.mapping.cells import cell_numbers
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.types import MapSnapshot, QueryResult
from ovs3d_ros.worker.memory import MIB, resident_bytes

PARCEL = 2 * ROWS  # as with `map.max_gaussians` of 150,000
CELL = 1.0  # metres; rows of a parcel are neighbours
SIDE = 32  # rooms along a row


class Building:
    """A map with one active room and parked copies of it.

    Args:
        pipeline: the map of the room, from a file.
    """

    def __init__(self, pipeline: Ovs3d) -> None:
        self.pipeline, self._room = pipeline, 0
        gaussians, self._blocks = pipeline.map.mapper.gaussians, pipeline.map.mapper.blocks
        self._blocks.codec = pipeline.map.lifter.codec
        rows = {name: t.detach() for name, t in (gaussians.params | gaussians.stats).items()}
        order = np.argsort(cell_numbers(rows["means"], CELL), kind="stable")
        whole = torch.from_numpy(order[: len(order) // PARCEL * PARCEL])
        self._rows = {name: t[whole] for name, t in rows.items()}
        self._first = 0  # of the next parcel in its room

    def park(self) -> None:
        """Parks one parcel more."""
        if self._first == 0:
            self._room += 1
        part = {name: t[self._first : self._first + PARCEL] for name, t in self._rows.items()}
        shift = SPACING * torch.tensor([self._room % SIDE, self._room // SIDE, 0])
        part["means"] = part["means"] + shift
        cells = np.unique(cell_numbers(part["means"], CELL))
        self._blocks.parcels.append(Parcel(self._blocks.file.store(part), cells, self._blocks.codec))
        self._first = (self._first + PARCEL) % len(self._rows["means"])

    def grow(self, size: int) -> None:
        """Parks until there are so many Gaussians."""
        while self.pipeline.stats["num_gaussians"] < size:
            self.park()


def untouched(pipeline: Ovs3d) -> MapSnapshot:
    """A snapshot of its own, although the map may not have changed."""
    pipeline.configure(replace(pipeline.config))
    return pipeline.snapshot()


def asked(pipeline: Ovs3d, names: Sequence[str], snapshot: MapSnapshot) -> tuple[QueryResult, float]:
    """An answer, and the milliseconds of the processors that it took."""
    started = time.process_time()
    result = pipeline.query(names, snapshot=snapshot)
    return result, 1e3 * (time.process_time() - started)


def difference(a: QueryResult, b: QueryResult) -> dict[str, float]:
    """How two answers differ; objects of equal rank, as those of equal rooms, may stand in any order."""
    placed = [sorted(x.objects, key=lambda o: (o.label, *o.center.round(2))) for x in (a, b)]
    pairs = list(zip(*placed, strict=False))
    return dict(
        labels=int((a.labels != b.labels).sum()),
        instances=int(((a.instances > 0) != (b.instances > 0)).sum()),
        scores=float((a.scores - b.scores).abs().max()),
        presence=float(np.abs(a.presence - b.presence).max()),
        objects=abs(len(a.objects) - len(b.objects)),
        metres=max((float(np.abs(x.center - y.center).max()) for x, y in pairs), default=0.0),
    )


def measure(building: Building, size: int, repeats: int, others: list[list[str]]) -> dict:
    """One row of the table."""
    building.grow(size)
    pipeline, taken, worst = building.pipeline, {}, {}
    for _ in range(2):  # what was asked once is not remembered
        asked(pipeline, PROMPTS, untouched(pipeline))
    for round_ in range(repeats):
        building.park()
        gc.collect()
        started = time.process_time()
        snapshot = pipeline.snapshot()
        times = dict(snapshot=1e3 * (time.process_time() - started))
        for kind, names in (("known", PROMPTS), ("new", others[round_])):
            result, times[f"{kind}_names"] = asked(pipeline, names, snapshot)
            # Both meet pages that this snapshot has not touched.
            bare = replace(untouched(pipeline), parked=())
            exact, times[f"{kind}_names_without_memo"] = asked(pipeline, names, bare)
            for name, value in difference(result, exact).items():
                worst[name] = max(worst.get(name, 0), value)
            if kind == "known":
                counts = dict(labelled=int((result.labels > 0).sum()), objects=len(result.objects))
        for name, value in times.items():
            taken.setdefault(name, []).append(value)
    row = dict(gaussians=snapshot.num_gaussians, parcels=len(snapshot.parked), **counts, differences=worst)
    for name, values in taken.items():
        row[name] = {f"p{p}_ms": round(float(np.percentile(values, p)), 1) for p in (50, 95)}
    return row | dict(rss_mib=round(resident_bytes() / MIB))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--map", type=Path, help="of the demo scene; default: the script maps it")
    parser.add_argument("--sizes", nargs="+", type=int, default=[200_000, 1_000_000])
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2, help="of torch, while the queries run")
    parser.add_argument("-o", "--output", type=Path, help="a copy of the result")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = args.map or Path(folder) / "demo.ovs3d"
        if args.map is None:
            make_map(path)
        pipeline = Ovs3d.load(path, SETTINGS)
    torch.set_num_threads(args.threads)
    names = pipeline.queries.common_names()
    count = 10 * args.repeats  # for each size others, as names of a second time are remembered
    others = [list(names[start : start + 10]) for start in range(0, count * len(args.sizes), 10)]
    pipeline.encode_text([name for group in others for name in group])
    building = Building(pipeline)
    rows = [
        measure(building, size, args.repeats, others[k * args.repeats :]) for k, size in enumerate(args.sizes)
    ]
    load = [round(v, 1) for v in os.getloadavg()]
    print_document(dict(threads=args.threads, load=load, queries=rows), args.output)


if __name__ == "__main__":
    main()
