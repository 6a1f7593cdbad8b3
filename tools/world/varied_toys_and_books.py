"""Mesh builders for `varied` scenes: balls and books.

Each function takes (rng, variant) and returns parts in free units, front towards -y. A variant is a family of
meshes with wide random proportions; `vocabulary.VARIED_ONLY_VARIANTS` counts them.
"""

from __future__ import annotations

import numpy as np
from shapes import (
    Part,
    arc,
    box,
    ellipsoid,
    group,
    lathe,
    prism,
    rounded_rectangle,
    tube,
)
from varied_shapes import (
    grounded,
)


def _seams(rng, kind: str) -> list[np.ndarray]:
    """Seam lines on the unit sphere: 'basket', 'volley' or 'tennis' ball."""
    t, u, b, off = (
        np.linspace(0, 2 * np.pi, 41),
        np.linspace(-1, 1, 8),
        rng.uniform(0.2, 0.3),
        rng.uniform(0.5, 0.7),
    )
    if kind == "tennis":
        x, y = (1 - b) * np.cos(t) + b * np.cos(3 * t), (1 - b) * np.sin(t) - b * np.sin(3 * t)
        return [np.c_[x, y, 2 * np.sqrt(b - b * b) * np.sin(2 * t)]]
    if kind == "basket":
        circle = np.c_[0 * t, np.cos(t), np.sin(t)]
        sides = [circle * np.sqrt(1 - off**2) + [x, 0, 0] for x in (-off, off)]
        return [*sides, np.roll(circle, 1, axis=1), np.roll(circle, 2, axis=1)]
    lines = [np.c_[np.full(8, s), u, np.full(8, v)] for s in (-1, 1) for v in (-1, -1 / 3, 1 / 3, 1)]
    return [np.roll(p / np.linalg.norm(p, axis=1)[:, None], k, axis=1) for p in lines for k in range(3)]


def _oval_ball(rng) -> list[Part]:
    """Rugby ball or American football lying along x."""
    heights, v = np.sin(np.linspace(-np.pi / 2, np.pi / 2, 17)), rng.integers(10, 13)
    profile = np.c_[(1 - heights**2) ** rng.uniform(0.5, 0.75), heights * rng.uniform(1.25, 1.75)]
    seam = tube(profile[:, [0, 0, 1]] * [1, 0, 1], 0.02, 5, str(rng.choice(["dark", "accent"])))
    lace = tube([(-0.98, -0.18, 0), (-1.03, 0, 0), (-0.98, 0.18, 0)], 0.03, 5, "light")
    band = lathe(profile[v : v + 2] * [1.012, 1], 24, str(rng.choice(["light", "main"])))
    parts = [
        lathe(profile, 24),
        band,
        band.rotated("x", 180),
        *[lace.at(z=z) for z in np.linspace(-0.35, 0.35, 6)],
    ]
    parts += [seam.rotated("z", turn) for turn in (0, 90, 180, 270)]
    return grounded(group(group(parts, ("z", rng.uniform(-60, 60))), ("y", rng.uniform(78, 102))))


def ball(rng, variant: int) -> list[Part]:
    """Basketball or volleyball seams, oval rugby ball, tennis ball curve, knobbly massage ball."""
    if variant == 1:
        return _oval_ball(rng)
    parts, width, squash = (
        [ellipsoid(1, 1, 1, rings=16, segments=24)],
        rng.uniform(0.025, 0.05),
        rng.uniform(0.88, 1),
    )
    if variant == 3:
        count, size = int(rng.integers(28, 90)), rng.uniform(0.06, 0.12)
        profile = [(size, 0.97), (size * rng.uniform(0.3, 0.9), 0.97 + size), (0, 0.97 + 1.4 * size)]
        knob = lathe(profile, 7, str(rng.choice(["main", "main", "accent"])))
        tilts = np.degrees(np.arccos(1 - (2 * np.arange(count) + 1) / count))
        parts += [knob.rotated("y", tilt).rotated("z", 137.5 * k) for k, tilt in enumerate(tilts)]
    else:
        kind, slot = str(rng.choice(["basket", "volley"])), str(rng.choice(["dark", "light", "accent"]))
        parts += [
            tube(p, width * (1 + variant / 4), 5, slot)
            for p in _seams(rng, "tennis" if variant == 2 else kind)
        ]
    parts = group(group(parts, ("x", rng.uniform(0, 360))), ("z", rng.uniform(0, 360)))
    return grounded([part.scaled(1, 1, squash) for part in parts])


