"""Mesh builders for `varied` scenes: apples and bananas.

Each function takes (rng, variant) and returns parts in free units, front towards -y. A variant is a family of
meshes with wide random proportions; `vocabulary.VARIED_ONLY_VARIANTS` counts them.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from shapes import (
    Part,
    ellipsoid,
    group,
    lathe,
    leaf,
    smooth_outline,
    tube,
)
from varied_shapes import (
    grounded,
)


def _bitten(rng, body: Part, tall: float) -> list[Part]:
    """The body with two or three bites taken from its side, which show the flesh."""
    vertices, inside = body.vertices.copy(), np.zeros(len(body.vertices), bool)
    side, reach = rng.uniform(-150, -30), rng.uniform(0.2, 0.3)
    for a in np.radians(side + 28 * np.arange(int(rng.integers(2, 4)))):
        outward = np.array([np.cos(a), np.sin(a), 0])
        away = np.linalg.norm(body.vertices - outward * 0.5 - [0, 0, tall * rng.uniform(0.5, 0.62)], axis=1)
        vertices -= (np.sqrt(np.clip(reach**2 - away**2, 0, None)) * 0.6 * ~inside)[:, None] * outward
        inside |= away < reach
    sides = [[face for face in body.faces if inside[list(face)].any() == bare] for bare in (False, True)]
    return [Part(vertices, sides[0]), Part(vertices, sides[1], "paper")]


def apple(rng, variant: int) -> list[Part]:
    """Tapered with lobes, flat and tipped over, bitten, lopsided with a twig and leaves."""
    tall = rng.uniform(*[(0.95, 1.12), (0.68, 0.85), (0.85, 1.1), (0.85, 1.05)][variant])
    foot, lobes = (
        (rng.uniform(0.22, 0.32), 0.015) if variant else (rng.uniform(0.18, 0.23), rng.uniform(0.02, 0.05))
    )
    belly, dip, skew = (
        rng.uniform(0.5, 0.66),
        rng.uniform(0.7, 0.8),
        rng.uniform(0, 0.16 if variant % 2 else 0.05),
    )
    points = [(0, 0.1), (foot, 0), (foot + 0.2, 0.24), (0.5, belly), (0.36, 0.93), (0.12, 0.88), (0, dip)]
    body = lathe(smooth_outline([(r, z * tall) for r, z in points], 26), 40)
    x, y, z = body.vertices.T
    wave = 1 + lobes * np.cos(5 * np.arctan2(y, x)) * np.abs(2 * z / tall - 1)
    body = replace(body, vertices=np.c_[x * wave, y * wave, z * (1 + skew * x)])
    lean, rise, top = rng.uniform(-0.15, 0.15), rng.uniform(0.16, 0.36) + 0.04 * variant, dip * tall
    stem = tube(
        [(0, 0, top - 0.03), (lean * 0.3, 0, top + rise / 2), (lean, 0, top + rise)], 0.025, 6, "wood"
    )
    parts = [stem, ellipsoid(0.05, 0.05, 0.03, rings=5, segments=8, slot="dark").at(z=0.1 * tall)]
    parts += _bitten(rng, body, tall) if variant == 2 else [body]
    for _ in range(int(rng.integers(1, 4)) if variant == 3 else 0):
        blade = leaf(rng.uniform(0.3, 0.5), rng.uniform(0.16, 0.26), 0.18, rng.uniform(0.1, 0.3))
        parts.append(blade.rotated("z", rng.uniform(0, 360)).at(lean * 0.5, 0, top + 0.7 * rise))
    tip = rng.uniform(*[(0, 50), (60, 125), (0, 25), (0, 15)][variant])
    return grounded(group(group(parts, ("x", tip)), ("z", rng.uniform(-50, 50))))


def _finger(rng, thick: float, start: float, bend: float) -> list[Part]:
    """One banana from its stem at the origin, `start` degrees above +x, bent by `bend` in the x-z plane."""
    s = np.array([0, 0.08, 0.15, 0.24, 0.36, 0.5, 0.64, 0.77, 0.87, 0.94, 0.98])
    heading = np.radians(start + bend * s ** rng.uniform(0.8, 1.3))
    path = np.cumsum(np.diff(s, prepend=0)[:, None] * np.c_[np.cos(heading), 0 * s, np.sin(heading)], axis=0)
    body = tube(
        path,
        thick * np.array([0.36, 0.34, 0.5, 0.8, 0.96, 1, 0.99, 0.9, 0.68, 0.42, 0.3]),
        rng.integers(5, 9),
    )
    return [body, tube([path[-1], 1.7 * path[-1] - 0.7 * path[-2]], thick * 0.27, 6, "dark")]


def _peeled(rng, thick: float) -> list[Part]:
    """Half peeled banana, upright or lying: bare flesh at the tip, strips of skin hang from the middle."""
    body, tip = _finger(rng, thick, rng.uniform(70, 90), rng.uniform(15, 50))
    cut, ring = int(rng.integers(6, 9)), len(body.vertices) // 11
    sides = [[face for face in body.faces if (max(face) >= cut * ring) == bare] for bare in (False, True)]
    parts = [Part(body.vertices, sides[0]), Part(body.vertices, sides[1], "paper"), tip.painted("paper")]
    for turn in np.arange(0, 360, 90) + rng.uniform(-15, 15, size=4):
        flap = leaf(
            rng.uniform(0.16, 0.3), thick * rng.uniform(1.5, 2.0), 0.12, rng.uniform(0.35, 0.55), "main"
        )
        parts.append(flap.rotated("z", turn).at(*body.vertices[(cut - 1) * ring :][:ring].mean(axis=0)))
    return group(parts, ("y", rng.choice([0, rng.uniform(60, 85)])))


def banana(rng, variant: int) -> list[Part]:
    """Single, slim to stubby, lying or rocking; fanned hand; half peeled; arched bunch on its tips."""
    thick, bend, count = (
        rng.uniform(0.08, 0.14),
        rng.uniform(45 if variant else 15, 95),
        int(rng.integers(3, 7)),
    )
    if variant == 2:
        parts = _peeled(rng, thick)
    elif variant == 0:
        cut = tube([(-0.02, 0, 0), (0.01, 0, 0)], 0.38 * thick, 8, "wood")
        parts = group(
            [*_finger(rng, thick, -bend / 2, bend), cut], ("x", rng.choice([90, -90, rng.uniform(-70, 70)]))
        )
    else:
        stalk = tube([(0, 0, 0), [(-0.12, 0, 0), (0, 0, 0.12)][variant // 3]], 0.05, 8, "wood")
        parts, fan = (
            [ellipsoid(0.08, 0.08, 0.07, rings=6, segments=8), stalk],
            rng.uniform(9, 16) * variant**0.5,
        )
        for k in range(count):
            lying = group(
                _finger(rng, thick, -bend / 2, bend), ("x", rng.uniform(78, 102)), (0, 0, 0.04 * (k % 2))
            )
            one = lying if variant == 1 else _finger(rng, thick, 15, -bend - 25)
            parts += group(one, ("z", fan * (k - (count - 1) / 2) + rng.uniform(-3, 3)))
    return grounded(group(parts, ("z", rng.uniform(-180, 180))))
