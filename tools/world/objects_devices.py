"""Mesh builders: laptop, keyboard, phone, clock.

They take (rng, variant) and return parts in free units, front at -y.
"""

from __future__ import annotations

import numpy as np
from shapes import Part, arc, box, disc, ellipsoid, group, lathe, prism, rounded_rectangle, tube


def laptop(rng, variant: int) -> list[Part]:
    """Thin, thick-bezelled, small rounded; opened by 100 to 125 degrees."""
    w, d = 1.0, [0.66, 0.72, 0.7][variant]
    t = [0.035, 0.06, 0.05][variant]
    edge = [0.03, 0.07, 0.05][variant]
    deck = [prism(rounded_rectangle(w, d, 0.05 if variant == 2 else 0.02), t)]
    deck += [
        box(w * 0.86, d * 0.42, 0.006, slot="dark").at(0, d * 0.16, t),
        box(w * 0.26, d * 0.24, 0.004, slot="accent").at(0, -d * 0.28, t),
    ]
    lid = [
        prism(rounded_rectangle(w, d, 0.05 if variant == 2 else 0.02), t * 0.7),
        box(w - 2 * edge, d - 2 * edge, 0.006, slot="screen").at(z=t * 0.7),
        disc(0.05, 0.004, 12, "accent").at(z=-0.004),
    ]
    opening = rng.uniform(100, 125)
    lid = group([part.at(y=d / 2) for part in lid], ("x", 180 - opening), (0, d / 2, t))
    return deck + lid


def keyboard(rng, variant: int) -> list[Part]:
    """Full, compact with light keys, sloped with dark keys; held out: two angled halves."""

    def block(columns: int, rows: int, slot: str, left: float) -> list[Part]:
        keys = [
            box(0.052, 0.052, 0.02, slot=slot).at(left + 0.062 * c, 0.062 * (r - (rows - 1) / 2), 0.03)
            for r in range(1, rows)
            for c in range(columns)
        ]
        bottom = -0.062 * (rows - 1) / 2
        width = 0.062 * columns
        space = box(width * 0.45, 0.052, 0.02, slot=slot).at(left + width / 2 - 0.03, bottom, 0.03)
        ends = [
            box(width * 0.2, 0.052, 0.02, slot=slot).at(left - 0.03 + width * x, bottom, 0.03)
            for x in (0.11, 0.86)
        ]
        return [*keys, space, *ends]

    slot = ["accent", "light", "dark", str(rng.choice(["accent", "light", "dark"]))][variant]
    rows = 5
    if variant == 3:
        half = [prism(rounded_rectangle(0.5, 0.38, 0.04), 0.03), *block(7, rows, slot, -0.19)]
        return group(half, ("z", 12), (-0.29, 0, 0)) + group(half, ("z", -12), (0.29, 0, 0))
    columns = [13, 12, 14][variant]
    width = 0.062 * columns + (0.26 if variant == 0 else 0.04)
    parts = [
        prism(rounded_rectangle(width, 0.062 * rows + 0.05, 0.02), 0.035),
        *block(columns, rows, slot, -width / 2 + 0.05),
    ]
    if variant == 0:
        parts += block(3, rows, slot, width / 2 - 0.17)
    return group(parts, ("x", rng.uniform(2, 7)), (0, 0, 0.02))


def _keypad(width: float, bottom: float, z: float, slot: str = "light") -> list[Part]:
    """Twelve keys."""
    return [
        box(width * 0.2, width * 0.13, 0.02, slot=slot).at(
            (c - 1) * width * 0.28, bottom + r * width * 0.2, z
        )
        for r in range(4)
        for c in range(3)
    ]


