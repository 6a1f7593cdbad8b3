"""Mesh builders: tableware, vessels and fruit. They take (rng, variant) and return parts in free units."""

from __future__ import annotations

import numpy as np
from shapes import Part, arc, box, disc, ellipsoid, group, lathe, leaf, smooth_outline, tube, vessel


def _handle(rng, radius: float, height: float, thickness: float, square: bool = False) -> Part:
    """C-shaped handle attached to a wall at x = `radius`, centred at `height`."""
    reach = rng.uniform(0.26, 0.34)
    path = arc(reach, 90, -90, 12, stretch=rng.uniform(0.95, 1.2))
    if square:
        path = np.array([(-0.05, 0, reach), (reach, 0, reach), (reach, 0, -reach), (-0.05, 0, -reach)])
    return tube(path, thickness, 8).at(radius - 0.02, 0, height)


def mug(rng, variant: int) -> list[Part]:
    """Straight, tapered, bellied; held out: conical with a square handle."""
    r, h = rng.uniform(0.42, 0.52), rng.uniform(0.95, 1.15)
    outlines = [
        [(r * 0.94, 0), (r, 0.04), (r, h)],
        [(r * 0.72, 0), (r * 0.78, 0.05), (r * 0.95, h * 0.6), (r * 1.05, h)],
        smooth_outline([(r * 0.6, 0), (r * 1.05, h * 0.3), (r * 1.0, h * 0.7), (r * 0.9, h)]),
        [(r * 1.1, 0), (r * 1.12, 0.05), (r * 0.8, h)],
    ]
    wall = [r, r * 0.9, r * 1.02, r * 0.95][variant]
    parts = [vessel(outlines[variant], 0.06), _handle(rng, wall, h * 0.52, 0.07, square=variant == 3)]
    if rng.random() < 0.4:
        parts.append(disc(r * 0.7, 0.01, slot="dark").at(z=h * 0.75))
    return parts


def bottle(rng, variant: int) -> list[Part]:
    """Wine, water with cap, round flask; held out: square with a neck."""
    r, h = rng.uniform(0.17, 0.22), 1.0
    if variant == 3:
        parts = [box(2 * r, 2 * r, 0.66, 0.04), lathe([(r, 0.62), (0.09, 0.74), (0.08, 0.92), (0, 0.92)])]
        return [*parts, disc(0.1, 0.1, slot="dark").at(z=0.9)]
    outline = [
        [(r, 0), (r, 0.58), (r * 0.8, 0.68), (0.08, 0.78), (0.07, 0.97), (0.085, 0.97), (0.085, h), (0, h)],
        [
            (r, 0),
            (r * 1.02, 0.2),
            (r * 0.93, 0.35),
            (r, 0.5),
            (r, 0.68),
            (0.1, 0.86),
            (0.09, 0.92),
            (0, 0.92),
        ],
        [
            (r * 1.2, 0),
            (r * 1.6, 0.12),
            (r * 1.7, 0.3),
            (r * 1.2, 0.48),
            (0.08, 0.62),
            (0.07, 0.95),
            (0, 0.95),
        ],
    ]
    parts = [lathe([(0, 0), *outline[variant]])]
    if variant == 1:
        parts.append(disc(0.11, 0.1, slot="accent").at(z=0.9))
    if variant == 2:
        parts.append(disc(0.06, 0.12, slot="wood").at(z=0.93))
    if variant < 2 and rng.random() < 0.5:
        low = rng.uniform(0.16, 0.26)
        parts.append(lathe([(r * 1.03, low), (r * 1.03, low + rng.uniform(0.16, 0.26))], slot="paper"))
    return parts


def bowl(rng, variant: int) -> list[Part]:
    """Round, conical, footed; held out: deep with a flat rim."""
    h = rng.uniform(0.38, 0.5)
    outlines = [
        [(0.3, 0), *smooth_outline([(0.32, 0.02), (0.72, h * 0.35), (0.95, h * 0.75), (1, h)])],
        [(0.36, 0), (0.4, 0.03), (1, h)],
        [(0.42, 0), (0.36, 0.12), *smooth_outline([(0.4, 0.13), (0.85, h * 0.6), (1, h + 0.1)], 8)],
        [(0.5, 0), *smooth_outline([(0.52, 0.02), (0.82, h * 0.5), (0.84, h + 0.18)], 8), (1.0, h + 0.2)],
    ]
    return [vessel(outlines[variant], 0.05, 28)]


