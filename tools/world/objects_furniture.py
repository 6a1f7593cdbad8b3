"""Mesh builders: furniture, in free units, front towards -y. `layouts.py` puts objects on their surfaces."""

from __future__ import annotations

import numpy as np
from shapes import Part, box, disc, ellipsoid, group, lathe, prism, rounded_rectangle, tube


def _legs(
    width: float, depth: float, height: float, radius: float, slot: str = "main", splay: float = 0.0
) -> list:
    """Four round legs under the corners of a width x depth rectangle."""
    return [
        tube(
            [(x * (width / 2 + splay), y * (depth / 2 + splay), 0), (x * width / 2, y * depth / 2, height)],
            radius,
            8,
            slot,
        )
        for x in (-1, 1)
        for y in (-1, 1)
    ]


def table(rng, variant: int, width: float = 1.2, depth: float = 0.75, height: float = 0.6) -> list[Part]:
    """Four legs, round pedestal, steel legs, slab sides; the top is at `height` metres."""
    top = 0.035
    if variant == 1:
        radius = min(width, depth * 1.3) / 2
        return [
            disc(radius, top, 36).at(z=height - top),
            tube([(0, 0, 0), (0, 0, height - top)], 0.05, 12),
            lathe([(0, 0), (0.3, 0), (0.28, 0.03), (0.05, 0.08), (0, 0.08)]),
        ]
    board = box(width, depth, top, 0.005).at(z=height - top)
    if variant == 0:
        rail = box(width * 0.88, depth * 0.84, 0.07).at(z=height - top - 0.07)
        return [board, rail, *_legs(width * 0.88, depth * 0.84, height - top, 0.03)]
    if variant == 2:
        return [board, *_legs(width * 0.9, depth * 0.85, height - top, 0.018, "steel", splay=0.03)]
    sides = [box(0.035, depth * 0.95, height - top).at(x=x * width * 0.46) for x in (-1, 1)]
    back = box(width * 0.9, 0.02, height * 0.5).at(y=depth * 0.4, z=height * 0.45)
    return [board, *sides, back]


def shelf(rng, variant: int, width: float = 0.9, depth: float = 0.32, height: float = 1.2) -> list[Part]:
    """Bookcase, posts with boards, bookcase with a back; boards at equal spacing, see `shelf_levels`."""
    t = 0.03
    boards = [box(width, depth, t).at(z=z - t) for z in shelf_levels(height)]
    if variant == 1:
        posts = [
            box(0.035, 0.035, height + 0.008, slot="steel").at(x * (width / 2 - 0.02), y * (depth / 2 - 0.02))
            for x in (-1, 1)
            for y in (-1, 1)
        ]
        return [*boards, *posts]
    sides = [box(t, depth * 1.01, height + 0.008).at(x=x * (width / 2)) for x in (-1, 1)]
    back = [box(width, 0.015, height + 0.004, slot="main" if variant == 0 else "accent").at(y=depth / 2)]
    return [*boards, *sides, *back]


def shelf_levels(height: float) -> list[float]:
    """Heights of the board tops of a shelf, metres; three boards."""
    return [0.14, 0.14 + (height - 0.14) / 2, height]


