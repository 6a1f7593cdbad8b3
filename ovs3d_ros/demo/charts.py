"""The two charts of the contact sheet: the room from above, and presence bars."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ovs3d_ros.demo.report import PromptReport
from ovs3d_ros.geometry import box_corners
from ovs3d_ros.map_frame import points_to_world
from ovs3d_ros.types import MapSnapshot, SemanticObject
from ovs3d_ros.visualization.pictures import label_colors
from ovs3d_ros.visualization.point_cloud import point_columns

PAPER, INK, FAINT, RULE = (250, 250, 248), (34, 36, 40), (120, 124, 130), (222, 222, 218)
GROUND = (226, 229, 233)
YES, UNSURE, NO, WRONG = (58, 141, 96), (222, 170, 62), (150, 154, 160), (200, 62, 52)
_TOP_SHARE = 0.85  # of the mean camera height; Gaussians above it would hide the room
_MIN_OPACITY = 0.3
_MARGIN = 0.03  # around the room, share of the drawing
_PLATE_HEIGHT = 22  # pixels, of a name
_MAX_FOOTPRINT = 0.3  # share of the drawing; larger boxes (floor, wall) are left out, as they hide the rest


class _FloorPlan:
    """Projects world x, y to pixels of a drawing in which y points up."""

    def __init__(self, points: np.ndarray, width: int, height: int) -> None:
        low, high = np.percentile(points[:, :2], [1, 99], axis=0)
        self.scale = (1 - 2 * _MARGIN) * min(width / (high[0] - low[0]), height / (high[1] - low[1]))
        self._middle = (low + high) / 2
        self._center = np.array([width, height]) / 2

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Pixels [..., 2] of world points [..., 2+]."""
        return self._center + (np.asarray(points)[..., :2] - self._middle) * self.scale * [1, -1]


def draw_room(
    snapshot: MapSnapshot, objects: Sequence[SemanticObject], width: int, height: int
) -> np.ndarray:
    """Draws the map from above (z is up), with the camera path and a box and a name for each object.

    Args:
        snapshot: the map.
        objects: objects to draw, each in the colour of its label.
        width: of the drawing, pixels.
        height: of the drawing, pixels.
    """
    g = snapshot.gaussians
    ceiling = float(snapshot.camtoworlds[:, 2, 3].mean()) / _TOP_SHARE
    means = points_to_world(g["means"].cpu().numpy(), snapshot.frame)
    opacities = g["opacities"].cpu().numpy()
    visible = np.flatnonzero((opacities > _MIN_OPACITY) & (means[:, 2] < ceiling))
    visible = visible[np.argsort(means[visible, 2])]  # painter's order: the highest last
    points, rgb = point_columns(snapshot, visible)
    points = points_to_world(points, snapshot.frame)
    radii = g["scales"].cpu().numpy()[visible].max(axis=1) / snapshot.frame.unit
    plan = _FloorPlan(points, width, height)
    picture = np.full((height, width, 3), GROUND, np.uint8)
    for center, radius, color in zip(plan(points).round().astype(int), radii, rgb, strict=True):
        size = int(np.clip(round(1.2 * radius * plan.scale), 1, 12))
        cv2.circle(picture, tuple(int(v) for v in center), size, color.tolist(), -1)
    path = plan(snapshot.camtoworlds[:, :3, 3])
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    draw.line([tuple(p) for p in path], fill=INK, width=3, joint="curve")
    draw.ellipse((*(path[-1] - 6), *(path[-1] + 6)), fill=INK)
    colors = label_colors(max([item.label for item in objects], default=0))
    plates = []
    for item in objects:
        footprint = plan(_footprint(item))
        if cv2.contourArea(footprint.astype(np.float32)) < _MAX_FOOTPRINT * width * height:
            plates.append((item.prompt, plan(item.center), colors[item.label]))
            draw.polygon(
                [tuple(p) for p in footprint], outline=tuple(int(c) for c in colors[item.label]), width=3
            )
    _write_names(draw, plates, width, height)
    return np.asarray(image)


def _footprint(item: SemanticObject) -> np.ndarray:
    """Corners [4, 2] of the smallest floor rectangle that contains the box's vertical projection."""
    shadow = box_corners(item.center, item.size, item.quat)[:, :2].astype(np.float32)
    return cv2.boxPoints(cv2.minAreaRect(shadow))


