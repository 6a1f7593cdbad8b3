"""Mesh primitives for the procedural world.

A shape is a list of `Part`s. Every primitive stands on ``z = 0`` unless its docstring says otherwise;
builders work in free units, `room.py` scales the whole shape to metres.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np


@dataclass(frozen=True)
class Part:
    """Polygon soup with one material slot: vertices [N, 3], faces as index tuples."""

    vertices: np.ndarray
    faces: list
    slot: str = "main"

    def scaled(self, sx: float, sy: float, sz: float) -> Part:
        """Scale about the origin."""
        return replace(self, vertices=self.vertices * np.array([sx, sy, sz]))

    def rotated(self, axis: str, degrees: float) -> Part:
        """Rotate about a coordinate axis through the origin."""
        return replace(self, vertices=self.vertices @ rotation(axis, degrees).T)

    def at(self, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Part:
        """Translate."""
        return replace(self, vertices=self.vertices + np.array([x, y, z]))

    def painted(self, slot: str) -> Part:
        """The same geometry with another material slot."""
        return replace(self, slot=slot)


def rotation(axis: str, degrees: float) -> np.ndarray:
    """Right-handed rotation matrix [3, 3] about axis 'x', 'y' or 'z'."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    i, j = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    matrix = np.eye(3)
    matrix[i, i] = matrix[j, j] = c
    matrix[i, j], matrix[j, i] = -s, s
    return matrix


def group(parts: list[Part], rotate: tuple = ("z", 0.0), offset: tuple = (0.0, 0.0, 0.0)) -> list[Part]:
    """Rotate then translate several parts together."""
    return [part.rotated(*rotate).at(*offset) for part in parts]


def bounds(parts: list[Part]) -> tuple[np.ndarray, np.ndarray]:
    """Axis-aligned bounds (low [3], high [3])."""
    points = np.concatenate([part.vertices for part in parts])
    return points.min(axis=0), points.max(axis=0)


