"""Training samples: crops at many scales, and windows of enlarged views with random regions in them."""

from __future__ import annotations

import captions
import cv2
import numpy as np
import torch
import vocabulary
from frames import FrameStore, View

CROP_PX = 64
CELL_PX = 32  # stride of the image tower
WINDOW_CELLS = 5
REGIONS = 10  # per window
SALIENT = np.array([bool(vocabulary.NOUNS[noun].places) for noun in captions.NOUNS])
CROP_SALIENCE, WINDOW_SALIENCE = 6.0, 1.5
"""Weight of a small object's pixels: people name a crop after the object in it, not after the wall behind it. Less in
windows, so that the dense map stays sharp at borders."""


def sample_crop(store: FrameStore, rng) -> tuple[np.ndarray, np.ndarray]:
    """One crop [64, 64, 3] uint8 and the share [K] of each thing in it."""
    view, x, y, side = _square(store, rng)
    image, ids = _cut(view, x, y, side, side * rng.uniform(0.87, 1.15), rng.normal(0, 7), CROP_PX, CROP_PX, rng)
    if rng.random() < 0.2:
        image, ids = _paste(image, ids, store, rng)
    counts = _counts(ids.ravel(), store, CROP_SALIENCE)
    return image, counts / max(counts.sum(), 1e-6)


