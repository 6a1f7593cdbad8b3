"""Mesh builders for `varied` scenes: mugs, bowls, plates, teapots and pans.

Each function takes (rng, variant) and returns parts in free units, front towards -y. A variant is a family of
meshes with wide random proportions; `vocabulary.VARIED_ONLY_VARIANTS` counts them.
"""

from __future__ import annotations

import numpy as np
from shapes import Part, arc, box, ellipsoid, group, lathe, smooth_outline, tube, vessel
from varied_shapes import (
    band_around,
    hoop,
    lobed,
    pick,
    radius_at,
    wall_handle,
    wobbly_outline,
)


def _knob(rng, z: float, size: float, slot: str) -> Part:
    """Lid knob at height z, from a cone to a mushroom."""
    top, high = size * rng.uniform(0.5, 1.3), size * rng.uniform(0.9, 1.6)
    return lathe(
        [(size * 0.5, z - 0.02), (size * 0.5, z + high * 0.3), (top, z + high * 0.7), (0, z + high)], 16, slot
    )


def mug(rng, variant: int) -> list[Part]:
    """Footed latte mug, travel mug with a lid, faceted or fluted tankard, wide cup with a rolled rim."""
    u = rng.uniform
    r, h, reach, trim = (
        u(0.36, 0.5),
        u(0.95, 1.4),
        u(0.22, 0.36),
        pick(rng, "dark", "accent", "steel", "light"),
    )
    if variant == 0:
        foot, base = u(0.1, 0.24) * h, r * u(0.7, 0.95)
        cup = [(r * 0.4, foot), (r * 0.95, foot + 0.25 * (h - foot)), (r * 0.95, 0.75 * h), (r * 1.05, h)]
        cup = wobbly_outline(rng, cup, 0.09)
        stem = lathe([(0, 0), (base, 0), (base, 0.035), (base * 0.6, foot * 0.6), (r * 0.4, foot), cup[2]])
        return [stem, vessel(cup, 0.05), wall_handle(rng, cup, h * 0.38, h * 0.84, reach)]
    if variant == 1:
        r, h, low, span = r * 0.92, h * u(1.0, 1.25), u(0.02, 0.5), u(0.25, 0.4)
        wall = [(r * u(0.7, 1.0), 0), (r * u(0.78, 1.0), h * 0.3), (r, h * 0.7), (r, h)]
        lid = [
            (r * 1.06, h - 0.03),
            (r * 1.06, h + 0.06),
            (r * 0.85, h + 0.08),
            (r * 0.8, h + 0.05),
            (0, h + 0.05),
        ]
        flap = box(0.14, 0.3, 0.08, 0.02, trim).at(-r * 0.5, 0, h + 0.05)
        handle = wall_handle(
            rng, wall, (0.53 - span) * h, (0.5 + span) * h, reach, pick(rng, "main", "main", trim)
        )
        stripe = band_around(wall, low * h, (low + u(0.06, 0.2)) * h, pick(rng, "dark", "accent", "steel"))
        return [lathe([(0, 0), *wall]), lathe(lid, slot=trim), flap, handle, *[stripe][: pick(rng, 0, 1)]]
    if variant == 2:
        r, sides = r * 1.05, int(rng.integers(6, 16))
        wall = smooth_outline([(r * u(0.8, 0.98), 0), (r * u(0.92, 1.18), h * 0.5), (r, h)], 9)
        body = (
            vessel(wall, 0.07, sides) if sides < 10 else lobed(vessel(wall, 0.07, 60), sides, u(0.02, 0.045))
        )
        hoops = [hoop(radius_at(wall, z * h), z * h, 0.04, trim, sides) for z in (0.15, 0.85)]
        return [body, wall_handle(rng, wall, h * u(0.15, 0.3), h * 0.78, reach), *hoops[: pick(rng, 0, 2)]]
    r, h = u(0.5, 0.72), u(0.52, 0.85)
    wall = wobbly_outline(rng, [(r * 0.5, 0), (r * 0.85, h * 0.25), (r * 0.98, h * 0.65), (r, h)])
    rim = hoop(wall[-1][0] - 0.02, h, u(0.035, 0.055), pick(rng, "main", trim))
    cup = [vessel(wall, 0.05, 28), rim, wall_handle(rng, wall, h * 0.3, h * 0.85, reach * 0.9)]
    saucer = vessel([(r * 0.6, 0), (r * 0.65, 0.02), (r * u(1.3, 1.6), 0.12)], 0.04, 28)
    return pick(rng, cup, cup, [saucer, *group(cup, offset=(0, 0, 0.05))])


