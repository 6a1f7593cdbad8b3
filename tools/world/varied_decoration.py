"""Mesh builders for `varied` scenes: plants and lamps.

Each function takes (rng, variant) and returns parts in free units, front towards -y. A variant is a family of
meshes with wide random proportions; `vocabulary.VARIED_ONLY_VARIANTS` counts them.
"""

from __future__ import annotations

import numpy as np
from shapes import (
    Part,
    arc,
    box,
    disc,
    group,
    lathe,
    leaf,
    rounded_rectangle,
    smooth_outline,
    tube,
)
from varied_shapes import (
    grid_surface,
    stretched_ball,
    swept,
    wavy_circle,
)


def _pot(rng, high: float) -> list[Part]:
    """Round, bellied or square pot, with soil."""
    r, wide, lip = rng.uniform(0.17, 0.25), rng.uniform(0.65, 1.15), rng.choice([1.0, 1.15])
    outline = rounded_rectangle(1.8, 1.8, 0.25) if rng.random() < 0.3 else wavy_circle()
    side = smooth_outline([(wide * r, 0), (rng.choice([1.0, 1.25]) * r, 0.5 * high), (r, high)], 8)
    rim = [(lip * r, high), (lip * r, high * 1.12), (0.85 * r, high * 1.12), (0.85 * r, high * 0.9)]
    soil = swept([(0.86 * r, high), (0, high)], outline, "soil")
    return [swept([(0, 0), *side, *rim], outline, "pot"), soil]


def _frond(length: float, arch: float, leaflet: float) -> list[Part]:
    """Feathered frond from the origin along +x."""
    t = np.linspace(0, 1, 9)
    spine = np.stack([length * t, 0 * t, length * arch * (1.2 * t - 1.3 * t**2)], axis=1)
    parts = [tube(spine, 0.012 - 0.008 * t, 5, "leaf")]
    for point, share in zip(spine[1:], t[1:], strict=True):
        size = leaflet * np.sin(np.pi * (0.15 + 0.75 * share))
        parts += [
            leaf(size, 0.3 * leaflet, 0.02, 0.3 * size).rotated("z", turn).at(*point) for turn in (55, -55)
        ]
    return parts


def _palm(rng) -> list[Part]:
    """One or two tufts of fronds, on trunks or, like a fern, without."""
    parts, trunks, (length, arch, leaflet) = (
        [],
        rng.integers(1, 3),
        rng.uniform([0.4, 0.4, 0.15], [0.65, 1.0, 0.26]),
    )
    for trunk in range(trunks):
        top = np.array([0.24 * trunk - 0.12 * (trunks > 1), 0, rng.choice([0.05, rng.uniform(0.2, 0.8)])])
        parts.append(tube([(0, 0, -0.02), top / 2 + [0.01, 0, 0.01], top], 0.025, 7, "wood"))
        for k in range(int(rng.integers(6, 10))):
            frond = _frond(length * rng.uniform(0.8, 1.1), arch, leaflet)
            parts += group(frond, ("z", 137.5 * k + 70 * trunk), tuple(top))
    return parts


def _rosette(rng) -> list[Part]:
    """Fleshy pointed leaves, curling in or out."""
    count, length, thick = int(rng.integers(14, 30)), rng.uniform(0.3, 0.6), rng.uniform(0.04, 0.08)
    t, curl, parts = np.linspace(0, 1, 7)[:, None], rng.uniform(-0.3, 0.5), []
    belly = thick * (1 - t[:, 0] ** rng.uniform(1.5, 4)) + 0.004
    for k in range(count):
        blade = tube(length * (1 - 0.4 * k / count) * t * [1, 0, 0], belly, 8, "leaf").scaled(1, 1, 0.4)
        blade.vertices[:, 2] += curl * blade.vertices[:, 0] ** 2 / length
        parts.append(blade.rotated("y", -15 - 68 * k / count).rotated("z", 137.5 * k))
    return parts