def plate(rng, variant: int) -> list[Part]:
    """Rimmed, coupe, two-tone rim; held out: square."""
    h = rng.uniform(0.08, 0.13)
    if variant == 3:
        base = vessel([(0.8, 0), (0.85, 0.02), (1.3, h)], 0.04, 4)
        return [base.rotated("z", 45)]
    if variant == 1:
        return [
            vessel([(0.5, 0), *smooth_outline([(0.52, 0.01), (0.85, h * 0.6), (1, h * 1.3)], 7)], 0.035, 32)
        ]
    parts = [vessel([(0.55, 0), (0.6, 0.02), (0.68, h * 0.6), (1, h)], 0.035, 32)]
    if variant == 2:
        parts.append(lathe([(0.99, h + 0.012), (0.9, h - 0.004)], 32, "accent"))
    return parts


def vase(rng, variant: int) -> list[Part]:
    """Flared, cylinder, narrow-necked; held out: amphora with two handles."""
    w = rng.uniform(0.24, 0.32)
    controls = [
        [(w * 0.6, 0), (w * 1.05, 0.3), (w * 0.9, 0.6), (w * 0.45, 0.82), (w * 0.85, 1.0)],
        [(w * 0.75, 0), (w * 0.8, 0.4), (w * 0.78, 0.8), (w * 0.8, 1.0)],
        [(w * 0.7, 0), (w * 1.3, 0.28), (w * 0.8, 0.52), (w * 0.28, 0.7), (w * 0.3, 1.0)],
        [(w * 0.45, 0), (w * 1.1, 0.45), (w * 0.9, 0.68), (w * 0.4, 0.85), (w * 0.6, 1.0)],
    ]
    parts = [vessel([(controls[variant][0][0], 0), *smooth_outline(controls[variant], 16)], 0.03)]
    if variant == 3:
        path = arc(0.17, -75, 80, 9, stretch=1.0)
        parts += group([tube(path, 0.03, 8).at(w * 0.72, 0, 0.74)])
        parts += group([tube(path, 0.03, 8).at(w * 0.72, 0, 0.74)], ("z", 180))
    return parts


def teapot(rng, variant: int) -> list[Part]:
    """Round, tall, low; held out: bail handle over the lid."""
    h = [0.8, 1.05, 0.62, 0.75][variant]
    r = [0.52, 0.42, 0.6, 0.54][variant] * rng.uniform(0.95, 1.05)
    body = smooth_outline([(r * 0.6, 0), (r, h * 0.3), (r * 0.95, h * 0.62), (r * 0.5, h * 0.93)])
    lid = lathe([(r * 0.52, h * 0.92), (r * 0.45, h * 1.0), (r * 0.1, h * 1.06), (0, h * 1.06)])
    knob = ellipsoid(0.08, 0.08, 0.08, rings=8, segments=12).at(z=h * 1.06 + 0.05)
    spout = tube(
        [(r * 0.75, 0, h * 0.3), (r * 1.15, 0, h * 0.42), (r * 1.35, 0, h * 0.68), (r * 1.6, 0, h * 0.88)],
        [0.14, 0.11, 0.075, 0.06],
        10,
    )
    if variant == 3:
        handle = tube(arc(r * 0.8, 10, 170, 14, stretch=1.25).copy() + [0, 0, h * 0.75], 0.045, 8)
    else:
        handle = tube(arc(h * 0.3, 90, 270, 12, stretch=1.1) + [-r * 0.88, 0, h * 0.52], 0.055, 8)
    return [lathe([(0, 0), *body, (0, h * 0.93)]), lid, knob, spout, handle]


