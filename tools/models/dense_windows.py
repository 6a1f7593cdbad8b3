"""Training samples as the dense mode sees them: large windows of enlarged views, and the things in them.

Crops and the windows of `crops.py` are small: most of their cells lie at a border, and furniture fills them.
The dense mode enlarges a whole frame two to four times. There, a carpet is a plane without an edge in sight.
"""

from __future__ import annotations

import captions
import numpy as np
import vocabulary
from crops import CELL_PX, WINDOW_SALIENCE, balanced_instance, cut
from frames import FrameStore

CELLS = 10  # a side
SCALES = (
    1.9,
    5.0,
)  # enlargement; the bundled model's sizes, 672 and 1344, enlarge frames of 320 px 2.1 and 4.2 times
THINGS, SINGLE = 8, 6  # regions that average a thing, and single cells, per window
LEAST = 20  # of the 80 x 80 samples of a window that a thing must own

NAMES = sorted(
    {
        vocabulary.label_name(noun, colour, material)
        for noun, spec in vocabulary.NOUNS.items()
        for colour in spec.colours
        for material in spec.materials
        if (colour, noun) not in vocabulary.HELD_OUT_PAIRS
    }
)
"""What people call the things of the training scenes: "red apple", "wooden table", "floor"."""

OPEN = [
    (NAMES.index(f"wooden {noun}"), NAMES.index(f"brown {noun}"))
    for noun in ("table", "shelf", "chair", "stool")
]
"""Names of a thing, and names that would not be wrong for it."""


def names_of(things: np.ndarray) -> np.ndarray:
    """Index [K] in `NAMES` of things [K, 3], given by codes; -1 where a thing has no name."""
    index = {name: k for k, name in enumerate(NAMES)}
    names = [
        vocabulary.label_name(captions.NOUNS[noun], captions.COLOURS[colour], captions.MATERIALS[material])
        if colour != captions.UNNAMED
        else ""
        for noun, colour, material in things
    ]
    return np.array([index.get(name, -1) for name in names])


def open_names(shares: np.ndarray) -> np.ndarray:
    """[R, names] True where a region [R, names] leaves open whether a name fits."""
    left_open = np.zeros(shares.shape, bool)
    for name, other in OPEN:
        left_open[:, other] = shares[:, name] > captions.OPEN_SHARE
    return left_open


def sample_view(store: FrameStore, rng) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draws a window of an enlarged view, the things in it and single cells.

    Returns:
        [320, 320, 3] uint8; regions [R, 100], rows of averaging weights over the cells, zero in spare rows;
        shares [R, K] of the things.
    """
    px = CELLS * CELL_PX
    side = px / np.exp(rng.uniform(*np.log(SCALES)))
    view, instance = balanced_instance(store, rng)
    if rng.random() < 0.5:
        left, top, right, bottom, _ = view.boxes[instance]
        x, y = (rng.uniform(*sorted(ends)) for ends in ((left, right), (top, bottom)))
    else:
        height, width = view.instances.shape
        x, y = rng.uniform(0, width), rng.uniform(0, height)
    image, ids = cut(store, view, (x, y, side, side), 0.0, px, rng)
    cells = ids.reshape(CELLS, 8, CELLS, 8).transpose(0, 2, 1, 3).reshape(CELLS**2, 64)
    things, counts = np.unique(ids[ids >= 0], return_counts=True)
    things = rng.permutation(things[counts >= LEAST])[:THINGS]
    shares = np.zeros((THINGS + SINGLE, len(store.things)), np.float32)
    regions = np.zeros((THINGS + SINGLE, CELLS**2), np.float32)
    owned = np.stack([(cells == thing).mean(axis=1) for thing in things]) if len(things) else np.zeros((0, 1))
    for row, (thing, share) in enumerate(zip(things, owned, strict=True)):
        regions[row], shares[row, thing] = share / share.sum(), 1.0
    for row in range(THINGS, len(regions) if len(things) else THINGS):
        share = owned[rng.integers(len(owned))]
        cell = rng.choice(np.flatnonzero(share >= 0.5 * share.max()))
        regions[row, cell] = 1.0
        known = cells[cell][cells[cell] >= 0]
        pixels = np.bincount(known, minlength=len(store.things)) * WINDOW_SALIENCE[store.things[:, 0]]
        shares[row] = pixels / pixels.sum()
    return image, regions, shares
