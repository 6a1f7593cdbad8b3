"""Mesh builders: further variants of soft things, plants and lamps, see `vocabulary.FURTHER_VARIANTS`. Front at -y."""

from __future__ import annotations

import numpy as np
from shapes import (
    Part,
    arc,
    bounds,
    box,
    disc,
    ellipsoid,
    group,
    lathe,
    leaf,
    rounded_rectangle,
    smooth_outline,
    tube,
)


def _outline(segments: int = 24, lobes: int = 0, depth: float = 0.0) -> np.ndarray:
    """Unit circle [segments, 2], wavy with `lobes` of a `depth`."""
    a = np.linspace(0, 2 * np.pi, segments, endpoint=False)
    return ((1 + depth * np.cos(lobes * a)) * np.stack([np.cos(a), np.sin(a)])).T


def _swept(profile, outline: np.ndarray, slot: str = "main") -> Part:
    """Like `lathe`, with an outline [K, 2] in place of the unit circle."""
    rings = [np.c_[outline * r, np.full(len(outline), z)] if r >= 1e-6 else [(0, 0, z)] for r, z in profile]
    return Part(np.concatenate(rings), lathe(profile, len(outline)).faces, slot)


def _sheet(grid: np.ndarray, slot: str = "main") -> Part:
    """Surface through points [N, M, 3]."""
    n, m = grid.shape[:2]
    corners = [i * m + j for i in range(n - 1) for j in range(m - 1)]
    return Part(grid.reshape(-1, 3), [(k, k + m, k + m + 1, k + 1) for k in corners], slot)


def _ball(radius: float, at, stretch=(1, 1, 1), slot: str = "main") -> Part:
    """Stretched ball at a centre."""
    return ellipsoid(*(radius * np.array(stretch)), rings=9, segments=14, slot=slot).at(*at)


def _pillow(rng) -> list[Part]:
    """Knife-edge pillow with drawn-in sides, perhaps dented at the back edge, with piping, a flange or tassels."""
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
    trims = [[], [tube(rim, 0.022, 6, slot)], [_sheet(np.stack([rim, rng.uniform(1.1, 1.2) * rim]))], tassels]
    return [_sheet(grid), _sheet(grid[::-1] * [1, 1, -1]), *trims[rng.integers(4)]]


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
    return [_swept(profile, outline), *(tube(loop, thick, 6, seam).at(z=z) for z in (low, high - low))]


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
        button = _ball(0.07, (0, 0, high * (1 - 0.7 * dip)), (1, 1, 0.6), str(rng.choice(["main", "accent"])))
        return [_swept(profile, _outline(4 * count, count, rng.uniform(0.02, 0.06))), button]
    if variant == 0:
        parts = _pillow(rng)
    else:
        outline = 0.45 * _outline(60, int(rng.integers(5, 8)), rng.uniform(0.12, 0.24))[:, ::-1]
        if rng.random() < 0.5:
            a = np.linspace(2 * np.pi, 0, 48, endpoint=False)
            up = 13 * np.cos(a) - 5 * np.cos(2 * a) - 2 * np.cos(3 * a) - np.cos(4 * a)
            outline = np.stack([16 * np.sin(a) ** 3, up * rng.uniform(0.85, 1.1)], axis=1) / 32
        puff, power = rng.uniform(0.12, 0.22), rng.uniform(0.4, 0.6)
        half = [(s, puff * (1 - s**2) ** power) for s in np.sin(np.linspace(0, np.pi / 2, 9))]
        parts = [_swept([(s, -z) for s, z in half] + half[-2::-1], outline)]
    parts = group(parts, ("x", rng.choice([0, rng.uniform(50, 76)])))
    return group(parts, offset=(0, 0, -bounds(parts)[0][2]))


def _brim(outer: float, oval: float, height) -> Part:
    """Brim around an oval crown; `height` gives z from the angle and the fraction of the width."""
    a, t = np.meshgrid(np.linspace(0, 2 * np.pi, 41), np.linspace(0, 1, 6), indexing="ij")
    r = 0.38 + (outer - 0.38) * t
    return _sheet(np.stack([r * np.cos(a), oval * r * np.sin(a), height(a, t)], axis=2))


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
    cap = _swept(crown, _outline(36, 6, 0.01) * [0.92, 1.08])
    return [cap, _ball(0.04, (0, 0, high), (1, 1, 0.6), slot), _sheet(np.stack([x, y, z], axis=2), slot)]


