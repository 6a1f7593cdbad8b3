"""Mesh builders for `varied` scenes: chairs and stools.

Each function takes (rng, variant) and returns parts in free units, front towards -y. A variant is a family of
meshes with wide random proportions; `vocabulary.VARIED_ONLY_VARIANTS` counts them.
"""

from __future__ import annotations

import numpy as np
from shapes import Part, arc, box, group, lathe, smooth_outline, tube
from varied_shapes import CORNERS, SIDES, loft, pick, sheet


def _legs(width: float, depth: float, height: float, radius, splay: float, slot: str = "main") -> list[Part]:
    """Four straight legs, their tops under the corners of a rectangle."""
    tops = [(x * width / 2, y * depth / 2) for x, y in CORNERS]
    return [tube([(x * (1 + splay), y * (1 + splay), 0), (x, y, height)], radius, 8, slot) for x, y in tops]


def _column(rng, radius: float, height: float) -> list[Part]:
    """Column on a five-armed foot or on a round plate."""
    slot = pick(rng, "steel", "dark", "main")
    arm = tube([(0, 0, 0.09), (radius, 0, 0.05), (radius, 0, 0)], [0.03, 0.02, 0.025], 8, slot)
    plate = lathe([(0, 0), (radius, 0), (radius * 0.9, 0.03), (0.04, 0.06), (0, 0.06)], slot=slot)
    star = [arm.rotated("z", 72 * k + 18) for k in range(5)]
    return [tube([(0, 0, 0.05), (0, 0, height)], 0.03, 10, slot), *pick(rng, star, star, [plate])]


def _upholstered(rng, w: float, d: float, z: float, top: float, lean: float) -> list[Part]:
    """Padded chair with a straight or a wrapped back."""
    low, thick, slot = rng.uniform(0.12, 0.3), rng.uniform(0.07, 0.12), pick(rng, "wood", "main", "dark")
    parts = _legs(w * 0.8, d * 0.8, low + 0.02, [0.014, 0.024], rng.uniform(0, 0.2), slot)
    parts.append(loft([(w, d, 0.06, low), (w * 1.03, d * 1.03, 0.07, (low + z) / 2), (w, d, 0.06, z)]))
    tall = [
        (w, thick, 0.03, low),
        (w * 1.02, thick, 0.03, z + 0.1, 0, lean * 0.3),
        (w * 0.94, thick, 0.03, top, 0, lean),
    ]
    turn, high = (
        np.radians(np.linspace(*pick(rng, (-20, 200), (0, 180), (20, 160)), 17)),
        min(top, z + 0.38) - low,
    )
    tub = sheet(np.c_[d * 0.52 * np.sin(turn), w * 0.53 * np.cos(turn)], high, thick * 0.7).rotated("y", 90)
    return [*parts, pick(rng, loft(tall).at(y=d / 2), tub.at(z=low + high / 2))]


