"""Counts the objects that come back for each thing of labelled scenes. Prints JSON.

    python benchmarks/objects.py DATA [DATA ...] [--every 5] [--seeds 0] [--maps FOLDER] [--set KEY=VALUE ...]
                                 [--json FILE]

DATA are walks of tools/world, in which every label is there once, or other labelled scenes of that kind.
Every `--every`-th view is held out of the map, as in `benchmarks/quality.py`; `--maps` may be shared with it.
Which Gaussians belong to a thing is lifted from the labels of all views.

The map is asked for all labels together, for each one alone and, where objects.json names them, for each noun
("chair"), lifted and refined. Floors and walls compete, but are not counted. An object shows a thing if the
Gaussians of both have an IoU above one half. One with less than half of its Gaussians on things of its name
is a stray; one with more that shows none is a piece. `first` counts prompts whose first object shows a thing.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from documents import map_folder, print_document, scene_parser
from quality import make_map, split

from ovs3d_ros.config.yaml_io import parse_assignments
from ovs3d_ros.datasets import Dataset, open_dataset
from ovs3d_ros.evaluation.ceiling import true_classes
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.types import MapSnapshot, QueryResult

SURFACES = ("floor", "wall", "walls", "ceiling")  # last word of a label that is no thing
FIGURES = ("prompts", "things", "one", "right_number", "shown", "first", "objects", "strays", "pieces")


@dataclass(frozen=True, slots=True)
class Scene:
    """A labelled dataset with its mapped views.

    Attributes:
        dataset: frames with labels.
        mapped: indices of the views that are mapped.
        things: class numbers of each label that counts.
        nouns: class numbers of the things of each noun; empty where the scene does not name them.
    """

    dataset: Dataset
    mapped: Sequence[int]
    things: dict[str, list[int]]
    nouns: dict[str, list[int]]


def read_scene(folder: Path, every: int) -> Scene:
    """Reads the frames of a scene, and the nouns of its things if there is an objects.json."""
    dataset = open_dataset(folder)
    numbers = {
        name: [number]
        for number, name in enumerate(dataset.classes)
        if number and name and name.split()[-1] not in SURFACES
    }
    nouns: dict[str, list[int]] = {}
    if (folder / "objects.json").exists():
        for entry in json.loads((folder / "objects.json").read_text(encoding="utf-8")).values():
            if entry["label_name"] in numbers:
                nouns.setdefault(entry["noun"], []).extend(numbers[entry["label_name"]])
    return Scene(dataset, split(dataset, every)[1], numbers, nouns)


def count_objects(result: QueryResult, truth: np.ndarray, things: dict[str, list[int]]) -> np.ndarray:
    """What an answer gives for the things of its prompts, summed over these.

    Args:
        result: the answer.
        truth: [N] true class of each Gaussian; -1: unknown.
        things: class numbers behind each prompt that counts.

    Returns:
        `FIGURES`: prompts with things in the map; their things; prompts for one thing with one object that is
        no stray; prompts with as many objects as things; things that an object shows; prompts whose first
        object shows one; objects; strays; pieces.
    """
    instances = result.instances.numpy()
    sizes, total = np.bincount(truth[truth >= 0]), np.zeros(len(FIGURES), int)
    for prompt, numbers in things.items():
        there = [n for n in numbers if n < len(sizes) and sizes[n] > 0]
        if not there or prompt not in result.query.prompts:
            continue
        own = [o.instance for o in result.objects if o.prompt == prompt]
        on = np.array([[((instances == k) & (truth == n)).sum() for n in there] for k in own])
        on = on.reshape(len(own), len(there))
        known = np.array([((instances == k) & (truth >= 0)).sum() for k in own])
        shows = 2 * on > known[:, None] + sizes[there] - on
        is_stray = 2 * on.sum(1) < known
        is_piece = ~is_stray & ~shows.any(1)
        one = len(own) == len(there) == 1 and not is_stray[0]
        right = len(own) == len(there)
        shown, first = shows.any(0).sum(), shows[:1].any()
        total += [1, len(there), one, right, shown, first, len(own), is_stray.sum(), is_piece.sum()]
    return total


def drop_small(truth: np.ndarray, least: int) -> np.ndarray:
    """The true classes without those of fewer Gaussians than an object must have."""
    sizes = np.bincount(truth[truth >= 0])
    return np.where((truth >= 0) & (sizes[truth] < least), -1, truth)


def ask(pipeline: Ovs3d, snapshot: MapSnapshot, scene: Scene, truth: np.ndarray) -> dict[str, np.ndarray]:
    """The figures of one map, for all labels together, for each alone and for each noun."""

    def each(things: dict[str, list[int]]) -> np.ndarray:
        rows = [
            count_objects(pipeline.query([name], snapshot=snapshot), truth, {name: numbers})
            for name, numbers in things.items()
        ]
        return np.sum(rows, axis=0) if rows else np.zeros(len(FIGURES), int)

    together = pipeline.query(scene.dataset.class_names, snapshot=snapshot)
    return dict(
        together=count_objects(together, truth, scene.things),
        alone=each(scene.things),
        noun=each(scene.nouns),
    )


def measure(pipeline: Ovs3d, scene: Scene) -> dict[str, np.ndarray]:
    """The figures of one map, lifted and refined."""
    names = scene.dataset.class_names
    snapshot = pipeline.snapshot()
    truth = true_classes(pipeline, snapshot, list(scene.dataset), len(scene.dataset.classes)).numpy()
    truth = drop_small(truth, pipeline.config.query.min_instance)
    figures = {f"lifted, {way}": row for way, row in ask(pipeline, snapshot, scene, truth).items()}
    for _ in pipeline.refine(names):
        pass
    refined = ask(pipeline, pipeline.snapshot(), scene, truth)
    return figures | {f"refined, {way}": row for way, row in refined.items()}


def summarize(row: np.ndarray) -> dict[str, float]:
    """Shares of the summed figures."""
    prompts, things, one, right, shown, first, objects, strays, pieces = map(float, row)
    prompts, things, objects = max(prompts, 1.0), max(things, 1.0), max(objects, 1.0)
    return dict(
        things=int(row[1]),
        objects=int(row[6]),
        one_object=round(one / prompts, 3),
        right_number=round(right / prompts, 3),
        first=round(first / prompts, 3),
        recall=round(shown / things, 3),
        precision=round(shown / objects, 3),
        strays_per_prompt=round(strays / prompts, 3),
        pieces_per_prompt=round(pieces / prompts, 3),
    )


def main() -> None:
    """Maps the scenes, asks them and prints one JSON document."""
    options = scene_parser(__doc__).parse_args()
    settings: dict[str, Any] = {"clip.model": "bundled"} | parse_assignments(options.set)
    rows: dict[str, dict[str, np.ndarray]] = {}
    with map_folder(options.maps) as maps:
        for folder in options.data:
            scene = read_scene(folder, options.every)
            for seed in options.seeds:
                path = maps / f"{scene.dataset.name}-{seed}-clip.model={settings['clip.model']}.ovs3d"
                seeded = settings | {"compute.seed": seed}
                pipeline = Ovs3d.load(make_map(scene.dataset, scene.mapped, seeded, path), seeded)
                rows[f"{scene.dataset.name}, seed {seed}"] = measure(pipeline, scene)
                sys.stderr.write(f"{scene.dataset.name}, seed {seed}\n")
    ways = next(iter(rows.values()))
    document = dict(
        summary={way: summarize(np.sum([row[way] for row in rows.values()], axis=0)) for way in ways},
        rows={name: {way: summarize(figures) for way, figures in row.items()} for name, row in rows.items()},
    )
    print_document(document, options.json)


if __name__ == "__main__":
    main()