def _brimless(rng) -> list[Part]:
    """Ribbed beanie with a cuff that may slouch, or a beret."""
    high, cuff, wide = rng.uniform(0.55, 1.0), rng.uniform(0.12, 0.28), rng.uniform(0.44, 0.54)
    side, ribs = (
        [(0.46, 0), (wide, high * 0.45), (wide * 0.7, high * 0.85), (0, high)],
        _outline(72, 18, 0.03),
    )
    if rng.random() < 0.4:
        high, cuff, wide, ribs = rng.uniform(0.36, 0.48), 0.1, rng.uniform(0.58, 0.7), _outline(36)
        dome = [(wide, 0.2), (wide * 0.92, 0.3), (wide * 0.5, high * 0.95), (0.03, high), (0.03, 1.2 * high)]
        side = [(0.44, 0), (0.46, 0.08), *dome, (0, 1.2 * high)]
    body = _swept(smooth_outline(side, 22), ribs)
    sag = (
        rng.choice([0, high * rng.uniform(0.3, 0.5)]) * (body.vertices[:, 2:] / high) ** 2 * [0.5, 0.6, -0.4]
    )
    fold = [(0.47, 0), (0.53, 0.03), (0.53, cuff - 0.03), (0.46, cuff)]
    return [Part(body.vertices + sag, body.faces), _swept(fold, ribs, str(rng.choice(["main", "accent"])))]


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
        crown = _swept(smooth_outline(side, 14), _outline(40) * [1, oval])
        x, y, z = crown.vertices.T
        top = (z / high) ** 3
        crown.vertices[:, 2] -= rng.uniform(0.1, 0.2) * top * np.exp(-((x / 0.12) ** 2))
        crown.vertices[:, 0] *= 1 - front * top * np.clip(-y / 0.4, 0, 1)
        brim = _brim(
            rng.uniform(0.62, 0.82), oval, lambda a, t: t**2 * (curl * np.cos(a) ** 2 - dip * np.sin(a) ** 2)
        )
        parts = [crown, brim, _swept([(0.41, 0.0), (0.405, 0.1)], _outline(40) * [1, oval], band)]
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
        _ball(r, (0, 0, 0), (wide, 0.95, 1)),
        _ball(snout, (0, -0.8 * r, low), (1.15, long, 0.85), muzzle),
        _ball(r * rng.uniform(0.12, 0.2), tip, (1.3, 0.7, 0.9), "dark"),
    ]
    for side in (-1, 1):
        x, z = 1.08 * side * wide * r * np.cos(at), 1.12 * r * np.sin(at)
        parts += [
            _ball(ear, (x, 0, z), (1, 0.5, 1)),
            _ball(0.65 * ear, (x, -0.28 * ear, z), (1, 0.5, 1), inner),
            _ball(0.12 * r, (side * gap * r * wide, -0.84 * r, 0.25 * r), slot="dark"),
        ]
    return parts


def teddy_bear(rng, variant: int) -> list[Part]:
    """Long-limbed sitting with foot pads, lying on its belly, big-headed waving, in a shirt with open arms."""
    cute, r, thick = variant == 2, rng.uniform(0.2, 0.28), rng.uniform(0.08, 0.12)
    limits = ([0.2, 0.18, 0.3], [0.28, 0.22, 0.38]) if cute else ([0.26, 0.15, 0.2], [0.38, 0.36, 0.27])
    tall, reach, head = rng.uniform(*limits)
    trunk = smooth_outline(
        [(0, 0), (0.8 * r, 0.2 * tall), (r, 0.7 * tall), (0.7 * r, 1.6 * tall), (0, 2 * tall)], 14
    )
    parts = [lathe(trunk, 18, "accent" if variant == 3 else "main").scaled(1, 0.9, 1)]
    if variant == 3:
        parts.append(_swept([(r, 0.45 * tall), (0.9 * r, 0), (0, -0.03)], _outline(18)))
    elif rng.random() < 0.7:
        parts.append(_ball(r, (0, -0.67 * r, 0.75 * tall), (0.65, 0.3, 0.65 * tall / r), "accent"))
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
                _ball(0.8 * thick, foot + way * thick, (1, 0.5, 1) if sitting else (1, 1, 0.5), "accent")
            )
        else:
            parts.append(_ball(thick, foot - [0, 0.5 * thick, 0], (1.15, 1.6, 0.9)))
        if variant == 3:
            parts.append(_limb(shoulder, 0.7 * shoulder + 0.3 * hand, 1.15 * thick, 1.15 * thick, "accent"))
    at = (0, -0.02, 2 * tall - 0.05 + rng.uniform(0.55, 0.75) * head)
    if variant == 1:
        parts, at = group(parts, ("x", 90)), (0, -2 * tall - 0.1 * head, 0.55 * head)
    parts += group(_bear_head(rng, head), ("z", rng.uniform(-15, 15)), at)
    return group(parts, offset=(0, 0, -bounds(parts)[0][2]))


