"""The scene that the demo maps, and the prompts it asks for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ovs3d_ros.datasets import Dataset, open_dataset, split_holdout
from ovs3d_ros.datasets.text import read_text
from ovs3d_ros.evaluation.calibration import visible_classes
from ovs3d_ros.types import UserError

SHIPPED = Path(__file__).resolve().parents[1] / "demo_scene"
HOLDOUT = 8  # every eighth frame is held out: the map is measured on it
ABSENT_FILE = "absent.txt"


@dataclass(frozen=True, slots=True)
class Scene:
    """A labelled walk through a room, with prompts.

    Attributes:
        path: folder of the dataset.
        dataset: its frames.
        training: indices of the frames that the map is made from.
        holdout: indices of the frames that the map is measured on.
        present: names of classes that the training frames show.
        absent: names of things that are not in the room.
    """

    path: Path
    dataset: Dataset
    training: list[int]
    holdout: list[int]
    present: list[str]
    absent: list[str]


def read_scene(path: Path = SHIPPED) -> Scene:
    """Opens a labelled dataset with an `absent.txt`, which lists one absent thing per line.

    Raises:
        UserError: broken data, no labels, or an absent name that is a class of the scene.
    """
    dataset = open_dataset(path)
    if not dataset.has_labels:
        raise UserError(f"{path}: has no labels; the demo needs labels/ and classes.txt to measure the map")
    holdout, training = split_holdout(len(dataset), HOLDOUT)
    absent = [line.strip() for line in read_text(path / ABSENT_FILE).splitlines() if line.strip()]
    contradicted = sorted(set(absent) & set(dataset.classes))
    if not absent or contradicted:
        raise UserError(
            f"{path / ABSENT_FILE}: name things that are not in the room"
            + (f"; {contradicted[0]!r} is one of its classes" if contradicted else "")
        )
    return Scene(path, dataset, training, holdout, visible_classes(dataset, training), absent)