def _vine(rng, turn: float, z: float) -> list[Part]:
    """A shoot that rises from the pot and hangs over its rim, with leaves."""
    t, fall, out = np.linspace(0, 1, 12), (z - 0.15) * rng.uniform(0.1, 1), rng.uniform(0.15, 0.5)
    parts, size = [], rng.uniform(0.13, 0.2)
    path = np.stack([out * t**0.6, 0.12 * np.sin(5 * t + turn), 0.45 * t * (1 - t) - fall * t**2.2], axis=1)
    for k, point in enumerate(path[1:]):
        blade = leaf(size, 0.8 * size, 0.03, 0.08).rotated("y", rng.uniform(5, 60))
        parts.append(blade.rotated("z", 70 * (-1) ** k + rng.uniform(-30, 30)).at(*point))
    return group([tube(path, 0.008, 5, "leaf"), *parts], ("z", turn))


def _large_leaves(rng) -> list[Part]:
    """Large drooping leaves along an upright stem."""
    size, wide, high = rng.uniform(0.32, 0.5), rng.uniform(0.4, 0.95), rng.uniform(0.45, 1.0)
    parts, count = [tube([(0, 0, 0), (0, 0, 0.9 * high)], 0.016, 6, "wood")], rng.integers(11, 20)
    for k in range(count):
        blade = leaf(size, wide * size, 0.3 * size, rng.uniform(0.3, 0.9) * size).rotated(
            "y", rng.uniform(-40, 20)
        )
        parts += group(
            [blade], ("z", 137.5 * k + rng.uniform(-20, 20)), (0, 0, high * (0.25 + 0.7 * k / count))
        )
    return parts


def plant(rng, variant: int) -> list[Part]:
    """Palm or fern, succulent rosette, trailing vines, large leaves on a stem. The leaves have the name."""
    z = rng.uniform(*[(0.2, 0.4), (0.12, 0.24), (0.3, 0.7), (0.15, 0.3)][variant])
    if variant == 2:
        leaves = [part for k in range(int(rng.integers(11, 17))) for part in _vine(rng, 137.5 * k, z)]
    else:
        leaves = {0: _palm, 1: _rosette, 3: _large_leaves}[variant](rng)
    return _pot(rng, z) + group(leaves, offset=(0, 0, z - 0.02))


def _shade(rng, wide: float, high: float) -> list[Part]:
    """Open shade on z = 0: straight or bell, round, pleated, square or hexagonal, perhaps trimmed edges."""
    top = wide * rng.uniform(0.35, 0.9)
    outline = [wavy_circle(28), wavy_circle(72, 18, 0.03), 1.2 * wavy_circle(4), 1.08 * wavy_circle(6)][
        rng.integers(4)
    ]
    outer = smooth_outline(
        [(wide, 0), ((wide + top) / 2 * rng.choice([1, 0.85]), 0.5 * high), (top, high)], 7
    )
    parts = [swept([*outer, *((r - 0.015, z) for r, z in outer[::-1])], outline)]
    if rng.random() < 0.4:
        parts += [
            swept([(r + 0.008, z - 0.015), (r + 0.008, z + 0.015)], outline, "accent") for r, z in outer[::6]
        ]
    return group(parts, ("z", 45))


def _stand(rng, high: float) -> list[Part]:
    """Turned, of stacked balls, a block, a rod on a disc or a tripod."""
    slot, r = str(rng.choice(["main", "main", "accent", "steel", "wood", "light"])), rng.uniform(0.1, 0.2)
    radii, count = np.r_[r, rng.uniform(0.04, 0.2, 5), 0.03], rng.integers(2, 5)
    kinds = [
        [
            lathe(
                [(0, 0), *smooth_outline(list(zip(radii, np.linspace(0, high, 7), strict=True)), 26)],
                20,
                slot,
            )
        ],
        [
            stretched_ball(0.5 * high / count, (0, 0, (k + 0.5) * high / count), (1.1, 1.1, 1), slot)
            for k in range(count)
        ],
        [box(1.6 * r, 1.6 * r, high * rng.uniform(0.7, 0.95), 0.02, slot)],
        [disc(1.4 * r, rng.uniform(0.03, 0.07), slot=slot), tube([(0, 0, 0), (0, 0, high)], 0.025, 7, slot)],
        [
            tube([1.5 * r * np.array([np.cos(a), np.sin(a), 0]), (0, 0, high)], 0.022, 7, slot)
            for a in (0.5, 2.6, 4.7)
        ],
    ]
    return [tube([(0, 0, 0.7 * high), (0, 0, high + 0.2)], 0.022, 7, "steel"), *kinds[rng.integers(5)]]


