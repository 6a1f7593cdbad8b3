"""Shapes that several of the `further_*` mesh builders need."""

from __future__ import annotations

import numpy as np
from shapes import Part, arc, lathe, rounded_rectangle


def pick(rng, *options):
    """One of the options."""
    return options[int(rng.integers(len(options)))]


def stacked(rings, slot: str) -> Part:
    """Rings of equally many vertices [K, 3] joined in their order, closed by flat caps."""
    k, last = len(rings[0]), (len(rings) - 1) * len(rings[0])
    faces = [tuple(range(k))[::-1], tuple(range(last, last + k))]
    for a in range(0, last, k):
        faces += [(a + i, a + (i + 1) % k, a + k + (i + 1) % k, a + k + i) for i in range(k)]
    return Part(np.concatenate(rings), faces, slot)


def loft(levels, slot: str = "main", count: int = 4) -> Part:
    """Rounded rectangles (width, depth, radius, z, optional x and y shift) joined from the lowest up and closed."""
    rings = []
    for width, depth, radius, z, *shift in levels:
        ring = rounded_rectangle(width, depth, radius, count) + (*shift, 0.0, 0.0)[:2]
        rings.append(np.c_[ring, np.full(len(ring), z)])
    return stacked(rings, slot)


def sheet(path, width: float, thickness: float, slot: str = "main") -> Part:
    """Bent board: a path [M, 2] of (y, z) with a thickness, `width` along x."""
    path = np.asarray(path, dtype=float)
    tangent = np.gradient(path, axis=0)
    normal = np.stack([-tangent[:, 1], tangent[:, 0]], axis=1) / np.linalg.norm(
        tangent, axis=1, keepdims=True
    )
    section, rings = ((-1, -1), (1, -1), (1, 1), (-1, 1)), []
    for point, n in zip(path, normal * thickness / 2, strict=True):
        rings.append(np.array([(x * width / 2, *(point + s * n)) for x, s in section]))
    return stacked(rings, slot)


def hoop(radius: float, z: float, thickness: float, slot: str = "main", segments: int = 32) -> Part:
    """Torus around z."""
    return lathe([(r, height) for r, _, height in arc(thickness, 0, 360, 9) + [radius, 0, z]], segments, slot)
