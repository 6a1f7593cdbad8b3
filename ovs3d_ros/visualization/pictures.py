"""Pictures: label overlays, legends, depth and feature colours, contact sheets.

All functions are pure and work on arrays; images are RGB uint8 [H, W, 3]. Text uses the font that Pillow
ships, which has Latin letters only.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

# Easy to tell apart on screen and in print.
_PALETTE = (
    (228, 87, 46),
    (23, 163, 152),
    (243, 167, 18),
    (108, 99, 255),
    (118, 176, 65),
    (225, 92, 168),
    (63, 167, 214),
    (161, 94, 73),
    (155, 93, 229),
    (198, 214, 61),
)
_GOLDEN_RATIO = 0.6180339887498949  # hue step beyond the palette; keeps successive hues far apart
_NONE = (128, 128, 128)
_PAPER, _INK, _FAINT = (250, 250, 248), (34, 36, 40), (120, 124, 130)
_TINT = 0.62  # share of the label's colour in an overlay
_DIM = 0.7  # brightness of pixels without a label


def label_colors(count: int) -> np.ndarray:
    """Colours of labels 0..count, RGB uint8 [count + 1, 3]; 0 (none) is grey.

    A colour does not depend on `count`.
    """
    more = [
        tuple(round(255 * c) for c in colorsys.hsv_to_rgb((0.02 + i * _GOLDEN_RATIO) % 1.0, 0.65, 0.92))
        for i in range(max(0, count - len(_PALETTE)))
    ]
    return np.array([_NONE, *_PALETTE[:count], *more], dtype=np.uint8)


def to_uint8(rgb: np.ndarray) -> np.ndarray:
    """Converts floats in 0..1 [H, W, 3] to uint8."""
    return np.clip(np.asarray(rgb) * 255.0 + 0.5, 0, 255).astype(np.uint8)


def resize_labels(labels: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resizes labels [H, W] with smooth outlines: a pixel takes the label with the largest weight.

    Weights are interpolated from the pixels of the input.
    """
    values = np.unique(labels)
    shares = [
        cv2.resize((labels == value).astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
        for value in values
    ]
    return values[np.argmax(shares, axis=0)]


def overlay(image: np.ndarray, labels: np.ndarray, width: int = 0) -> np.ndarray:
    """Tints and outlines labelled pixels in their colours, and dims the rest.

    Args:
        image: [H, W, 3] uint8.
        labels: [H, W] 0 = none, else 1-based label.
        width: of the result in pixels, 0 = that of the image.
    """
    if width and width != image.shape[1]:
        height = max(1, round(image.shape[0] * width / image.shape[1]))
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)
        labels = resize_labels(labels, width, height)
    colors = label_colors(int(labels.max(initial=0)))
    grey = image.mean(axis=2, keepdims=True)
    rest = _DIM * (0.5 * image + 0.5 * grey)
    # The tint follows the brightness of the image, so that shading stays visible.
    shaded = colors[labels] * (0.6 + 0.4 * grey / 255.0)
    mixed = np.where((labels > 0)[..., None], (1 - _TINT) * image + _TINT * shaded, rest)
    picture = np.clip(mixed, 0, 255).astype(np.uint8)
    thickness = max(1, round(image.shape[1] / 400))
    for label in np.unique(labels[labels > 0]):
        outlines, _ = cv2.findContours(
            (labels == label).astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE
        )
        cv2.drawContours(picture, outlines, -1, colors[label].tolist(), thickness, cv2.LINE_AA)
    return picture


def depth_range(depths: Sequence[np.ndarray]) -> tuple[float, float]:
    """Near and far in metres for a common colour scale: 2nd and 98th percentile of all depths (0 = none)."""
    values = np.concatenate([np.asarray(depth)[np.asarray(depth) > 0] for depth in depths] or [np.zeros(0)])
    if not len(values):
        return 0.0, 1.0
    near, far = np.percentile(values, [2, 98])
    return float(near), float(max(far, near + 1e-3))


