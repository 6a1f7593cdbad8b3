"""Finds a dataset's ground truth: index PNGs in `labels/`, 3D-OVS `segmentations/`, lerf_ovs `label/`."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

from ovs3d_ros.datasets.dataset import View
from ovs3d_ros.datasets.lerf import find_annotations, read_annotations
from ovs3d_ros.datasets.text import read_text
from ovs3d_ros.types import UserError

_IMAGE_FOLDER = re.compile(r"images(_\d+)?")
MAX_LABEL = 65535  # the largest index in a 16-bit PNG
_UNLABELLED_NAMES = frozenset({"unlabelled", "unlabeled", "unknown", "none", "void", "ignore"})


def attach_labels(root: Path, views: list[View]) -> tuple[list[View], list[str] | None]:
    """Finds the labels of a dataset.

    There are two layouts:

    - `labels/<path of the image below images/>.png`, or `labels/<image stem>.png` if no two images share the
      stem, with a `classes.txt` of `index name` lines in `labels/` or beside it;
    - that of 3D-OVS, `segmentations/<view index>/<class>.png`, with a class name per line of `classes.txt`.

    A view keeps the label file that its reader found.

    Args:
        root: folder of the dataset.
        views: views of the dataset, in order.

    Returns:
        The views with their label files, and the class names by index (None without labels).

    Raises:
        UserError: `classes.txt` is missing or broken, masks are missing, both layouts are present, or a label
            image may belong to several images.
    """
    segmentations, shared = root / "segmentations", _shared_stems(views)
    views = [
        view if view.label_path else replace(view, label_path=_label_path(root, view.image_path, shared))
        for view in views
    ]
    labelled = any(view.label_path for view in views)
    if labelled and segmentations.is_dir():
        raise UserError(f"{root}: has both labels and segmentations/; keep one of them")
    if labelled:
        return views, read_classes(root)
    if segmentations.is_dir():
        return _attach_segmentations(segmentations, views)
    return views, None


def _shared_stems(views: list[View]) -> set[str]:
    """File stems of several images, for example of two cameras with a folder each."""
    counts = Counter(path.stem for path in {view.image_path for view in views})
    return {stem for stem, count in counts.items() if count > 1}


def _label_path(root: Path, image: Path, shared: set[str]) -> Path | None:
    """The label image of a photograph, or None."""
    folder = root / "labels"
    flat = folder / f"{image.stem}.png"
    if image.is_relative_to(root):
        below = image.relative_to(root)
        if _IMAGE_FOLDER.fullmatch(below.parts[0]):
            below = below.relative_to(below.parts[0])
        own = folder / below.parent / flat.name
        if own.is_file():
            return own
    if not flat.is_file():
        return None
    if image.stem in shared:
        raise UserError(
            f"{flat}: several images are named {image.stem}; put their labels into the subfolders of labels/ "
            "that the images have below images/"
        )
    return flat


def attach_annotations(root: Path, views: list[View]) -> list[View]:
    """Finds the annotations of named objects, see `lerf`, by the file name of their image without its suffix.

    Raises:
        UserError: an annotation cannot be used, its image is not in the dataset or shares its name with
            another image, or there are annotations in two places.
    """
    folder = find_annotations(root)
    if folder is None:
        return views
    found = {Path(annotated.image).stem: annotated for annotated in read_annotations(folder)}
    stems, shared = {view.image_path.stem for view in views}, _shared_stems(views)
    for stem, annotated in found.items():
        if stem not in stems:
            raise UserError(
                f"{annotated.path}: annotates {annotated.image}, which is none of the {len(views)} posed "
                f"images of {root}; add its pose, or move the annotation elsewhere"
            )
        if stem in shared:
            raise UserError(
                f"{annotated.path}: annotates {annotated.image}, and several images are named {stem}; give "
                "them different names"
            )
    return [replace(view, annotated=found.get(view.image_path.stem)) for view in views]


def read_classes(root: Path) -> list[str]:
    """Class names by index from `labels/classes.txt` or `classes.txt`; index 0 is "" (unlabelled).

    Raises:
        UserError: the file is missing, a line is malformed or repeated, or a class has the index 0.
    """
    candidates = [root / "labels" / "classes.txt", root / "classes.txt"]
    path = next((candidate for candidate in candidates if candidate.is_file()), None)
    if path is None:
        raise UserError(
            f"{root}: labels need a classes.txt of 'index name' lines (0 = unlabelled); none found"
        )
    names: dict[int, str] = {}
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        index, name = (*line.split(maxsplit=1), "")[:2]
        name = name.strip()
        if not (index.isascii() and index.isdigit() and int(index) <= MAX_LABEL and name):
            raise UserError(f"{path}:{number}: {line.strip()!r} is not 'index name'")
        if int(index) in names or name in names.values():
            raise UserError(f"{path}:{number}: index {index} or name {name!r} occurs twice")
        names[int(index)] = name
    if names.get(0, "void").lower() not in _UNLABELLED_NAMES:
        raise UserError(
            f"{path}: index 0 means unlabelled but is named {names[0]!r}; number the classes from 1"
        )
    names.pop(0, None)
    if not names:
        raise UserError(f"{path}: lists no classes; write 'index name' lines, counted from 1")
    return [names.get(index, "") for index in range(max(names) + 1)]


def _attach_segmentations(folder: Path, views: list[View]) -> tuple[list[View], list[str]]:
    """The 3D-OVS layout: class i + 1 is the i-th name in sorted order (as in the code of 3D-OVS)."""
    path = folder / "classes.txt"
    names = sorted(line.strip() for line in read_text(path).splitlines() if line.strip())
    if not names or len(set(names)) != len(names) or len(names) > MAX_LABEL:
        raise UserError(f"{path}: expected one distinct class name per line")
    views = list(views)
    for view_folder in sorted(p for p in folder.glob("[!.]*") if p.is_dir()):
        if not (view_folder.name.isascii() and view_folder.name.isdigit()):
            raise UserError(f"{view_folder}: folder names in segmentations/ are view indices such as 07")
        index = int(view_folder.name)
        if index >= len(views):
            raise UserError(f"{view_folder}: there is no view {index}, the dataset has {len(views)}")
        masks = tuple((i, view_folder / f"{name}.png") for i, name in enumerate(names, start=1))
        for _, mask in masks:
            if not mask.is_file():
                raise UserError(
                    f"{mask}: no such file, but {path} lists that class; every view needs every class"
                )
        views[index] = replace(views[index], class_masks=masks)
    return views, ["", *names]
