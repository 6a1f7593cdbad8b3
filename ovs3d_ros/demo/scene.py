"""The scenes that the demo maps, and the prompts it asks for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ovs3d_ros.datasets import Dataset, open_dataset, split_holdout
from ovs3d_ros.datasets.text import read_text
from ovs3d_ros.evaluation.calibration import visible_classes
from ovs3d_ros.evaluation.presence_names import NAMES_FILE, read_presence
from ovs3d_ros.types import UserError

SHIPPED = Path(__file__).resolve().parents[1] / "demo_scene"
PHOTOS = SHIPPED.with_name("photo_scene")
HOLDOUT = 8  # every eighth frame is held out: the map is measured on those that have labels
ABSENT_FILE = "absent.txt"
MAX_NAMES = 12  # of those in `NAMES_FILE` that are there, and of those that are not


@dataclass(frozen=True, slots=True)
class Scene:
    """A labelled walk through a room, with prompts.

    Attributes:
        path: folder of the dataset.
        dataset: its frames.
        training: indices of the frames that the map is made from.
        holdout: indices of the frames that the map is measured on, which have labels.
        present: names of things that the training frames show.
        absent: names of things that are not in the room.
    """

    path: Path
    dataset: Dataset
    training: list[int]
    holdout: list[int]
    present: list[str]
    absent: list[str]


def read_scene(path: Path = SHIPPED) -> Scene:
    """Opens a labelled dataset with names to ask for.

    `presence.json` holds names of things that are there and of things that are not. Without it, the classes
    that the frames to map show are there, and `absent.txt` lists one absent thing per line.

    Raises:
        UserError: broken data, no labels, or an absent name that is a class of the scene.
    """
    dataset = open_dataset(path)
    if not dataset.has_labels:
        raise UserError(f"{path}: has no labels; the demo needs labels/ and classes.txt to measure the map")
    held_out, training = split_holdout(len(dataset), HOLDOUT)
    holdout = [index for index in held_out if dataset[index].labels is not None]
    if (path / NAMES_FILE).is_file():
        names = read_presence(path / NAMES_FILE)
        present, absent, source = names.present[:MAX_NAMES], names.absent[:MAX_NAMES], path / NAMES_FILE
    else:
        source = path / ABSENT_FILE
        present = visible_classes(dataset, training)
        absent = [line.strip() for line in read_text(source).splitlines() if line.strip()]
    contradicted = sorted(set(absent) & set(dataset.class_names))
    if not absent or contradicted:
        raise UserError(
            f"{source}: name things that are not in the room"
            + (f"; {contradicted[0]!r} is one of its classes" if contradicted else "")
        )
    return Scene(path, dataset, training, holdout, present, absent)
