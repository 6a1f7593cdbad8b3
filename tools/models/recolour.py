"""Gives single objects in an image another colour, so that training sees every shape in every colour.

Without it the image tower learns "red mug" instead of "red" and "mug", and does not recognise pairs that were
never rendered. The model of a surface is its colour times a grey shading. Parts with another hue than the
object (a steel handle, a white dial, a highlight) stay as they are.
"""

from __future__ import annotations

import colorsys
import functools

import captions
import numba
import numpy as np
from vocabulary import HELD_OUT_PAIRS, HSV_RANGES, NOUNS

NEUTRAL = ("white", "grey")
_LINEAR = np.where(
    np.arange(256) <= 10.31, np.arange(256) / 255 / 12.92, ((np.arange(256) / 255 + 0.055) / 1.055) ** 2.4
)
_STEPS = 4096
_ENCODED = np.round(
    255
    * np.where((v := np.linspace(0, 1, _STEPS + 1)) <= 0.0031308, 12.92 * v, 1.055 * v ** (1 / 2.4) - 0.055)
).astype(np.uint8)


@functools.cache
def allowed(noun: str) -> list[int]:
    """Codes of the colours that an object of this noun may get: those of the noun without held-out pairs."""
    return [
        captions.COLOURS.index(colour)
        for colour in NOUNS[noun].colours
        if (colour, noun) not in HELD_OUT_PAIRS
    ]


def sample(colour: str, rng) -> np.ndarray:
    """Draws a linear RGB triple [3] that people call by this name."""
    hue, saturation, value = (rng.uniform(*limits) for limits in HSV_RANGES[colour])
    return _to_linear(colorsys.hsv_to_rgb(hue / 360 % 1, saturation, value))


def between(noun: str, rng) -> np.ndarray:
    """Draws any linear RGB triple [3] except the colours in which the noun is held out of training.

    With named colours only, a classifier learns the gaps, for example that a red object cannot be a mug.
    """
    while True:
        hue, saturation, value = rng.uniform(0, 360), rng.uniform(0, 1) ** 0.7, rng.uniform(0.1, 1)
        hidden = (HSV_RANGES[colour] for colour, other in HELD_OUT_PAIRS if other == noun)
        if not any(_within(hue, saturation, value, ranges) for ranges in hidden):
            return _to_linear(colorsys.hsv_to_rgb(hue / 360, saturation, value))


def _within(hue: float, saturation: float, value: float, ranges: tuple) -> bool:
    """Whether a colour lies in the HSV range of a name, or next to it."""
    (low, high), (pale, full), (dark, light) = ranges
    turned = (hue - low) % 360 <= high - low + 6 or (low - hue) % 360 <= 6
    return turned and pale - 0.1 <= saturation <= full + 0.1 and dark - 0.08 <= value <= light + 0.08


def recolour(
    image: np.ndarray, instances: np.ndarray, instance: int, source: str, colour: np.ndarray
) -> None:
    """Changes the colour of one object in place.

    Args:
        image: [H, W, 3] uint8 RGB.
        instances: [H, W] uint8.
        instance: the object, a value of `instances`.
        source: name of its colour; not black, whose shading is lost among reflections.
        colour: linear RGB [3] of the new one.
    """
    own_hue, brightest = _OLD[source]
    _paint(image, instances, instance, own_hue, colour / brightest, _LINEAR, _ENCODED)


@numba.njit
def _paint(image, instances, instance, own_hue, colour, linear, encoded):
    """Paints one object; NaN as `own_hue` means grey.

    `colour` is the new colour divided by the brightness of the old one.
    """
    steps = len(encoded) - 1
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            if instances[y, x] != instance:
                continue
            red, green, blue = linear[image[y, x, 0]], linear[image[y, x, 1]], linear[image[y, x, 2]]
            brightest = max(red, green, blue)
            saturation = 1 - min(red, green, blue) / max(brightest, 1e-4)
            if np.isnan(own_hue):
                own = min(max((0.45 - saturation) / 0.2, 0.0), 1.0)
            else:
                alpha, beta = red - 0.5 * (green + blue), 0.8660254 * (green - blue)
                chroma = max(np.sqrt(alpha * alpha + beta * beta), 1e-5)
                aligned = (alpha * np.cos(own_hue) + beta * np.sin(own_hue)) / chroma
                own = min(max((saturation - 0.15) / 0.2, 0.0), 1.0) * min(
                    max((aligned - 0.6) / 0.2, 0.0), 1.0
                )
            if own == 0:
                continue
            for c, old in enumerate((red, green, blue)):
                mixed = old + own * (brightest * colour[c] - old)
                image[y, x, c] = encoded[int(min(mixed, 1.0) * steps)]


def _to_linear(srgb) -> np.ndarray:
    return np.interp(np.asarray(srgb) * 255, np.arange(256), _LINEAR)


_OLD = {
    name: (np.nan if name in NEUTRAL else np.radians(np.mean(hue)), _to_linear(np.mean(value)))
    for name, (hue, _, value) in HSV_RANGES.items()
}