def bowl(rng, variant: int) -> list[Part]:
    """Straight-walled or pet bowl, lobed or boat-shaped, with two lugs, on a stem or three feet."""
    u, h = rng.uniform, rng.uniform(0.4, 0.7)
    if variant == 0:
        foot, square = u(0.72, 1.2), pick(rng, 0.0, 0.0, u(0.04, 0.1))
        wall = [(foot, 0), (foot * 0.98 + 0.03, 0.08), (1, h * 0.5), (u(0.95, 1.06), h)]
        trim = hoop(wall[-1][0] - 0.02, h, u(0.035, 0.06), pick(rng, "main", "main", "dark", "accent"), 40)
        return [lobed(part, 4, square) for part in (vessel(wall, 0.07, 40), trim)]
    curved = [(0.35, 0), (0.62, h * 0.2), (0.9, h * 0.6), (1, h)]
    if variant == 1:
        body, lobes = vessel(wobbly_outline(rng, curved, 0.06, 9), 0.05, 64), int(rng.integers(5, 15))
        if rng.random() < 0.35:
            return [lobed(body, 2, u(0.1, 0.2), u(0.06, 0.14))]
        return [lobed(body, lobes, u(0.3, 0.6) / (lobes + 2), u(0, 0.02))]
    if variant == 2:
        wall = wobbly_outline(rng, pick(rng, curved, [(0.6, 0), (0.9, 0.1), (0.97, h * 0.6), (1, h)]))
        lug = wall_handle(rng, wall, u(0.3, 0.55) * h, u(0.78, 0.92) * h, u(0.16, 0.3))
        if rng.random() < 0.4:
            lug = ellipsoid(u(0.2, 0.32), u(0.2, 0.34), 0.05, rings=6, segments=14).at(1.05, 0, h - 0.05)
        return [vessel(wall, 0.06, 32), lug, lug.rotated("z", 180)]
    h, rise, base = u(0.3, 0.6), u(0.15, 0.5), u(0.4, 0.65)
    cup = [(0.16, 0), *wobbly_outline(rng, [(0.2, 0.0), (0.7, h * 0.3), (0.95, h * 0.7), (1, h)])]
    leg = tube([(0.72, 0, 0), (0.62, 0, rise * 0.6), (0.55, 0, rise + 0.18 * h)], [0.05, 0.07, 0.09], 8)
    stem = lathe(
        [(0, 0), (base, 0), (base, 0.04), (0.16, rise * 0.5), (0.15, rise * 0.8), (0.3, rise + 0.06)]
    )
    stand = pick(rng, [stem], [stem], [leg.rotated("z", turn) for turn in (0, 120, 240)])
    return [*stand, vessel(cup, 0.05, 32).at(z=rise)]


def plate(rng, variant: int) -> list[Part]:
    """Scalloped, six- to twelve-sided, oval platter with or without lugs, stack or ringed deep plate."""
    u, h, well, lobes = (
        rng.uniform,
        rng.uniform(0.09, 0.17),
        rng.uniform(0.55, 0.75),
        int(rng.integers(6, 21)),
    )
    profile = [(well - 0.1, 0), (well - 0.04, 0.02), (well + 0.03, h * 0.6), (1, h)]
    if variant == 0:
        rim = [(well - 0.1, 0), (well, 0.02), (well + 0.06, h * 0.5), (0.9, h * 0.8), (1, h)]
        return [lobed(vessel(rim, 0.035, 80), lobes, u(0.25, 0.5) / (lobes + 2), u(0, 0.012))]
    if variant == 1:
        sides, inside = pick(rng, 6, 8, 8, 10, 12), h * (0.6 + 0.4 * (0.85 - well) / (1 - well))
        edge = lathe([(0.985, h + 0.015), (0.85, inside + 0.02)], sides, pick(rng, "accent", "dark", "light"))
        return group([vessel(profile, 0.04, sides), edge][: pick(rng, 1, 2)], ("z", u(0, 90)))
    if variant == 2:
        platter = vessel(profile, 0.04, 40).scaled(1, u(0.55, 0.8), u(1, 1.6))
        rim = platter.vertices[:, 2].max() - 0.02
        lug = ellipsoid(u(0.12, 0.2), u(0.18, 0.3), 0.03, (1, 0.6), 6, 16).at(1.03, 0, rim)
        return [platter, lug, lug.rotated("z", 180)][: pick(rng, 1, 3)]
    if rng.random() < 0.5:
        shrink, step = u(0.9, 1.0), u(0.06, 0.1)
        stack = [vessel(profile, 0.035, 32).scaled(shrink**k, shrink**k, 1).at(z=step * k) for k in range(5)]
        return [part.at(*u(-0.02, 0.02, 2)) for part in stack[: int(rng.integers(2, 6))]]
    deep = [(well * 0.9 - 0.1, 0), (well * 0.9, 0.03), (well * 0.9 + 0.04, h), (1, h + 0.03)]
    radii, slot = (
        np.linspace(well + 0.05, 0.97, int(rng.integers(1, 4))),
        pick(rng, "main", "main", "accent", "dark"),
    )
    return [
        vessel(deep, 0.035, 36),
        *(hoop(r, h + 0.03 * (r - well) / (1 - well), 0.02, slot) for r in radii),
    ]