def _pot(rng, high: float) -> list[Part]:
    """Round, bellied or square pot, with soil."""
    r, wide, lip = rng.uniform(0.17, 0.25), rng.uniform(0.65, 1.15), rng.choice([1.0, 1.15])
    outline = rounded_rectangle(1.8, 1.8, 0.25) if rng.random() < 0.3 else _outline()
    side = smooth_outline([(wide * r, 0), (rng.choice([1.0, 1.25]) * r, 0.5 * high), (r, high)], 8)
    rim = [(lip * r, high), (lip * r, high * 1.12), (0.85 * r, high * 1.12), (0.85 * r, high * 0.9)]
    soil = _swept([(0.86 * r, high), (0, high)], outline, "soil")
    return [_swept([(0, 0), *side, *rim], outline, "pot"), soil]


def _frond(length: float, arch: float, leaflet: float) -> list[Part]:
    """Feathered frond from the origin along +x."""
    t = np.linspace(0, 1, 9)
    spine = np.stack([length * t, 0 * t, length * arch * (1.2 * t - 1.3 * t**2)], axis=1)
    parts = [tube(spine, 0.012 - 0.008 * t, 5, "leaf")]
    for point, share in zip(spine[1:], t[1:], strict=True):
        size = leaflet * np.sin(np.pi * (0.15 + 0.75 * share))
        parts += [
            leaf(size, 0.3 * leaflet, 0.02, 0.3 * size).rotated("z", turn).at(*point) for turn in (55, -55)
        ]
    return parts


def _palm(rng) -> list[Part]:
    """One or two tufts of fronds, on trunks or, like a fern, without."""
    parts, trunks, (length, arch, leaflet) = (
        [],
        rng.integers(1, 3),
        rng.uniform([0.4, 0.4, 0.15], [0.65, 1.0, 0.26]),
    )
    for trunk in range(trunks):
        top = np.array([0.24 * trunk - 0.12 * (trunks > 1), 0, rng.choice([0.05, rng.uniform(0.2, 0.8)])])
        parts.append(tube([(0, 0, -0.02), top / 2 + [0.01, 0, 0.01], top], 0.025, 7, "wood"))
        for k in range(int(rng.integers(6, 10))):
            frond = _frond(length * rng.uniform(0.8, 1.1), arch, leaflet)
            parts += group(frond, ("z", 137.5 * k + 70 * trunk), tuple(top))
    return parts


def _rosette(rng) -> list[Part]:
    """Fleshy pointed leaves, curling in or out."""
    count, length, thick = int(rng.integers(14, 30)), rng.uniform(0.3, 0.6), rng.uniform(0.04, 0.08)
    t, curl, parts = np.linspace(0, 1, 7)[:, None], rng.uniform(-0.3, 0.5), []
    belly = thick * (1 - t[:, 0] ** rng.uniform(1.5, 4)) + 0.004
    for k in range(count):
        blade = tube(length * (1 - 0.4 * k / count) * t * [1, 0, 0], belly, 8, "leaf").scaled(1, 1, 0.4)
        blade.vertices[:, 2] += curl * blade.vertices[:, 0] ** 2 / length
        parts.append(blade.rotated("y", -15 - 68 * k / count).rotated("z", 137.5 * k))
    return parts


