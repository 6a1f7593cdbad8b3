"""Judges relations between things in rendered rooms against their exact boxes. Prints one JSON document.

    python benchmarks/relations.py ROOM ROOM ... [--statements 200] [--maps MAP MAP ...] [--seed 0]
        [--rounds 5] [--gaussians 200000]

ROOM is a walk of tools/world: labels, depth and objects.json, in which every label is there once. A statement
is "A relation B" for two things of a room. The boxes of objects.json say whether it is true; statements about
which people would argue (a bucket half on a carpet) are left out. As many true statements as false ones are
drawn for each relation. `geometry` judges the points that depth and labels give. `asked` asks maps of the
rooms, made by `ovs3d map ROOM --set clip.model=bundled`, and counts statements whose two things were found.
With `--rounds`, `processor_ms` asks the maps, repeated side by side up to `--gaussians`, some of these
statements again, and tells the time of a query: of the two names, of a relation, and of six relations. Run
it with PYTHONPATH of another checkout to compare.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from query import enlarge

from ovs3d_ros.datasets import open_dataset
from ovs3d_ros.geometry import transform_points, unproject
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.query.relations import RELATIONS, is_related, make_shape
from ovs3d_ros.query.request import MAX_PROMPTS

PHRASES = {"beside": "next to", "in": "in the"}
SUPPORTS = ("table", "shelf", "carpet", "floor")
HOLLOW = ("shelf", "basket", "bucket", "chair")  # what things may be in or on below the top
SPACING = 0.02  # metres between points of a thing
LEAST_POINTS = 50
TIMED, AT_ONCE = 12, 6  # statements of a map that are timed, and relations in one query
Statement = tuple[str, str, str]


class Box:
    """The exact box of a thing, along the axes of the world."""

    def __init__(self, entry: dict) -> None:
        center, size = np.array(entry["centre"]), np.array(entry["size"])
        self.noun, self.low, self.high = entry["noun"], center - size / 2, center + size / 2

    @property
    def area(self) -> float:
        return float(np.prod((self.high - self.low)[:2]))


def gaps(a: Box, b: Box) -> np.ndarray:
    """Distances [3] between two boxes along the axes, negative where they overlap."""
    return np.maximum(a.low - b.high, b.low - a.high)


def overlap(a: Box, b: Box) -> float:
    """Share of the smaller footprint that two boxes have in common."""
    common = np.minimum(a.high, b.high) - np.maximum(a.low, b.low)
    return float(np.prod(common[:2].clip(min=0))) / min(a.area, b.area)


def is_inside(a: Box, b: Box) -> bool:
    """Whether box `a` lies in box `b`, within 2 cm, and not on top of it."""
    sticks_out = np.maximum(b.low - a.low, a.high - b.high)
    return bool((sticks_out <= 0.02).all()) and a.low[2] < b.high[2] - 0.05


def is_true(a: Box, relation: str, b: Box) -> bool | None:
    """Whether a statement is true; None: people would argue."""
    return {
        "on": _on,
        "in": _in,
        "above": _above,
        "under": lambda a, b: _above(b, a),
        "beside": _beside,
        "near": _near,
    }[relation](a, b)


def _on(a: Box, b: Box) -> bool | None:
    if b.noun == "shelf" and is_inside(a, b):
        return True
    above = a.low[2] - b.high[2]
    if b.noun in SUPPORTS and overlap(a, b) >= 0.8 and a.area < 2 * b.area and abs(above) < 0.01:
        return True
    if (gaps(a, b)[:2] > 0.1).any() or above > 0.12 or a.high[2] < b.low[2] + 0.02:
        return False
    return False if above < -0.15 and b.noun not in HOLLOW else None


def _in(a: Box, b: Box) -> bool | None:
    if b.noun == "shelf" and is_inside(a, b):
        return True
    return False if (gaps(a, b) > 0.05).any() or (_on(a, b) and b.noun != "shelf") else None


def _above(a: Box, b: Box) -> bool | None:
    if "floor" in (a.noun, b.noun):  # hidden below furniture
        return _on(a, b) or (None if b.noun == "floor" else False)
    if overlap(a, b) >= 0.8 and a.low[2] >= b.high[2] - 0.01:
        return True
    return False if (gaps(a, b)[:2] > 0.1).any() or a.high[2] < b.high[2] - 0.02 else None


def _beside(a: Box, b: Box) -> bool | None:
    apart = gaps(a, b)
    if "floor" in (a.noun, b.noun):
        return None
    common = -apart[2] / min(a.high[2] - a.low[2], b.high[2] - b.low[2])
    if 0 < apart[:2].max() <= 0.2 and (apart[:2] < 0.2).all() and common >= 0.6:
        return True
    far = np.linalg.norm(apart[:2].clip(min=0)) > 0.9
    return False if far or apart[2] > 0.1 or _above(a, b) or _above(b, a) else None


def _near(a: Box, b: Box) -> bool | None:
    apart = float(np.linalg.norm(gaps(a, b).clip(min=0)))
    if "floor" in (a.noun, b.noun):
        return None
    return True if apart <= 0.7 else False if apart >= 1.3 else None


def read_room(folder: Path) -> tuple[dict[str, Box], dict[str, np.ndarray]]:
    """The exact boxes of a room's things, without walls, and what the depth images show of them, by name."""
    dataset = open_dataset(folder)
    points = defaultdict(list)
    for frame in dataset:
        world = transform_points(unproject(frame.depth, frame.camera), frame.camtoworld)
        for label in np.unique(frame.labels[frame.labels > 0]):
            points[dataset.classes[label]].append(world[(frame.labels == label) & (frame.depth > 0)])
    shown = {name: thin_out(np.concatenate(parts)) for name, parts in points.items()}
    entries = json.loads((folder / "objects.json").read_text()).values()
    boxes = {entry["label_name"]: Box(entry) for entry in entries if entry["noun"] != "wall"}
    seen = [name for name in boxes if len(shown.get(name, ())) >= LEAST_POINTS]
    return {name: boxes[name] for name in seen}, {name: shown[name] for name in seen}


