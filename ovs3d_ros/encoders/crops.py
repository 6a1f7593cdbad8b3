"""Where a crop pyramid cuts its crops: sizes and corners in numbers, nothing here sees a colour.

A crop is exactly as large as the model's input, for the image is resized once per `Cut`. Relative crops (3D-OVS)
have one side per level; metric ones have side metres * f / z at a pixel of depth z, so a level means the same from near
and far (docs/method.md, "Language features").
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

STEPS_PER_OCTAVE = 2  # of crop sides that share one resized image: within one step, the median decides
MOST_CROPS = 1200  # of one metric level; the finest level of the relative pyramid has 1160 on a 4:3 image
_LEAST_SIDE = 16  # px
_MOST_DIVISOR = 16  # no crop is smaller than the shorter image side over this: there is nothing to see in it


@dataclass(frozen=True, slots=True)
class Cut:
    """Crops of one size: the image is resized to height x width, and crops of the model's input size are taken there.

    Attributes:
        level: of the pyramid.
        height: of the resized image, px.
        width: of the resized image, px.
        corners: (top, left) of each crop in the resized image.
    """

    level: int
    height: int
    width: int
    corners: list[tuple[int, int]]


def crop_starts(length: int, side: int, stride: float) -> list[int]:
    """First pixels of crops of `side` px that cover 0..length, the borders included.

    The crops are spread evenly, at most `stride` sides apart.
    """
    count = math.ceil((length - side) / max(1.0, stride * side) - 1e-9) + 1
    return [round(i * (length - side) / max(1, count - 1)) for i in range(count)]


def relative_cuts(height: int, width: int, side: int, divisors: Sequence[float], stride: float) -> list[Cut]:
    """Crops all over an image, one side per level.

    Args:
        height: of the image, px.
        width: of the image, px.
        side: of the model's input, px.
        divisors: per level, the shorter image side over that of a crop.
        stride: distance between crops, in sides.
    """
    cuts = []
    for level, divisor in enumerate(divisors):
        rows, columns = _resized(height, width, side, min(height, width) / divisor)
        tops, lefts = (crop_starts(length, side, stride) for length in (rows, columns))
        cuts.append(Cut(level, rows, columns, [(top, left) for top in tops for left in lefts]))
    return cuts


def metric_cuts(
    depth: np.ndarray, focal: float, side: int, metres: Sequence[float], stride: float
) -> list[Cut]:
    """Crops whose sides are lengths in the scene.

    Every pixel lies in a crop of each level whose side is that of the pixel's depth, give or take a step of
    `STEPS_PER_OCTAVE`, between `_LEAST_SIDE` and the shorter image side. Crops are set apart more where a level would
    have more than `MOST_CROPS`. A pixel without depth takes that of the nearest one that has it: most holes are small,
    and left uncovered they would count as disagreement of the views.

    Args:
        depth: [H, W] float32 z in metres, 0 = none; of one pixel at least there is one.
        focal: of the image as large as `depth`, px.
        side: of the model's input, px.
        metres: side of a crop, per level.
        stride: distance between crops, in sides.
    """
    pixels_per_metre = focal / _filled(depth)
    most = min(depth.shape)
    least = min(most, max(_LEAST_SIDE, most / _MOST_DIVISOR))
    cuts = []
    for level, length in enumerate(metres):
        sides = np.clip(length * pixels_per_metre, least, most)
        found, apart = _level_cuts(level, sides, side, stride), stride
        while apart < 1.0 and sum(len(cut.corners) for cut in found) > MOST_CROPS:
            apart = min(1.0, 1.2 * apart)
            found = _level_cuts(level, sides, side, apart)
        cuts += found
    return cuts


def _filled(depth: np.ndarray) -> np.ndarray:
    """[H, W] depth whose holes have that of the nearest pixel that was measured."""
    missing = depth <= 0
    if not missing.any():
        return depth
    _, nearest = cv2.distanceTransformWithLabels(
        missing.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    by_label = np.zeros(nearest.max() + 1, depth.dtype)
    by_label[nearest[~missing]] = depth[~missing]
    return by_label[nearest]


def _level_cuts(level: int, sides: np.ndarray, side: int, stride: float) -> list[Cut]:
    """One cut per step of size that occurs among the sides [H, W] in px that pixels ask for.

    The crops of a cut are those of an even grid over the image that are the nearest to a pixel of that step.
    """
    steps = np.round(np.log2(sides) * STEPS_PER_OCTAVE).astype(np.int64)
    cuts = []
    for step in np.unique(steps):
        chosen = steps == step
        size = _resized(*sides.shape, side, float(np.median(sides[chosen])))
        starts = [crop_starts(length, side, stride) for length in size]
        cells = [
            _nearest_crop(count, length, crops, side)
            for count, length, crops in zip(sides.shape, size, starts, strict=True)
        ]
        used = np.zeros([len(crops) for crops in starts], bool)
        rows, columns = np.nonzero(chosen)
        used[cells[0][rows], cells[1][columns]] = True
        corners = [(starts[0][i], starts[1][j]) for i, j in np.argwhere(used)]
        cuts.append(Cut(level, *size, corners))
    return cuts


def _nearest_crop(count: int, length: int, starts: list[int], side: int) -> np.ndarray:
    """[count] index of the crop with the nearest centre, for `count` pixels side by side that became `length`."""
    centres = np.array(starts) + side / 2
    return np.searchsorted((centres[1:] + centres[:-1]) / 2, (np.arange(count) + 0.5) * length / count)


def _resized(height: int, width: int, side: int, wanted: float) -> tuple[int, int]:
    """The image size at which `wanted` pixels have become `side`."""
    factor = side / wanted
    return max(side, round(height * factor)), max(side, round(width * factor))