def sample_window(store: FrameStore, rng) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A window of an enlarged view and random regions of whole cells in it.

    Returns:
        [160, 160, 3] uint8; regions [R, 25] rows of averaging weights over the cells; shares [R, K].
    """
    px = WINDOW_CELLS * CELL_PX
    view, x, y, _ = _square(store, rng)
    side = px / np.exp(rng.uniform(np.log(0.9), np.log(3.4)))
    image, ids = _cut(view, x, y, side, side, 0.0, px, px, rng)
    cells = ids.reshape(WINDOW_CELLS, 8, WINDOW_CELLS, 8).transpose(0, 2, 1, 3).reshape(WINDOW_CELLS ** 2, 64)
    per_cell = np.stack([_counts(cell, store, WINDOW_SALIENCE) for cell in cells])  # [25, K]
    regions = np.zeros((REGIONS, WINDOW_CELLS, WINDOW_CELLS), np.float32)
    for region in regions:
        height, width = np.minimum(WINDOW_CELLS, 1 + rng.geometric(0.45, 2) - (rng.random(2) < 0.6))
        top, left = rng.integers(WINDOW_CELLS - height + 1), rng.integers(WINDOW_CELLS - width + 1)
        region[top:top + height, left:left + width] = 1 / (height * width)
    regions = regions.reshape(REGIONS, -1)
    counts = regions @ per_cell
    return image, regions, counts / np.maximum(counts.sum(axis=1, keepdims=True), 1e-6)


def augment(images: np.ndarray, rng) -> torch.Tensor:
    """Exposure, contrast, white balance, blur and noise; the colour names stay true.

    Args:
        images: [B, H, W, 3] uint8.

    Returns:
        [B, 3, H, W] float32 in 0..1, channels last.
    """
    for index in np.flatnonzero(rng.random(len(images)) < 0.12):
        quality = int(rng.integers(25, 80))
        images[index] = cv2.imdecode(cv2.imencode(".jpg", images[index], [cv2.IMWRITE_JPEG_QUALITY, quality])[1], 1)
    for index in np.flatnonzero(rng.random(len(images)) < 0.15):
        images[index] = cv2.GaussianBlur(images[index], (0, 0), rng.uniform(0.4, 1.3))
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(255)
    count = len(images)
    gain = np.exp(rng.normal(0, 0.16, (count, 1, 1, 1)) + rng.normal(0, 0.04, (count, 3, 1, 1)))
    contrast = np.exp(rng.normal(0, 0.1, (count, 1, 1, 1)))
    gain, contrast = torch.from_numpy(gain).float(), torch.from_numpy(contrast).float()
    pixels = (pixels * gain - 0.5) * contrast + 0.5
    noisy = np.flatnonzero(rng.random(count) < 0.3)
    noise = rng.standard_normal((len(noisy), *pixels.shape[1:]), dtype=np.float32)
    pixels[noisy] += torch.from_numpy(noise * rng.uniform(0.005, 0.04, (len(noisy), 1, 1, 1)).astype(np.float32))
    return pixels.clamp_(0, 1)


def _square(store: FrameStore, rng) -> tuple[View, float, float, float]:
    """A view and a square in it: centre and side in pixels."""
    kind = rng.random()
    if kind < 0.08:
        view = store.views[rng.integers(len(store.views))]
        side = np.exp(rng.uniform(np.log(24), np.log(240)))
        return view, rng.uniform(0, view.image.shape[1]), rng.uniform(0, view.image.shape[0]), side
    nouns = sorted(store.by_noun)  # balanced: each noun as often as the others
    shown = store.by_noun[nouns[rng.integers(len(nouns))]]
    index, instance = shown[rng.integers(len(shown))]
    view = store.views[index]
    left, top, right, bottom, _ = view.boxes[instance]
    extent = max(right - left, bottom - top)
    if kind < 0.85:
        side = extent * np.exp(rng.uniform(np.log(0.95), np.log(1.8)))
        x, y = (left + right) / 2 + rng.normal(0, 0.08) * side, (top + bottom) / 2 + rng.normal(0, 0.08) * side
    else:
        side = extent * rng.uniform(0.45, 1.0)
        rows, columns = np.nonzero(view.instances == instance)
        pick = rng.integers(len(rows))
        x, y = columns[pick] + rng.normal(0, 0.1) * side, rows[pick] + rng.normal(0, 0.1) * side
    return view, x, y, float(np.clip(side, 14, 240))


def _cut(view: View, x: float, y: float, width: float, height: float, degrees: float, columns: int, rows: int,
         rng) -> tuple[np.ndarray, np.ndarray]:
    """Resampled image [rows, columns, 3] and instances at a quarter of that resolution; kept inside the view."""
    limit_y, limit_x = view.instances.shape
    width, height = min(width, limit_x), min(height, limit_y)
    x, y = np.clip(x, width / 2, limit_x - width / 2), np.clip(y, height / 2, limit_y - height / 2)
    if rng.random() < 0.5:
        width = -width
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])

    def warp(source: np.ndarray, w: int, h: int, flags: int) -> np.ndarray:
        axes = turn @ np.diag([width / w, height / h])
        matrix = np.column_stack([axes, np.array([x, y]) - 0.5 - axes @ [(w - 1) / 2, (h - 1) / 2]])
        return cv2.warpAffine(source, matrix, (w, h), flags=flags | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REFLECT)

    shrink = max(abs(width) / columns, height / rows)
    over = 2 if shrink > 1.5 else 1  # warpAffine does not antialias
    image = warp(view.image, columns * over, rows * over, cv2.INTER_LINEAR)
    if over > 1:
        image = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA)
    ids = view.things[warp(view.instances, columns // 4, rows // 4, cv2.INTER_NEAREST)]
    return image, ids


def _paste(image: np.ndarray, ids: np.ndarray, store: FrameStore, rng) -> tuple[np.ndarray, np.ndarray]:
    """The crop's main object before a background from another view."""
    codes, counts = np.unique(ids[ids >= 0], return_counts=True)
    if not len(codes):
        return image, ids
    mask = ids == codes[np.argmax(counts)]
    if mask.mean() > 0.85 or not vocabulary.NOUNS[captions.NOUNS[store.things[ids[mask][0]][0]]].places:
        return image, ids
    other = store.views[rng.integers(len(store.views))]
    height, width = other.instances.shape
    side = rng.uniform(60, 200)
    scene, behind = _cut(other, rng.uniform(0, width), rng.uniform(0, height), side, side, 0.0, CROP_PX, CROP_PX, rng)
    soft = cv2.resize(mask.astype(np.float32), (CROP_PX, CROP_PX), interpolation=cv2.INTER_LINEAR)[..., None]
    return (image * soft + scene * (1 - soft)).astype(np.uint8), np.where(mask, ids, behind)


def _counts(ids: np.ndarray, store: FrameStore, salience: float) -> np.ndarray:
    """[K] pixels of each thing, those of small objects weighted."""
    counts = np.bincount(ids[ids >= 0], minlength=len(store.things))
    return counts * np.where(SALIENT[store.things[:, 0]], salience, 1.0)