def _hardback(rng, w: float, d: float, h: float) -> list[Part]:
    """Boards overhanging the pages, a flat or rounded spine at -x with bands or label, a title in front."""
    t, over, bulge = rng.uniform(0.015, 0.035), rng.uniform(0.02, 0.05), h * rng.uniform(0.04, 0.4)
    a, slot = np.radians(np.linspace(270, 90, 7)), str(rng.choice(["accent", "accent", "light", "dark"]))
    spine = np.c_[bulge * np.cos(a), h / 2 + h / 2 * np.sin(a)]
    parts = [box(w, d, t), box(w, d, t).at(z=h - t), prism(spine, d).rotated("x", 90).at(-w / 2, d / 2)]
    parts.append(box(w - over, d - 2 * over, h - 2 * t, slot="paper").at(-over / 2, 0, t))
    for y in rng.choice([-0.4, -0.3, 0.0, 0.25, 0.4], size=int(rng.integers(1, 4)), replace=False):
        band = prism((spine - [0, h / 2]) * [1.15, 1.04] + [0, h / 2], rng.uniform(0.02, 0.1), slot)
        parts.append(band.rotated("x", 90).at(-w / 2 - 0.004, y * d))
    plate = box(w * rng.uniform(0.3, 0.75), d * rng.uniform(0.06, 0.3), 0.006, slot=slot)
    return [*parts, plate.at(0.02, d * rng.uniform(-0.1, 0.3), h)]


def _notebook(rng, w: float, h: float) -> list[Part]:
    """Thin covers flush with the pages, depth 1: spiral wire, or a spine and an elastic band."""
    outline, paint = (
        rounded_rectangle(w, 1, rng.uniform(0.01, 0.08)),
        str(rng.choice(["dark", "accent", "light"])),
    )
    parts = [prism(outline, 0.012), prism(outline * 0.985, h, "paper"), prism(outline, 0.012).at(z=h)]
    parts.append(
        box(w * rng.uniform(0.3, 0.6), rng.uniform(0.1, 0.3), 0.006, slot=paint).at(0, 0.1, h + 0.012)
    )
    if rng.random() < 0.4:
        wire = tube(arc(h / 2 + 0.03, 0, 360, 9), 0.011, 4, paint).at(-w / 2 + 0.02, 0, h / 2)
        return parts + [wire.at(y=y) for y in np.linspace(-0.45, 0.45, int(rng.integers(9, 20)))]
    elastic = box(0.03, 1.008, h + 0.02, slot=str(rng.choice(["dark", "main"]))).at(
        w * rng.uniform(0.3, 0.42)
    )
    return [*parts, box(0.02, 1, h).at(-w / 2), elastic]


def _ajar(rng, w: float, h: float) -> list[Part]:
    """A book opened a little: upright with the spine to the front, or lying with its cover raised."""
    angle, t = rng.uniform(8, 32), 0.025
    half = [
        box(t, w, 1).at(-h / 2, w / 2),
        box(h / 2 - t, w * 0.95, 0.95, slot="paper").at(-h / 4, w * 0.475, 0.025),
    ]
    half.append(box(0.006, w * 0.5, 0.2, slot="accent").at(-h / 2 - t / 2, w / 2, rng.uniform(0.2, 0.7)))
    parts = group(half, ("z", angle))
    parts += [part.scaled(-1, 1, 1) for part in parts]
    sheet = box(0.004, w * 0.93, 0.95, slot="paper").at(0, w * 0.47, 0.025)
    parts += [sheet.rotated("z", turn) for turn in rng.uniform(-angle, angle, size=4)]
    parts.append(prism(np.array([(1, 1), (-1, 1), (-0.7, -1), (0.7, -1)]) * [h / 2 + t / 2, 0.03], 1))
    lying = group(group(parts, ("z", angle)), ("y", 90))
    return grounded(lying if rng.random() < 0.35 else parts)


def _library(rng) -> list[Part]:
    """Several hardbacks: a row with the spines to the front, or a pile."""
    parts, reach, row = [], 0.0, rng.random() < 0.6
    for k in range(int(rng.integers(3, 6))):
        h, d = rng.uniform(0.07, 0.24), rng.uniform(0.75, 1.05)
        one = _hardback(rng, d * rng.uniform(0.62, 0.8), d, h)
        upright = group(group(one, ("x", 90)), ("z", 90), (reach, 0, d / 2))
        parts += upright if row else group(one, ("z", rng.uniform(-22, 22) + 180 * (k % 2)), (0, 0, reach))
        reach += h + 0.006
    return parts


def book(rng, variant: int) -> list[Part]:
    """Bound hardback in any pose, row or pile of several, opened a little, notebook or paperback."""
    w, h = rng.uniform(0.58, 0.95), rng.uniform(0.06, 0.36)
    if variant in (1, 2):
        return _library(rng) if variant == 1 else _ajar(rng, w, h)
    parts = _hardback(rng, w, 1, h) if variant == 0 else _notebook(rng, rng.uniform(0.6, 1.3), min(h, 0.16))
    return grounded(group(parts, ("x", float(rng.choice([0, 0, 90, rng.uniform(55, 80)])))))
