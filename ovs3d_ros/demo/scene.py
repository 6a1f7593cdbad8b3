"""The scene the demo maps, and what it asks about it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ovs3d_ros.datasets import Dataset, open_dataset, split_holdout
from ovs3d_ros.datasets.text import read_text
from ovs3d_ros.evaluation.calibration import visible_classes
from ovs3d_ros.types import UserError

SHIPPED = Path(__file__).resolve().parents[1] / "demo_scene"
HOLDOUT = 8  # every eighth frame is kept from the map, to measure it on
ABSENT_FILE = "absent.txt"


@dataclass(frozen=True, slots=True)
class Scene:
    """A labelled walk through a room, with questions.

    Attributes:
        path: folder of the dataset.
        dataset: its frames.
        training: indices of the frames the map is made from.
        holdout: indices of the frames it is measured on.
        present: names of what the training frames show.
        absent: names of what is not in the room.
    """

    path: Path
    dataset: Dataset
    training: list[int]
    holdout: list[int]
    present: list[str]
    absent: list[str]


def read_scene(path: Path = SHIPPED) -> Scene:
    """Opens a labelled dataset with an `absent.txt`, one name of something that is not there per line.

    Raises:
        UserError: broken data, no labels, no depth, or absent names that are classes of the scene.
    """
    dataset = open_dataset(path)
    if not dataset.has_labels:
        raise UserError(
            f"{path}: the demo measures itself on labels/ and classes.txt, which this dataset lacks"
        )
    holdout, training = split_holdout(len(dataset), HOLDOUT)
    absent = [line.strip() for line in read_text(path / ABSENT_FILE).splitlines() if line.strip()]
    contradicted = sorted(set(absent) & set(dataset.classes))
    if not absent or contradicted:
        raise UserError(
            f"{path / ABSENT_FILE}: name things that are not in the room"
            + (f"; {contradicted[0]!r} is one of its classes" if contradicted else "")
        )
    return Scene(path, dataset, training, holdout, visible_classes(dataset, training), absent)
