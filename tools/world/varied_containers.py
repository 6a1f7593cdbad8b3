"""Mesh builders for `varied` scenes: boxes, buckets and baskets.

Each function takes (rng, variant) and returns parts in free units, front towards -y. A variant is a family of
meshes with wide random proportions; `vocabulary.VARIED_ONLY_VARIANTS` counts them.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from shapes import (
    Part,
    arc,
    box,
    ellipsoid,
    group,
    lathe,
    prism,
    rounded_rectangle,
    smooth_outline,
    tube,
    vessel,
)
from varied_shapes import (
    grounded,
    hoop,
    stacked,
)


def _loft(sections: list, slot: str = "main") -> Part:
    """Closed surface through (outline [K, 2], z) sections of equal K."""
    return stacked([np.c_[outline, np.full(len(outline), z)] for outline, z in sections], slot)


def _tub(w: float, d: float, h: float, taper: float, radius: float, flange: float = 0.0) -> Part:
    """Open box with rounded corners, `taper` times narrower at the foot; its rim stands out by `flange`."""
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
    return grounded([part.scaled(stretch, 1, 1) for part in group(parts, ("z", rng.choice([0, 90])))])