def _write_names(
    draw: ImageDraw.ImageDraw, names: list[tuple[str, np.ndarray, np.ndarray]], width: int, height: int
) -> None:
    """Writes each name on a plate near its object; see `_place_plates`."""
    font = ImageFont.load_default(15)
    names = sorted(names, key=lambda item: item[1][1])
    widths = [font.getlength(text) + 12 for text, _, _ in names]
    places = _place_plates([place for _, place, _ in names], widths, width, height)
    for (text, _, color), wide, (x, y) in zip(names, widths, places, strict=True):
        draw.rounded_rectangle(
            (x, y, x + wide, y + _PLATE_HEIGHT), 5, fill=tuple(int(0.55 * c) for c in color)
        )
        draw.text((x + 6, y + _PLATE_HEIGHT / 2), text, fill=(255, 255, 255), font=font, anchor="lm")


def _place_plates(
    centers: Sequence[np.ndarray], widths: Sequence[float], width: int, height: int
) -> list[tuple[float, float]]:
    """Chooses the upper left corners of plates, inside the picture and near their centres.

    A plate moves down or up to the nearest place where it covers no other. It covers one only if its column
    is full.
    """
    corners: list[tuple[float, float]] = []
    for center, wide in zip(centers, widths, strict=True):
        x = float(np.clip(center[0] - wide / 2, 2, max(2, width - wide - 2)))
        heights = np.arange(2.0, max(3, height - _PLATE_HEIGHT - 1))
        rivals = [
            top
            for (left, top), other in zip(corners, widths, strict=False)
            if x < left + other and x + wide > left
        ]
        is_free = np.all([np.abs(heights - top) >= _PLATE_HEIGHT for top in (np.inf, *rivals)], axis=0)
        distances = np.abs(heights - (center[1] - _PLATE_HEIGHT / 2))
        corners.append((x, float(heights[np.argmin(distances + 1e6 * ~is_free)])))
    return corners


def draw_presence(
    present: Sequence[PromptReport], absent: Sequence[PromptReport], threshold: float, width: int, height: int
) -> np.ndarray:
    """Draws presence bars for things in the room and for absent things; yellow is unsure, red is wrong.

    Args:
        present: results for the things in the room.
        absent: results for the absent things.
        threshold: presence from which a thing counts as found.
        width: of the drawing, pixels.
        height: of the drawing, pixels.
    """
    image = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(image)
    lists = (
        (f"In the room: {_count(present)}", present),
        (f"Not in the room: {_count(absent)}", absent),
    )
    step = min(30.0, (height - 44) / max(len(present), len(absent), 1))
    for column, (title, questions) in enumerate(lists):
        left = column * (width / 2 + 10)
        draw.text((left, 14), title, fill=INK, font=ImageFont.load_default(19), anchor="lm")
        for row, question in enumerate(sorted(questions, key=lambda q: -q.presence)):
            _draw_bar(draw, question, (left, 44 + (row + 0.5) * step), width / 2 - 20, threshold)
    return np.asarray(image)


def _count(questions: Sequence[PromptReport]) -> str:
    unsure = sum(q.verdict == "unsure" for q in questions)
    return f"{sum(q.found for q in questions)} of {len(questions)} found, {unsure} unsure"


def _draw_bar(
    draw: ImageDraw.ImageDraw,
    question: PromptReport,
    place: tuple[float, float],
    width: float,
    threshold: float,
) -> None:
    x, y = place
    font = ImageFont.load_default(15)
    color = WRONG if question.wrong else {"yes": YES, "unsure": UNSURE, "no": NO}[question.verdict]
    start, end = x + 0.36 * width, x + 0.78 * width
    draw.text((x, y), question.prompt, fill=WRONG if question.wrong else INK, font=font, anchor="lm")
    draw.rounded_rectangle((start, y - 7, end, y + 7), 4, fill=RULE)
    if question.presence > 0.01:
        draw.rounded_rectangle(
            (start, y - 7, start + question.presence * (end - start), y + 7), 4, fill=color
        )
    mark = start + threshold * (end - start)
    draw.line((mark, y - 9, mark, y + 9), fill=INK, width=1)
    note = f"{question.presence:.2f}" + (f"  IoU {question.iou:.2f}" if question.iou is not None else "")
    draw.text((end + 8, y), note, fill=FAINT, font=font, anchor="lm")