def phone(rng, variant: int) -> list[Part]:
    """Smartphone face up, its back with cameras, desk telephone, keypad handset with an aerial."""
    w, d = rng.uniform(0.46, 0.5), 1.0
    if variant == 2:
        base = prism([(-0.5, 0), (0.5, 0), (0.5, 0.14), (-0.5, 0.42)], 0.8).rotated("x", 90).at(y=0.4)
        base = base.rotated("z", -90)
        keys = group(_keypad(0.5, -0.2, 0.0), ("x", 15.6), (0, -0.08, 0.27))
        handset = [
            tube([(-0.42, 0, 0), (-0.3, 0, 0.07), (0.3, 0, 0.07), (0.42, 0, 0)], 0.075, 8),
            ellipsoid(0.15, 0.13, 0.1, rings=8, segments=12).at(-0.45, 0, -0.02),
            ellipsoid(0.15, 0.13, 0.1, rings=8, segments=12).at(0.45, 0, -0.02),
        ]
        return [base, *keys, *group(handset, offset=(0, 0.33, 0.48))]
    if variant == 3:
        body = [
            prism(rounded_rectangle(0.42, 1.0, 0.08), 0.16),
            *_keypad(0.4, -0.38, 0.15),
            box(0.3, 0.3, 0.01, slot="screen").at(0, 0.28, 0.16),
            tube([(0.15, 0.48, 0.09), (0.15, 0.72, 0.09)], 0.035, 8, "dark"),
        ]
        return body
    case = prism(rounded_rectangle(w, d, 0.07), 0.07)
    if variant == 0:
        face = prism(rounded_rectangle(w * 0.82, d * 0.9, 0.05), 0.004, "screen").at(z=0.07)
        parts = [case, face]
    else:
        bump = prism(rounded_rectangle(0.2, 0.24, 0.05), 0.02, "accent").at(-w / 2 + 0.14, d / 2 - 0.17, 0.07)
        lenses = [
            disc(0.035, 0.015, 12, "dark").at(-w / 2 + x, d / 2 - y, 0.09)
            for x, y in ((0.1, 0.12), (0.1, 0.22), (0.18, 0.17))
        ]
        parts = [case, bump, *lenses]
    if rng.random() < 0.5:
        stand = box(0.3, 0.24, 0.03, slot="dark")
        return [stand.at(y=0.1), *group(parts, ("x", rng.uniform(60, 72)), (0, 0.05, 0.46))]
    return parts


def _dial(radius: float) -> list[Part]:
    """Clock face in the x-z plane looking towards -y, centred at the origin."""
    parts = [disc(radius, 0.02, 28, "light")]
    for k in range(12):
        tick = box(0.03 * radius, 0.14 * radius, 0.01, slot="dark").at(0, 0.84 * radius, 0.02)
        parts.append(tick.rotated("z", 30 * k))
    parts += [
        box(0.06 * radius, 0.6 * radius, 0.015, slot="dark").at(0, 0.26 * radius, 0.025).rotated("z", 55),
        box(0.05 * radius, 0.8 * radius, 0.015, slot="dark").at(0, 0.36 * radius, 0.03).rotated("z", -60),
        disc(0.06 * radius, 0.05, 8, "dark"),
    ]
    return group(parts, ("x", 90))


def clock(rng, variant: int) -> list[Part]:
    """Twin-bell alarm clock, round with a foot, square; held out: arched mantel clock."""
    depth = rng.uniform(0.25, 0.35)
    if variant == 0:
        drum = lathe(
            [(0, 0), (0.42, 0), (0.46, 0.03), (0.46, depth), (0.41, depth), (0.41, depth - 0.03)], 28
        )
        drum = drum.rotated("x", 90).at(y=depth / 2, z=0.55)
        parts = [drum, *group(_dial(0.4), offset=(0, -depth / 2 + 0.04, 0.55))]
        for side in (-1, 1):
            bell = ellipsoid(0.19, 0.19, 0.12, rings=8, segments=14).rotated("y", side * 35)
            parts += [
                bell.at(side * 0.3, 0, 1.0),
                tube([(side * 0.25, 0, 0.2), (side * 0.36, 0, 0.0)], 0.04, 6),
            ]
        handle = tube(arc(0.16, 0, 180, 9) + [0, 0, 1.05], 0.025, 6, "steel")
        return [*parts, handle]
    if variant == 1:
        drum = lathe(
            [(0, 0), (0.48, 0), (0.5, 0.04), (0.5, depth * 0.6), (0.42, depth * 0.6), (0.42, depth * 0.5)], 28
        )
        return [
            drum.rotated("x", 90).at(y=depth * 0.3, z=0.56),
            box(0.5, depth, 0.1, 0.02),
            *group(_dial(0.42), offset=(0, -depth * 0.2, 0.56)),
        ]
    if variant == 2:
        return [box(0.95, depth, 0.95, 0.03), *group(_dial(0.4), offset=(0, -depth / 2, 0.475))]
    a = np.radians(np.linspace(0, 180, 14))
    outline = [(-0.5, 0.0), (0.5, 0.0), *zip(0.5 * np.cos(a), 0.45 + 0.5 * np.sin(a), strict=True)]
    body = prism(outline, depth).rotated("x", 90).at(y=depth / 2)
    return [body, box(1.2, depth * 1.3, 0.1, 0.02), *group(_dial(0.36), offset=(0, -depth / 2, 0.5))]
