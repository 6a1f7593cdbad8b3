"""Mesh builders: further variants of tableware, vessels and candles, see `vocabulary.FURTHER_VARIANTS`. Each takes
(rng, variant) and returns parts in free units; the four variants are families with wide proportions."""

from __future__ import annotations

import numpy as np
from further_shapes import hoop, pick
from shapes import Part, arc, box, disc, ellipsoid, group, lathe, smooth_outline, tube, vessel


def _wobbly(rng, points, spread: float = 0.05, count: int = 12) -> list[tuple[float, float]]:
    """Smooth outline through points (radius, z) whose radii vary by the fraction `spread`."""
    return smooth_outline([(radius * rng.uniform(1 - spread, 1 + spread), z) for radius, z in points], count)


def _radius(outline, z: float) -> float:
    """Radius of an outline with rising z at height z."""
    return float(np.interp(z, *zip(*((height, radius) for radius, height in outline), strict=True)))


def _band(outline, low: float, high: float, slot: str) -> Part:
    """Label or stripe hugging an outline between two heights."""
    return lathe([(_radius(outline, z) + 0.012, z) for z in np.linspace(low, high, 6)], 32, slot)


def _lobed(part: Part, lobes: int, depth: float, lift: float = 0.0, twist: float = 0.0) -> Part:
    """Waves around z: radius by the fraction `depth`, z by `lift` times the radius; `twist` in degrees per unit z."""
    x, y, z = part.vertices.T
    angle, radius = np.arctan2(y, x), np.hypot(x, y)
    wave, turned = np.cos(lobes * angle), angle + np.radians(twist) * z
    circle = np.stack([np.cos(turned), np.sin(turned)]) * radius * (1 + depth * wave)
    return Part(np.c_[circle.T, z + lift * radius * wave], part.faces, part.slot)