def teapot(rng, variant: int) -> list[Part]:
    """Melon or pear on a foot, faceted cone, squat with a stick handle, drum; no handle over the lid."""
    u = rng.uniform
    r = u(*[(0.46, 0.58), (0.4, 0.5), (0.5, 0.62), (0.42, 0.56)][variant])
    h = u(*[(0.72, 1.0), (0.85, 1.2), (0.42, 0.65), (0.6, 0.95)][variant])
    wall = [
        [(r * 0.5, 0), (r * 0.5, 0.05), (r, h * u(0.28, 0.42)), (r * 0.85, h * 0.68), (r * u(0.4, 0.55), h)],
        [(r * 0.96, 0), (r, 0.06), (r * u(0.75, 0.9), h * 0.5), (r * u(0.5, 0.65), h)],
        [(r * 0.65, 0), (r * 0.95, h * 0.25), (r, h * 0.5), (r * 0.85, h * 0.85), (r * 0.5, h)],
        [(r * 0.93, 0), (r, 0.05), (r * u(0.95, 1.05), h * 0.9), (r * 0.75, h)],
    ][variant]
    wall = wall if variant % 2 else wobbly_outline(rng, wall, 0.04, 15)
    body = lathe([(0, 0), *wall, (0, h)], [64, pick(rng, 6, 8, 10, 28), 28, 32][variant])
    if variant == 0:
        body = lobed(body, int(rng.integers(6, 13)), pick(rng, 0, u(0.03, 0.05)))
    low, top, rise = h * u(0.3, 0.45), wall[-1][0] * 1.02, r * u(0.06, 0.3)
    x, tip = radius_at(wall, low), (r * u(1.45, 1.75), h * u(0.88, 1.05))
    dx, dz = tip[0] - x, tip[1] - low
    path = [(x - 0.12, low - 0.02), (x + 0.5 * dx, low + 0.5 * dz), tip]
    if variant == 0 or (variant == 1 and rng.random() < 0.5):
        path = smooth_outline(
            [(x - 0.1, low), (x + dx * 0.45, low + dz * 0.1), (x + dx * 0.6, low + dz * 0.6), tip], 9
        )
    spout = tube([(px, 0, pz) for px, pz in path], np.linspace(u(0.11, 0.15), u(0.04, 0.065), len(path)), 10)
    lid = lathe(
        [(top, h - 0.03), *smooth_outline([(top, h), (top * 0.75, h + rise * 0.7), (0, h + rise)], 7)]
    )
    parts = [body, lid, _knob(rng, h + rise, u(0.07, 0.11), pick(rng, "main", "main", "dark")), spout]
    if variant == 2:
        path = [
            (r * 0.85, 0, h * 0.55),
            (r + 0.15, 0, h * 0.6),
            (r + u(0.5, 0.75), 0, h * 0.6 + u(0.05, 0.3)),
        ]
        return [*parts, tube(path, [0.06, 0.065, u(0.08, 0.11)], 10).rotated("z", -u(70, 115))]
    slot = pick(rng, "main", "main", pick(rng, "dark", "wood", "steel") if variant else "main")
    return [
        *parts,
        wall_handle(rng, wall, h * u(0.18, 0.3), h * u(0.8, 0.9), u(0.25, 0.4), slot).rotated("z", 180),
    ]