def chair(rng, variant: int) -> list[Part]:
    """Spindles in a hoop or under a rail, swivel chair on a foot, bent sheet on tubes, upholstered or tub."""
    w, d, z, top = (
        rng.uniform(0.4, 0.5),
        rng.uniform(0.4, 0.48),
        rng.uniform(0.42, 0.47),
        rng.uniform(0.8, 0.98),
    )
    lean, r, high = rng.uniform(0.04, 0.12), rng.uniform(0.05, 0.18), top - z
    seat = loft([(w * 0.9, d * 0.9, r, z - 0.05), (w, d, r, z - 0.02), (w * 0.96, d * 0.96, r, z)])
    if variant == 0:
        parts, a, hoop = (
            _legs(w * 0.66, d * 0.66, z - 0.03, [0.014, 0.022], rng.uniform(0.2, 0.45)),
            w * 0.46,
            pick(rng, 0, 1),
        )
        parts += [
            tube([(-w * 0.38, y * d * 0.38, z * 0.4), (w * 0.38, y * d * 0.38, z * 0.4)], 0.012, 6)
            for y in SIDES
        ]
        rail = (
            tube(arc(a, 0, 180, 17, high / a), 0.016, 8)
            if hoop
            else box(2.1 * a, 0.025, 0.08, 0.01).at(z=high - 0.06)
        )
        ends = [
            (x * a, high * (np.sqrt(1 - x * x) if hoop else 0.95))
            for x in np.linspace(-0.82, 0.82, rng.integers(4, 8))
        ]
        back = [rail, *[tube([(x * 0.85, 0, -0.01), (x, 0, end)], 0.01, 6) for x, end in ends]]
        return [seat, *parts, *group(back, ("x", -np.degrees(lean / high)), (0, d * 0.4, z))]
    if variant == 1:
        wide, low = w * rng.uniform(0.75, 1.0), z + rng.uniform(0.02, 0.16)
        pad = loft([(wide - e, top - low - e, 0.07, y) for e, y in ((0.03, 0), (0, 0.03), (0.03, 0.07))])
        parts = [seat.at(z=0.02), pad.rotated("x", 90 - 80 * lean).at(0, d * 0.5 + 0.05, (top + low) / 2)]
        path = [(0, 0.05, z - 0.04), (0, d * 0.5 + 0.06, z - 0.03), (0, d * 0.5 + 0.08, low + 0.12)]
        parts += [tube(path, 0.022, 8, "dark"), *_column(rng, rng.uniform(0.24, 0.32), z - 0.03)]
        arms = [box(0.05, 0.26, 0.03, 0.01, "dark").at(x * w * 0.56, 0.02, z + 0.19) for x in SIDES]
        arms += [
            tube([(x * w * 0.4, 0, z - 0.03), (x * w * 0.56, 0, z + 0.2)], 0.016, 6, "dark") for x in SIDES
        ]
        return parts + pick(rng, [], arms)
    if variant == 2:
        ends = [(0.5, -0.02), (0.6, 0), (1.2, -0.01), (1.42, 0.03), (1.5, 0.12), (1.5 + lean / d, high)]
        path = [(y * d - d, z + q) for y, q in smooth_outline(ends, 16)]
        slot, r, back = (
            pick(rng, "steel", "main", "dark"),
            rng.uniform(0.012, 0.018),
            rng.uniform(0.25, 0.45) * d,
        )
        sled = [(0, back, z - 0.02), (0, d * 0.5, r), (0, -d * 0.5, r), (0, -back, z - 0.02)]
        sprung = [(0, d * 0.3, z - 0.03), (0, -d * 0.46, z - 0.03), (0, -d * 0.46, r), (0, d * 0.5, r)]
        rail, bar = (
            tube(pick(rng, sled, sprung), r, 8, slot),
            tube([(-w * 0.42, d * 0.5, r), (w * 0.42, d * 0.5, r)], r, 8, slot),
        )
        return [sheet(path, w, rng.uniform(0.02, 0.05)), bar, *[rail.at(x=x * w * 0.42) for x in SIDES]]
    return _upholstered(rng, w, d, z, top, lean)


def _bar_stool(rng, h: float, w: float, t: float) -> list[Part]:
    """Small padded seat high up on four legs with bars or on a column with a foot ring."""
    w *= rng.uniform(0.55, 0.75)
    outline = [(w * 0.9, 0), (w, t * 0.3), (w, t * 0.8), (w * 0.85, t * 1.2)]
    seat = pick(
        rng,
        lathe([(0, 0), *[(a / 2, z) for a, z in outline], (0, t * 1.25)]),
        loft([(a, a, 0.03, z) for a, z in outline]),
    )
    slot, foot, splay = pick(rng, "main", "main", "steel"), h * rng.uniform(0.25, 0.4), rng.uniform(0.1, 0.5)
    side = w * 0.33 * (1 + splay * (1 - foot / (h - t)))
    bar = tube([(-side, side, foot), (side, side, foot)], 0.009, 6, slot)
    legs = [
        *_legs(w * 0.66, w * 0.66, h - t, 0.013, splay, slot),
        *[bar.rotated("z", 90 * k) for k in range(4)],
    ]
    ring = lathe(
        [(w * 0.32, 0), (w * 0.37, 0), (w * 0.37, 0.018), (w * 0.32, 0.018), (w * 0.32, 0)], slot="steel"
    )
    spoke = box(w * 0.66, 0.02, 0.014, slot="steel")
    post = [*_column(rng, w * 0.6, h - t), *group([ring, spoke], offset=(0, 0, foot))]
    return [seat.at(z=h - t), *pick(rng, legs, legs, post)]