def pan(rng, variant: int) -> list[Part]:
    """Frying pan, saucepan, two-handled pot without lid."""
    h = [0.22, 0.55, 0.6][variant]
    taper = rng.uniform(0.8, 0.9) if variant == 0 else 0.97
    parts = [vessel([(taper, 0), (taper + 0.02, 0.02), (1, h)], 0.05, 28)]
    if variant < 2:
        length = rng.uniform(1.0, 1.3)
        return [
            *parts,
            tube(
                [(0.95, 0, h * 0.75), (1.2, 0, h * 0.95), (1 + length, 0, h + 0.12)],
                [0.06, 0.07, 0.1],
                8,
                slot="dark",
            ),
        ]
    for turn in (0, 180):
        ring = tube(arc(0.22, -100, 100, 9), 0.05, 8, slot="dark").rotated("x", 90).at(0.98, 0, h * 0.8)
        parts += group([ring], ("z", turn))
    return parts


def apple(rng, variant: int) -> list[Part]:
    """Round, tall, with a leaf."""
    s = [0.9, 1.05, 0.88][variant]
    outline = smooth_outline(
        [(0.0, 0.1), (0.22, 0.02), (0.45, 0.25), (0.52, 0.58), (0.36, 0.86), (0.12, 0.84), (0.0, 0.74)], 18
    )
    parts = [
        lathe(outline).scaled(1, 1, s),
        tube([(0, 0, 0.7), (0.02, 0, 0.85), (0.08, 0, 1.02)], 0.03, 6, "wood"),
    ]
    if variant == 2:
        parts.append(leaf(0.35, 0.2, 0.15, 0.1).at(0.03, 0, 0.9))
    return parts


def _banana_finger(rng, bend: float) -> Part:
    """One banana lying on its side, bent in the x-y plane, tips along x."""
    a = np.radians(np.linspace(-bend, bend, 12))
    path = np.stack([np.sin(a), np.cos(a) - 1, np.zeros(12)], axis=1)
    radii = np.array([0.045, 0.07, 0.125, 0.15, 0.165, 0.17, 0.17, 0.165, 0.15, 0.12, 0.07, 0.045])
    return tube(path, radii * rng.uniform(0.95, 1.1), 7).at(z=0.16)


def banana(rng, variant: int) -> list[Part]:
    """Single, bunch of three, strongly bent pair; dark tips."""
    bend = rng.uniform(44, 54) + (12 if variant == 2 else 0)
    parts = []
    for k in range([1, 3, 2][variant]):
        finger = [_banana_finger(rng, bend)]
        end = finger[0].vertices[-7:].mean(axis=0)
        before = finger[0].vertices[-14:-7].mean(axis=0)
        tip = tube([end, end + 0.9 * (end - before)], [0.05, 0.045], 6, "wood")
        parts += group([*finger, tip], ("x", [0, 24, 46][k]), (0, 0.17 * k, 0.12 * k * (k - 0.3)))
    return parts


def candle(rng, variant: int) -> list[Part]:
    """Pillar, taper in a holder, group of three; held out: candle on a dish."""

    def stick(radius: float, height: float) -> list[Part]:
        flame = lathe(smooth_outline([(0.0, 0), (0.055, 0.06), (0.03, 0.14), (0.0, 0.22)], 8), 8, "flame")
        return [
            lathe(
                [(0, 0), (radius, 0), (radius, height), (radius * 0.85, height * 0.98), (0, height * 0.96)]
            ),
            tube([(0, 0, height * 0.96), (0, 0, height + 0.07)], 0.015, 5, "dark"),
            flame.at(z=height + 0.03),
        ]

    if variant == 0:
        return stick(rng.uniform(0.2, 0.3), rng.uniform(0.6, 0.9))
    if variant == 1:
        holder = lathe(
            [(0, 0), (0.3, 0), (0.3, 0.04), (0.07, 0.1), (0.07, 0.22), (0.13, 0.26), (0, 0.26)], slot="steel"
        )
        return [holder, *group(stick(0.1, rng.uniform(0.75, 0.95)), offset=(0, 0, 0.25))]
    if variant == 2:
        heights = rng.permutation([0.5, 0.75, 1.0])
        spots = [(0, 0.2, 0), (0.24, -0.16, 0), (-0.24, -0.16, 0)]
        return [
            part
            for h, spot in zip(heights, spots, strict=True)
            for part in group(stick(0.19, h), offset=spot)
        ]
    dish = vessel([(0.3, 0), (0.32, 0.02), (0.48, 0.1)], 0.03, slot="light")
    return [dish, *group(stick(0.22, rng.uniform(0.45, 0.6)), offset=(0, 0, 0.03))]
