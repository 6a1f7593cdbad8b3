"""Reads mask annotations of named objects, as LangSplat published them for the scenes of LERF (`lerf_ovs`).

One JSON file per annotated image: `info` holds the image's `name`, `width` and `height`, and each of
`objects` a `category`, a polygon `segmentation` [[x, y], ...] and a box `bbox` [x1, y1, x2, y2], in pixels of
that image. Masks of different categories may overlap, so they are not a label image. A category that occurs
several times has one mask and several boxes. Polygons are filled as in the evaluation of LangSplat, so that
the masks are the same: coordinates are truncated to whole pixels, and the outline belongs to the object.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ovs3d_ros.datasets.text import finite_number, read_json_object
from ovs3d_ros.types import Annotation, UserError


@dataclass(frozen=True, slots=True)
class Outline:
    """One object of one image, in pixels of the annotated image.

    Attributes:
        category: the name of the object.
        polygon: [P, 2] x, y of the corners.
        box: [4] x1, y1, x2, y2, both corners inclusive.
    """

    category: str
    polygon: np.ndarray
    box: np.ndarray


@dataclass(frozen=True, slots=True)
class AnnotatedImage:
    """The annotations of one image.

    Attributes:
        path: the JSON file.
        image: file name of the image.
        width: width of the annotated image in pixels.
        height: height of the annotated image in pixels.
        outlines: the objects.
    """

    path: Path
    image: str
    width: int
    height: int
    outlines: tuple[Outline, ...]

    def draw(self) -> dict[str, Annotation]:
        """Masks and boxes by category, at the size of the annotated image."""
        empty = np.zeros((self.height, self.width), dtype=bool)
        drawn: dict[str, Annotation] = {}
        for outline in self.outlines:
            annotation = drawn.setdefault(outline.category, Annotation(empty.copy(), empty.copy()))
            annotation.mask[self._fill_polygon(outline.polygon)] = True
            annotation.boxes[self._fill_box(outline.box)] = True
        return drawn

    def _fill_polygon(self, polygon: np.ndarray) -> np.ndarray:
        """The polygon as [height, width] bool."""
        canvas = np.zeros((self.height, self.width), dtype=np.uint8)
        return cv2.fillPoly(canvas, [polygon.astype(np.int32)], 1) > 0

    def _fill_box(self, box: np.ndarray) -> np.ndarray:
        """The pixels [height, width] bool whose integer coordinates lie in the box."""
        (left, right), (top, bottom) = np.sort(box[0::2]), np.sort(box[1::2])
        columns, rows = np.arange(self.width), np.arange(self.height)[:, None]
        return (columns >= left) & (columns <= right) & (rows >= top) & (rows <= bottom)


def find_annotations(root: Path) -> Path | None:
    """The folder of a scene's annotations: its `label/`, or `label/<scene>/` beside it; or None.

    Raises:
        UserError: both folders exist.
    """
    root = root.resolve()
    inside, beside = root / "label", root.parent / "label" / root.name
    found = [folder for folder in (inside, beside) if any(folder.glob("[!.]*.json"))]
    if len(found) > 1:
        raise UserError(f"{root}: has annotations in {inside} and in {beside}; keep one of them")
    return found[0] if found else None


def read_annotations(folder: Path) -> list[AnnotatedImage]:
    """Reads all annotations in a folder.

    Raises:
        UserError: a file cannot be used, or two files annotate one image; names file, object and remedy.
    """
    annotated = [_read(path) for path in sorted(folder.glob("[!.]*.json"))]
    files: dict[str, Path] = {}
    for entry in annotated:
        other = files.setdefault(Path(entry.image).stem, entry.path)
        if other != entry.path:
            raise UserError(
                f"{entry.path}: annotates {entry.image}, and so does {other.name}; keep one of them"
            )
    return annotated


def _read(path: Path) -> AnnotatedImage:
    document = read_json_object(path)
    info, objects = document.get("info"), document.get("objects")
    if not isinstance(info, dict) or not isinstance(objects, list):
        raise UserError(
            f"{path}: expected 'info' and 'objects' as in lerf_ovs; fix it, or move it out of the folder "
            "if it is not an annotation"
        )
    name = info.get("name")
    if not isinstance(name, str) or not name:
        raise UserError(f"{path}: info.name is {name!r}; give the file name of the image that was annotated")
    width, height = (_side(info.get(key), f"{path}: info.{key}") for key in ("width", "height"))
    outlines = [_outline(value, f"{path}: object {i}", width, height) for i, value in enumerate(objects)]
    return AnnotatedImage(path, name, width, height, tuple(outlines))


def _side(value: object, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 1 or value % 1 != 0:
        raise UserError(
            f"{where} is {value!r}; give the size of the image that was annotated in whole pixels"
        )
    return int(value)


def _outline(value: object, where: str, width: int, height: int) -> Outline:
    if not isinstance(value, dict):
        raise UserError(f"{where} is {value!r}; expected category, segmentation and bbox")
    category = value.get("category")
    if not isinstance(category, str) or not category.strip():
        raise UserError(f"{where}: category is {category!r}; give the name of the object")
    where = f"{where} ({category.strip()})"
    rows = value.get("segmentation")
    if not isinstance(rows, list) or not all(isinstance(row, list) and len(row) == 2 for row in rows):
        raise UserError(
            f"{where}: segmentation is not a list of [x, y] points; give the corners of one polygon"
        )
    if len(rows) < 3:
        raise UserError(
            f"{where}: segmentation has {len(rows)} points, and a polygon needs at least 3; draw the object "
            "again or remove it"
        )
    polygon = np.array([[finite_number(v, f"{where}: segmentation") for v in row] for row in rows])
    if (polygon.max(0) < 0).any() or (polygon.min(0) >= (width, height)).any():
        raise UserError(
            f"{where}: lies outside of the {width}x{height} image; fix info or the coordinates of the object"
        )
    box = value.get("bbox")
    if not isinstance(box, list) or len(box) != 4:
        raise UserError(f"{where}: bbox is {box!r}; give [x1, y1, x2, y2] in pixels")
    return Outline(category.strip(), polygon, np.array([finite_number(v, f"{where}: bbox") for v in box]))