def chair(rng, variant: int) -> list[Part]:
    """Slatted back, panel back, moulded shell; held out: ladder back with arms. Seat near half height."""
    seat = [box(0.44, 0.44, 0.045, 0.012).at(z=0.43)]
    if variant == 2:
        shell = ellipsoid(0.25, 0.05, 0.28, (0.5, 0.5)).rotated("x", -10).at(0, 0.22, 0.72)
        cup = ellipsoid(0.25, 0.24, 0.05, (0.6, 0.6)).at(z=0.46)
        return [shell, cup, *_legs(0.3, 0.3, 0.45, 0.017, "steel", splay=0.07)]
    legs = _legs(0.38, 0.38, 0.45, 0.02)
    posts = [tube([(x * 0.19, 0.2, 0.44), (x * 0.19, 0.25, 0.92)], 0.018, 8) for x in (-1, 1)]
    if variant == 0:
        back = [box(0.4, 0.025, 0.08).at(0, 0.24, 0.84)]
        back += [box(0.03, 0.015, 0.38).at(x, 0.225, 0.47) for x in (-0.1, 0.0, 0.1)]
    elif variant == 1:
        back = [box(0.42, 0.04, 0.34, 0.015).rotated("x", -6).at(0, 0.22, 0.58)]
    else:
        back = [box(0.38, 0.02, 0.06).at(0, 0.2 + 0.05 * z, z) for z in (0.55, 0.68, 0.81)]
        back += [
            tube([(x * 0.22, -0.18, 0.45), (x * 0.22, -0.18, 0.66), (x * 0.22, 0.22, 0.68)], 0.018, 8)
            for x in (-1, 1)
        ]
    return [*seat, *legs, *posts, *back]


def stool(rng, variant: int) -> list[Part]:
    """Round on four legs, square, pedestal."""
    if variant == 2:
        return [
            lathe([(0, 0), (0.18, 0), (0.17, 0.02), (0.03, 0.05), (0.03, 0.42), (0, 0.42)], slot="steel"),
            disc(0.18, 0.06).at(z=0.42),
        ]
    top = disc(0.18, 0.04, 28) if variant == 0 else box(0.34, 0.34, 0.04, 0.01)
    return [
        top.at(z=0.44),
        *_legs(0.2 if variant == 0 else 0.26, 0.2 if variant == 0 else 0.26, 0.44, 0.018, splay=0.05),
    ]


def sofa(rng, variant: int) -> list[Part]:
    """Block arms, round arms, armless with legs."""
    w, d = 1.5, 0.75
    base = box(w, d, 0.22, 0.03).at(z=0.06)
    seats = [box(w * 0.42, d * 0.72, 0.14, 0.04).at(x * w * 0.215, -d * 0.1, 0.27) for x in (-1, 1)]
    back = box(w, 0.2, 0.72, 0.05).at(0, d / 2 - 0.1, 0.06)
    if variant == 0:
        arms = [box(0.16, d, 0.52, 0.04).at(x * (w / 2 - 0.02), 0, 0.06) for x in (-1, 1)]
    elif variant == 1:
        arms = [
            tube([(x * (w / 2 - 0.02), -d / 2, 0.42), (x * (w / 2 - 0.02), d / 2, 0.42)], 0.13, 16)
            for x in (-1, 1)
        ]
        arms += [box(0.16, d, 0.4, 0.02).at(x * (w / 2 - 0.02), 0, 0.04) for x in (-1, 1)]
    else:
        arms = _legs(w * 0.9, d * 0.8, 0.08, 0.025, "wood")
    return [base, *seats, back, *arms]


def carpet(rng, variant: int) -> list[Part]:
    """Rectangle with a border, round, runner with fringes; flat, unit width."""
    if variant == 1:
        return [disc(0.5, 0.012, 40), lathe([(0.42, 0.0135), (0.46, 0.0135)], 40, "accent")]
    depth = rng.uniform(0.62, 0.75) if variant == 0 else 0.42
    parts = [prism(rounded_rectangle(1.0, depth, 0.01), 0.012)]
    if variant == 0:
        for sx, sy, w, d in (
            (0, 1, 0.9, 0.03),
            (0, -1, 0.9, 0.03),
            (1, 0, 0.03, depth - 0.15),
            (-1, 0, 0.03, depth - 0.15),
        ):
            parts.append(box(w, d, 0.0015, slot="accent").at(sx * 0.44, sy * (depth / 2 - 0.06), 0.012))
        return parts
    fringe = [
        box(0.03, 0.008, 0.004, slot="light").at(x * 0.512, y, 0.0)
        for x in (-1, 1)
        for y in np.linspace(-depth / 2 + 0.02, depth / 2 - 0.02, 14)
    ]
    return parts + group(fringe)