def _saddle_stool(rng, h: float, w: float, t: float, d: float) -> list[Part]:
    """Curved seat on crossed or splayed legs."""
    sag, reach, slot, r = (
        rng.uniform(-0.04, 0.05),
        w * 0.46,
        pick(rng, "main", "wood", "steel"),
        rng.uniform(0.012, 0.02),
    )
    y = np.linspace(-w / 2, w / 2, 9)
    seat = sheet(np.c_[y, h - t / 2 - sag * np.cos(np.pi * y / w)], d * w, t).rotated("z", 90)
    foot, bars = pick(rng, (-1, (0,)), (1.5, (-1.08, 1.08)))
    legs = [
        tube(
            [
                (foot * x * reach * 0.8, y * d * w * 0.4, 0),
                (x * reach * 0.8, y * d * w * 0.4, h - t * 0.6 - max(sag, 0) * 0.6),
            ],
            r,
            8,
            slot,
        )
        for x, y in CORNERS
    ]
    return [
        seat,
        *legs,
        *[
            tube(
                [(x * reach * 0.95, -d * w * 0.4, h * 0.45), (x * reach * 0.95, d * w * 0.4, h * 0.45)],
                r * 0.7,
                6,
                slot,
            )
            for x in bars
        ],
    ]


def stool(rng, variant: int) -> list[Part]:
    """Three legs and a dished seat, plank sides, bar stool with a foot ring, saddle seat on crossed legs."""
    h, w, t, d = (
        rng.uniform(0.42, 0.52),
        rng.uniform(0.3, 0.4),
        rng.uniform(0.03, 0.06),
        rng.uniform(0.6, 0.95),
    )
    if variant == 0:
        r, thick, splay = w / 2, rng.uniform(0.016, 0.028), rng.uniform(1.2, 1.7)
        seat = lathe([(0, 0), (r * 0.85, 0), (r, t * 0.4), (r, t), (r * 0.85, t * 1.1), (0, t * 0.7)], 28)
        leg, m = tube([(r * 0.6 * splay, 0, 0), (r * 0.6, 0, h - t + 0.01)], thick, 10), r * 0.3 * (1 + splay)
        bar = tube([(m, 0, h * 0.48), (-m / 2, m * 0.866, h * 0.48)], thick * 0.55, 6)
        kinds = pick(rng, [leg], [leg, bar])
        return [
            seat.scaled(1, rng.uniform(0.75, 1), 1).at(z=h - t),
            *[p.rotated("z", 120 * k + 30) for p in kinds for k in range(3)],
        ]
    if variant == 1:
        top, side = box(w * 1.05, d * w, t, 0.01), box(t * 0.7, d * w * 0.9, 1)
        parts = [
            top.at(z=h - t),
            box(w * 0.84, 0.02, h * 0.2).at(z=h * 0.6),
            box(w * 0.3, 0.03, 0.006, slot="dark").at(z=h - 0.002),
        ]
        parts += [side.scaled(1, 1, h - t).at(x=x * w * 0.42) for x in SIDES]
        step = [top.at(z=h * 0.5 - t), *[side.scaled(1, 1, h * 0.5 - t).at(x=x * w * 0.42) for x in SIDES]]
        return parts + pick(rng, [], group(step, offset=(0, -d * w * 0.9, 0)))
    if variant == 2:
        return _bar_stool(rng, h, w, t)
    return _saddle_stool(rng, h, w, t, d)