def _stick(rng, x: float, z: float) -> list[Part]:
    """Long pan handle along +x: tapered grip, flat strap, or steel neck and grip; maybe a hanging ring."""
    length, rise, slot = (
        rng.uniform(0.9, 1.5),
        rng.uniform(0.0, 0.4),
        pick(rng, "dark", "wood", "main", "steel"),
    )
    path = np.array([(x - 0.06, 0, z), (x + 0.3 * length, 0, z + 0.55 * rise), (x + length, 0, z + rise)])
    grip = tube(path, [0.06, 0.08, rng.uniform(0.07, 0.11)], 8, slot)
    strap = tube(path - [0, 0, 0.02], [0.05, 0.04, 0.05], 8, slot).scaled(1, rng.uniform(1.6, 2.4), 1)
    necked = [tube(path[:2], 0.04, 8, "steel"), tube(path[1:] - [0.02, 0, 0], [0.085, 0.1], 8, slot)]
    ring = hoop(0.07, 0, 0.025, slot, 14).at(x + length + 0.07, 0, z + rise)
    return [*pick(rng, [grip], [strap], necked), *[ring][: pick(rng, 0, 1)]]


def _grips(rng, x: float, z: float, slot: str) -> list[Part]:
    """Two side handles: flat loops, raised loops or solid tabs."""
    size = rng.uniform(0.18, 0.28)
    loop = tube(arc(size, -100, 100, 10), 0.05, 8, slot).rotated("x", 90)
    tab = ellipsoid(size, size * 1.3, 0.06, (1, 0.6), 6, 14, slot).at(0.06)
    grip = pick(rng, loop, loop.rotated("y", -rng.uniform(20, 75)), tab).at(x, 0, z)
    return [grip, grip.rotated("z", 180)]


def pan(rng, variant: int) -> list[Part]:
    """Wok, casserole or saucepan with its lid, rounded-square grill pan, wide paella or oval roasting pan."""
    u, slot = rng.uniform, pick(rng, "dark", "steel", "main", "wood")
    h = u(*[(0.38, 0.62), (0.45, 0.95), (0.16, 0.34), (0.14, 0.36)][variant])
    if variant == 0:
        wall = wobbly_outline(rng, [(0.3, 0), (0.62, h * 0.2), (0.9, h * 0.65), (1.02, h)], 0.03)
        x = wall[-1][0]
        return [
            vessel(wall, 0.04, 32),
            *_stick(rng, x, h * 0.93),
            *_grips(rng, x, h * 0.92, slot)[pick(rng, 1, 2) :],
        ]
    if variant == 1:
        rise = u(0.06, 0.3)
        lid = [(1.04, h - 0.05), *smooth_outline([(1.04, h), (0.8, h + rise * 0.6), (0, h + rise)], 8)]
        body = vessel([(u(0.85, 0.97), 0), (0.98, 0.08), (1, h * 0.5), (1, h)], 0.05, 32)
        handles = _stick(rng, 1.0, h * 0.8) if rng.random() < 0.4 else _grips(rng, 1.0, h * 0.8, slot)
        return [body, lathe(lid, 32), _knob(rng, h + rise, u(0.12, 0.17), slot), *handles]
    if variant == 2:
        deep = u(0.75, 1.0)
        body = lobed(vessel([(0.88, 0), (0.93, 0.03), (1, h)], 0.05, 48), 4, -u(0.05, 0.085)).scaled(
            1, deep, 1
        )
        ribs = [
            box(0.05, 1.2 * deep, 0.04).at(x, 0, 0.045)
            for x in np.linspace(-0.6, 0.6, int(rng.integers(5, 9)))
        ]
        return [body, *pick(rng, ribs, ribs, []), *_stick(rng, 0.92, h * 0.8)]
    wall = [(u(0.75, 0.92), 0), (0.95, h * 0.4), (1, h), (u(1.0, 1.08), h + 0.02)]
    body = vessel(wall, 0.04, 36).scaled(1, pick(rng, 1.0, u(0.6, 0.85)), 1)
    return [body, *_grips(rng, wall[-1][0], h * 0.92, slot)]
