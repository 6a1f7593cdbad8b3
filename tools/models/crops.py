"""Training samples: crops at many scales, and windows of enlarged views with random regions in them."""

from __future__ import annotations

import captions
import cv2
import numpy as np
import recolour
import torch
import vocabulary
from frames import FrameStore, View

CROP_PX = 96
CELL_PX = 32  # stride of the image tower
WINDOW_CELLS = 5
REGIONS = 10  # per window
SURFACES = "floor", "wall", "carpet"
SALIENT = np.array([bool(vocabulary.NOUNS[noun].places) for noun in captions.NOUNS])
FURNITURE = np.array([noun not in SURFACES for noun in captions.NOUNS]) & ~SALIENT
MIN_SHARE = 0.22  # of a crop that shows one thing, filled by it
CROP_SALIENCE = np.where(SALIENT, 32.0, np.where(FURNITURE, 6.0, 1.0))
WINDOW_SALIENCE = np.where(SALIENT, 5.0, np.where(FURNITURE, 3.0, 1.0))
"""Weight of an object's pixels, by noun: people name a crop after the object in it, not after the table or
the wall behind it. In crops an object counts as a square around it, see `_extents`. Windows use smaller
weights, so that the dense map stays sharp at borders, but not much smaller ones, as a crop is the mean of its
cells.
"""
ALONE, TRIES = 0.6, 6
"""Share of the crops that should show a single object, and the number of attempts to find such a crop.
Without this, five of six crops are mixtures, and the tower learns to weigh objects instead of telling them
apart.
"""
ALONE_SHARE = 0.8  # share of the salience above which a crop shows a single object
RECOLOURED = 0.6  # share of the objects in a crop that get another colour
UNNAMED = 0.5  # share of the recoloured objects whose new colour has no name
BENT, BEND = 0.35, 0.035
"""Share of the cuts that are bent, and the standard deviation of the bend in sides. Elastic deformation
(Simard et al., ICDAR 2003) gives the objects shapes beyond those of their few meshes.
"""
COARSE = 0.25  # share of the crops that are as coarse as crops of distant objects


def sample_object(store: FrameStore, rng) -> tuple[np.ndarray, np.ndarray] | None:
    """Draws a crop [96, 96, 3] uint8 around one object, and its codes [3]; None if it is mostly hidden.

    The codes are noun, colour and material.

    Crops show small objects whole; they may show only a part of furniture, floor and walls.
    """
    view, instance = balanced_instance(store, rng)
    left, top, right, bottom, _ = view.boxes[instance]
    extent = max(right - left, bottom - top)
    if SALIENT[store.things[view.things[instance]][0]] or rng.random() < 0.5:
        side = extent * np.exp(rng.uniform(np.log(0.85), np.log(1.7)))
        x, y = (
            (left + right) / 2 + rng.normal(0, 0.06) * side,
            (top + bottom) / 2 + rng.normal(0, 0.06) * side,
        )
    else:
        side = np.exp(rng.uniform(np.log(20), np.log(140)))
        x, y = _inside(view, instance, rng)
    side = float(np.clip(side, 14, 240))
    image, ids = cut(store, view, (x, y, side, side * rng.uniform(0.8, 1.25)), rng.normal(0, 7), CROP_PX, rng)
    nouns = np.where(ids >= 0, store.things[ids, 0], -1)
    noun = store.things[view.things[instance]][0]
    if (nouns == noun).mean() < MIN_SHARE:
        return None
    if rng.random() < 0.25:
        image, ids = _paste(image, ids, store, rng)
        nouns = np.where(ids >= 0, store.things[ids, 0], -1)
    rows, counts = np.unique(ids[nouns == noun], return_counts=True)
    return (_coarser(image, side, rng), store.things[rows[counts.argmax()]]) if len(rows) else None


def sample_crop(store: FrameStore, rng) -> tuple[np.ndarray, np.ndarray]:
    """Draws a crop [96, 96, 3] uint8 and the share [K] of each object in it."""
    alone = rng.random() < ALONE
    for _ in range(TRIES if alone else 1):
        view, x, y, side = _square(store, rng)
        if alone and _largest_share(store, view, x, y, side) > ALONE_SHARE:
            break
    image, ids = cut(store, view, (x, y, side, side * rng.uniform(0.8, 1.25)), rng.normal(0, 7), CROP_PX, rng)
    if rng.random() < 0.2:
        image, ids = _paste(image, ids, store, rng)
    counts = _extents(ids, store) * CROP_SALIENCE[store.things[:, 0]]
    return _coarser(image, side, rng), counts / max(counts.sum(), 1e-6)