def _wall_loop(rng, outline, low: float, high: float, reach: float, slot: str = "main") -> Part:
    """C, ear, drop, D or wedge handle on the wall of an outline between two heights, bulging towards +x by `reach`."""
    x0, x1, d = _radius(outline, low) - 0.03, _radius(outline, high) - 0.03, high - low
    x = max(x0, x1) + reach
    kinds = [
        [(x, low + 0.22 * d), (x, low + 0.78 * d)],
        [(x0 + 0.45 * reach, low + 0.15 * d), (x, low + 0.7 * d), (x - 0.3 * reach, high + 0.1 * d)],
        [(x - 0.3 * reach, low - 0.1 * d), (x, low + 0.3 * d), (x1 + 0.45 * reach, low + 0.85 * d)],
        [(x - 0.2 * reach, low), (x, low + 0.12 * d), (x, high - 0.12 * d), (x - 0.2 * reach, high)],
        [(x - 0.2 * reach, high - 0.25 * d), (x, high - 0.03 * d), (x - 0.15 * reach, high)],
    ]
    kind = int(rng.integers(5))
    points = [(x0, low), *kinds[kind], (x1, high)]
    path = [(px, 0, pz) for px, pz in (smooth_outline(points, 14) if kind < 3 else points)]
    return tube(path, rng.uniform(0.2, 0.3) * min(reach, 0.24), 8, slot).scaled(1, rng.uniform(0.9, 1.9), 1)


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
        cup = _wobbly(rng, cup, 0.09)
        stem = lathe([(0, 0), (base, 0), (base, 0.035), (base * 0.6, foot * 0.6), (r * 0.4, foot), cup[2]])
        return [stem, vessel(cup, 0.05), _wall_loop(rng, cup, h * 0.38, h * 0.84, reach)]
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
        handle = _wall_loop(
            rng, wall, (0.53 - span) * h, (0.5 + span) * h, reach, pick(rng, "main", "main", trim)
        )
        stripe = _band(wall, low * h, (low + u(0.06, 0.2)) * h, pick(rng, "dark", "accent", "steel"))
        return [lathe([(0, 0), *wall]), lathe(lid, slot=trim), flap, handle, *[stripe][: pick(rng, 0, 1)]]
    if variant == 2:
        r, sides = r * 1.05, int(rng.integers(6, 16))
        wall = smooth_outline([(r * u(0.8, 0.98), 0), (r * u(0.92, 1.18), h * 0.5), (r, h)], 9)
        body = (
            vessel(wall, 0.07, sides) if sides < 10 else _lobed(vessel(wall, 0.07, 60), sides, u(0.02, 0.045))
        )
        hoops = [hoop(_radius(wall, z * h), z * h, 0.04, trim, sides) for z in (0.15, 0.85)]
        return [body, _wall_loop(rng, wall, h * u(0.15, 0.3), h * 0.78, reach), *hoops[: pick(rng, 0, 2)]]
    r, h = u(0.5, 0.72), u(0.52, 0.85)
    wall = _wobbly(rng, [(r * 0.5, 0), (r * 0.85, h * 0.25), (r * 0.98, h * 0.65), (r, h)])
    rim = hoop(wall[-1][0] - 0.02, h, u(0.035, 0.055), pick(rng, "main", trim))
    cup = [vessel(wall, 0.05, 28), rim, _wall_loop(rng, wall, h * 0.3, h * 0.85, reach * 0.9)]
    saucer = vessel([(r * 0.6, 0), (r * 0.65, 0.02), (r * u(1.3, 1.6), 0.12)], 0.04, 28)
    return pick(rng, cup, cup, [saucer, *group(cup, offset=(0, 0, 0.05))])


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
        stripe = _band(body, low, low + u(0.04, 0.2), pick(rng, "steel", "dark", "accent"))
        parts = [lathe([(0, 0), *body, (0, shoulder + 0.1)]), *_cap(rng, r * neck * 1.04, shoulder + 0.09)]
        return [*parts, stripe] if labelled else parts
    if variant == 1:
        r, flat = u(0.2, 0.28), u(0.5, 0.75)
        body = [(r, 0.03), (r, 0.3), (r * u(0.7, 1.05), 0.55), (r * u(0.5, 0.8), 0.7), (0.07, 0.78)]
        body = [(r * 0.93, 0), *_wobbly(rng, body)]
        hull = [lathe([(0, 0), *body, (0, 0.78)], 28)]
        if labelled:
            hull.append(_band(body, u(0.14, 0.22), u(0.3, 0.42), pick(rng, "paper", "accent")))
        return [*(part.scaled(1, flat, 1) for part in hull), *_cap(rng, u(0.065, 0.09), 0.77)]
    if variant == 2:
        r, lip, shoulder = u(0.12, 0.18), u(0.04, 0.055), u(0.2, 0.58)
        body = [(r, 0.02), (r * u(0.85, 1.05), shoulder * 0.6), (r, shoulder), (lip * 1.5, 0.78), (lip, 0.96)]
        body = [(r * 0.95, 0), *smooth_outline(body, 16)]
        stopper = disc(lip * 1.2, 0.05, 14, pick(rng, "steel", "accent", "wood", "light")).at(z=0.95)
        label = _band(body, shoulder * 0.2, shoulder * 0.7, pick(rng, "paper", "accent"))
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
    body = [(r * 0.92, 0), *_wobbly(rng, body), (0.085, 0.88)]
    parts = [lathe([(0, 0), *body, (0, 0.88)], 28), _wall_loop(rng, body, 0.55, 0.82, 0.1)]
    stopper = disc(0.1, 0.09, 16, pick(rng, "dark", "accent", "wood")).at(z=0.86)
    ribs = [hoop(_radius(body, z), z, 0.018) for z in np.linspace(0.1, shoulder, int(rng.integers(3, 6)))]
    return [*parts, stopper, *(ribs if labelled else [])]


def bowl(rng, variant: int) -> list[Part]:
    """Straight-walled or pet bowl, lobed or boat-shaped, with two lugs, on a stem or three feet."""
    u, h = rng.uniform, rng.uniform(0.4, 0.7)
    if variant == 0:
        foot, square = u(0.72, 1.2), pick(rng, 0.0, 0.0, u(0.04, 0.1))
        wall = [(foot, 0), (foot * 0.98 + 0.03, 0.08), (1, h * 0.5), (u(0.95, 1.06), h)]
        trim = hoop(wall[-1][0] - 0.02, h, u(0.035, 0.06), pick(rng, "main", "main", "dark", "accent"), 40)
        return [_lobed(part, 4, square) for part in (vessel(wall, 0.07, 40), trim)]
    curved = [(0.35, 0), (0.62, h * 0.2), (0.9, h * 0.6), (1, h)]
    if variant == 1:
        body, lobes = vessel(_wobbly(rng, curved, 0.06, 9), 0.05, 64), int(rng.integers(5, 15))
        if rng.random() < 0.35:
            return [_lobed(body, 2, u(0.1, 0.2), u(0.06, 0.14))]
        return [_lobed(body, lobes, u(0.3, 0.6) / (lobes + 2), u(0, 0.02))]
    if variant == 2:
        wall = _wobbly(rng, pick(rng, curved, [(0.6, 0), (0.9, 0.1), (0.97, h * 0.6), (1, h)]))
        lug = _wall_loop(rng, wall, u(0.3, 0.55) * h, u(0.78, 0.92) * h, u(0.16, 0.3))
        if rng.random() < 0.4:
            lug = ellipsoid(u(0.2, 0.32), u(0.2, 0.34), 0.05, rings=6, segments=14).at(1.05, 0, h - 0.05)
        return [vessel(wall, 0.06, 32), lug, lug.rotated("z", 180)]
    h, rise, base = u(0.3, 0.6), u(0.15, 0.5), u(0.4, 0.65)
    cup = [(0.16, 0), *_wobbly(rng, [(0.2, 0.0), (0.7, h * 0.3), (0.95, h * 0.7), (1, h)])]
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
        return [_lobed(vessel(rim, 0.035, 80), lobes, u(0.25, 0.5) / (lobes + 2), u(0, 0.012))]
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


