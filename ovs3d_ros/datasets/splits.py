"""Divides the frames of a dataset into those to map and those to evaluate."""

from __future__ import annotations

import logging
import os.path
from collections import Counter
from dataclasses import replace
from pathlib import Path

from ovs3d_ros.datasets.dataset import HELD_OUT, LEFT_OUT, TRAINING, Dataset, View
from ovs3d_ros.types import UserError

logger = logging.getLogger(__name__)

# Keys of nerfstudio. A frame in several lists belongs to the first one.
_LISTS = {"train_filenames": TRAINING, "val_filenames": HELD_OUT, "test_filenames": HELD_OUT}


def split_frames(dataset: Dataset, holdout: int) -> tuple[list[int], list[int]]:
    """Indices of the held-out frames and of the frames to map.

    Args:
        dataset: may divide its frames itself.
        holdout: as for `split_holdout`; 0: the division of the dataset, if it has one.

    Raises:
        UserError: see `split_holdout`, or the dataset holds out all of its frames.
    """
    if holdout or dataset.splits is None:
        if dataset.splits is not None:
            logger.warning("%s: --holdout %d replaces the dataset's own split", dataset.name, holdout)
        return split_holdout(len(dataset), holdout)
    chosen = {
        split: [i for i, of_frame in enumerate(dataset.splits) if of_frame == split]
        for split in (HELD_OUT, TRAINING)
    }
    if not chosen[TRAINING]:
        raise UserError(f"{dataset.name}: the dataset's own split leaves no frame to map; correct its lists")
    return chosen[HELD_OUT], chosen[TRAINING]


def split_holdout(count: int, holdout: int) -> tuple[list[int], list[int]]:
    """Indices of held-out frames and of the others.

    The middle frame of each run of `holdout` frames is held out; 0 holds out none.

    Raises:
        UserError: `holdout` is 1 or negative, or no frame is held out.
    """
    if holdout == 0:
        return [], list(range(count))
    if holdout < 2:
        raise UserError(
            f"--holdout {holdout}: give 2 or more (8 keeps every 8th frame for the evaluation), or 0"
        )
    held_out = [i for i in range(count) if i % holdout == holdout // 2]
    if not held_out:
        raise UserError(f"--holdout {holdout}: the dataset has {count} frames only; give a smaller number")
    return held_out, [i for i in range(count) if i % holdout != holdout // 2]


def assign_splits(document: dict, frames: list, views: list[View | None], path: Path) -> list[View | None]:
    """Splits the views by `train_filenames`, `val_filenames` and `test_filenames`, as in nerfstudio.

    Without `train_filenames`, frames in none of the lists are for training; with it they are left out.

    Args:
        document: content of the JSON file.
        frames: its frames.
        views: the view of each frame; None: its photograph is missing.
        path: the JSON file, to name in errors.

    Raises:
        UserError: a list is malformed, or names an image that is no frame.
    """
    lists = {key: document[key] for key in _LISTS if document.get(key) is not None}
    if not lists:
        return views
    names = [_normalized(frame["file_path"]) for frame in frames]
    splits: dict[str, str] = {}
    for key, listed in lists.items():
        if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
            raise UserError(f"{path}: {key} is not a list of file names")
        unknown = sorted({_normalized(name) for name in listed} - set(names))
        if unknown:
            raise UserError(
                f"{path}: {key} lists {unknown[0]}, which is the file_path of no frame; correct the list"
            )
        for name in listed:
            splits.setdefault(_normalized(name), _LISTS[key])
    rest = LEFT_OUT if "train_filenames" in lists else TRAINING
    chosen = [splits.get(name, rest) for name in names]
    left_out = Counter(chosen)[LEFT_OUT]
    if left_out:
        logger.warning(
            "%s: %d of %d frames are in none of its lists and are left out", path, left_out, len(views)
        )
    return [view and replace(view, split=split) for view, split in zip(views, chosen, strict=True)]


def _normalized(name: str) -> str:
    """A file name by which lists and frames are compared."""
    return os.path.normpath(name.replace("\\", "/"))
