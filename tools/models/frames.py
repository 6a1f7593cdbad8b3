"""The rendered frames in memory, with noun, colour and material of each instance."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import captions
import cv2
import numpy as np
import vocabulary


@dataclass(frozen=True)
class View:
    """One frame.

    Attributes:
        image: [H, W, 3] uint8 RGB.
        instances: [H, W] uint8, 0 = none.
        things: [256] row of `FrameStore.things` per instance, -1 = none.
        variants: [256] mesh variant per instance, -1 = none.
        boxes: instance to (left, top, right, bottom, visible pixels).
        scene: folder name.
    """

    image: np.ndarray
    instances: np.ndarray
    things: np.ndarray
    variants: np.ndarray
    boxes: dict[int, tuple[int, int, int, int, int]]
    scene: str


class FrameStore:
    """All frames of a folder of scenes; `refresh` reads scenes that were added later.

    Attributes:
        views: the frames.
        things: [K, 3] codes of noun, colour, material: all possible combinations.
        by_mesh: for each noun code and mesh variant, the (view, instance) pairs that show it.
    """

    def __init__(self, folder: Path) -> None:
        self.views: list[View] = []
        self.things = np.array(
            [
                (captions.NOUNS.index(noun), colour, captions.MATERIALS.index(material))
                for noun, spec in vocabulary.NOUNS.items()
                for material in spec.materials
                for colour in range(len(captions.COLOURS) + 1)
            ]
        )
        self.by_mesh: dict[int, dict[int, list[tuple[int, int]]]] = {}
        self._folder, self._known = folder, set()
        self._rows = {tuple(codes): row for row, codes in enumerate(self.things.tolist())}

    def row(self, noun: int, colour: int, material: int) -> int:
        """Row of a combination of codes in `things`."""
        return self._rows[noun, colour, material]

    def refresh(self) -> int:
        """Reads new scenes; returns the number of frames."""
        for scene in sorted(self._folder.glob("scene_*")):
            if scene.name not in self._known:
                self._known.add(scene.name)
                self._read(scene)
        return len(self.views)

    def _read(self, scene: Path) -> None:
        things, variants = np.full(256, -1), np.full(256, -1)
        for key, thing in json.loads((scene / "objects.json").read_text()).items():
            codes = (
                captions.NOUNS.index(thing["noun"]),
                captions.COLOURS.index(thing["colour"]),
                captions.MATERIALS.index(thing["material"]),
            )
            things[int(key)] = self._rows[codes]
            variants[int(key)] = thing["mesh_variant"]
        for frame in json.loads((scene / "transforms.json").read_text())["frames"]:
            image = cv2.imread(str(scene / frame["file_path"]))[..., ::-1].copy()
            instances = cv2.imread(str(scene / frame["instance_file_path"]), cv2.IMREAD_UNCHANGED)
            boxes = _boxes(instances)
            for instance in boxes:
                noun = int(self.things[things[instance]][0])
                places = self.by_mesh.setdefault(noun, {}).setdefault(int(variants[instance]), [])
                places.append((len(self.views), instance))
            self.views.append(View(image, instances, things, variants, boxes, scene.name))


def _boxes(instances: np.ndarray) -> dict[int, tuple[int, int, int, int, int]]:
    boxes = {}
    for instance in np.unique(instances):
        rows, columns = np.nonzero(instances == instance)
        if instance and len(rows) >= 150:
            boxes[int(instance)] = (
                int(columns.min()),
                int(rows.min()),
                int(columns.max()) + 1,
                int(rows.max()) + 1,
                len(rows),
            )
    return boxes