def _gooseneck(rng) -> list[Part]:
    """Bent neck with a bell, can or bar head."""
    high, wide, long = rng.uniform(0.6, 0.9), rng.uniform(0.15, 0.24), rng.uniform(0.2, 0.32)
    end, t = np.array([rng.uniform(0.25, 0.5), 0, high + rng.uniform(0, 0.2)]), np.linspace(0, 1, 14)[:, None]
    path = 3 * t**2 * (1 - t) * [0.1, 0, 1.35 * high] + t**3 * end
    foot = [box(0.34, 0.3, 0.06, 0.02), disc(rng.uniform(0.15, 0.22), rng.uniform(0.04, 0.08))][
        rng.integers(2)
    ]
    head = [box(2 * long, 0.14, 0.07, 0.02).at(z=-0.06), box(1.8 * long, 0.1, 0.01, slot="glow").at(z=-0.065)]
    if rng.random() < 0.7:
        top = wide * rng.uniform(0.3, 0.9)
        outer = smooth_outline(
            [(0, 0.02), (top, 0), (0.6 * top + 0.4 * wide, -0.5 * long), (wide, -long)], 14
        )
        head = [lathe([*outer, *((max(r - 0.015, 0), z) for r, z in outer[::-1])], 22)]
        head.append(stretched_ball(0.6 * wide, (0, 0, -0.8 * long), (1, 1, 0.4), "glow"))
    neck = tube(path, rng.uniform(0.018, 0.03), 8, str(rng.choice(["main", "steel"])))
    return [foot, neck, *group(head, ("y", -rng.uniform(-5, 40)), tuple(end))]


def lamp(rng, variant: int) -> list[Part]:
    """Table lamp of many shades and stands, gooseneck reading lamp, banker's lamp, shade on a hook."""
    turn = ("z", rng.choice([0, 180]) + rng.uniform(-50, 50))
    if variant == 1:
        return group(_gooseneck(rng), turn)
    wide, tall, bulb = (
        rng.uniform(0.26, 0.42),
        rng.uniform(0.26, 0.48),
        stretched_ball(0.08, (0, 0, 0), slot="glow"),
    )
    if variant == 0:
        high = rng.uniform(0.32, 0.6)
        return [
            *_stand(rng, high),
            bulb.at(z=high + 0.4 * tall),
            *group(_shade(rng, wide, tall), offset=(0, 0, high)),
        ]
    slot, high, foot = (
        str(rng.choice(["main", "steel", "wood"])),
        rng.uniform(0.45, 0.7),
        rng.uniform(0.18, 0.26),
    )
    parts = [lathe([(0, 0), (foot, 0), (foot, 0.03), (0.05, 0.08), (0, 0.08)])]
    if variant == 2:
        long, deep = rng.uniform(0.32, 0.45), rng.uniform(0.16, 0.24)
        a, x = np.meshgrid(np.radians(np.linspace(0, 180, 15)), np.linspace(-1, 1, 13), indexing="ij")
        swell = deep * (1 - rng.uniform(0.3, 0.99) * x**8)
        shade = np.stack(
            [x * long, -swell * np.cos(a), high + rng.uniform(0.7, 1.0) * swell * np.sin(a)], axis=2
        )
        stem = tube([(0, 0, 0.05), (0, 0, high + 0.6 * deep)], 0.025, 8, slot)
        return [
            *parts,
            grid_surface(shade),
            stem,
            tube([(-long * 0.8, 0, high), (long * 0.8, 0, high)], 0.04, 8, "glow"),
        ]
    reach = rng.uniform(0.2, 0.34)
    hook = arc(reach, 180, 10, 14, rng.uniform(0.6, 1.1)) + [reach, 0, high + 0.15]
    parts.append(tube(np.concatenate([[(0, 0, 0.05), (0, 0, 0.5 * high)], hook]), 0.022, 8, slot))
    shade = [*_shade(rng, 0.75 * wide, 0.7 * tall), bulb.at(z=0.3 * tall)]
    return group([*parts, *group(shade, offset=tuple(hook[-1] - [0, 0, 0.7 * tall]))], turn)
