"""Mesh builders for `varied` scenes: bottles, vases and candles.

Each function takes (rng, variant) and returns parts in free units, front towards -y. A variant is a family of
meshes with wide random proportions; `vocabulary.VARIED_ONLY_VARIANTS` counts them.
"""

from __future__ import annotations

import numpy as np
from shapes import Part, arc, box, disc, ellipsoid, group, lathe, smooth_outline, tube, vessel
from varied_shapes import (
    band_around,
    hoop,
    lobed,
    pick,
    radius_at,
    wall_handle,
    wobbly_outline,
)


def _cap(rng, radius: float, z: float) -> list[Part]:
    """Bottle top with a carrying loop, a nozzle, a pump or a narrower button."""
    slot, high = pick(rng, "dark", "accent", "light", "steel"), rng.uniform(0.08, 0.14)
    loop = tube(arc(radius * 0.8, 0, 180, 10, stretch=rng.uniform(0.8, 1.4)), 0.02, 6, slot)
    nozzle = lathe(
        [(radius * 0.7, 0), (radius * 0.35, 0.05), (0.018, rng.uniform(0.1, 0.17)), (0, 0.17)], 14, slot
    )
    nose = tube(
        [(0, 0, 0.06), (0.02, 0, 0.1), (rng.uniform(0.13, 0.2), 0, 0.085)], [0.03, 0.035, 0.022], 8, slot
    )
    tops = [loop], [nozzle], [disc(0.022, 0.1, 10, slot), nose], [disc(radius * 0.6, high * 0.6, 16, slot)]
    return [disc(radius, high, 20, slot).at(z=z), *group(pick(rng, *tops), offset=(0, 0, z + high))]


def bottle(rng, variant: int) -> list[Part]:
    """Drinking flask, flat squeeze or pump bottle, slim with a long sloping neck, jug with an ear."""
    u, labelled = rng.uniform, rng.random() < 0.5
    if variant == 0:
        r, shoulder, neck, low = u(0.13, 0.19), u(0.68, 0.8), u(0.55, 0.95), u(0.02, 0.4)
        body = [(r * 0.92, 0), (r, 0.03), (r * u(0.8, 1), 0.4), (r, shoulder), (r * neck, shoulder + 0.1)]
        stripe = band_around(body, low, low + u(0.04, 0.2), pick(rng, "steel", "dark", "accent"))
        parts = [lathe([(0, 0), *body, (0, shoulder + 0.1)]), *_cap(rng, r * neck * 1.04, shoulder + 0.09)]
        return [*parts, stripe] if labelled else parts
    if variant == 1:
        r, flat = u(0.2, 0.28), u(0.5, 0.75)
        body = [(r, 0.03), (r, 0.3), (r * u(0.7, 1.05), 0.55), (r * u(0.5, 0.8), 0.7), (0.07, 0.78)]
        body = [(r * 0.93, 0), *wobbly_outline(rng, body)]
        hull = [lathe([(0, 0), *body, (0, 0.78)], 28)]
        if labelled:
            hull.append(band_around(body, u(0.14, 0.22), u(0.3, 0.42), pick(rng, "paper", "accent")))
        return [*(part.scaled(1, flat, 1) for part in hull), *_cap(rng, u(0.065, 0.09), 0.77)]
    if variant == 2:
        r, lip, shoulder = u(0.12, 0.18), u(0.04, 0.055), u(0.2, 0.58)
        body = [(r, 0.02), (r * u(0.85, 1.05), shoulder * 0.6), (r, shoulder), (lip * 1.5, 0.78), (lip, 0.96)]
        body = [(r * 0.95, 0), *smooth_outline(body, 16)]
        stopper = disc(lip * 1.2, 0.05, 14, pick(rng, "steel", "accent", "wood", "light")).at(z=0.95)
        label = band_around(body, shoulder * 0.2, shoulder * 0.7, pick(rng, "paper", "accent"))
        parts = [lathe([(0, 0), *body, (0, 0.96)]), hoop(lip, 0.94, 0.018, segments=16), stopper]
        return [*parts, label] if labelled else parts
    r, shoulder = u(0.24, 0.34), u(0.45, 0.62)
    body = [
        (r, 0.02),
        (r * 1.02, shoulder * 0.5),
        (r * 0.95, shoulder),
        (0.13, shoulder + 0.2),
        (0.085, 0.85),
    ]
    body = [(r * 0.92, 0), *wobbly_outline(rng, body), (0.085, 0.88)]
    parts = [lathe([(0, 0), *body, (0, 0.88)], 28), wall_handle(rng, body, 0.55, 0.82, 0.1)]
    stopper = disc(0.1, 0.09, 16, pick(rng, "dark", "accent", "wood")).at(z=0.86)
    ribs = [hoop(radius_at(body, z), z, 0.018) for z in np.linspace(0.1, shoulder, int(rng.integers(3, 6)))]
    return [*parts, stopper, *(ribs if labelled else [])]


