"""Planning of crops: their sizes and positions, without reading a colour.

The image is resized once per `CropGroup`, so a crop has exactly the size of the model's input. Relative crops
(3D-OVS) have one side per level. Metric crops have the side metres * f / z at a pixel of depth z, so a level
means the same from near and far (docs/method.md, "Language features").
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

STEPS_PER_OCTAVE = 2  # crops whose sides fall into one step share a resized image, sized for their median
MAX_LEVEL_CROPS = 1200  # per metric level; the finest level of the relative pyramid has 1160 on a 4:3 image
_MIN_SIDE = 16  # px
_MAX_DIVISOR = 16  # a crop is at least the shorter image side over this; smaller ones show nothing


@dataclass(frozen=True, slots=True)
class CropGroup:
    """Crops of one size, taken from one resized image.

    Attributes:
        level: index of the pyramid level.
        height: height of the resized image, px.
        width: width of the resized image, px.
        corners: (top, left) of each crop in the resized image; a crop has the size of the model's input.
    """

    level: int
    height: int
    width: int
    corners: list[tuple[int, int]]


def crop_starts(length: int, side: int, stride: float) -> list[int]:
    """First pixels of evenly spaced crops of `side` px that cover 0..length, borders included.

    Neighbouring crops are at most `stride` sides apart.
    """
    count = math.ceil((length - side) / max(1.0, stride * side) - 1e-9) + 1
    return [round(i * (length - side) / max(1, count - 1)) for i in range(count)]


def plan_relative_crops(
    height: int, width: int, side: int, divisors: Sequence[float], stride: float
) -> list[CropGroup]:
    """Plans crops all over an image, one side per level.

    Args:
        height: image height, px.
        width: image width, px.
        side: side of the model's input, px.
        divisors: the shorter image side over the side of a crop, per level.
        stride: distance between crops, in sides.
    """
    groups = []
    for level, divisor in enumerate(divisors):
        rows, columns = _resized_size(height, width, side, min(height, width) / divisor)
        tops, lefts = (crop_starts(length, side, stride) for length in (rows, columns))
        groups.append(CropGroup(level, rows, columns, [(top, left) for top in tops for left in lefts]))
    return groups


def plan_metric_crops(
    depth: np.ndarray, focal: float, side: int, metres: Sequence[float], stride: float
) -> list[CropGroup]:
    """Plans crops whose sides are lengths in the scene.

    At each level every pixel lies in a crop whose side fits the pixel's depth, up to one step of
    `STEPS_PER_OCTAVE`. Sides stay between `_MIN_SIDE` and the shorter image side. A level with more than
    `MAX_LEVEL_CROPS` crops gets a larger stride. A pixel without depth takes the depth of the nearest pixel
    that has one: most holes are small, and uncovered holes would count as disagreement between the views.

    Args:
        depth: [H, W] float32 z in metres, 0 = none; at least one pixel has depth.
        focal: focal length for an image of the size of `depth`, px.
        side: side of the model's input, px.
        metres: side of a crop, per level.
        stride: distance between crops, in sides.
    """
    pixels_per_metre = focal / _fill_holes(depth)
    max_side = min(depth.shape)
    min_side = min(max_side, max(_MIN_SIDE, max_side / _MAX_DIVISOR))
    groups = []
    for level, length in enumerate(metres):
        sides = np.clip(length * pixels_per_metre, min_side, max_side)
        level_groups, level_stride = _plan_level(level, sides, side, stride), stride
        while level_stride < 1.0 and sum(len(group.corners) for group in level_groups) > MAX_LEVEL_CROPS:
            level_stride = min(1.0, 1.2 * level_stride)
            level_groups = _plan_level(level, sides, side, level_stride)
        groups += level_groups
    return groups


def _fill_holes(depth: np.ndarray) -> np.ndarray:
    """[H, W] depth; a pixel without depth takes the depth of the nearest pixel that has one."""
    missing = depth <= 0
    if not missing.any():
        return depth
    _, nearest = cv2.distanceTransformWithLabels(
        missing.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    by_label = np.zeros(nearest.max() + 1, depth.dtype)
    by_label[nearest[~missing]] = depth[~missing]
    return by_label[nearest]


def _plan_level(level: int, sides: np.ndarray, side: int, stride: float) -> list[CropGroup]:
    """Plans one group per step of size that occurs among the desired sides [H, W] of all pixels, px.

    An even grid of crops covers the image; the group keeps the crops that are nearest to a pixel of its step.
    """
    steps = np.round(np.log2(sides) * STEPS_PER_OCTAVE).astype(np.int64)
    groups = []
    for step in np.unique(steps):
        in_step = steps == step
        size = _resized_size(*sides.shape, side, float(np.median(sides[in_step])))
        starts = [crop_starts(length, side, stride) for length in size]
        cells = [
            _nearest_crop(count, length, crops, side)
            for count, length, crops in zip(sides.shape, size, starts, strict=True)
        ]
        used = np.zeros([len(crops) for crops in starts], bool)
        rows, columns = np.nonzero(in_step)
        used[cells[0][rows], cells[1][columns]] = True
        corners = [(starts[0][i], starts[1][j]) for i, j in np.argwhere(used)]
        groups.append(CropGroup(level, *size, corners))
    return groups


def _nearest_crop(count: int, length: int, starts: list[int], side: int) -> np.ndarray:
    """[count] index of the crop with the nearest centre, for a row of `count` pixels resized to `length`."""
    centres = np.array(starts) + side / 2
    return np.searchsorted((centres[1:] + centres[:-1]) / 2, (np.arange(count) + 0.5) * length / count)


def _resized_size(height: int, width: int, side: int, crop_side: float) -> tuple[int, int]:
    """Height and width of the image resized so that a crop of `crop_side` pixels becomes one of `side`."""
    factor = side / crop_side
    return max(side, round(height * factor)), max(side, round(width * factor))
