"""Mesh builders: household things. They take (rng, variant) and return parts in free units, front at -y."""

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
    leaf,
    prism,
    rounded_rectangle,
    smooth_outline,
    tube,
    vessel,
)


def ball(rng, variant: int) -> list[Part]:
    """Plain, beach ball with gores, ball with a band; held out: football patches."""
    sphere = ellipsoid(1, 1, 1, rings=16, segments=24).at(z=1)
    if variant == 1:
        faces = [[], []]
        for face in sphere.faces:
            column = min(index % 24 for index in face) if len(face) == 4 else 0
            faces[(column // 4) % 2 if len(face) == 4 else 0].append(face)
        return [Part(sphere.vertices, faces[0]), Part(sphere.vertices, faces[1], "accent")]
    if variant == 2:
        return [sphere, lathe([(1.0, 0.88), (1.012, 1.0), (1.0, 1.12)], 24, "light")]
    if variant == 3:
        patches = []
        for turn, tilt in [
            (0, 0),
            (0, 63),
            (72, 63),
            (144, 63),
            (216, 63),
            (288, 63),
            (36, 117),
            (108, 117),
            (180, 117),
            (252, 117),
            (324, 117),
        ]:
            cap = lathe([(0.34, 0.945), (0.18, 0.99), (0, 1.008)], 5, "dark")
            patches += group(group([cap], ("y", tilt)), ("z", turn), (0, 0, 1))
        return [sphere, *patches]
    return [sphere]


def _closed_book(width: float, depth: float, height: float) -> list[Part]:
    """Cover with spine around a block of pages, lying flat."""
    pages = box(width * 0.94, depth * 0.94, height * 0.8, slot="paper").at(-width * 0.01, 0, height * 0.1)
    return [
        box(width, depth, height * 0.12),
        box(width, depth, height * 0.12).at(z=height * 0.88),
        box(width * 0.05, depth, height * 0.76).at(-width * 0.475, 0, height * 0.12),
        pages,
    ]


def book(rng, variant: int) -> list[Part]:
    """Flat, standing, stack of two; held out: set up like a roof."""
    w, d, h = 0.7, rng.uniform(0.95, 1.05), rng.uniform(0.14, 0.24)
    title = box(w * 0.6, d * 0.16, 0.01, slot="accent").at(z=h).at(0.02, d * 0.2)
    if variant == 0:
        return [*_closed_book(w, d, h), title]
    if variant == 1:
        return group(group([*_closed_book(w, d, h), title], ("x", 90)), offset=(0, 0, d / 2))
    if variant == 2:
        upper = group(_closed_book(w * 0.92, d * 0.92, h), ("z", rng.uniform(-25, 25)), (0, 0, h))
        return [*_closed_book(w, d, h), *upper]
    half = [box(w, d, 0.04).at(x=w / 2), box(w * 0.95, d * 0.95, 0.08, slot="paper").at(w / 2, 0, -0.08)]
    tilt = rng.uniform(42, 55)
    rise = w * np.sin(np.radians(tilt)) + 0.06
    right = group(half, ("y", tilt), (0, 0, rise))
    return right + group(right, ("z", 180))


def container(rng, variant: int) -> list[Part]:
    """The noun 'box': cardboard with tape, gift with ribbon, open with flaps; held out: crate."""
    w, d, h = 1.0, rng.uniform(0.65, 1.0), rng.uniform(0.45, 0.85)
    if variant == 0:
        return [box(w, d, h, 0.01), box(w * 1.002, 0.12, h * 1.004, slot="accent")]
    if variant == 1:
        bow = [tube(arc(0.12, 0, 360, 12), 0.03, 6, "light").at(x, 0, h + 0.1) for x in (-0.11, 0.11)]
        return [
            box(w, d, h, 0.01),
            box(w * 1.05, d * 1.05, h * 0.22, 0.01).at(z=h * 0.79),
            box(w * 1.06, 0.12, h * 1.02, slot="light"),
            box(0.12, d * 1.06, h * 1.02, slot="light"),
            *bow,
        ]
    t = 0.03
    walls = [
        box(w, t, h).at(y=d / 2),
        box(w, t, h).at(y=-d / 2),
        box(t, d, h).at(x=w / 2),
        box(t, d, h).at(x=-w / 2),
    ]
    if variant == 2:
        flap = box(w, d * 0.42, t).at(y=d * 0.21)
        for turn, reach, part in [(0, d / 2, flap), (180, d / 2, flap)]:
            walls += group([part.rotated("x", -rng.uniform(20, 60)).at(y=reach, z=h)], ("z", turn))
        side = box(d, w * 0.3, t).at(y=w * 0.15)
        for turn in (90, 270):
            walls += group([side.rotated("x", -rng.uniform(20, 60)).at(y=w / 2, z=h)], ("z", turn))
        return [box(w, d, t), *walls]
    slats = [box(w, t, h * 0.24).at(y=y, z=z * h) for y in (d / 2, -d / 2) for z in (0.05, 0.38, 0.72)]
    slats += [box(t, d, h * 0.24).at(x=x, z=z * h) for x in (w / 2, -w / 2) for z in (0.05, 0.38, 0.72)]
    posts = [box(0.07, 0.07, h).at(x * 0.46 * w, y * 0.46 * d) for x in (-1, 1) for y in (-1, 1)]
    return [box(w, d, t), *slats, *posts]


def bucket(rng, variant: int) -> list[Part]:
    """Handle up, handle down, ribbed wide; held out: square."""
    h = rng.uniform(0.85, 1.0)
    if variant == 3:
        tub = vessel([(0.48, 0), (0.5, 0.02), (0.66, h * 0.9)], 0.04, 4).rotated("z", 45)
        return [tub, tube(arc(0.46, 0, 180, 14) + [0, 0, h * 0.88], 0.025, 6, "steel")]
    low, high = rng.uniform(0.33, 0.38), rng.uniform(0.46, 0.54)
    outline = [(low, 0), (low + 0.01, 0.02), (high, h), (high + 0.05, h), (high + 0.05, h + 0.05)]
    if variant == 2:
        outline = [
            (low, 0),
            (low * 1.2, h * 0.28),
            (low * 1.27, h * 0.3),
            (low * 1.32, h * 0.33),
            (high, h * 0.75),
            (high + 0.05, h * 0.75),
            (high + 0.05, h * 0.8),
        ]
    top = outline[-1][1]
    bail = tube(arc(high + 0.04, 0, 180, 16), 0.022, 6, "steel")
    grip = tube([(-0.14, 0, high + 0.04), (0.14, 0, high + 0.04)], 0.05, 8, "light")
    tilt = rng.uniform(-15, 15) if variant != 1 else rng.choice([-82, 82])
    return [vessel(outline, 0.04), *group([bail, grip], ("x", tilt), (0, 0, top - 0.03))]


def basket(rng, variant: int) -> list[Part]:
    """Round, with an arched handle, tall laundry basket; held out: rectangular."""
    h = [0.5, 0.45, 1.05, 0.5][variant] * rng.uniform(0.9, 1.1)
    if variant == 3:
        tub = vessel([(0.6, 0), (0.62, 0.02), (0.72, h)], 0.06, 4).rotated("z", 45).scaled(1.25, 0.9, 1)
        rim = rounded_rectangle(1.3, 0.94, 0.08)
        loop = np.c_[np.r_[rim, rim[:1]], np.full(len(rim) + 1, h)]
        return [tub, tube(loop, 0.05, 6, "accent")]
    rim = arc(0.56, 0, 360, 25)[:, [0, 2, 1]] + [0, 0, h]
    parts = [
        vessel([(0.42, 0), (0.44, 0.02), (0.52, h * 0.6), (0.56, h)], 0.05),
        tube(rim, 0.05, 6, "accent"),
    ]
    if variant == 1:
        parts.append(tube(arc(0.54, 0, 180, 16, stretch=1.3) + [0, 0, h], 0.045, 8, "accent"))
    return parts


def cushion(rng, variant: int) -> list[Part]:
    """Square, round, bolster; held out: buttoned rectangle. Squares may lean on their back edge."""
    puff = rng.uniform(0.15, 0.2)
    if variant == 1:
        return [ellipsoid(0.5, 0.5, 1.3 * puff, (0.85, 1.0)).at(z=1.3 * puff)]
    if variant == 2:
        return [ellipsoid(0.2, 0.2, 0.5, (0.35, 1.0)).rotated("y", 90).at(z=0.2)]
    pillow = ellipsoid(0.5, 0.5 if variant == 0 else 0.34, puff, (1.0, 0.35), rings=14, segments=28).at(
        z=puff
    )
    parts = [pillow]
    if variant == 3:
        parts += [
            ellipsoid(0.03, 0.03, 0.02, rings=6, segments=8, slot="accent").at(x, 0, 1.97 * puff)
            for x in (-0.2, 0.2)
        ]
    elif rng.random() < 0.45:
        parts = group(parts, ("x", rng.uniform(58, 72)), (0, 0, 0.45))
    return parts


def hat(rng, variant: int) -> list[Part]:
    """Brimmed hat, top hat, beanie with pompom."""
    if variant == 2:
        return [
            lathe(smooth_outline([(0.5, 0.0), (0.5, 0.25), (0.36, 0.52), (0.0, 0.64)], 10)),
            lathe([(0.5, 0), (0.53, 0.02), (0.53, 0.16), (0.5, 0.18)], slot="accent"),
            ellipsoid(0.13, 0.13, 0.13, rings=8, segments=12, slot="accent").at(z=0.72),
        ]
    tall = rng.uniform(0.36, 0.46) if variant == 0 else rng.uniform(0.7, 0.85)
    brim = rng.uniform(0.62, 0.72) if variant == 0 else 0.55
    crown = smooth_outline([(0.36, 0.03), (0.34, tall * 0.8), (0.26, tall), (0, tall * 0.9)], 9)
    if variant == 1:
        crown = [(0.33, 0.03), (0.36, tall), (0.0, tall)]
    return [
        lathe([(brim, 0.06), (brim * 0.8, 0.02), *crown]),
        lathe([(brim, 0.05), (brim * 0.8, 0.0), (0.3, 0.0)]),
        lathe([(0.365, 0.04), (0.365, 0.14)], slot="dark"),
    ]


def lamp(rng, variant: int) -> list[Part]:
    """Cone shade, drum shade on a round foot, desk lamp with an arm; held out: mushroom."""
    if variant == 2:
        elbow = np.array([0.0, 0.0, 0.55])
        head = np.array([0.42, 0.0, 0.85])
        shade = (
            vessel([(0.06, 0), (0.09, 0.04), (0.2, 0.26)], 0.01)
            .rotated("y", 205)
            .at(*(head + [0.06, 0, 0.06]))
        )
        bulb = ellipsoid(0.07, 0.07, 0.07, rings=8, segments=10, slot="glow").at(*(head + [0.04, 0, -0.1]))
        return [
            disc(0.22, 0.05).at(x=0.05),
            tube([(0, 0, 0.03), (-0.12, 0, 0.3), elbow], 0.025, 8, "accent"),
            tube([elbow, head], 0.025, 8, "accent"),
            shade,
            bulb,
        ]
    if variant == 3:
        return [
            lathe([(0, 0), (0.24, 0), (0.18, 0.1), (0.1, 0.5), (0, 0.5)], slot="light"),
            lathe(smooth_outline([(0.14, 0.46), (0.46, 0.5), (0.36, 0.78), (0.0, 0.9)], 12)),
        ]
    foot = lathe([(0, 0), (0.22, 0), (0.22, 0.04), (0.04, 0.09), (0.025, 0.5), (0, 0.5)], slot="steel")
    if variant == 1:
        foot = lathe([(0, 0), *smooth_outline([(0.12, 0), (0.24, 0.2), (0.12, 0.4), (0.04, 0.5)], 10)])
    low, high = [(0.34, rng.uniform(0.14, 0.2)), (0.3, 0.28)][variant]
    shade = lathe([(low, 0.46), (high, 0.92), (high - 0.02, 0.92), (low - 0.02, 0.47)])
    return [
        foot,
        tube([(0, 0, 0.45), (0, 0, 0.75)], 0.02, 6, "steel"),
        shade,
        ellipsoid(0.08, 0.08, 0.1, rings=8, segments=10, slot="glow").at(z=0.68),
    ]


def plant(rng, variant: int) -> list[Part]:
    """Broad leaves, cactus, upright blades; held out: bushy ball. Neutral pot, the leaves have the name."""
    pot = vessel([(0.17, 0), (0.18, 0.01), (0.24, 0.32), (0.27, 0.32), (0.27, 0.38)], 0.03, slot="pot")
    parts = [pot, disc(0.23, 0.01, slot="soil").at(z=0.33)]
    if variant == 1:
        column = ellipsoid(0.17, 0.17, 0.36, (0.7, 1.0), 14, 20, "leaf")
        ripple = 1 + 0.12 * np.tile((-1.0) ** np.arange(20), 14)[:, None] * [1, 1, 0]
        arm = tube([(0.1, 0, 0.6), (0.26, 0, 0.62), (0.28, 0, 0.82)], [0.07, 0.07, 0.05], 8, "leaf")
        return [*parts, Part(column.vertices * ripple, column.faces, "leaf").at(z=0.66), arm]
    if variant == 3:
        for _ in range(46):
            direction = rng.normal(size=3)
            direction /= np.linalg.norm(direction)
            blade = leaf(0.2, 0.15, 0.02, 0.05).rotated("y", -np.degrees(np.arcsin(direction[2])))
            blade = blade.rotated("z", np.degrees(np.arctan2(direction[1], direction[0])))
            parts.append(blade.at(*(direction * 0.24 + [0, 0, 0.72])))
        return [*parts, ellipsoid(0.27, 0.27, 0.27, rings=10, segments=14, slot="leaf").at(z=0.7)]
    count = int(rng.integers(10, 15))
    for k in range(count):
        turn = 137.5 * k + rng.uniform(-15, 15)
        if variant == 0:
            length, rise = rng.uniform(0.4, 0.55), rng.uniform(0.25, 0.65)
            blade = leaf(length, rng.uniform(0.18, 0.26), rise * 1.6, rise * rng.uniform(0.9, 1.3))
        else:
            blade = leaf(rng.uniform(0.5, 0.85), 0.11, 0.03, 0.02).rotated("y", -rng.uniform(66, 84))
        parts.append(blade.rotated("z", turn).at(z=0.34))
    return parts


def teddy_bear(rng, variant: int) -> list[Part]:
    """Sitting, standing, sitting with a scarf."""
    s = rng.uniform(0.93, 1.07)
    tall = 0.16 if variant == 1 else 0.0

    def blob(r, x, y, z, stretch=(1, 1, 1), slot="main"):
        part = ellipsoid(r * stretch[0], r * stretch[1], r * stretch[2], rings=9, segments=14, slot=slot)
        return part.at(x, y, z + tall)

    parts = [
        blob(0.27 * s, 0, 0, 0.28, (1, 0.9, 1.05)),
        blob(0.22, 0, -0.02, 0.68),
        blob(0.1, 0, -0.2, 0.63, (1, 0.8, 0.8), "accent"),
        blob(0.035, 0, -0.29, 0.66, slot="dark"),
        blob(0.16, 0, -0.17, 0.28, (1, 0.6, 1.1), "accent"),
    ]
    for side in (-1, 1):
        parts += [
            blob(0.085, side * 0.18, 0, 0.86, (1, 0.6, 1)),
            blob(0.028, side * 0.085, -0.2, 0.73, slot="dark"),
            blob(0.1, side * 0.28, -0.1, 0.38, (0.9, 1.4, 1.2)),
        ]
        if variant == 1:
            parts.append(blob(0.12, side * 0.14, 0, 0.0, (1, 1.1, 1.3)))
        else:
            parts.append(blob(0.12, side * 0.18, -0.28, 0.1, (0.9, 1.5, 0.85)))
    if variant == 2:
        ring = arc(0.19, 0, 360, 17)[:, [0, 2, 1]] + [0, 0, 0.5]
        parts.append(tube(ring, 0.05, 8, "light"))
    return parts


def toy_car(rng, variant: int) -> list[Part]:
    """Saloon, van, racing car; along x."""
    side = [
        [
            (-0.5, 0.1),
            (0.5, 0.1),
            (0.5, 0.24),
            (0.26, 0.27),
            (0.14, 0.42),
            (-0.2, 0.42),
            (-0.34, 0.27),
            (-0.5, 0.26),
        ],
        [(-0.5, 0.1), (0.5, 0.1), (0.5, 0.28), (0.38, 0.3), (0.28, 0.52), (-0.5, 0.52)],
        [(-0.5, 0.1), (0.52, 0.1), (0.52, 0.16), (0.1, 0.26), (-0.02, 0.36), (-0.22, 0.3), (-0.5, 0.28)],
    ][variant]
    width = rng.uniform(0.4, 0.46)
    body = prism(side, width).rotated("x", 90).at(y=width / 2)
    roof = {0: (-0.27, 0.21, 0.29, 0.4), 1: (-0.42, 0.33, 0.33, 0.47), 2: (-0.12, 0.05, 0.27, 0.31)}[variant]
    low, high, z0, z1 = roof
    glass = prism([(low, z0), (high, z0), (high - 0.08, z1), (low + 0.08, z1)], width + 0.01, "dark")
    parts = [body, glass.rotated("x", 90).at(y=(width + 0.01) / 2)]
    for x in (-0.3, 0.3):
        for y in (-1, 1):
            wheel = [disc(0.12, 0.08, 16, "dark"), disc(0.06, 0.09, 12, "steel")]
            parts += group(wheel, ("x", 90 * y), (x, -y * (width / 2 - 0.04), 0.12))
    lights = [disc(0.04, 0.02, 10, "light").rotated("y", 90).at(0.5, y * width * 0.32, 0.18) for y in (-1, 1)]
    return parts + lights
