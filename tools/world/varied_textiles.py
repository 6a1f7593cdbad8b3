"""Mesh builders for `varied` scenes: cushions, hats and teddy bears.

Each function takes (rng, variant) and returns parts in free units, front towards -y. A variant is a family of
meshes with wide random proportions; `vocabulary.VARIED_ONLY_VARIANTS` counts them.
"""

from __future__ import annotations

import numpy as np
from shapes import (
    Part,
    bounds,
    group,
    lathe,
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


def _pillow(rng) -> list[Part]:
    """Knife-edge pillow, drawn-in sides, perhaps dented at the back edge, with piping, flange or tassels."""
    width, depth, puff = rng.uniform(0.85, 1.25), rng.uniform(0.75, 1.0), rng.uniform(0.14, 0.3)
    pinch, power, dent = (
        rng.uniform(0.02, 0.14),
        rng.uniform(0.35, 0.65),
        rng.choice([0, rng.uniform(0.05, 0.2)]),
    )
    u, v = np.meshgrid(*[np.sin(np.linspace(-np.pi / 2, np.pi / 2, 17))] * 2, indexing="ij")
    x = width / 2 * u * (1 - pinch * (1 - v**2))
    y = depth / 2 * (v * (1 - pinch * (1 - u**2)) - dent * np.exp(-((u / 0.35) ** 2)) * (v + 1))
    wrinkles = 1 + 0.1 * np.sin(4 * u + rng.uniform(0, 6)) * np.sin(4 * v + rng.uniform(0, 6))
    z = puff * wrinkles * np.clip((1 - u**2) * (1 - v**2), 0, None) ** power
    grid = np.stack([x, y, z], axis=2)
    rim = np.concatenate([grid[:-1, 0], grid[-1, :-1], grid[:0:-1, -1], grid[0, :0:-1], grid[:1, 0]])
    slot = str(rng.choice(["main", "accent"]))
    tassels = [tube([corner, 1.2 * corner], [0.025, 0.05], 8, slot) for corner in rim[[0, 16, 32, 48]]]
    trims = [
        [],
        [tube(rim, 0.022, 6, slot)],
        [grid_surface(np.stack([rim, rng.uniform(1.1, 1.2) * rim]))],
        tassels,
    ]
    return [grid_surface(grid), grid_surface(grid[::-1] * [1, 1, -1]), *trims[rng.integers(4)]]


def _pad(rng) -> list[Part]:
    """Flat-sided seat pad from square to round, with seams."""
    width, depth, high = rng.uniform(0.8, 1.3), rng.uniform(0.75, 0.95), rng.uniform(0.14, 0.32)
    outline = rounded_rectangle(width, depth, rng.uniform(0.06, 0.36), 6)
    outline[:, 0] *= 1 + rng.uniform(-0.25, 0.25) * outline[:, 1]
    low, crown, seam = 0.15 * high, high * rng.uniform(1.05, 1.35), str(rng.choice(["main", "accent"]))
    profile = [
        (0, 0),
        (0.95, 0),
        (1, low),
        (1.02, high / 2),
        (1, high - low),
        (0.95, high),
        (0.5, crown),
        (0, crown),
    ]
    loop, thick = np.c_[outline, np.zeros(24)][[*range(24), 0]], rng.uniform(0.012, 0.025)
    return [swept(profile, outline), *(tube(loop, thick, 6, seam).at(z=z) for z in (low, high - low))]


def cushion(rng, variant: int) -> list[Part]:
    """Drawn-in pillow with trim, seat pad, pleated round with a hollow, heart or soft star."""
    if variant == 1:
        return _pad(rng)
    if variant == 2:
        (high, dip, belly), count = (
            rng.uniform([0.22, 0.1, 0.42], [0.5, 0.35, 0.48]),
            int(rng.integers(8, 20)),
        )
        side = [(0.28, 0), (belly, 0.12 * high), (0.5, high / 2), (belly, 0.88 * high), (0.28, high)]
        profile = [(0, 0), *smooth_outline(side, 13), (0.1, high * (1 - dip / 2)), (0, high * (1 - dip))]
        button = stretched_ball(
            0.07, (0, 0, high * (1 - 0.7 * dip)), (1, 1, 0.6), str(rng.choice(["main", "accent"]))
        )
        return [swept(profile, wavy_circle(4 * count, count, rng.uniform(0.02, 0.06))), button]
    if variant == 0:
        parts = _pillow(rng)
    else:
        outline = 0.45 * wavy_circle(60, int(rng.integers(5, 8)), rng.uniform(0.12, 0.24))[:, ::-1]
        if rng.random() < 0.5:
            a = np.linspace(2 * np.pi, 0, 48, endpoint=False)
            up = 13 * np.cos(a) - 5 * np.cos(2 * a) - 2 * np.cos(3 * a) - np.cos(4 * a)
            outline = np.stack([16 * np.sin(a) ** 3, up * rng.uniform(0.85, 1.1)], axis=1) / 32
        puff, power = rng.uniform(0.12, 0.22), rng.uniform(0.4, 0.6)
        half = [(s, puff * (1 - s**2) ** power) for s in np.sin(np.linspace(0, np.pi / 2, 9))]
        parts = [swept([(s, -z) for s, z in half] + half[-2::-1], outline)]
    parts = group(parts, ("x", rng.choice([0, rng.uniform(50, 76)])))
    return group(parts, offset=(0, 0, -bounds(parts)[0][2]))


def _brim(outer: float, oval: float, height) -> Part:
    """Brim around an oval crown; `height` gives z from the angle and the fraction of the width."""
    a, t = np.meshgrid(np.linspace(0, 2 * np.pi, 41), np.linspace(0, 1, 6), indexing="ij")
    r = 0.38 + (outer - 0.38) * t
    return grid_surface(np.stack([r * np.cos(a), oval * r * np.sin(a), height(a, t)], axis=2))


def _peaked(rng) -> list[Part]:
    """Cap with a button and a visor, low to trucker-high, flat to bowed."""
    high, full, length = rng.uniform(0.38, 0.56), rng.uniform(0.36, 0.46), rng.uniform(0.35, 0.6)
    crown = smooth_outline(
        [(0.5, 0), (0.49, high * 0.3), (full, high * 0.72), (0.2, high * 0.97), (0, high)], 12
    )
    a, t = np.meshgrid(np.radians(np.linspace(-64, 64, 15)), np.linspace(0, 1, 6), indexing="ij")
    reach = 0.46 + length * t * np.cos(1.4 * a) ** 0.8
    x, y = 0.95 * reach * np.sin(a), -1.08 * reach * np.cos(a)
    z = 0.05 - rng.uniform(-0.06, 0.12) * t + rng.uniform(0, 0.6) * (0.06 - x**2) * t
    slot = str(rng.choice(["main", "main", "accent"]))
    cap = swept(crown, wavy_circle(36, 6, 0.01) * [0.92, 1.08])
    return [
        cap,
        stretched_ball(0.04, (0, 0, high), (1, 1, 0.6), slot),
        grid_surface(np.stack([x, y, z], axis=2), slot),
    ]


def _brimless(rng) -> list[Part]:
    """Ribbed beanie with a cuff that may slouch, or a beret."""
    high, cuff, wide = rng.uniform(0.55, 1.0), rng.uniform(0.12, 0.28), rng.uniform(0.44, 0.54)
    side, ribs = (
        [(0.46, 0), (wide, high * 0.45), (wide * 0.7, high * 0.85), (0, high)],
        wavy_circle(72, 18, 0.03),
    )
    if rng.random() < 0.4:
        high, cuff, wide, ribs = rng.uniform(0.36, 0.48), 0.1, rng.uniform(0.58, 0.7), wavy_circle(36)
        dome = [(wide, 0.2), (wide * 0.92, 0.3), (wide * 0.5, high * 0.95), (0.03, high), (0.03, 1.2 * high)]
        side = [(0.44, 0), (0.46, 0.08), *dome, (0, 1.2 * high)]
    body = swept(smooth_outline(side, 22), ribs)
    sag = (
        rng.choice([0, high * rng.uniform(0.3, 0.5)]) * (body.vertices[:, 2:] / high) ** 2 * [0.5, 0.6, -0.4]
    )
    fold = [(0.47, 0), (0.53, 0.03), (0.53, cuff - 0.03), (0.46, cuff)]
    return [Part(body.vertices + sag, body.faces), swept(fold, ribs, str(rng.choice(["main", "accent"])))]


def hat(rng, variant: int) -> list[Part]:
    """Peaked cap, round-brimmed bucket, sun hat, bowler or pointed hat, cowboy hat, beret or beanie."""
    if variant in (0, 3):
        return _peaked(rng) if variant == 0 else _brimless(rng)
    band, high, count = (
        str(rng.choice(["accent", "dark", "light"])),
        rng.uniform(0.38, 0.55),
        int(rng.integers(2, 5)),
    )
    dome, cone = [(0.42, 0), (0.41, high * 0.45), (0.3, high * 0.88), (0, high)], rng.uniform(0.8, 1.3)
    if variant == 2:
        oval, curl, dip, front = 1.2, rng.uniform(0.15, 0.4), rng.uniform(0.02, 0.12), rng.uniform(0.2, 0.5)
        side = [(0.4, 0), (0.37, high * 0.6), (0.3, high * 0.95), (0.16, high), (0, high)]
        crown = swept(smooth_outline(side, 14), wavy_circle(40) * [1, oval])
        x, y, z = crown.vertices.T
        top = (z / high) ** 3
        crown.vertices[:, 2] -= rng.uniform(0.1, 0.2) * top * np.exp(-((x / 0.12) ** 2))
        crown.vertices[:, 0] *= 1 - front * top * np.clip(-y / 0.4, 0, 1)
        brim = _brim(
            rng.uniform(0.62, 0.82), oval, lambda a, t: t**2 * (curl * np.cos(a) ** 2 - dip * np.sin(a) ** 2)
        )
        parts = [crown, brim, swept([(0.41, 0.0), (0.405, 0.1)], wavy_circle(40) * [1, oval], band)]
    else:
        side, outer, slope = [
            (
                [(0.42, 0), (0.42, 0.02), (0.36, high * 0.9), (0.3, high), (0, high)],
                rng.uniform(0.56, 0.7),
                0.2,
            ),
            (dome, rng.uniform(0.75, 1.05), rng.uniform(0.0, 0.2)),
            (dome, rng.uniform(0.56, 0.66), -0.12),
            ([(0.4, 0), (0.26, cone * 0.35), (0.12, cone * 0.75), (0, cone)], rng.uniform(0.6, 0.9), 0.05),
        ][rng.integers(4)]
        crown, wave = lathe(smooth_outline(side, 14), 32), rng.uniform(0, 0.06)
        ring = lathe([(0.43, 0.0), (0.41, rng.uniform(0.06, 0.12))], 32, band)
        parts = [crown, ring, _brim(outer, 1.0, lambda a, t: t**2 * (wave * np.sin(count * a) - slope))]
    return group(parts, offset=(0, 0, -bounds(parts)[0][2]))


def _limb(start, end, first: float, last: float, slot: str = "main") -> Part:
    """Round-ended tapered limb."""
    caps, axis = np.radians([86, 60, 30, 0]), (end - start) / np.linalg.norm(end - start)
    path = [start - axis * first * s for s in np.sin(caps)] + [
        end + axis * last * s for s in np.sin(caps[::-1])
    ]
    return tube(path, np.r_[first * np.cos(caps), last * np.cos(caps[::-1])], 12, slot)


def _bear_head(rng, r: float) -> list[Part]:
    """Head about the origin, looking to -y."""
    wide, ear, at = rng.uniform(1.0, 1.22), r * rng.uniform(0.32, 0.5), np.radians(rng.uniform(38, 58))
    snout, long, low = r * rng.uniform(0.38, 0.55), rng.uniform(0.6, 1.2), -r * rng.uniform(0.15, 0.35)
    muzzle, inner = str(rng.choice(["accent", "main", "light"])), str(rng.choice(["accent", "light"]))
    tip, gap = (0, -0.8 * r - 0.95 * snout * long, low + 0.35 * snout), rng.uniform(0.3, 0.45)
    parts = [
        stretched_ball(r, (0, 0, 0), (wide, 0.95, 1)),
        stretched_ball(snout, (0, -0.8 * r, low), (1.15, long, 0.85), muzzle),
        stretched_ball(r * rng.uniform(0.12, 0.2), tip, (1.3, 0.7, 0.9), "dark"),
    ]
    for side in (-1, 1):
        x, z = 1.08 * side * wide * r * np.cos(at), 1.12 * r * np.sin(at)
        parts += [
            stretched_ball(ear, (x, 0, z), (1, 0.5, 1)),
            stretched_ball(0.65 * ear, (x, -0.28 * ear, z), (1, 0.5, 1), inner),
            stretched_ball(0.12 * r, (side * gap * r * wide, -0.84 * r, 0.25 * r), slot="dark"),
        ]
    return parts


def teddy_bear(rng, variant: int) -> list[Part]:
    """Long-limbed sitting with foot pads, on its belly, big-headed waving, in a shirt with open arms."""
    cute, r, thick = variant == 2, rng.uniform(0.2, 0.28), rng.uniform(0.08, 0.12)
    limits = ([0.2, 0.18, 0.3], [0.28, 0.22, 0.38]) if cute else ([0.26, 0.15, 0.2], [0.38, 0.36, 0.27])
    tall, reach, head = rng.uniform(*limits)
    trunk = smooth_outline(
        [(0, 0), (0.8 * r, 0.2 * tall), (r, 0.7 * tall), (0.7 * r, 1.6 * tall), (0, 2 * tall)], 14
    )
    parts = [lathe(trunk, 18, "accent" if variant == 3 else "main").scaled(1, 0.9, 1)]
    if variant == 3:
        parts.append(swept([(r, 0.45 * tall), (0.9 * r, 0), (0, -0.03)], wavy_circle(18)))
    elif rng.random() < 0.7:
        parts.append(stretched_ball(r, (0, -0.67 * r, 0.75 * tall), (0.65, 0.3, 0.65 * tall / r), "accent"))
    sitting = variant == 0 or (variant == 3 and rng.random() < 0.4)
    out, lean = [0.75, 0.8, 0.75, 1.2][variant], rng.uniform(-0.4 if variant == 1 else -0.8, 0.1)
    rise, splay = [(-0.9, -0.2), (0.4, 1.2), (-0.6, 0.2), (0.0, 0.7)][variant], rng.uniform(0.25, 0.8)
    for side in (-1, 1):
        shoulder, hip = (
            np.array([side * 0.7 * r, -0.02, 1.45 * tall]),
            np.array([side * 0.55 * r, -0.05, thick]),
        )
        lift = rng.uniform(0.7, 1.4) if cute and side == 1 else rng.uniform(*rise)
        hand = shoulder + np.array([side * out, lean, lift]) * (reach + 0.06)
        way = np.array([side * splay, -1, 0] if sitting else [side * splay * 0.4, 0, -1])
        foot = hip + way * (reach + 0.06)
        parts += [_limb(shoulder, hand, thick, 0.95 * thick), _limb(hip, foot, 1.25 * thick, 1.2 * thick)]
        if sitting or variant == 1:
            parts.append(
                stretched_ball(
                    0.8 * thick, foot + way * thick, (1, 0.5, 1) if sitting else (1, 1, 0.5), "accent"
                )
            )
        else:
            parts.append(stretched_ball(thick, foot - [0, 0.5 * thick, 0], (1.15, 1.6, 0.9)))
        if variant == 3:
            parts.append(_limb(shoulder, 0.7 * shoulder + 0.3 * hand, 1.15 * thick, 1.15 * thick, "accent"))
    at = (0, -0.02, 2 * tall - 0.05 + rng.uniform(0.55, 0.75) * head)
    if variant == 1:
        parts, at = group(parts, ("x", 90)), (0, -2 * tall - 0.1 * head, 0.55 * head)
    parts += group(_bear_head(rng, head), ("z", rng.uniform(-15, 15)), at)
    return group(parts, offset=(0, 0, -bounds(parts)[0][2]))
