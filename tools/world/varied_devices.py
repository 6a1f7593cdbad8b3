"""Mesh builders for `varied` scenes: keyboards, laptops and phones.

Each function takes (rng, variant) and returns parts in free units, front towards -y. A variant is a family of
meshes with wide random proportions; `vocabulary.VARIED_ONLY_VARIANTS` counts them.
"""

from __future__ import annotations

import numpy as np
from shapes import (
    Part,
    box,
    disc,
    group,
    lathe,
    prism,
    rounded_rectangle,
    tube,
)
from varied_shapes import (
    CORNERS,
    SIDES,
    loft,
    pick,
    sheet,
)

KEY_ROWS = (
    (1.0,) * 13 + (2.0,),
    (1.5, *(1.0,) * 12, 1.5),
    (1.75, *(1.0,) * 11, 2.25),
    (2.25, *(1.0,) * 10, 2.75),
    (1.25, 1.25, 1.25, 6.25, 1.25, 1.25, 1.25, 1.25),
)
"""Key widths of a keyboard's main block from the back row to the front one, in key pitches."""


def _key_field(make, rows, left: float, back: float) -> list[Part]:
    """Rows of keys, `make(width)` each, from the back left corner."""
    spots = [
        (w, left + sum(row[:i]) + w / 2, back - r - 0.5)
        for r, row in enumerate(rows)
        for i, w in enumerate(row)
    ]
    return [make(w).at(x, y) for w, x, y in spots]


def keyboard(rng, variant: int) -> list[Part]:
    """Round keys in a wide frame, full-size with blocks, with palm rest and knob, tall coloured caps."""
    height = rng.uniform(0.35, 0.6) if variant == 1 else rng.uniform(0.7, 1.3)
    gap = rng.uniform(0.18, 0.3) if variant != 3 else rng.uniform(0.06, 0.14)
    slot = pick(rng, "light", "dark", "main") if variant != 3 else "main"
    special, tall = (
        pick(rng, slot, "accent", "light", "dark"),
        rng.uniform(0.4, 0.75) if variant == 3 else 0.22,
    )

    def key(w: float) -> Part:
        colour, x, y = slot if w < 1.2 or w > 5 else special, w - gap, 1 - gap
        if variant == 0:
            return prism(rounded_rectangle(x, y, 0.49 - gap / 2, 3), 0.3, colour)
        return loft([(x, y, 0, 0), (x - 0.4 * tall, y - 0.4 * tall, 0, tall)], colour, 1)

    rows = KEY_ROWS[variant == 0 :] if variant == 0 or rng.random() < 0.5 else ((1.0,) * 15, *KEY_ROWS)
    blocks = (0, 2, int(rng.integers(2)), int(rng.integers(2)))[variant]
    edge = rng.uniform(0.3, 0.7) + (0.6 if variant == 0 else 0.0)
    strip = rng.uniform(0.8, 1.6) if variant == 2 else 0.0
    width, back = 15 + 2 * edge + (0, 3.4, 7.8)[blocks], len(rows) / 2
    left, depth = -width / 2 + edge, len(rows) + 2 * edge + strip
    keys = _key_field(key, rows, left, back)
    if blocks:
        keys += _key_field(key, [(1.0,) * 3] * 2, left + 15.4, back)
        keys += [*_key_field(key, [(1.0,) * 3], left + 15.4, 1 - back), key(1.0).at(left + 16.9, 1.5 - back)]
    if blocks == 2:
        keys += _key_field(key, [*[(1.0,) * 4] * (len(rows) - 1), (2.0, 1.0, 1.0)], left + 18.8, back)
    flare, r = (rng.uniform(0.3, 1.2) if variant == 0 else 0.0), rng.uniform(0.1, 0.3 + edge / 2)
    levels = [
        (width + flare, depth + flare, r, 0),
        (width + flare, depth + flare, r, height * 0.4),
        (width, depth, r, height),
    ]
    parts = [loft(levels).at(y=strip / 2), *group(keys, offset=(0, 0, height))]
    if variant == 2:
        rest, y = rng.uniform(1.6, 3.0), back + edge + strip * 0.4
        pad = [
            (width, rest, 0.5, 0),
            (width, rest, 0.5, height * 0.6),
            (width * 0.97, rest * 0.8, 0.4, height),
        ]
        parts.append(loft(pad).at(y=-back - edge - rest / 2 + 0.05))
        parts.append(disc(strip * 0.38, 0.6, 16, special).at(pick(rng, -1, 1) * width * 0.42, y, height))
        parts.append(box(width * 0.3, strip * 0.3, 0.08, slot="dark").at(0, y, height))
    return group(parts, ("x", rng.uniform(1, 7)))