def thin_out(points: np.ndarray) -> np.ndarray:
    """One point for each cell of a grid."""
    return points[np.unique(np.floor(points / SPACING).astype(int), axis=0, return_index=True)[1]]


def draw_statements(rooms: list[dict[str, Box]], count: int, seed: int) -> list[tuple[int, Statement, bool]]:
    """Room, statement and truth of `count` statements: for each relation as many true ones as false ones."""
    known = defaultdict(list)
    for number, boxes in enumerate(rooms):
        for a in boxes:
            for b in boxes:
                for relation in RELATIONS:
                    if a != b and (truth := is_true(boxes[a], relation, boxes[b])) is not None:
                        known[relation, truth].append((number, (a, relation, b), truth))
    rng = np.random.default_rng(seed)
    share = -(-count // (2 * len(RELATIONS)))
    return [
        group[i]
        for relation in RELATIONS
        for truth in (True, False)
        for group in [known[relation, truth]]
        for i in rng.permutation(len(group))[:share]
    ]


def ask(path: Path, statements: list[Statement]) -> dict[Statement, bool]:
    """The answers of a map to statements about things that it finds."""
    pipeline = Ovs3d.load(path, {"compute.device": "cpu"})
    names = list({name for a, _, b in statements for name in (a, b)})
    found = dict(zip(names, pipeline.query(names).found, strict=True))
    kept = [(a, relation, b) for a, relation, b in statements if found[a] and found[b]]
    answers = {}
    for start in range(0, len(kept), MAX_PROMPTS):
        part = kept[start : start + MAX_PROMPTS]
        answers |= dict(zip(part, map(bool, pipeline.query(phrases(part)).found), strict=True))
    return answers


def phrases(statements: list[Statement]) -> list[str]:
    """The prompts that ask for statements."""
    return [f"{a} {PHRASES.get(relation, relation)} {b}" for a, relation, b in statements]


def time_queries(pipeline: Ovs3d, statements: list[Statement], rounds: int, count: int) -> dict:
    """Median processor milliseconds of queries to one snapshot, over statements and rounds after the first.

    Args:
        pipeline: the map.
        statements: some things of it.
        rounds: how often each query is repeated.
        count: Gaussians up to which the map is repeated side by side.
    """
    snapshot = pipeline.snapshot()
    snapshot = enlarge(snapshot, max(count, snapshot.num_gaussians))
    chosen = [statements[i] for i in range(0, len(statements), -(-len(statements) // TIMED))]
    prompts = phrases(chosen)
    queries = dict(
        two_names=[[a, b] for a, _, b in chosen],
        relation=[[prompt] for prompt in prompts],
        six_relations=[prompts[i : i + AT_ONCE] for i in range(0, len(prompts), AT_ONCE)],
    )
    report: dict = dict(gaussians=snapshot.num_gaussians)
    for name, asked in queries.items():
        taken = []
        for number in range(rounds + 1):
            for query in asked:
                started = time.process_time()
                pipeline.query(
                    query, snapshot=dataclasses.replace(snapshot)
                )  # answers are remembered by snapshot
                taken += [time.process_time() - started] if number else []
        report[name] = round(1e3 * float(np.median(taken)), 1)
    return report


def summarize(judged: list[tuple[int, Statement, bool, bool]]) -> dict:
    """Right answers over statements, all and by relation, and the wrong ones."""
    rows = {
        relation: [truth == answer for _, s, truth, answer in judged if s[1] == relation]
        for relation in RELATIONS
    }
    return dict(
        statements=len(judged),
        right=round(float(np.mean([truth == answer for *_, truth, answer in judged])), 4),
        by_relation={name: f"{sum(row)}/{len(row)}" for name, row in rows.items()},
        wrong=[[number, " ".join(s), truth] for number, s, truth, answer in judged if truth != answer],
    )


def main() -> int:
    """Judges the statements and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rooms", type=Path, nargs="+", metavar="ROOM")
    parser.add_argument("--statements", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--maps", type=Path, nargs="+", default=[], help="maps of the rooms, in this order")
    parser.add_argument("--rounds", type=int, default=0, help="of timed queries to each map")
    parser.add_argument("--gaussians", type=int, default=0, help="of maps that are timed, at least")
    options = parser.parse_args()
    rooms = [read_room(folder) for folder in options.rooms]
    drawn = draw_statements([boxes for boxes, _ in rooms], options.statements, options.seed)
    up = np.array([0.0, 0.0, 1.0])
    shapes = [{name: make_shape(points, up) for name, points in shown.items()} for _, shown in rooms]
    judged = [
        (n, (a, relation, b), truth, is_related(shapes[n][a], relation, shapes[n][b]))
        for n, (a, relation, b), truth in drawn
    ]
    report = dict(geometry=summarize(judged))
    if options.maps:
        asked = []
        for number, path in enumerate(options.maps):
            answers = ask(path, [s for n, s, _ in drawn if n == number])
            asked += [(n, s, truth, answers[s]) for n, s, truth in drawn if n == number and s in answers]
        report["asked"] = summarize(asked)
    if options.rounds:
        torch.set_num_threads(1)
        report["processor_ms"] = [
            time_queries(
                Ovs3d.load(path, {"compute.device": "cpu"}),
                [s for n, s, _ in drawn if n == number],
                options.rounds,
                options.gaussians,
            )
            for number, path in enumerate(options.maps)
        ]
    json.dump(report, sys.stdout, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