def vase(rng, variant: int) -> list[Part]:
    """Globe or flat moon, collared, faceted or twisted, stacked bulges, footed trumpet, maybe with twigs."""
    u = rng.uniform
    if variant == 0:
        w, neck, collar = u(0.28, 0.45), u(0.07, 0.17), u(0.03, 0.25)
        globe = [
            (w * 0.5, 0),
            (w * 0.95, 0.2),
            (w, 0.42),
            (w * 0.8, 0.62),
            (neck, 0.76),
            (neck, 0.77 + collar),
        ]
        outline = [*wobbly_outline(rng, globe, 0.05, 18), (neck * u(1.1, 1.5), 0.8 + collar)]
        return [vessel(outline, 0.025, 28).scaled(1, u(0.4, 1.0), 1)]
    if variant == 1:
        levels = np.linspace(0, 1, int(rng.integers(5, 9)))
        shape = np.interp(levels, [0, u(0.3, 0.6), u(0.75, 0.9), 1], [0.18, 0.32, 0.2, 0.25])
        body = vessel(
            [(r * u(0.85, 1.15), z) for r, z in zip(shape, levels, strict=True)],
            0.03,
            int(rng.integers(4, 10)),
        )
        return [lobed(body, 0, 0.0, twist=pick(rng, 0, u(-110, 110)))]
    if variant == 2:
        count, ripple = int(rng.integers(2, 7)), u(0.12, 0.4)
        z = np.linspace(0, 1, 6 * count + 1)
        wave = 1 - ripple + ripple * np.abs(np.sin(np.pi * count * np.clip(z, 0.04, None)))
        bulges = wave * np.interp(z, [0, 0.5, 1], u(0.16, 0.34, 3))
        return [
            vessel(
                [*zip(bulges, z, strict=True), (bulges[-1] * 0.95, 1.05), (bulges[-1] * u(1, 1.6), 1.1)],
                0.025,
                24,
            )
        ]
    foot, flare, neck, rise = u(0.14, 0.24), u(0.22, 0.4), u(0.07, 0.13), u(0.06, 0.18)
    cup = smooth_outline(
        [(neck, rise), (neck * u(1.2, 1.7), 0.45), (flare * u(0.45, 0.9), 0.75), (flare, 1.0)]
    )
    body = lobed(
        vessel(cup, 0.02, 48), int(rng.integers(5, 10)), pick(rng, 0, u(0.03, 0.09)), pick(rng, 0, 0.05)
    )
    stand = lathe([(0, 0), (foot, 0), (foot, 0.03), (neck * 1.2, rise * 0.6), (neck, rise + 0.04)])
    twigs = [
        tube([(0, 0, 0.5), (0.08, 0, 1.0), (u(0.12, 0.35), 0, u(1.2, 1.5))], 0.01, 5, "wood").rotated(
            "z", turn
        )
        for turn in u(0, 360, pick(rng, 0, 0, 0, 3, 5))
    ]
    return [body, stand, *twigs]


def _lit(rng, z: float) -> list[Part]:
    """Wick at height z, mostly burning."""
    wick, high = tube([(0, 0, z - 0.03), (0, 0, z + 0.07)], 0.016, 5, "dark"), rng.uniform(0.16, 0.26)
    flame = lathe(smooth_outline([(0.0, 0), (0.05, high * 0.3), (0.0, high)], 7), 8, "flame").at(z=z + 0.03)
    return [wick, flame] if rng.random() < 0.8 else [wick]