def laptop(rng, variant: int) -> list[Part]:
    """Rugged with handle and bumpers, tapered, narrow bezel, cut corners and stripes, tablet on a prop."""
    d, t = (
        rng.uniform(0.58, 0.8),
        rng.uniform(*((0.08, 0.14), (0.03, 0.06), (0.05, 0.09), (0.02, 0.035))[variant]),
    )
    corner, slot = rng.uniform(0.02, 0.09), pick(rng, "dark", "dark", "light")
    outline = rounded_rectangle(1.0, d, corner, 2 if variant == 2 else 4)
    edge = rng.uniform(0.02, 0.045) + corner * 0.4 + (0.06 if variant == 0 else 0.0)
    deck, slope = prism(outline, t), 0.7 * t / d if variant == 1 else 0.0
    v = deck.vertices
    v[:, 2] += (v[:, 2] > 0) * slope * (v[:, 1] - d / 2)
    keys = _key_field(
        lambda k: loft([(k - 0.2, 0.8, 0, 0), (k - 0.3, 0.7, 0, 0.25)], slot, 1), KEY_ROWS, -7.5, 2.5
    )
    pitch, rise = rng.uniform(0.78, 0.92) / 15, d * rng.uniform(0.075, 0.09)
    keys = [key.scaled(pitch, rise, 0.03).at(y=d * 0.17) for key in keys]
    wide, deep, colour = (
        rng.uniform(0.2, 0.42),
        d * rng.uniform(0.2, 0.28),
        pick(rng, "accent", slot, "steel"),
    )
    top = [*keys, box(wide, deep, 0.012, slot=colour).at(y=-d * 0.3)]
    parts = [deck, *group(top, ("x", np.degrees(np.arctan(slope))), (0, 0, t - slope * d / 2))]
    thin = t * (0.5 if variant != 3 else 1.2)
    lid = [prism(outline, thin), box(1 - 2 * edge, d - 2 * edge - 0.02, 0.006, slot="screen").at(z=thin)]
    lid.append(pick(rng, disc(0.06, 0.006, 14, "accent"), box(0.14, 0.09, 0.006, slot="light")).at(z=-0.005))
    opening = rng.uniform(*((90, 125), (85, 140), (75, 130), (100, 120))[variant])
    hinge = d / 2 - (rng.uniform(0.05, 0.12) if variant == 2 else 0.0)
    if variant == 0:
        parts += [
            box(0.12, 0.12, t * 1.15, 0.02, "dark").at(x * 0.47, y * (d / 2 - 0.03), -0.01)
            for x, y in CORNERS
        ]
        lid += [box(0.1, 0.1, thin * 1.2, slot="dark").at(x * 0.46, d / 2 - 0.04, -0.004) for x in SIDES]
        grip = np.array([(-0.24, 0, 0), (-0.22, -0.12, 0), (0.22, -0.12, 0), (0.24, 0, 0)])
        parts.append(tube(grip + (0, -d / 2, t / 2), t * 0.25, 8))
    if variant == 2:
        lid += [box(0.04, d * 0.8, 0.006, slot="accent").at(x * 0.3, 0, -0.005) for x in SIDES]
    if variant == 3:
        lean = np.radians(180 - opening)
        y, z = hinge + 0.5 * d * np.cos(lean) + 0.02, t + 0.5 * d * np.sin(lean)
        parts.append(sheet([(y + rng.uniform(0.3, 0.45) * d, 0), (y, z)], 0.94, 0.015))
    bar = tube([(-0.4, hinge, t), (0.4, hinge, t)], max(t * 0.35, 0.015), 8, pick(rng, "dark", "main"))
    return [*parts, bar, *group([part.at(y=d / 2) for part in lid], ("x", 180 - opening), (0, hinge, t))]


def _keypad(rng, width: float, depth: float, y: float, z: float) -> list[Part]:
    """Twelve keys, round or oblong."""
    kx, ky = width / 3, depth / 4
    shape = rounded_rectangle(kx * 0.74, ky * 0.7, rng.uniform(0.15, 0.34) * min(kx, ky), 3)
    key = prism(shape, 0.02, pick(rng, "light", "dark", "accent"))
    return [key.at((c - 1) * kx, y + (r - 1.5) * ky, z) for r in range(4) for c in range(3)]


