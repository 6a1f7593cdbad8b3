"""Shapes that several of the `varied_*` mesh builders share."""

from __future__ import annotations

import numpy as np
from shapes import Part, arc, ellipsoid, group, lathe, rounded_rectangle, smooth_outline, tube

SIDES = (-1, 1)
CORNERS = ((-1, -1), (1, -1), (-1, 1), (1, 1))


def pick(rng, *options):
    """One of the options."""
    return options[int(rng.integers(len(options)))]


def stacked(rings, slot: str) -> Part:
    """Rings of equally many vertices [K, 3] joined in their order, closed by flat caps."""
    k, last = len(rings[0]), (len(rings) - 1) * len(rings[0])
    faces = [tuple(range(k))[::-1], tuple(range(last, last + k))]
    for a in range(0, last, k):
        faces += [(a + i, a + (i + 1) % k, a + k + (i + 1) % k, a + k + i) for i in range(k)]
    return Part(np.concatenate(rings), faces, slot)


def loft(levels, slot: str = "main", count: int = 4) -> Part:
    """Rounded rectangles (width, depth, radius, z, optional x and y shift), joined upwards and closed."""
    rings = []
    for width, depth, radius, z, *shift in levels:
        ring = rounded_rectangle(width, depth, radius, count) + (*shift, 0.0, 0.0)[:2]
        rings.append(np.c_[ring, np.full(len(ring), z)])
    return stacked(rings, slot)


def sheet(path, width: float, thickness: float, slot: str = "main") -> Part:
    """Bent board: a path [M, 2] of (y, z) with a thickness, `width` along x."""
    path = np.asarray(path, dtype=float)
    tangent = np.gradient(path, axis=0)
    normal = np.stack([-tangent[:, 1], tangent[:, 0]], axis=1) / np.linalg.norm(
        tangent, axis=1, keepdims=True
    )
    section, rings = ((-1, -1), (1, -1), (1, 1), (-1, 1)), []
    for point, n in zip(path, normal * thickness / 2, strict=True):
        rings.append(np.array([(x * width / 2, *(point + s * n)) for x, s in section]))
    return stacked(rings, slot)


def hoop(radius: float, z: float, thickness: float, slot: str = "main", segments: int = 32) -> Part:
    """Torus around z."""
    return lathe([(r, height) for r, _, height in arc(thickness, 0, 360, 9) + [radius, 0, z]], segments, slot)


def grounded(parts: list[Part]) -> list[Part]:
    """The parts moved to stand on z = 0."""
    return group(parts, offset=(0, 0, -min(part.vertices[:, 2].min() for part in parts)))


def wobbly_outline(rng, points, spread: float = 0.05, count: int = 12) -> list[tuple[float, float]]:
    """Smooth outline through points (radius, z) whose radii vary by the fraction `spread`."""
    return smooth_outline([(radius * rng.uniform(1 - spread, 1 + spread), z) for radius, z in points], count)


def radius_at(outline, z: float) -> float:
    """Radius of an outline with rising z at height z."""
    return float(np.interp(z, *zip(*((height, radius) for radius, height in outline), strict=True)))


def band_around(outline, low: float, high: float, slot: str) -> Part:
    """Label or stripe hugging an outline between two heights."""
    return lathe([(radius_at(outline, z) + 0.012, z) for z in np.linspace(low, high, 6)], 32, slot)


def lobed(part: Part, lobes: int, depth: float, lift: float = 0.0, twist: float = 0.0) -> Part:
    """Waves around z: radius by the fraction `depth`, z by `lift` radii; `twist` in degrees per unit z."""
    x, y, z = part.vertices.T
    angle, radius = np.arctan2(y, x), np.hypot(x, y)
    wave, turned = np.cos(lobes * angle), angle + np.radians(twist) * z
    circle = np.stack([np.cos(turned), np.sin(turned)]) * radius * (1 + depth * wave)
    return Part(np.c_[circle.T, z + lift * radius * wave], part.faces, part.slot)


def wall_handle(rng, outline, low: float, high: float, reach: float, slot: str = "main") -> Part:
    """C, ear, drop, D or wedge handle on an outline's wall between two heights; `reach`: bulge to +x."""
    x0, x1, d = radius_at(outline, low) - 0.03, radius_at(outline, high) - 0.03, high - low
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


def wavy_circle(segments: int = 24, lobes: int = 0, depth: float = 0.0) -> np.ndarray:
    """Unit circle [segments, 2], wavy with `lobes` of a `depth`."""
    a = np.linspace(0, 2 * np.pi, segments, endpoint=False)
    return ((1 + depth * np.cos(lobes * a)) * np.stack([np.cos(a), np.sin(a)])).T


def swept(profile, outline: np.ndarray, slot: str = "main") -> Part:
    """Like `lathe`, with an outline [K, 2] in place of the unit circle."""
    rings = [np.c_[outline * r, np.full(len(outline), z)] if r >= 1e-6 else [(0, 0, z)] for r, z in profile]
    return Part(np.concatenate(rings), lathe(profile, len(outline)).faces, slot)


def grid_surface(grid: np.ndarray, slot: str = "main") -> Part:
    """Surface through points [N, M, 3]."""
    n, m = grid.shape[:2]
    corners = [i * m + j for i in range(n - 1) for j in range(m - 1)]
    return Part(grid.reshape(-1, 3), [(k, k + m, k + m + 1, k + 1) for k in corners], slot)


def stretched_ball(radius: float, at, stretch=(1, 1, 1), slot: str = "main") -> Part:
    """Stretched ball at a centre."""
    return ellipsoid(*(radius * np.array(stretch)), rings=9, segments=14, slot=slot).at(*at)