def _taper(rng, radius: float, height: float, x: float, z: float) -> list[Part]:
    """Candle at (x, 0, z): smooth, ribbed or twisted, slimmer towards the top."""
    radii, heights = np.linspace(radius, radius * rng.uniform(0.6, 1), 14), np.linspace(0, height, 14)
    wax = lathe([(0, 0), *zip(radii, heights, strict=True), (0, height)])
    ribbed, twisted = lobed(wax, 4, 0.16), lobed(wax, 4, 0.16, twist=rng.uniform(200, 420) / height)
    return group([pick(rng, wax, ribbed, twisted), *_lit(rng, height)], offset=(x, 0, z))


def candle(rng, variant: int) -> list[Part]:
    """In a jar or tin, twisted or ribbed on a candlestick, candelabrum, sculpted or dripping block."""
    u, slot = rng.uniform, pick(rng, "main", "steel", "wood", "dark")
    if variant == 0:
        r, h = u(0.24, 0.42), u(0.2, 0.75)
        wall = [(r * u(0.8, 1), 0), (r, 0.06), (r * u(0.9, 1.1), h)]
        label = band_around(wall, h * u(0.15, 0.3), h * u(0.5, 0.7), pick(rng, "paper", "accent"))
        parts = [vessel(wall, 0.03, 28), disc(r * 0.92, 0.02).at(z=h * 0.84), *[label][: pick(rng, 0, 1)]]
        spots = pick(
            rng, [(0, 0)], [(0, 0)], [(0.12, 0), (-0.12, 0)], [(0.12, 0), (-0.07, 0.1), (-0.07, -0.1)]
        )
        return parts + [part.at(x, y) for x, y in spots for part in _lit(rng, h * 0.84 + 0.03)]
    if variant == 1:
        r, rise, base = u(0.08, 0.13), u(0.18, 0.5), u(0.15, 0.2)
        holder = [
            (base, 0),
            (base, 0.04),
            (base * 0.35, rise * 0.4),
            (r * 0.7, rise * 0.8),
            (r * 1.3, rise + 0.05),
        ]
        return [lathe([(0, 0), *holder, (0, rise + 0.05)], slot=slot), *_taper(rng, r, u(0.7, 1.1), 0, rise)]
    if variant == 2:
        step, height, r, rise = u(0.24, 0.32), u(0.4, 0.65), u(0.08, 0.105), u(0.3, 0.5)
        reach = step * np.arange(1, pick(rng, 2, 3, 3))
        parts = [lathe([(0, 0), (0.26, 0), (0.26, 0.03), (0.05, 0.09), (0.035, rise), (0, rise)], slot=slot)]
        parts += [tube(arc(x, 180, 360, 17, 0.35 * rise / step) + [0, 0, rise], 0.03, 6, slot) for x in reach]
        cup = lathe([(0, -0.05), (r * 1.5, 0.0), (r * 1.5, 0.04), (0, 0.04)], 16, slot)
        for x in (0, *reach, *-reach):
            parts += [cup.at(x, 0, rise), *_taper(rng, r, height, x, rise)]
        return parts
    r, h, z = u(0.26, 0.4), u(0.5, 0.9), np.linspace(0, 1, 25)
    bulges = r * (0.75 + 0.25 * np.abs(np.sin(np.pi * int(rng.integers(3, 6)) * z)))
    drops = [
        (turn, u(0.1, 0.24), u(0.03, 0.055)) for turn in np.arange(0, 360, 360 / int(rng.integers(6, 11)))
    ]
    beads = [
        ellipsoid(w, w, d, (1, 1), 6, 8).at(r * 0.7, 0, h - d * 0.9).rotated("z", turn)
        for turn, d, w in drops
    ]
    solids = [
        [ellipsoid(r, r, h * 0.5, (0.8, 1)).at(z=h * 0.5)],
        [lathe([(0, 0), (r, 0), (r * 0.12, h), (0, h)], pick(rng, 4, 5, 6, 24))],
        [box(r * 1.5, r * 1.5, h, 0.03)],
        [lathe([(0, 0), *zip(bulges, z * h, strict=True), (0, h)])],
        [*beads, lathe([(0, 0), (r * 0.8, 0), (r * 0.7, 0.08), (r * 0.7, h - 0.03), (r * 0.5, h), (0, h)])],
    ]
    return [*pick(rng, *solids), *_lit(rng, h)]