def sample_window(store: FrameStore, rng) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draws a window of an enlarged view and random regions of whole cells in it.

    Returns:
        [160, 160, 3] uint8; regions [R, 25] rows of averaging weights over the cells; shares [R, K].
    """
    px = WINDOW_CELLS * CELL_PX
    view, x, y, _ = _square(store, rng)
    side = px / np.exp(rng.uniform(np.log(0.9), np.log(3.4)))
    image, ids = cut(store, view, (x, y, side, side), 0.0, px, rng)
    cells = ids.reshape(WINDOW_CELLS, 8, WINDOW_CELLS, 8).transpose(0, 2, 1, 3).reshape(WINDOW_CELLS**2, 64)
    # Shape [25, K].
    per_cell = np.stack([_pixels(cell, store) for cell in cells]) * WINDOW_SALIENCE[store.things[:, 0]]
    regions = np.zeros((REGIONS, WINDOW_CELLS, WINDOW_CELLS), np.float32)
    for region in regions:
        height, width = np.minimum(WINDOW_CELLS, 1 + rng.geometric(0.45, 2) - (rng.random(2) < 0.6))
        top, left = rng.integers(WINDOW_CELLS - height + 1), rng.integers(WINDOW_CELLS - width + 1)
        region[top : top + height, left : left + width] = 1 / (height * width)
    regions = regions.reshape(REGIONS, -1)
    counts = regions @ per_cell
    return image, regions, counts / np.maximum(counts.sum(axis=1, keepdims=True), 1e-6)


def augment(images: np.ndarray, rng) -> torch.Tensor:
    """Varies exposure, contrast, white balance, blur and noise, within the limits of the colour names.

    Args:
        images: [B, H, W, 3] uint8.

    Returns:
        [B, 3, H, W] float32 in 0..1, channels last.
    """
    for index in np.flatnonzero(rng.random(len(images)) < 0.12):
        quality = int(rng.integers(25, 80))
        images[index] = cv2.imdecode(
            cv2.imencode(".jpg", images[index], [cv2.IMWRITE_JPEG_QUALITY, quality])[1], 1
        )
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
    pixels[noisy] += torch.from_numpy(
        noise * rng.uniform(0.005, 0.04, (len(noisy), 1, 1, 1)).astype(np.float32)
    )
    return pixels.clamp_(0, 1)


def _square(store: FrameStore, rng) -> tuple[View, float, float, float]:
    """Draws a view and a square in it: centre and side in pixels."""
    kind = rng.random()
    if kind < 0.08:
        view = store.views[rng.integers(len(store.views))]
        side = np.exp(rng.uniform(np.log(24), np.log(240)))
        return view, rng.uniform(0, view.image.shape[1]), rng.uniform(0, view.image.shape[0]), side
    view, instance = balanced_instance(store, rng)
    left, top, right, bottom, _ = view.boxes[instance]
    extent = max(right - left, bottom - top)
    if kind < 0.85:
        side = extent * np.exp(rng.uniform(np.log(0.95), np.log(1.8)))
        x, y = (
            (left + right) / 2 + rng.normal(0, 0.08) * side,
            (top + bottom) / 2 + rng.normal(0, 0.08) * side,
        )
    else:
        side = extent * rng.uniform(0.45, 1.0)
        x, y = _inside(view, instance, rng) + rng.normal(0, 0.1, 2) * side
    return view, x, y, float(np.clip(side, 14, 240))


def _largest_share(store: FrameStore, view: View, x: float, y: float, side: float) -> float:
    """Share of the most salient instance in a square of a view."""
    top, left = max(0, int(y - side / 2)), max(0, int(x - side / 2))
    instances = view.instances[top : int(y + side / 2) + 1 : 2, left : int(x + side / 2) + 1 : 2]
    counts = np.bincount(instances.ravel(), minlength=256) * (view.things >= 0)
    weighted = counts * CROP_SALIENCE[store.things[view.things, 0]]
    return weighted.max() / max(weighted.sum(), 1e-6)


def balanced_instance(store: FrameStore, rng) -> tuple[View, int]:
    """Draws an instance in a view; all nouns are equally likely, and so are all meshes of a noun."""
    nouns = sorted(store.by_mesh)
    meshes = store.by_mesh[nouns[rng.integers(len(nouns))]]
    places = meshes[sorted(meshes)[rng.integers(len(meshes))]]
    index, instance = places[rng.integers(len(places))]
    return store.views[index], instance


def _inside(view: View, instance: int, rng) -> np.ndarray:
    """Draws a pixel (x, y) of an instance."""
    rows, columns = np.nonzero(view.instances == instance)
    pick = rng.integers(len(rows))
    return np.array([columns[pick], rows[pick]])


def cut(
    store: FrameStore, view: View, square: tuple[float, float, float, float], degrees: float, px: int, rng
) -> tuple[np.ndarray, np.ndarray]:
    """Cuts (x, y, width, height) out of a view, moved inside it, with some objects in other colours.

    Returns:
        Image [px, px, 3] and things [px / 4, px / 4], rows of `store.things`.
    """
    x, y, width, height = square
    limit_y, limit_x = view.instances.shape
    width, height = min(width, limit_x), min(height, limit_y)
    x, y = np.clip(x, width / 2, limit_x - width / 2), np.clip(y, height / 2, limit_y - height / 2)
    if rng.random() < 0.5:
        width = -width
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    bend = rng.normal(0, BEND * min(abs(width), height), (4, 4, 2)) * (rng.random() < BENT)

    def warp(source: np.ndarray, size: int, flags: int) -> np.ndarray:
        axes = turn @ np.diag([width / size, height / size])
        grid = np.mgrid[:size, :size][::-1].reshape(2, -1) - (size - 1) / 2
        places = (axes @ grid).T.reshape(size, size, 2) + [x - 0.5, y - 0.5]
        places += cv2.resize(bend, (size, size), interpolation=cv2.INTER_CUBIC)
        return cv2.remap(source, places.astype(np.float32), None, flags, borderMode=cv2.BORDER_REFLECT)

    over = 2 if max(abs(width), height) / px > 1.5 else 1  # remap does not antialias
    image = warp(view.image, px * over, cv2.INTER_LINEAR)
    if over > 1:
        image = cv2.resize(image, (px, px), interpolation=cv2.INTER_AREA)
    instances = warp(view.instances, px, cv2.INTER_NEAREST)
    things = _recolour(store, view, image, instances, rng)
    return image, things[instances[2::4, 2::4]]


def _recolour(store: FrameStore, view: View, image: np.ndarray, instances: np.ndarray, rng) -> np.ndarray:
    """Paints some objects of an image in other colours, in place; returns the objects [256] by instance."""
    things = view.things.copy()
    for instance in np.flatnonzero(np.bincount(instances.ravel(), minlength=256) > 0.01 * instances.size):
        if things[instance] < 0 or rng.random() > RECOLOURED:
            continue
        noun, colour, material = store.things[things[instance]]
        name, source = captions.NOUNS[noun], captions.COLOURS[colour]
        choices = recolour.allowed(name)
        if source == "black" or len(choices) < 2:
            continue
        if rng.random() < UNNAMED:
            paint, target = recolour.between(name, rng), captions.UNNAMED
        else:
            target = choices[rng.integers(len(choices))]
            paint = recolour.sample(captions.COLOURS[target], rng)
        recolour.recolour(image, instances, instance, source, paint)
        things[instance] = store.row(noun, target, material)
    return things


def _coarser(image: np.ndarray, side: float, rng) -> np.ndarray:
    """Makes some crops as coarse as from farther away; `side` is the crop side in pixels of the view."""
    px = int(np.exp(rng.uniform(np.log(18), np.log(CROP_PX))))
    if rng.random() > COARSE or px > side:
        return image
    return cv2.resize(
        cv2.resize(image, (px, px), interpolation=cv2.INTER_AREA),
        (CROP_PX, CROP_PX),
        interpolation=cv2.INTER_LINEAR,
    )


def _paste(image: np.ndarray, ids: np.ndarray, store: FrameStore, rng) -> tuple[np.ndarray, np.ndarray]:
    """Puts the main object of a crop in front of a background from another view."""
    codes, counts = np.unique(ids[ids >= 0], return_counts=True)
    if not len(codes):
        return image, ids
    mask = ids == codes[np.argmax(counts)]
    if mask.mean() > 0.85 or not vocabulary.NOUNS[captions.NOUNS[store.things[ids[mask][0]][0]]].places:
        return image, ids
    other = store.views[rng.integers(len(store.views))]
    height, width = other.instances.shape
    side = rng.uniform(60, 200)
    place = (rng.uniform(0, width), rng.uniform(0, height), side, side)
    scene, behind = cut(store, other, place, 0.0, CROP_PX, rng)
    soft = cv2.resize(mask.astype(np.float32), (CROP_PX, CROP_PX), interpolation=cv2.INTER_LINEAR)[..., None]
    return (image * soft + scene * (1 - soft)).astype(np.uint8), np.where(mask, ids, behind)


def _pixels(ids: np.ndarray, store: FrameStore) -> np.ndarray:
    """Number of pixels [K] of each object."""
    return np.bincount(ids[ids >= 0], minlength=len(store.things))


def _extents(ids: np.ndarray, store: FrameStore) -> np.ndarray:
    """Number of pixels [K] of each object in a crop; a small object counts as a square of its longer extent.

    A candle is the subject of its crop however thin it is. By pixels alone the table behind it outweighs the
    candle, and the tower learns the colour of the table for the crop.
    """
    counts = _pixels(ids, store)
    for row in np.flatnonzero(counts):
        if SALIENT[store.things[row, 0]]:
            mask = ids == row
            counts[row] = max(mask.any(axis=axis).sum() for axis in (0, 1)) ** 2
    return counts
