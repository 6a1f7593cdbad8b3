"""Mesh builders: further variants of household things and fruit, see `vocabulary.FURTHER_VARIANTS`. Each takes
(rng, variant), returns parts in free units, front at -y; a variant is a family with wide random proportions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from further_shapes import hoop, stacked
from shapes import (
    Part,
    arc,
    box,
    ellipsoid,
    group,
    lathe,
    leaf,
    prism,
    rounded_rectangle,
    smooth_outline,
    tube,
    vessel,
)


def _grounded(parts: list[Part]) -> list[Part]:
    """The parts moved to stand on z = 0."""
    return group(parts, offset=(0, 0, -min(part.vertices[:, 2].min() for part in parts)))


def _loft(sections: list, slot: str = "main") -> Part:
    """Closed surface through (outline [K, 2], z) sections of equal K."""
    return stacked([np.c_[outline, np.full(len(outline), z)] for outline, z in sections], slot)


def _seams(rng, kind: str) -> list[np.ndarray]:
    """Seam lines on the unit sphere: 'basket', 'volley' or 'tennis' ball."""
    t, u, b, off = (
        np.linspace(0, 2 * np.pi, 41),
        np.linspace(-1, 1, 8),
        rng.uniform(0.2, 0.3),
        rng.uniform(0.5, 0.7),
    )
    if kind == "tennis":
        x, y = (1 - b) * np.cos(t) + b * np.cos(3 * t), (1 - b) * np.sin(t) - b * np.sin(3 * t)
        return [np.c_[x, y, 2 * np.sqrt(b - b * b) * np.sin(2 * t)]]
    if kind == "basket":
        circle = np.c_[0 * t, np.cos(t), np.sin(t)]
        sides = [circle * np.sqrt(1 - off**2) + [x, 0, 0] for x in (-off, off)]
        return [*sides, np.roll(circle, 1, axis=1), np.roll(circle, 2, axis=1)]
    lines = [np.c_[np.full(8, s), u, np.full(8, v)] for s in (-1, 1) for v in (-1, -1 / 3, 1 / 3, 1)]
    return [np.roll(p / np.linalg.norm(p, axis=1)[:, None], k, axis=1) for p in lines for k in range(3)]


def _oval_ball(rng) -> list[Part]:
    """Rugby ball or American football lying along x."""
    heights, v = np.sin(np.linspace(-np.pi / 2, np.pi / 2, 17)), rng.integers(10, 13)
    profile = np.c_[(1 - heights**2) ** rng.uniform(0.5, 0.75), heights * rng.uniform(1.25, 1.75)]
    seam = tube(profile[:, [0, 0, 1]] * [1, 0, 1], 0.02, 5, str(rng.choice(["dark", "accent"])))
    lace = tube([(-0.98, -0.18, 0), (-1.03, 0, 0), (-0.98, 0.18, 0)], 0.03, 5, "light")
    band = lathe(profile[v : v + 2] * [1.012, 1], 24, str(rng.choice(["light", "main"])))
    parts = [
        lathe(profile, 24),
        band,
        band.rotated("x", 180),
        *[lace.at(z=z) for z in np.linspace(-0.35, 0.35, 6)],
    ]
    parts += [seam.rotated("z", turn) for turn in (0, 90, 180, 270)]
    return _grounded(group(group(parts, ("z", rng.uniform(-60, 60))), ("y", rng.uniform(78, 102))))


def ball(rng, variant: int) -> list[Part]:
    """Basketball or volleyball seams, oval rugby ball, tennis ball curve, knobbly massage ball."""
    if variant == 1:
        return _oval_ball(rng)
    parts, width, squash = (
        [ellipsoid(1, 1, 1, rings=16, segments=24)],
        rng.uniform(0.025, 0.05),
        rng.uniform(0.88, 1),
    )
    if variant == 3:
        count, size = int(rng.integers(28, 90)), rng.uniform(0.06, 0.12)
        profile = [(size, 0.97), (size * rng.uniform(0.3, 0.9), 0.97 + size), (0, 0.97 + 1.4 * size)]
        knob = lathe(profile, 7, str(rng.choice(["main", "main", "accent"])))
        tilts = np.degrees(np.arccos(1 - (2 * np.arange(count) + 1) / count))
        parts += [knob.rotated("y", tilt).rotated("z", 137.5 * k) for k, tilt in enumerate(tilts)]
    else:
        kind, slot = str(rng.choice(["basket", "volley"])), str(rng.choice(["dark", "light", "accent"]))
        parts += [
            tube(p, width * (1 + variant / 4), 5, slot)
            for p in _seams(rng, "tennis" if variant == 2 else kind)
        ]
    parts = group(group(parts, ("x", rng.uniform(0, 360))), ("z", rng.uniform(0, 360)))
    return _grounded([part.scaled(1, 1, squash) for part in parts])


def _hardback(rng, w: float, d: float, h: float) -> list[Part]:
    """Boards overhanging the pages, a flat or rounded spine at -x with bands or a label, a title on the front."""
    t, over, bulge = rng.uniform(0.015, 0.035), rng.uniform(0.02, 0.05), h * rng.uniform(0.04, 0.4)
    a, slot = np.radians(np.linspace(270, 90, 7)), str(rng.choice(["accent", "accent", "light", "dark"]))
    spine = np.c_[bulge * np.cos(a), h / 2 + h / 2 * np.sin(a)]
    parts = [box(w, d, t), box(w, d, t).at(z=h - t), prism(spine, d).rotated("x", 90).at(-w / 2, d / 2)]
    parts.append(box(w - over, d - 2 * over, h - 2 * t, slot="paper").at(-over / 2, 0, t))
    for y in rng.choice([-0.4, -0.3, 0.0, 0.25, 0.4], size=int(rng.integers(1, 4)), replace=False):
        band = prism((spine - [0, h / 2]) * [1.15, 1.04] + [0, h / 2], rng.uniform(0.02, 0.1), slot)
        parts.append(band.rotated("x", 90).at(-w / 2 - 0.004, y * d))
    plate = box(w * rng.uniform(0.3, 0.75), d * rng.uniform(0.06, 0.3), 0.006, slot=slot)
    return [*parts, plate.at(0.02, d * rng.uniform(-0.1, 0.3), h)]


def _notebook(rng, w: float, h: float) -> list[Part]:
    """Thin covers flush with the pages, depth 1: spiral wire, or a spine and an elastic band."""
    outline, paint = (
        rounded_rectangle(w, 1, rng.uniform(0.01, 0.08)),
        str(rng.choice(["dark", "accent", "light"])),
    )
    parts = [prism(outline, 0.012), prism(outline * 0.985, h, "paper"), prism(outline, 0.012).at(z=h)]
    parts.append(
        box(w * rng.uniform(0.3, 0.6), rng.uniform(0.1, 0.3), 0.006, slot=paint).at(0, 0.1, h + 0.012)
    )
    if rng.random() < 0.4:
        wire = tube(arc(h / 2 + 0.03, 0, 360, 9), 0.011, 4, paint).at(-w / 2 + 0.02, 0, h / 2)
        return parts + [wire.at(y=y) for y in np.linspace(-0.45, 0.45, int(rng.integers(9, 20)))]
    elastic = box(0.03, 1.008, h + 0.02, slot=str(rng.choice(["dark", "main"]))).at(
        w * rng.uniform(0.3, 0.42)
    )
    return [*parts, box(0.02, 1, h).at(-w / 2), elastic]


def _ajar(rng, w: float, h: float) -> list[Part]:
    """A book opened a little: standing upright with the spine to the front, or lying with its cover raised."""
    angle, t = rng.uniform(8, 32), 0.025
    half = [
        box(t, w, 1).at(-h / 2, w / 2),
        box(h / 2 - t, w * 0.95, 0.95, slot="paper").at(-h / 4, w * 0.475, 0.025),
    ]
    half.append(box(0.006, w * 0.5, 0.2, slot="accent").at(-h / 2 - t / 2, w / 2, rng.uniform(0.2, 0.7)))
    parts = group(half, ("z", angle))
    parts += [part.scaled(-1, 1, 1) for part in parts]
    sheet = box(0.004, w * 0.93, 0.95, slot="paper").at(0, w * 0.47, 0.025)
    parts += [sheet.rotated("z", turn) for turn in rng.uniform(-angle, angle, size=4)]
    parts.append(prism(np.array([(1, 1), (-1, 1), (-0.7, -1), (0.7, -1)]) * [h / 2 + t / 2, 0.03], 1))
    lying = group(group(parts, ("z", angle)), ("y", 90))
    return _grounded(lying if rng.random() < 0.35 else parts)


def _library(rng) -> list[Part]:
    """Several hardbacks: a row with the spines to the front, or a pile."""
    parts, reach, row = [], 0.0, rng.random() < 0.6
    for k in range(int(rng.integers(3, 6))):
        h, d = rng.uniform(0.07, 0.24), rng.uniform(0.75, 1.05)
        one = _hardback(rng, d * rng.uniform(0.62, 0.8), d, h)
        upright = group(group(one, ("x", 90)), ("z", 90), (reach, 0, d / 2))
        parts += upright if row else group(one, ("z", rng.uniform(-22, 22) + 180 * (k % 2)), (0, 0, reach))
        reach += h + 0.006
    return parts


def book(rng, variant: int) -> list[Part]:
    """Bound hardback in any pose, row or pile of several, opened a little, notebook or paperback."""
    w, h = rng.uniform(0.58, 0.95), rng.uniform(0.06, 0.36)
    if variant in (1, 2):
        return _library(rng) if variant == 1 else _ajar(rng, w, h)
    parts = _hardback(rng, w, 1, h) if variant == 0 else _notebook(rng, rng.uniform(0.6, 1.3), min(h, 0.16))
    return _grounded(group(parts, ("x", float(rng.choice([0, 0, 90, rng.uniform(55, 80)])))))


def _tub(w: float, d: float, h: float, taper: float, radius: float, flange: float = 0.0) -> Part:
    """Open box with rounded corners, `taper` times narrower at the foot, with a rim that stands out by `flange`."""
    top, inner = rounded_rectangle(w, d, radius), rounded_rectangle(w - 0.07, d - 0.07, radius * 0.8)
    rim = rounded_rectangle(w + 2 * flange, d + 2 * flange, radius)
    return _loft(
        [(top * taper, 0), (top, h - 0.06), (rim, h - 0.06), (rim, h), (inner, h), (inner * taper, 0.03)]
    )


def _lidded_box(rng, w: float, d: float, h: float) -> list[Part]:
    """Shoe box or plastic storage box with a label, its lid closed, turned or tilted."""
    radius, lid, tilt = (
        rng.choice([0.02, 0.1]),
        h * rng.uniform(0.08, 0.4),
        rng.choice([0, 0, rng.uniform(6, 22)]),
    )
    outline, paint = (
        rounded_rectangle(w * 1.05, d * 1.05, radius),
        str(rng.choice(["main", "main", "accent"])),
    )
    cover = _loft([(outline, 0), (outline, lid), (outline * 0.95, lid + 0.02)], paint)
    rise = -lid if tilt == 0 else 0.5 * d * np.sin(np.radians(tilt)) - lid * 0.2
    cover = cover.rotated("x", tilt).rotated("z", rng.choice([0, 5, -6])).at(0, -0.005 * tilt * d, h + rise)
    label = box(w * 0.35, 0.03, h * 0.25, slot=str(rng.choice(["paper", "dark"]))).at(
        0, -d / 2 + 0.005, h * 0.3
    )
    return [_tub(w, d, h, rng.uniform(0.94, 1.0), radius), cover, label]


def _carton(rng, w: float, d: float, h: float) -> list[Part]:
    """Parcel of any proportion: seamed or lifted top flaps, tape, address label, hand holes."""
    lift = rng.choice([1.0, rng.uniform(3, 25)])
    flap = box(w, d / 2, 0.02).at(y=d / 4).rotated("x", lift).at(0, -d / 2, h)
    parts = [box(w, d, h, 0.012), flap, flap.rotated("z", 180)]
    if lift == 1:
        parts.append(box(w * 1.01, rng.uniform(0.06, 0.12), h * 0.3, slot="paper").at(z=h * 0.7 + 0.03))
    parts.append(box(w * 0.35, 0.02, h * 0.3, slot="light").at(w * rng.uniform(-0.25, 0.25), -d / 2, h * 0.3))
    return parts + [box(0.01, d * 0.3, h * 0.14, slot="dark").at(x, 0, h * 0.75) for x in (-w / 2, w / 2)]


def _chest(rng, w: float, d: float, h: float) -> list[Part]:
    """Hinged box with a clasp: flat or domed lid, closed or standing open."""
    a, rise = np.radians(np.linspace(0, 180, 9)), h * rng.uniform(0.12, 0.45)
    curve = np.c_[d / 2 * np.cos(a), rise * np.sin(a) ** rng.choice([0.15, 1.0])] * 1.02
    opened, clasps = rng.choice([0, 0, rng.uniform(15, 105)]), rng.choice([0.0, 0.3]) * np.array([-w, w])
    lid = [prism(curve, 1.02 * w).rotated("x", 90).rotated("z", 90).at(-0.51 * w, -d / 2)]
    lid += [box(0.12, 0.03, 0.14, slot="steel").at(x, -d - 0.01, -0.06) for x in np.unique(clasps)]
    return [_tub(w, d, h, 1, 0.02), *group(lid, ("x", -opened), (0, d / 2, h))]


def container(rng, variant: int) -> list[Part]:
    """The noun 'box': lidded shoe or storage box, parcel, hinged chest, open bin with rim and hand holes."""
    w, d, h = 1.0, rng.uniform(0.45, 1.0), rng.uniform(0.25, 0.9)
    if variant < 3:
        return [_lidded_box, _carton, _chest][variant](
            rng, w, d, h * [1, rng.uniform(0.5, 1.6), 0.8][variant]
        )
    taper, slope = rng.choice([1.0, rng.uniform(0.78, 0.95)]), rng.choice([0, 0, rng.uniform(0.3, 0.7)])
    parts = [_tub(w, d, h, taper, rng.uniform(0.02, 0.12), rng.choice([0, rng.uniform(0.01, 0.05)]))]
    hole = box(0.03, d * 0.32, 0.09, slot="dark").at(w / 2 * (0.24 * taper + 0.76), 0, h * 0.72)
    parts += [hole.rotated("z", turn) for turn in (0, 180) if rng.random() < 0.8]
    parts += [box(0.02, d * 0.9 * taper, h * 0.85).at(x) for x in rng.uniform(-0.2, 0.2, size=1) if x > 0.05]
    return [replace(p, vertices=p.vertices * (1 + slope * p.vertices[:, 1:2] * [0, 0, 1])) for p in parts]


def _bail(rng, radius: float, z: float, thickness: float = 0.02, slot: str = "steel") -> list[Part]:
    """Swinging handle with or without a grip, at any angle."""
    stretch = rng.uniform(0.8, 1.25)
    parts = [tube(arc(radius, 0, 180, 16, stretch), thickness, 6, slot)]
    if rng.random() < 0.6:
        paint = str(rng.choice(["light", "dark", "wood", "main"]))
        parts.append(tube([(x, 0, radius * stretch) for x in (-0.14, 0.14)], 2.2 * thickness, 8, paint))
    return group(parts, ("x", rng.choice([rng.uniform(-25, 25), 80, -80])), (0, 0, z))


def _staved(rng) -> list[Part]:
    """Pail of staves with hoops: a bail between two ears."""
    low, high, h, slot = (
        *rng.uniform([0.36, 0.44, 0.65], [0.5, 0.56, 1.0]),
        str(rng.choice(["steel", "dark"])),
    )
    profile = smooth_outline([(low, 0), ((low + high) / 2 + rng.uniform(0, 0.06), h / 2), (high, h)], 7)
    tub = vessel(profile, 0.05, 2 * int(rng.integers(10, 17)))
    groove = np.where((np.arange(len(tub.vertices)) - 1) % 2, 1.0, 0.955)[:, None]
    parts = [replace(tub, vertices=tub.vertices * np.where([True, True, False], groove, 1))]
    parts += [
        lathe([(r + 0.012, z), (r + 0.016, z + rng.uniform(0.05, 0.1))], 24, slot) for r, z in profile[1:6:4]
    ]
    parts += [box(0.06, 0.16, 0.24, 0.01).at(x * high, 0, h - 0.06) for x in (-1, 1)]
    return parts + _bail(rng, high, h + 0.1, 0.03, str(rng.choice(["steel", "wood", "light"])))


def bucket(rng, variant: int) -> list[Part]:
    """Beaded metal pail, paint pail with a lid, oval mop bucket with a spout, staves and hoops."""
    if variant == 3:
        return _staved(rng)
    low, high, h = rng.uniform(0.28, 0.42), rng.uniform(0.46, 0.58), rng.uniform(0.65, 1.15)
    if variant == 1:
        low, paint = high * rng.uniform(0.86, 0.98), str(rng.choice(["main", "accent", "light"]))
        lip = [(high, h * 0.86), (high + 0.03, h * 0.86), (high + 0.03, h * 0.9), (high, h * 0.9), (high, h)]
        lid = [
            (0, 0),
            (high + 0.04, 0),
            (high + 0.05, 0.06),
            (high - 0.02, 0.08),
            (high - 0.05, 0.03),
            (0, 0.03),
        ]
        label = [
            (low + (high - low) * k / 0.86 + 0.006, k * h) for k in sorted(rng.uniform(0.1, 0.75, size=2))
        ]
        parts = [vessel([(low, 0), *lip], 0.03), lathe(lid, 24, paint).at(z=h), lathe(label, 24, "accent")]
        return parts + _bail(rng, high + 0.04, h * 0.78)
    beads = np.zeros(21)
    beads[rng.choice(np.arange(2, 19), size=int(rng.integers(2, 5)), replace=False)] = (
        0.025 if variant == 0 else 0
    )
    outline = [
        *zip(np.linspace(low, high, 21) + beads, np.linspace(0, h, 21), strict=True),
        (high + 0.04, h + 0.03),
    ]
    tub, bail = vessel(outline, 0.03), _bail(rng, high + 0.03, h)
    if variant == 0:
        return [
            tub,
            *[box(0.05, 0.14, 0.14, 0.01, "steel").at(x * high, 0, h - 0.08) for x in (-1, 1)],
            *bail,
        ]
    x, y, z = tub.vertices.T
    lip, stretch = np.exp(-((np.arctan2(x, -y) / rng.uniform(0.25, 0.45)) ** 2)), rng.uniform(1.05, 1.4)
    lip = 1 + rng.uniform(0.15, 0.32) * lip * np.clip(z / h, 0, 1) ** 5
    return [part.scaled(stretch, 1, 1) for part in (Part(np.c_[x * lip, y * lip, z], tub.faces), *bail)]


def _woven(rng, profile: list) -> Part:
    """Open vessel whose outside has the relief of a weave, of coils or of stakes."""
    tub = vessel(smooth_outline(profile, 11), 0.05, 32)
    row, column = np.divmod(np.arange(len(tub.vertices)) - 1, 32)
    sign = (-1.0) ** [row + column, row, column][rng.integers(0, 3)]
    relief = np.where((row >= 0) & (row < 11), 1 + rng.uniform(0.015, 0.035) * sign, 1)[:, None]
    return replace(tub, vertices=tub.vertices * np.where([True, True, False], relief, 1))


def _lattice(rng, low: float, high: float, h: float) -> list[Part]:
    """Open basket body of hoops and stakes, upright or crossed."""
    turn, count, levels = (
        rng.choice([0.0, rng.uniform(0.2, 0.9)]),
        int(rng.integers(14, 26)),
        np.linspace(0, 1, 7),
    )
    radii = low + (high - low) * levels ** rng.uniform(0.4, 1.2)
    foot = lathe([(0, 0), (low, 0), (low, 0.03), (0, 0.03)])
    parts = [foot, *[hoop(r, h * k, 0.028) for r, k in zip(radii[1::2], levels[1::2], strict=True)]]
    for angle in np.unique([-turn, turn])[:, None] * levels:
        stake = tube(np.c_[radii * np.cos(angle), radii * np.sin(angle), h * levels], 0.024, 4)
        parts += [stake.rotated("z", 360 * k / count) for k in range(count)]
    return parts


def basket(rng, variant: int) -> list[Part]:
    """Oval with an arched handle, two looped side handles, open lattice, bellied with or without a lid."""
    low, high, h = rng.uniform(0.3, 0.5), rng.uniform(0.5, 0.62), rng.uniform(0.28, 0.85)
    stretch, edge, thick = (
        rng.uniform(1.0, 1.55),
        str(rng.choice(["main", "accent"])),
        rng.uniform(0.025, 0.05),
    )
    rise, apart = (
        rng.uniform(0.6, 1.7) * (variant == 0 or (variant == 2 and thick > 0.035)),
        max(0, rng.uniform(-25, 25)),
    )
    if variant == 2:
        parts = _lattice(rng, low, high, h)
    elif variant == 3:
        belly, high, h, dome = high, high * rng.uniform(0.6, 0.95), max(h, 0.5), rng.uniform(0.05, 0.3)
        parts = [_woven(rng, [(low, 0), (belly, h * rng.uniform(0.3, 0.55)), (high, h)])]
        if rng.random() < 0.6:
            parts.append(
                lathe(smooth_outline([(high + 0.05, h), (high * 0.75, h + dome * 0.7), (0, h + dome)], 8), 32)
            )
            parts.append(
                ellipsoid(0.07, 0.07, 0.06, rings=7, segments=10, slot="accent").at(z=h + dome + 0.03)
            )
    else:
        parts = [_woven(rng, [(low, 0), (low * 0.4 + high * rng.uniform(0.5, 0.66), h * 0.5), (high, h)])]
    parts.append(hoop(high, h, rng.uniform(0.03, 0.06), edge))
    if rise:
        bow = tube(arc(high, 0, 180, 17, rise), thick, 8, edge).scaled(1, rng.uniform(1, 3), 1)
        parts += [bow.rotated("x", lean).at(z=h) for lean in np.unique([-apart, apart])]
    elif variant != 3:
        loop = tube(arc(rng.uniform(0.13, 0.24), 0, 180, 11, rng.uniform(0.8, 1.6)), thick, 8, edge).rotated(
            "z", 90
        )
        parts += [loop.rotated("y", x * 60 * (edge == "main")).at(x * high, 0, h) for x in (-1, 1)]
    return _grounded([part.scaled(stretch, 1, 1) for part in group(parts, ("z", rng.choice([0, 90])))])


def _bitten(rng, body: Part, tall: float) -> list[Part]:
    """The body with two or three bites taken from its side, which show the flesh."""
    vertices, inside = body.vertices.copy(), np.zeros(len(body.vertices), bool)
    side, reach = rng.uniform(-150, -30), rng.uniform(0.2, 0.3)
    for a in np.radians(side + 28 * np.arange(int(rng.integers(2, 4)))):
        outward = np.array([np.cos(a), np.sin(a), 0])
        away = np.linalg.norm(body.vertices - outward * 0.5 - [0, 0, tall * rng.uniform(0.5, 0.62)], axis=1)
        vertices -= (np.sqrt(np.clip(reach**2 - away**2, 0, None)) * 0.6 * ~inside)[:, None] * outward
        inside |= away < reach
    sides = [[face for face in body.faces if inside[list(face)].any() == bare] for bare in (False, True)]
    return [Part(vertices, sides[0]), Part(vertices, sides[1], "paper")]


def apple(rng, variant: int) -> list[Part]:
    """Tapered with lobes, flat and tipped over, bitten, lopsided with a twig and leaves."""
    tall = rng.uniform(*[(0.95, 1.12), (0.68, 0.85), (0.85, 1.1), (0.85, 1.05)][variant])
    foot, lobes = (
        (rng.uniform(0.22, 0.32), 0.015) if variant else (rng.uniform(0.18, 0.23), rng.uniform(0.02, 0.05))
    )
    belly, dip, skew = (
        rng.uniform(0.5, 0.66),
        rng.uniform(0.7, 0.8),
        rng.uniform(0, 0.16 if variant % 2 else 0.05),
    )
    points = [(0, 0.1), (foot, 0), (foot + 0.2, 0.24), (0.5, belly), (0.36, 0.93), (0.12, 0.88), (0, dip)]
    body = lathe(smooth_outline([(r, z * tall) for r, z in points], 26), 40)
    x, y, z = body.vertices.T
    wave = 1 + lobes * np.cos(5 * np.arctan2(y, x)) * np.abs(2 * z / tall - 1)
    body = replace(body, vertices=np.c_[x * wave, y * wave, z * (1 + skew * x)])
    lean, rise, top = rng.uniform(-0.15, 0.15), rng.uniform(0.16, 0.36) + 0.04 * variant, dip * tall
    stem = tube(
        [(0, 0, top - 0.03), (lean * 0.3, 0, top + rise / 2), (lean, 0, top + rise)], 0.025, 6, "wood"
    )
    parts = [stem, ellipsoid(0.05, 0.05, 0.03, rings=5, segments=8, slot="dark").at(z=0.1 * tall)]
    parts += _bitten(rng, body, tall) if variant == 2 else [body]
    for _ in range(int(rng.integers(1, 4)) if variant == 3 else 0):
        blade = leaf(rng.uniform(0.3, 0.5), rng.uniform(0.16, 0.26), 0.18, rng.uniform(0.1, 0.3))
        parts.append(blade.rotated("z", rng.uniform(0, 360)).at(lean * 0.5, 0, top + 0.7 * rise))
    tip = rng.uniform(*[(0, 50), (60, 125), (0, 25), (0, 15)][variant])
    return _grounded(group(group(parts, ("x", tip)), ("z", rng.uniform(-50, 50))))


def _finger(rng, thick: float, start: float, bend: float) -> list[Part]:
    """One banana from its stem at the origin, heading `start` degrees above +x, bending by `bend` in the x-z plane."""
    s = np.array([0, 0.08, 0.15, 0.24, 0.36, 0.5, 0.64, 0.77, 0.87, 0.94, 0.98])
    heading = np.radians(start + bend * s ** rng.uniform(0.8, 1.3))
    path = np.cumsum(np.diff(s, prepend=0)[:, None] * np.c_[np.cos(heading), 0 * s, np.sin(heading)], axis=0)
    body = tube(
        path,
        thick * np.array([0.36, 0.34, 0.5, 0.8, 0.96, 1, 0.99, 0.9, 0.68, 0.42, 0.3]),
        rng.integers(5, 9),
    )
    return [body, tube([path[-1], 1.7 * path[-1] - 0.7 * path[-2]], thick * 0.27, 6, "dark")]


def _peeled(rng, thick: float) -> list[Part]:
    """Half peeled banana, upright or lying: bare flesh at the tip, strips of skin that hang from the middle."""
    body, tip = _finger(rng, thick, rng.uniform(70, 90), rng.uniform(15, 50))
    cut, ring = int(rng.integers(6, 9)), len(body.vertices) // 11
    sides = [[face for face in body.faces if (max(face) >= cut * ring) == bare] for bare in (False, True)]
    parts = [Part(body.vertices, sides[0]), Part(body.vertices, sides[1], "paper"), tip.painted("paper")]
    for turn in np.arange(0, 360, 90) + rng.uniform(-15, 15, size=4):
        flap = leaf(
            rng.uniform(0.16, 0.3), thick * rng.uniform(1.5, 2.0), 0.12, rng.uniform(0.35, 0.55), "main"
        )
        parts.append(flap.rotated("z", turn).at(*body.vertices[(cut - 1) * ring :][:ring].mean(axis=0)))
    return group(parts, ("y", rng.choice([0, rng.uniform(60, 85)])))


def banana(rng, variant: int) -> list[Part]:
    """Single, slim to stubby, lying or rocking; fanned hand; half peeled; arched bunch standing on its tips."""
    thick, bend, count = (
        rng.uniform(0.08, 0.14),
        rng.uniform(45 if variant else 15, 95),
        int(rng.integers(3, 7)),
    )
    if variant == 2:
        parts = _peeled(rng, thick)
    elif variant == 0:
        cut = tube([(-0.02, 0, 0), (0.01, 0, 0)], 0.38 * thick, 8, "wood")
        parts = group(
            [*_finger(rng, thick, -bend / 2, bend), cut], ("x", rng.choice([90, -90, rng.uniform(-70, 70)]))
        )
    else:
        stalk = tube([(0, 0, 0), [(-0.12, 0, 0), (0, 0, 0.12)][variant // 3]], 0.05, 8, "wood")
        parts, fan = (
            [ellipsoid(0.08, 0.08, 0.07, rings=6, segments=8), stalk],
            rng.uniform(9, 16) * variant**0.5,
        )
        for k in range(count):
            lying = group(
                _finger(rng, thick, -bend / 2, bend), ("x", rng.uniform(78, 102)), (0, 0, 0.04 * (k % 2))
            )
            one = lying if variant == 1 else _finger(rng, thick, 15, -bend - 25)
            parts += group(one, ("z", fan * (k - (count - 1) / 2) + rng.uniform(-3, 3)))
    return _grounded(group(parts, ("z", rng.uniform(-180, 180))))