def _vine(rng, turn: float, z: float) -> list[Part]:
    """A shoot that rises from the pot and hangs over its rim, with leaves."""
    t, fall, out = np.linspace(0, 1, 12), (z - 0.15) * rng.uniform(0.1, 1), rng.uniform(0.15, 0.5)
    parts, size = [], rng.uniform(0.13, 0.2)
    path = np.stack([out * t**0.6, 0.12 * np.sin(5 * t + turn), 0.45 * t * (1 - t) - fall * t**2.2], axis=1)
    for k, point in enumerate(path[1:]):
        blade = leaf(size, 0.8 * size, 0.03, 0.08).rotated("y", rng.uniform(5, 60))
        parts.append(blade.rotated("z", 70 * (-1) ** k + rng.uniform(-30, 30)).at(*point))
    return group([tube(path, 0.008, 5, "leaf"), *parts], ("z", turn))


def _large_leaves(rng) -> list[Part]:
    """Large drooping leaves along an upright stem."""
    size, wide, high = rng.uniform(0.32, 0.5), rng.uniform(0.4, 0.95), rng.uniform(0.45, 1.0)
    parts, count = [tube([(0, 0, 0), (0, 0, 0.9 * high)], 0.016, 6, "wood")], rng.integers(11, 20)
    for k in range(count):
        blade = leaf(size, wide * size, 0.3 * size, rng.uniform(0.3, 0.9) * size).rotated(
            "y", rng.uniform(-40, 20)
        )
        parts += group(
            [blade], ("z", 137.5 * k + rng.uniform(-20, 20)), (0, 0, high * (0.25 + 0.7 * k / count))
        )
    return parts


def plant(rng, variant: int) -> list[Part]:
    """Palm or fern, succulent rosette, trailing vines, large leaves on a stem. The leaves have the name."""
    z = rng.uniform(*[(0.2, 0.4), (0.12, 0.24), (0.3, 0.7), (0.15, 0.3)][variant])
    if variant == 2:
        leaves = [part for k in range(int(rng.integers(11, 17))) for part in _vine(rng, 137.5 * k, z)]
    else:
        leaves = {0: _palm, 1: _rosette, 3: _large_leaves}[variant](rng)
    return _pot(rng, z) + group(leaves, offset=(0, 0, z - 0.02))


def _shade(rng, wide: float, high: float) -> list[Part]:
    """Open shade on z = 0: straight or bell, round, pleated, square or hexagonal, perhaps with trimmed edges."""
    top = wide * rng.uniform(0.35, 0.9)
    outline = [_outline(28), _outline(72, 18, 0.03), 1.2 * _outline(4), 1.08 * _outline(6)][rng.integers(4)]
    outer = smooth_outline(
        [(wide, 0), ((wide + top) / 2 * rng.choice([1, 0.85]), 0.5 * high), (top, high)], 7
    )
    parts = [_swept([*outer, *((r - 0.015, z) for r, z in outer[::-1])], outline)]
    if rng.random() < 0.4:
        parts += [
            _swept([(r + 0.008, z - 0.015), (r + 0.008, z + 0.015)], outline, "accent") for r, z in outer[::6]
        ]
    return group(parts, ("z", 45))


def _stand(rng, high: float) -> list[Part]:
    """Turned, of stacked balls, a block, a rod on a disc or a tripod."""
    slot, r = str(rng.choice(["main", "main", "accent", "steel", "wood", "light"])), rng.uniform(0.1, 0.2)
    radii, count = np.r_[r, rng.uniform(0.04, 0.2, 5), 0.03], rng.integers(2, 5)
    kinds = [
        [
            lathe(
                [(0, 0), *smooth_outline(list(zip(radii, np.linspace(0, high, 7), strict=True)), 26)],
                20,
                slot,
            )
        ],
        [
            _ball(0.5 * high / count, (0, 0, (k + 0.5) * high / count), (1.1, 1.1, 1), slot)
            for k in range(count)
        ],
        [box(1.6 * r, 1.6 * r, high * rng.uniform(0.7, 0.95), 0.02, slot)],
        [disc(1.4 * r, rng.uniform(0.03, 0.07), slot=slot), tube([(0, 0, 0), (0, 0, high)], 0.025, 7, slot)],
        [
            tube([1.5 * r * np.array([np.cos(a), np.sin(a), 0]), (0, 0, high)], 0.022, 7, slot)
            for a in (0.5, 2.6, 4.7)
        ],
    ]
    return [tube([(0, 0, 0.7 * high), (0, 0, high + 0.2)], 0.022, 7, "steel"), *kinds[rng.integers(5)]]