def color_depth(depth: np.ndarray, near: float, far: float) -> np.ndarray:
    """Colours depth [H, W] in metres: near is bright yellow, far is dark violet, none is black."""
    share = np.clip((far - depth) / (far - near), 0.0, 1.0)
    picture = cv2.applyColorMap((255 * share).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    return np.where((depth > 0)[..., None], picture, 0).astype(np.uint8)


@dataclass(frozen=True, slots=True)
class FeatureColors:
    """Maps codes to RGB by three principal directions; similar features look alike in every view.

    Attributes:
        mean: [C] mean of the fitted codes.
        axes: [C, 3] principal directions.
        low: [3] projection that becomes dark.
        high: [3] projection that becomes bright.
    """

    mean: np.ndarray
    axes: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def fit(cls, codes: np.ndarray) -> FeatureColors:
        """Fits the directions to unit codes [N, C]; zero rows (no feature) are ignored."""
        codes = np.asarray(codes, np.float64)
        codes = codes[np.abs(codes).sum(axis=1) > 0]
        if len(codes) == 0:
            codes = np.zeros((1, codes.shape[1]))
        mean = codes.mean(axis=0)
        centred = codes - mean
        _, vectors = np.linalg.eigh(centred.T @ centred)
        axes = np.zeros((codes.shape[1], 3))
        count = min(3, codes.shape[1])
        axes[:, :count] = vectors[:, ::-1][:, :count]
        low, high = np.percentile(centred @ axes, [2, 98], axis=0)
        return cls(mean, axes, low, np.maximum(high, low + 1e-6))

    def paint(self, codes: np.ndarray) -> np.ndarray:
        """Paints unit codes [H, W, C] as RGB uint8 [H, W, 3]; zero codes are black."""
        values = ((np.asarray(codes, np.float64) - self.mean) @ self.axes - self.low) / (self.high - self.low)
        soft = to_uint8(0.08 + 0.84 * np.clip(values, 0, 1))
        return np.where((np.abs(codes).sum(axis=-1) > 0)[..., None], soft, 0).astype(np.uint8)


def text_width(text: str, size: int) -> int:
    """Width in pixels of a line of text at a font size in pixels."""
    return int(np.ceil(_font(size).getlength(text)))


def add_legend(
    image: np.ndarray, entries: Sequence[tuple[str, Sequence[int]]], title: str = ""
) -> np.ndarray:
    """Adds a strip below the image with a colour swatch and a text per entry; lines wrap to the image width.

    Args:
        image: [H, W, 3].
        entries: (text, RGB) pairs.
        title: text before the first entry, without a swatch.
    """
    size = _text_size(image.shape[1])
    pad, row = round(0.8 * size), round(1.75 * size)
    items = [(title, None)] if title else []
    items += [
        (_shorten(text, size, image.shape[1] - 4 * pad), tuple(int(c) for c in color))
        for text, color in entries
    ]
    placed, x, y = [], pad, 0
    for text, color in items:
        width = text_width(text, size) + (round(1.5 * size) if color else 0)
        if x > pad and x + width > image.shape[1] - pad:
            x, y = pad, y + row
        placed.append((x, y, text, color))
        x += width + 2 * pad
    strip = Image.new("RGB", (image.shape[1], y + row + pad if placed else 0), _PAPER)
    draw, font = ImageDraw.Draw(strip), _font(size)
    for x, y, text, color in placed:
        middle = pad // 2 + y + row // 2
        if color:
            draw.rounded_rectangle(
                (x, middle - size // 2, x + size, middle + size // 2), size // 4, fill=color
            )
            x += round(1.5 * size)
        draw.text((x, middle), text, fill=_INK if color else _FAINT, font=font, anchor="lm")
    return np.concatenate([image, np.asarray(strip)], axis=0) if placed else image.copy()


def add_caption(image: np.ndarray, text: str) -> np.ndarray:
    """Writes a caption on a translucent plate in the upper left corner of the image."""
    size = _text_size(image.shape[1])
    pad = round(0.5 * size)
    text = _shorten(text, size, image.shape[1] - 4 * pad)
    base = Image.fromarray(image).convert("RGBA")
    plate = Image.new("RGBA", base.size, (0, 0, 0, 0))
    draw = ImageDraw.Draw(plate)
    box = (pad, pad, 3 * pad + text_width(text, size), 3 * pad + size)
    draw.rounded_rectangle(box, pad, fill=(18, 20, 24, 170))
    draw.text(
        (2 * pad, (box[1] + box[3]) / 2), text, fill=(255, 255, 255, 255), font=_font(size), anchor="lm"
    )
    return np.asarray(Image.alpha_composite(base, plate).convert("RGB"))


def contact_sheet(
    images: Sequence[np.ndarray],
    captions: Sequence[str] = (),
    columns: int = 3,
    width: int = 1600,
    headline: str = "",
    note: str = "",
) -> np.ndarray:
    """Arranges pictures in a grid on a light background.

    Args:
        images: pictures of any size; each is scaled to the width of its column.
        captions: one line below each picture, or empty.
        columns: pictures per row.
        width: of the sheet in pixels.
        headline: a large line above.
        note: smaller text below the headline; newlines separate its lines.

    Raises:
        ValueError: no pictures, or the number of captions differs from the number of pictures.
    """
    if not len(images) or (len(captions) and len(captions) != len(images)):
        raise ValueError(f"{len(images)} pictures with {len(captions)} captions")
    columns = min(columns, len(images))
    gap = max(8, width // 80)
    cell = (width - gap * (columns + 1)) // columns
    size, big = max(12, width // 85), max(18, width // 42)
    tiles = [_fit_width(image, cell) for image in images]
    head = (round(1.6 * big) if headline else 0) + round(1.5 * size) * len(note.splitlines())
    rows = [tiles[i : i + columns] for i in range(0, len(tiles), columns)]
    foot = round(1.9 * size) if len(captions) else 0
    heights = [max(tile.shape[0] for tile in row) + foot for row in rows]
    top = gap + (head + gap // 2 if head else 0)
    sheet = Image.new("RGB", (width, top + sum(heights) + gap * len(rows)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    if headline:
        draw.text((gap, gap + 0.7 * big), headline, fill=_INK, font=_font(big), anchor="lm")
    for i, line in enumerate(note.splitlines()):
        y = gap + (1.6 * big if headline else 0) + 1.5 * size * (i + 0.5)
        draw.text((gap, y), line, fill=_FAINT, font=_font(size), anchor="lm")
    for i, tile in enumerate(tiles):
        r, c = divmod(i, columns)
        x, y = gap + c * (cell + gap), top + sum(heights[:r]) + gap * r
        sheet.paste(Image.fromarray(tile), (x, y))
        if len(captions):
            text = _shorten(captions[i], size, cell)
            draw.text((x, y + tile.shape[0] + foot / 2), text, fill=_INK, font=_font(size), anchor="lm")
    return np.asarray(sheet)


def _fit_width(image: np.ndarray, width: int) -> np.ndarray:
    height = max(1, round(image.shape[0] * width / image.shape[1]))
    shrinks = width < image.shape[1]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)


def _text_size(width: int) -> int:
    return int(np.clip(width / 36, 11, 30))


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _shorten(text: str, size: int, width: int) -> str:
    """Cuts the text and adds dots when it is wider than `width` pixels."""
    if text_width(text, size) <= width:
        return text
    while text and text_width(text + "...", size) > width:
        text = text[:-1]
    return text + "..."