def vase(rng, variant: int) -> list[Part]:
    """Globe or flat moon with a collar, faceted or twisted, stacked bulges, footed trumpet with or without twigs."""
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
        outline = [*_wobbly(rng, globe, 0.05, 18), (neck * u(1.1, 1.5), 0.8 + collar)]
        return [vessel(outline, 0.025, 28).scaled(1, u(0.4, 1.0), 1)]
    if variant == 1:
        levels = np.linspace(0, 1, int(rng.integers(5, 9)))
        shape = np.interp(levels, [0, u(0.3, 0.6), u(0.75, 0.9), 1], [0.18, 0.32, 0.2, 0.25])
        body = vessel(
            [(r * u(0.85, 1.15), z) for r, z in zip(shape, levels, strict=True)],
            0.03,
            int(rng.integers(4, 10)),
        )
        return [_lobed(body, 0, 0.0, twist=pick(rng, 0, u(-110, 110)))]
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
    body = _lobed(
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
    wall = wall if variant % 2 else _wobbly(rng, wall, 0.04, 15)
    body = lathe([(0, 0), *wall, (0, h)], [64, pick(rng, 6, 8, 10, 28), 28, 32][variant])
    if variant == 0:
        body = _lobed(body, int(rng.integers(6, 13)), pick(rng, 0, u(0.03, 0.05)))
    low, top, rise = h * u(0.3, 0.45), wall[-1][0] * 1.02, r * u(0.06, 0.3)
    x, tip = _radius(wall, low), (r * u(1.45, 1.75), h * u(0.88, 1.05))
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
        _wall_loop(rng, wall, h * u(0.18, 0.3), h * u(0.8, 0.9), u(0.25, 0.4), slot).rotated("z", 180),
    ]


def _stick(rng, x: float, z: float) -> list[Part]:
    """Long pan handle along +x: tapered grip, flat strap, or a neck of steel and a grip; maybe with a hanging ring."""
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
        wall = _wobbly(rng, [(0.3, 0), (0.62, h * 0.2), (0.9, h * 0.65), (1.02, h)], 0.03)
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
        body = _lobed(vessel([(0.88, 0), (0.93, 0.03), (1, h)], 0.05, 48), 4, -u(0.05, 0.085)).scaled(
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


def _lit(rng, z: float) -> list[Part]:
    """Wick at height z, mostly burning."""
    wick, high = tube([(0, 0, z - 0.03), (0, 0, z + 0.07)], 0.016, 5, "dark"), rng.uniform(0.16, 0.26)
    flame = lathe(smooth_outline([(0.0, 0), (0.05, high * 0.3), (0.0, high)], 7), 8, "flame").at(z=z + 0.03)
    return [wick, flame] if rng.random() < 0.8 else [wick]


def _taper(rng, radius: float, height: float, x: float, z: float) -> list[Part]:
    """Candle at (x, 0, z): smooth, ribbed or twisted, slimmer towards the top."""
    radii, heights = np.linspace(radius, radius * rng.uniform(0.6, 1), 14), np.linspace(0, height, 14)
    wax = lathe([(0, 0), *zip(radii, heights, strict=True), (0, height)])
    ribbed, twisted = _lobed(wax, 4, 0.16), _lobed(wax, 4, 0.16, twist=rng.uniform(200, 420) / height)
    return group([pick(rng, wax, ribbed, twisted), *_lit(rng, height)], offset=(x, 0, z))


def candle(rng, variant: int) -> list[Part]:
    """In a jar or tin, twisted or ribbed on a candlestick, candelabrum, sculpted or dripping block."""
    u, slot = rng.uniform, pick(rng, "main", "steel", "wood", "dark")
    if variant == 0:
        r, h = u(0.24, 0.42), u(0.2, 0.75)
        wall = [(r * u(0.8, 1), 0), (r, 0.06), (r * u(0.9, 1.1), h)]
        label = _band(wall, h * u(0.15, 0.3), h * u(0.5, 0.7), pick(rng, "paper", "accent"))
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