def _gooseneck(rng) -> list[Part]:
    """Bent neck with a bell, can or bar head."""
    high, wide, long = rng.uniform(0.6, 0.9), rng.uniform(0.15, 0.24), rng.uniform(0.2, 0.32)
    end, t = np.array([rng.uniform(0.25, 0.5), 0, high + rng.uniform(0, 0.2)]), np.linspace(0, 1, 14)[:, None]
    path = 3 * t**2 * (1 - t) * [0.1, 0, 1.35 * high] + t**3 * end
    foot = [box(0.34, 0.3, 0.06, 0.02), disc(rng.uniform(0.15, 0.22), rng.uniform(0.04, 0.08))][
        rng.integers(2)
    ]
    head = [box(2 * long, 0.14, 0.07, 0.02).at(z=-0.06), box(1.8 * long, 0.1, 0.01, slot="glow").at(z=-0.065)]
    if rng.random() < 0.7:
        top = wide * rng.uniform(0.3, 0.9)
        outer = smooth_outline(
            [(0, 0.02), (top, 0), (0.6 * top + 0.4 * wide, -0.5 * long), (wide, -long)], 14
        )
        head = [lathe([*outer, *((max(r - 0.015, 0), z) for r, z in outer[::-1])], 22)]
        head.append(_ball(0.6 * wide, (0, 0, -0.8 * long), (1, 1, 0.4), "glow"))
    neck = tube(path, rng.uniform(0.018, 0.03), 8, str(rng.choice(["main", "steel"])))
    return [foot, neck, *group(head, ("y", -rng.uniform(-5, 40)), tuple(end))]


def lamp(rng, variant: int) -> list[Part]:
    """Table lamp of many shades and stands, gooseneck reading lamp, banker's lamp, shade on a hook."""
    turn = ("z", rng.choice([0, 180]) + rng.uniform(-50, 50))
    if variant == 1:
        return group(_gooseneck(rng), turn)
    wide, tall, bulb = rng.uniform(0.26, 0.42), rng.uniform(0.26, 0.48), _ball(0.08, (0, 0, 0), slot="glow")
    if variant == 0:
        high = rng.uniform(0.32, 0.6)
        return [
            *_stand(rng, high),
            bulb.at(z=high + 0.4 * tall),
            *group(_shade(rng, wide, tall), offset=(0, 0, high)),
        ]
    slot, high, foot = (
        str(rng.choice(["main", "steel", "wood"])),
        rng.uniform(0.45, 0.7),
        rng.uniform(0.18, 0.26),
    )
    parts = [lathe([(0, 0), (foot, 0), (foot, 0.03), (0.05, 0.08), (0, 0.08)])]
    if variant == 2:
        long, deep = rng.uniform(0.32, 0.45), rng.uniform(0.16, 0.24)
        a, x = np.meshgrid(np.radians(np.linspace(0, 180, 15)), np.linspace(-1, 1, 13), indexing="ij")
        swell = deep * (1 - rng.uniform(0.3, 0.99) * x**8)
        shade = np.stack(
            [x * long, -swell * np.cos(a), high + rng.uniform(0.7, 1.0) * swell * np.sin(a)], axis=2
        )
        stem = tube([(0, 0, 0.05), (0, 0, high + 0.6 * deep)], 0.025, 8, slot)
        return [
            *parts,
            _sheet(shade),
            stem,
            tube([(-long * 0.8, 0, high), (long * 0.8, 0, high)], 0.04, 8, "glow"),
        ]
    reach = rng.uniform(0.2, 0.34)
    hook = arc(reach, 180, 10, 14, rng.uniform(0.6, 1.1)) + [reach, 0, high + 0.15]
    parts.append(tube(np.concatenate([[(0, 0, 0.05), (0, 0, 0.5 * high)], hook]), 0.022, 8, slot))
    shade = [*_shade(rng, 0.75 * wide, 0.7 * tall), bulb.at(z=0.3 * tall)]
    return group([*parts, *group(shade, offset=tuple(hook[-1] - [0, 0, 0.7 * tall]))], turn)