def phone(rng, variant: int) -> list[Part]:
    """Opened flip phone, rotary telephone, cordless handset in its dock, smartphone in an upright case."""
    if variant == 1:
        return _rotary(rng)
    if variant == 0:
        w, d, t = rng.uniform(0.42, 0.56), rng.uniform(0.5, 0.62), rng.uniform(0.06, 0.1)
        half = prism(rounded_rectangle(w, d, rng.uniform(0.06, 0.2)), t)
        upper = [half, box(w * 0.72, d * 0.62, 0.006, slot="screen").at(0, -0.02, t)]
        upper.append(box(w * 0.3, 0.025, 0.01, slot="dark").at(0, d * 0.4, t))
        parts = [
            half,
            *_keypad(rng, w * 0.8, d * 0.5, -d * 0.16, t),
            disc(w * 0.16, 0.02, 16, "steel").at(0, d * 0.25, t),
        ]
        parts += group([part.at(y=d / 2) for part in upper], ("x", rng.uniform(15, 55)), (0, d / 2, 0))
        parts.append(tube([(-w * 0.42, d / 2, t / 2), (w * 0.42, d / 2, t / 2)], t * 0.75, 10))
        return group(parts, ("x", pick(rng, 0, rng.uniform(30, 50))))
    if variant == 2:
        w, t = rng.uniform(0.28, 0.4), rng.uniform(0.1, 0.18)
        r, deep = w * rng.uniform(0.2, 0.42), rng.uniform(0.4, 0.6)
        sizes = ((0.85, 0.95, 0.8, 0), (1, 1, 1, 0.4), (0.96, 0.98, 0.95, 0.8), (0.86, 0.94, 0.8, 1))
        parts = [
            loft([(w * a, b, r * c, t * z) for a, b, c, z in sizes]),
            *_keypad(rng, w * 0.76, 0.36, -0.16, t),
        ]
        parts += [
            box(w * 0.62, 0.22, 0.01, slot="screen").at(0, 0.25, t),
            disc(w * 0.17, 0.02, 14, "steel").at(0, 0.08, t),
        ]
        dock = [(w * 1.7, deep, 0.12, 0), (w * 1.6, deep * 0.9, 0.1, 0.1), (w * 1.25, deep * 0.6, 0.1, 0.24)]
        return [loft(dock), *group(parts, ("x", rng.uniform(65, 82)), (0, 0, 0.56))]
    w, t, r, lean = rng.uniform(0.44, 0.54), 0.06, rng.uniform(0.04, 0.11), rng.uniform(58, 78)
    parts = [
        loft([(w, 1, r, 0), (w, 1, r, t)]),
        prism(rounded_rectangle(w * 0.86, 0.92, r), 0.006, "screen").at(z=t),
    ]
    count, gap = pick(rng, (1, (0, 0)), (2, (0, 0.11)), (3, (0, 0.1)), (3, (0.11, 0)))
    island = rounded_rectangle(0.15 + count * gap[0], 0.15 + count * gap[1], 0.06)
    rear = [prism(island, 0.03, pick(rng, "main", "dark", "accent"))]
    rear += [
        disc(0.045, 0.055, 12, "dark").at(k * gap[0], k * gap[1]) for k in np.arange(count) - (count - 1) / 2
    ]
    parts += group(group(rear, offset=(pick(rng, 0, w / 2 - 0.25), 0.27, 0)), ("y", 180))
    parts = group(parts, ("y", pick(rng, 0, 180, 180)))
    stand = [
        box(w * 0.7, 0.4, 0.03, 0.01, "dark").at(y=0.12),
        box(w * 0.9, 0.06, 0.1, slot="dark").at(y=-0.1),
    ]
    stand.append(sheet([(0.3, 0.02), (0.24 * np.cos(np.radians(lean)) + 0.12, 0.45)], w * 0.3, 0.03, "dark"))
    return [*stand, *group([part.at(y=0.5) for part in parts], ("x", lean), (0, -0.02, 0.04))]


def _rotary(rng) -> list[Part]:
    """Desk telephone with a finger wheel under a handset that lies across its cradle."""
    w, d, h = rng.uniform(0.8, 1.05), rng.uniform(0.7, 0.9), rng.uniform(0.4, 0.58)
    r, top, y = rng.uniform(0.06, 0.14), rng.uniform(0.45, 0.7), d * 0.16
    body = loft(
        [
            (w, d, r, 0),
            (w, d, r, 0.08),
            (w * top, d * 0.42, r, h * 0.92, 0, y),
            (w * top, d * 0.34, r, h, 0, y),
        ]
    )
    slope = np.degrees(np.arctan2(h * 0.92 - 0.08, d * 0.45))
    q = min(w * top * 0.5, 0.5 * np.hypot(h, d * 0.4)) * rng.uniform(0.8, 0.95)
    face, hole = pick(rng, ("light", "dark"), ("dark", "light"), ("main", "dark"), ("main", "light"))
    wheel = [disc(q, 0.05, 24, face), disc(q * 0.4, 0.07, 16, pick(rng, "accent", "paper"))]
    wheel += [disc(q * 0.14, 0.06, 10, hole).at(y=q * 0.72).rotated("z", a) for a in range(-120, 151, 30)]
    parts = [body, *group(wheel, ("x", slope), (0, -d * 0.275, 0.04 + h * 0.46))]
    parts += [box(0.06, d * 0.34, 0.14, 0.01).at(x * w * 0.24, y, h - 0.02) for x in SIDES]
    reach, bend = rng.uniform(0.48, 0.56), rng.uniform(0.02, 0.12)
    path = [(-reach, 0, 0), (-reach * 0.6, 0, bend), (reach * 0.6, 0, bend), (reach, 0, 0)]
    cup = lathe([(0, -0.16), (0.13, -0.16), (0.15, -0.1), (0.08, 0.03), (0, 0.06)], 14)
    handset = [tube(path, rng.uniform(0.06, 0.08), 10), *[cup.at(x=x * reach) for x in SIDES]]
    return [*parts, *group(handset, offset=(0, y, h + 0.13))]