def lathe(profile: list[tuple[float, float]], segments: int = 24, slot: str = "main") -> Part:
    """Surface of revolution about z of a profile of (radius, z); radius 0 becomes one pole vertex."""
    angles = np.linspace(0, 2 * np.pi, segments, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    vertices, rings = [], []
    for radius, z in profile:
        count = 1 if radius < 1e-6 else segments
        rings.append(range(len(vertices), len(vertices) + count))
        vertices.extend([(0.0, 0.0, z)] if count == 1 else [(radius * x, radius * y, z) for x, y in circle])
    faces = []
    for low, high in pairwise(rings):
        for k in range(segments):
            n = (k + 1) % segments
            quad = (low[k % len(low)], low[n % len(low)], high[n % len(high)], high[k % len(high)])
            face = tuple(dict.fromkeys(quad))
            if len(face) >= 3:
                faces.append(face)
    return Part(np.array(vertices), faces, slot)


def vessel(
    outline: list[tuple[float, float]], thickness: float, segments: int = 24, slot: str = "main"
) -> Part:
    """Open container: the outer outline (radius, z) from the foot to the rim, with an inner wall."""
    inner = [(max(r - thickness, 0.0), max(z, thickness)) for r, z in reversed(outline)]
    return lathe([(0.0, outline[0][1]), *outline, *inner, (0.0, inner[-1][1])], segments, slot)


def smooth_outline(points: list[tuple[float, float]], count: int = 14) -> list[tuple[float, float]]:
    """Catmull-Rom interpolation of control points (radius, z)."""
    p = np.array([points[0], *points, points[-1]], dtype=float)
    result = []
    for t in np.linspace(0, len(points) - 1, count):
        i = min(int(t), len(points) - 2)
        u = t - i
        a, b, c, d = p[i : i + 4]
        point = 0.5 * (
            2 * b + (c - a) * u + (2 * a - 5 * b + 4 * c - d) * u**2 + (3 * b - a - 3 * c + d) * u**3
        )
        result.append((max(float(point[0]), 0.0), float(point[1])))
    return result


def tube(path, radii, segments: int = 10, slot: str = "main") -> Part:
    """Tube along a path [M, 3]; one radius or one per point; closed by flat caps."""
    path = np.asarray(path, dtype=float)
    radii = np.broadcast_to(np.asarray(radii, dtype=float), len(path))
    tangents = np.gradient(path, axis=0)
    tangents /= np.linalg.norm(tangents, axis=1, keepdims=True)
    side = np.cross(tangents[0], np.eye(3)[np.argmin(np.abs(tangents[0]))])
    angles = np.linspace(0, 2 * np.pi, segments, endpoint=False)
    vertices = []
    for point, tangent, radius in zip(path, tangents, radii, strict=True):
        side = side - tangent * (side @ tangent)
        side /= np.linalg.norm(side)
        up = np.cross(tangent, side)
        vertices.append(point + radius * (np.cos(angles)[:, None] * side + np.sin(angles)[:, None] * up))
    faces = [tuple(range(segments))[::-1], tuple(range((len(path) - 1) * segments, len(path) * segments))]
    for m in range(len(path) - 1):
        a, b = m * segments, (m + 1) * segments
        faces += [(a + k, a + (k + 1) % segments, b + (k + 1) % segments, b + k) for k in range(segments)]
    return Part(np.concatenate(vertices), faces, slot)


def arc(radius: float, start: float, stop: float, count: int = 12, stretch: float = 1.0) -> np.ndarray:
    """Points [count, 3] of an arc in the x-z plane, angles in degrees from +x towards +z."""
    a = np.radians(np.linspace(start, stop, count))
    return np.stack([radius * np.cos(a), np.zeros(count), stretch * radius * np.sin(a)], axis=1)


def ellipsoid(
    rx: float,
    ry: float,
    rz: float,
    square: tuple = (1.0, 1.0),
    rings: int = 12,
    segments: int = 20,
    slot: str = "main",
) -> Part:
    """Superellipsoid centred at the origin; exponents `square` below 1 approach a box."""

    def power(value: np.ndarray, exponent: float) -> np.ndarray:
        return np.sign(value) * np.abs(value) ** exponent

    latitude = np.linspace(-np.pi / 2, np.pi / 2, rings)
    unit = lathe([(1.0, 0.0)] * rings, segments)
    longitude = np.linspace(0, 2 * np.pi, segments, endpoint=False)
    lat, lon = (grid.ravel() for grid in np.meshgrid(latitude, longitude, indexing="ij"))
    around = np.clip(power(np.cos(lat), square[0]), 1e-3, None)
    vertices = np.stack(
        [
            rx * around * power(np.cos(lon), square[1]),
            ry * around * power(np.sin(lon), square[1]),
            rz * power(np.sin(lat), square[0]),
        ],
        axis=1,
    )
    caps = [tuple(range(segments))[::-1], tuple(range((rings - 1) * segments, rings * segments))]
    return Part(vertices, unit.faces + caps, slot)


def prism(outline, height: float, slot: str = "main") -> Part:
    """Polygon [K, 2] (counter-clockwise) extruded from z = 0 to `height`."""
    outline = np.asarray(outline, dtype=float)
    count = len(outline)
    vertices = np.concatenate([np.c_[outline, np.zeros(count)], np.c_[outline, np.full(count, height)]])
    sides = [(k, (k + 1) % count, count + (k + 1) % count, count + k) for k in range(count)]
    return Part(vertices, [tuple(range(count))[::-1], tuple(range(count, 2 * count)), *sides], slot)


def rounded_rectangle(width: float, depth: float, radius: float, count: int = 4) -> np.ndarray:
    """Outline [4 * count, 2] of a rounded rectangle centred at the origin."""
    corners = []
    for quarter, (sx, sy) in enumerate([(1, 1), (-1, 1), (-1, -1), (1, -1)]):
        a = np.radians(np.linspace(0, 90, count) + 90 * quarter)
        corners.append(
            np.stack(
                [
                    sx * (width / 2 - radius) + radius * np.cos(a),
                    sy * (depth / 2 - radius) + radius * np.sin(a),
                ],
                axis=1,
            )
        )
    return np.concatenate(corners)


def box(width: float, depth: float, height: float, bevel: float = 0.0, slot: str = "main") -> Part:
    """Cuboid centred in x and y from z = 0; `bevel` chamfers top and bottom edges and rounds the sides."""
    if bevel <= 0:
        half = np.array([width, depth]) / 2
        return prism(np.array([(1, 1), (-1, 1), (-1, -1), (1, -1)]) * half, height, slot)
    outer = rounded_rectangle(width, depth, bevel, 3)
    inner = rounded_rectangle(width - 2 * bevel, depth - 2 * bevel, bevel * 0.2, 3)
    count = len(outer)
    levels = [(inner, 0.0), (outer, bevel), (outer, height - bevel), (inner, height)]
    vertices = np.concatenate([np.c_[ring, np.full(count, z)] for ring, z in levels])
    faces = [tuple(range(count))[::-1], tuple(range(3 * count, 4 * count))]
    for level in range(3):
        a = level * count
        faces += [
            (a + k, a + (k + 1) % count, a + count + (k + 1) % count, a + count + k) for k in range(count)
        ]
    return Part(vertices, faces, slot)


def disc(radius: float, thickness: float, segments: int = 24, slot: str = "main") -> Part:
    """Flat cylinder from z = 0."""
    return lathe([(0, 0), (radius, 0), (radius, thickness), (0, thickness)], segments, slot)


def leaf(length: float, width: float, lift: float, droop: float, slot: str = "leaf") -> Part:
    """Curved leaf blade from the origin along +x, rising by `lift` and bending down by `droop`."""
    t = np.linspace(0, 1, 6)
    half = 0.5 * width * np.sin(np.pi * np.clip(t * 0.92 + 0.06, 0, 1)) ** 0.8
    z = lift * t - droop * t**2
    spine = np.stack([length * t, np.zeros(6), z - 0.12 * width], axis=1)
    left = np.stack([length * t, half, z], axis=1)
    right = np.stack([length * t, -half, z], axis=1)
    faces = []
    for k in range(5):
        faces += [(6 + k, k, k + 1, 7 + k), (k, 12 + k, 13 + k, k + 1)]
    return Part(np.concatenate([spine, left, right]), faces, slot)
