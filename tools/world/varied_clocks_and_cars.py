"""Mesh builders for `varied` scenes: clocks and toy cars.

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
    ellipsoid,
    group,
    lathe,
    prism,
    smooth_outline,
    tube,
)
from varied_shapes import (
    SIDES,
    loft,
    pick,
    sheet,
)

SEGMENTS = dict(
    zip(
        "abcdefg",
        ((0, 1, 0), (1, 0.5, 1), (1, -0.5, 1), (0, -1, 0), (-1, -0.5, 1), (-1, 0.5, 1), (0, 0, 0)),
        strict=True,
    )
)
"""Centre x, centre z and uprightness of the segments of a digit."""

DIGITS = ("abcdef", "bc", "abdeg", "abcdg", "bcfg", "acdfg", "acdefg", "abc", "abcdefg", "abcdfg")


def _dial(rng, radius: float, y: float, z: float) -> list[Part]:
    """Clock face in the x-z plane looking towards -y."""
    face, mark = pick(rng, ("light", "dark"), ("paper", "dark"), ("light", "dark"), ("dark", "light"))
    count, wide = pick(rng, 4, 12, 12), rng.uniform(0.04, 0.09)
    tick = pick(rng, disc(0.07, 0.012, 8, mark), *[box(wide, rng.uniform(0.08, 0.2), 0.012, slot=mark)] * 2)
    parts = [disc(1, 0.02, 28, face), disc(0.07, 0.05, 10, mark)]
    parts += [tick.at(0, 0.84, 0.018).rotated("z", 360 / count * k) for k in range(count)]
    hands = [box(wide, length, 0.015, slot=mark).at(0, length * 0.42, 0.03) for length in (0.52, 0.76)]
    parts += [hand.rotated("z", rng.uniform(0, 360)) for hand in hands]
    return group([part.scaled(radius, radius, 1) for part in parts], ("x", 90), (0, y, z))


def _digital_clock(rng) -> list[Part]:
    """Block, wedge or half round with four seven-segment digits."""
    h, d = rng.uniform(0.36, 0.6), rng.uniform(0.22, 0.45)
    swell = [(d * np.cos(k) - d / 2, h / 2 * (1 + np.sin(k))) for k in np.linspace(-1.4, 1.4, 9)]
    back = pick(rng, [(d / 2, 0), (d / 2, h)], [(d / 2, 0), (rng.uniform(-0.3, 0.2) * d, h)], swell)
    body = prism([(-d / 2, 0), *back, (-d / 2, h)], 1.0).rotated("x", 90).rotated("z", 90).at(x=-0.5)
    pw, ph, slot = rng.uniform(0.66, 0.82), h * rng.uniform(0.5, 0.68), pick(rng, "light", "accent", "light")
    parts = [body, box(pw, 0.02, ph, slot="dark").at(0, -d / 2, (h - ph) / 2)]
    values, w, tall = (pick(rng, 0, 1), *rng.integers((10, 6, 10))), pw * 0.13, ph * 0.66
    for value, place in zip(values, (-0.37, -0.15, 0.15, 0.37), strict=True):
        for x, z, upright in (SEGMENTS[name] for name in DIGITS[value]):
            bar = (
                box(w * 0.22, 0.02, tall * 0.46, slot=slot)
                if upright
                else box(w * 0.9, 0.02, w * 0.22, slot=slot)
            )
            shift = tall * 0.23 if upright else w * 0.11
            parts.append(bar.at(place * pw + x * w * 0.45, -d / 2 - 0.01, h / 2 + z * tall * 0.45 - shift))
    parts += [box(0.03, 0.02, 0.03, slot=slot).at(0, -d / 2 - 0.01, h / 2 + z * ph) for z in (-0.18, 0.12)]
    parts.append(box(rng.uniform(0.2, 0.5), d * 0.3, 0.06, 0.01).at(0, -d * 0.3, h - 0.01))
    return group(parts, ("x", -rng.uniform(0, 14)))


def clock(rng, variant: int) -> list[Part]:
    """Digital block, lobed, many-sided or rayed on an easel, pendulum case, bulging body on legs or neck."""
    if variant == 0:
        return _digital_clock(rng)
    if variant == 1:
        t, n, kind = rng.uniform(0.08, 0.2), pick(rng, 6, 8, 8, 12), int(rng.integers(3))
        rim = [(0, 0), (0.5, 0), (0.5, t * 0.5), (0.44, t), (0.36, t), (0.35, t * 0.7), (0, t * 0.7)]
        rim = lathe(rim, 48 if kind else n).rotated("z", 180 / n)
        v, low = rim.vertices, 0.8 if kind == 2 else 0.6
        lobe = rng.uniform(0.06, 0.14) * (kind == 1) * np.cos(n * np.arctan2(v[:, 1], v[:, 0]))
        v[:, :2] *= 1 + (np.hypot(v[:, 0], v[:, 1]) > 0.4)[:, None] * lobe[:, None]
        long, wide = rng.uniform(0.2, 0.34), rng.uniform(0.06, 0.13)
        ray = prism([(-wide, 0), (wide, 0), (wide * 0.3, long), (-wide * 0.3, long)], t * 0.5).at(y=0.46)
        rays = [ray.rotated("z", 360 / (n + 4) * k) for k in range(n + 4) if kind == 2]
        legs = [tube([(x * 0.2, 0, -0.3), (x * 0.3, -0.06, -low)], 0.03, 8) for x in SIDES]
        legs.append(tube([(0, 0.02, 0.1), (0, 0.42, -low + 0.07)], 0.03, 8))
        return group(
            group([rim, *rays], ("x", 90)) + _dial(rng, 0.36, -t * 0.7, 0) + legs, ("x", -rng.uniform(3, 10))
        )
    if variant == 2:
        w, d, h, roof = (
            rng.uniform(0.3, 0.46),
            rng.uniform(0.18, 0.28),
            rng.uniform(0.95, 1.4),
            pick(rng, 0.05, 0.3, 0.8),
        )
        hood, low = w * rng.uniform(1.1, 1.4), rng.uniform(0.08, 0.22)
        window, rise = h - hood - low - 0.08, max(roof * hood, 0.05)
        parts = [
            box(w, d, h - hood),
            box(hood, d * 1.15, low, 0.02),
            box(hood, d * 1.15, hood, 0.01).at(z=h - hood),
        ]
        parts.append(box(w * 0.6, 0.02, window, slot="dark").at(0, -d / 2, low + 0.04))
        parts.append(box(0.02, 0.02, window - 0.1, slot="steel").at(0, -d / 2 - 0.01, low + 0.1))
        parts.append(disc(w * 0.2, 0.03, 16, "accent").rotated("x", 90).at(0, -d / 2 - 0.01, low + 0.14))
        ridge = hood * (0.55 if roof < 0.1 else 0.02)
        gable = prism([(-hood * 0.63, 0), (hood * 0.63, 0), (ridge, rise), (-ridge, rise)], d * 1.35)
        return [
            *parts,
            gable.rotated("x", 90).at(0, d * 0.675, h),
            *_dial(rng, hood * 0.4, -d * 0.58, h - hood / 2),
        ]
    d, q, tall, rise = (
        rng.uniform(0.3, 0.7),
        rng.uniform(0.34, 0.4),
        rng.uniform(0.85, 1.2),
        rng.uniform(0.1, 0.35),
    )
    profile = smooth_outline(
        [(0.02, 0), (0.32, d * 0.1), (0.5, d * rng.uniform(0.35, 0.6)), (q + 0.04, d)], 10
    )
    shell = lathe([(0, 0), *profile, (q, d), (q, d - 0.05), (0, d - 0.05)], 28).rotated("x", 90).at(y=d / 2)
    parts, low = [part.scaled(1, 1, tall) for part in [shell, *_dial(rng, q, 0.05 - d / 2, 0)]], -0.5 * tall
    spots = ((-1, -0.1), (1, -0.1), (0, 0.16))
    legs = [
        tube([(x * 0.22, y, low * 0.7), (x * 0.36, y * 1.5, low - rise)], [0.05, 0.025], 8) for x, y in spots
    ]
    neck = [(0, 0), (0.3, 0), (0.28, 0.05), (0.06, 0.1), (0.05, rise + 0.1), (0, rise + 0.1)]
    parts += pick(rng, legs, [lathe(neck).at(z=low - rise)])
    ring = tube(arc(0.15, 0, 180, 9) + (0, 0, -low - 0.02), 0.03, 6, pick(rng, "main", "steel"))
    return parts + pick(rng, [], [ring])


def _cabin(x: float, z: float, length: float, width: float, height: float, rake: float) -> list[Part]:
    """Car cabin with dark windows on four sides; the roof is `rake` times as long as the base."""

    def slab(low: float, high: float, sx: float, sy: float, slot: str) -> Part:
        sizes = [(length * (1 + f * (rake - 1)) * sx, width * (1 - 0.18 * f) * sy, f) for f in (low, high)]
        return loft([(a, b, min(a, b) * 0.08, z + f * height, x) for a, b, f in sizes], slot)

    glass = [slab(0.15, 0.82, 0.82, 1.02, "dark"), slab(0.15, 0.82, 1.02, 0.8, "dark")]
    return [slab(0, 1, 1, 1, "main"), *glass, slab(0, 0.95, 0.08, 1.04, "main")]


def toy_car(rng, variant: int) -> list[Part]:
    """Pick-up with an open back, rounded beetle, estate with roof rack, vintage with mudguards; along x."""
    w, r, thick = rng.uniform(0.38, 0.5), rng.uniform(0.1, 0.15), rng.uniform(0.07, 0.12)
    z, belt, high = r * 0.75, r * 1.7 + rng.uniform(0.03, 0.1), rng.uniform(0.17, 0.26)
    hub, size = pick(rng, "main", "steel", "light", "accent"), r * rng.uniform(0.5, 0.65)
    spots = [(x, y) for x in (-rng.uniform(0.26, 0.33), rng.uniform(0.26, 0.33)) for y in SIDES]
    wheel = [disc(r, thick, 18, "dark"), disc(size, thick + 0.01, 12, hub)]
    parts = [
        part for x, y in spots for part in group(wheel, ("x", 90 * y), (x, -y * (w / 2 - thick * 0.55), r))
    ]
    lamp = disc(r * 0.35, 0.025, 12, "light").rotated("y", 90)
    parts += [lamp.at(0.49, y * w * 0.3, (z + belt) / 2) for y in SIDES]
    body = loft([(0.96, w * 0.94, 0.05, z), (1.0, w, 0.08, z + 0.05), (0.98, w * 0.96, 0.07, belt)])
    if variant == 0:
        long, x, rim = rng.uniform(0.3, 0.42), rng.uniform(-0.02, 0.1), rng.uniform(0.06, 0.12)
        tail = x - long / 2 + 0.48
        parts += [body, *_cabin(x, belt, long, w * 0.92, high, rng.uniform(0.65, 0.9))]
        parts += [box(tail, 0.03, rim).at(tail / 2 - 0.48, y * w * 0.45, belt - 0.01) for y in SIDES]
        parts += [box(0.03, w * 0.9, rim).at(-0.47, 0, belt - 0.01)]
        return [*parts, box(tail - 0.03, w * 0.86, 0.02, slot="dark").at(tail / 2 - 0.48, 0, belt)]
    if variant == 1:
        dome, x = ellipsoid(rng.uniform(0.27, 0.34), w * 0.4, high), rng.uniform(-0.1, 0.0)
        glass = [dome.painted("dark").scaled(*s).at(z=0.01) for s in ((0.76, 1.15, 0.84), (1.14, 0.76, 0.84))]
        parts += [ellipsoid(0.5, w * 0.46, 0.15, (rng.uniform(0.75, 1.0), 0.8)).at(z=z + 0.13)]
        parts += group([dome, *glass], offset=(x, 0, z + 0.2))
        return parts + [
            ellipsoid(r * 1.5, thick * 0.8, r * 1.2).at(x, y * (w / 2 - thick * 0.4), r * 1.3)
            for x, y in spots
        ]
    if variant == 2:
        long, top = rng.uniform(0.62, 0.78), belt + high
        parts += [body, *_cabin(long / 2 - 0.48, belt, long, w * 0.94, high, rng.uniform(0.8, 0.92))]
        parts += [
            box(long - 0.22, 0.025, 0.04, slot="steel").at(long / 2 - 0.5, y * w * 0.3, top) for y in SIDES
        ]
        spare = disc(r * 0.9, 0.06, 16, "dark").rotated("y", -90).at(-0.48, 0, belt)
        load = box(0.3, w * 0.5, 0.09, 0.02, pick(rng, "accent", "wood")).at(-0.22, 0, top + 0.03)
        return [*parts, pick(rng, spare, load)]
    nose, deck = rng.uniform(0.38, 0.5), belt + 0.05
    parts += [loft([(nose, w * 0.5, 0.03, z, 0.5 - nose / 2), (nose, w * 0.5, 0.08, deck, 0.5 - nose / 2)])]
    parts += [loft([(1 - nose, w * 0.72, 0.05, z, -nose / 2), (1 - nose, w * 0.8, 0.1, deck, -nose / 2)])]
    guard = sheet(arc(r * 1.25, 10, 170, 9)[:, [0, 2]], thick * 1.3, 0.025).rotated("z", 90)
    parts += [guard.at(x, y * (w / 2 - thick * 0.1), r) for x, y in spots]
    parts += [box(0.4, thick, 0.025).at(0, y * w * 0.45, r * 0.8) for y in SIDES]
    parts += [box(0.02, w * 0.4, belt - z, slot="steel").at(0.5, 0, z + 0.03)]
    closed = _cabin(-nose / 2 - 0.02, deck - 0.01, 0.9 - nose, w * 0.78, high, rng.uniform(0.85, 1.0))
    screen = box(0.02, w * 0.7, high * 0.7, slot="dark").rotated("y", -20).at(0.48 - nose, 0, deck)
    seats = box(0.8 - nose, w * 0.6, 0.02, slot="dark").at(-nose / 2, 0, deck - 0.01)
    return parts + pick(
        rng, closed, [screen, seats, box(0.08, w * 0.56, 0.12, 0.02).at(-nose / 2 - 0.05, 0, deck)]
    )
