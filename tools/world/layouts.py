"""Scene layouts: furnished training scenes, rooms with free-standing furniture, rooms of the walks."""

from __future__ import annotations

import numpy as np
import objects_furniture
from room import Scene, Support, add_lights, add_room, fill, furnish


def _table(
    scene: Scene, rng, split: str, centre: tuple[float, float], size: tuple[float, float, float]
) -> Support:
    """A table of (width, depth, height) at a centre and its top as a support."""
    table = furnish(scene, rng, split, "table", (*centre, 0), width=size[0], depth=size[1], height=size[2])
    half = (table.high - table.low)[:2] / 2 * (0.68 if table.mesh_variant == 1 else 0.97)
    support = Support("table", centre, tuple(half), size[2])
    scene.supports.append(support)
    return support


def _shelf(scene: Scene, rng, split: str, x: float, back: float) -> list[Support]:
    """A shelf against the wall y = back and its boards as supports."""
    width, depth, height = rng.uniform(0.9, 1.3), rng.uniform(0.34, 0.4), rng.uniform(0.9, 1.15)
    y = back - depth / 2 - 0.02
    furnish(scene, rng, split, "shelf", (x, y, 0), width=width, depth=depth, height=height)
    levels = objects_furniture.shelf_levels(height)
    gap = levels[1] - levels[0] - 0.05
    supports = [
        Support("table", (x, y), (width / 2 - 0.05, depth / 2), z, clearance)
        for z, clearance in zip(levels, (gap, gap, 1.0), strict=True)
    ]
    scene.supports += supports
    return supports


def _floor_support(
    scene: Scene, centre: tuple[float, float], half: tuple[float, float], kind: str = "floor"
) -> Support:
    """A free rectangle of floor, 13 mm up so that carpets fit below; it keeps clear of furniture."""
    support = Support(kind, centre, half, 0.014)
    for instance in scene.instances:
        if instance.noun not in ("floor", "wall", "carpet"):
            support.occupied.append((*instance.low[:2], *instance.high[:2]))
    scene.supports.append(support)
    return support


def _seats(scene: Scene, rng, split: str, spots: list[tuple[float, float, float]]) -> None:
    """Chairs, stools or a sofa on some of the given poses (x, y, degrees)."""
    for spot in spots:
        if rng.random() < 0.55:
            furnish(scene, rng, split, str(rng.choice(["chair", "chair", "stool"])), spot)


def training_scene(rng, split: str) -> tuple[Scene, np.ndarray]:
    """A room around a table, a shelf or a patch of floor; returns it with the focus [3] of the views."""
    scene = Scene((rng.uniform(2.2, 3.2), rng.uniform(2.2, 3.0)))
    add_room(scene, rng, split)
    layout = str(rng.choice(["table", "table", "shelf", "floor"]))
    back = scene.half[1]
    if rng.random() < 0.75:
        furnish(
            scene, rng, split, "carpet", (rng.uniform(-0.5, 0.5), rng.uniform(-0.5, 0.3), rng.choice([0, 90]))
        )
    if layout == "table":
        size = (rng.uniform(1.1, 1.5), rng.uniform(0.7, 0.95), rng.uniform(0.42, 0.72))
        y = rng.uniform(0.0, back - size[1] / 2 - 0.1)
        support = _table(scene, rng, split, (0, y), size)
        _seats(
            scene,
            rng,
            split,
            [(-size[0] / 2 - 0.4, y, rng.uniform(60, 120)), (size[0] / 2 + 0.4, y, rng.uniform(-120, -60))],
        )
        fill(scene, rng, split, support, int(rng.integers(9, 15)))
        floor = _floor_support(scene, (0, y - size[1] / 2 - 0.4), (0.9, 0.35))
        fill(scene, rng, split, floor, int(rng.integers(2, 5)))
        focus = np.array([0, y, size[2]])
    elif layout == "shelf":
        supports = _shelf(scene, rng, split, 0.0, back)
        for support in supports:
            fill(scene, rng, split, support, int(rng.integers(3, 6)))
        _seats(scene, rng, split, [(1.15, back - 0.5, rng.uniform(-40, 40))])
        floor = _floor_support(scene, (0, back - 0.85), (0.9, 0.4))
        fill(scene, rng, split, floor, int(rng.integers(2, 5)))
        focus = np.array([0, back - 0.3, 0.6])
    else:
        y = rng.uniform(-0.2, 0.6)
        if rng.random() < 0.6:
            furnish(scene, rng, split, "sofa", (0, y + 1.05, rng.uniform(-8, 8)))
        _seats(
            scene, rng, split, [(-1.1, y + 0.4, rng.uniform(30, 90)), (1.1, y + 0.4, rng.uniform(-90, -30))]
        )
        floor = _floor_support(scene, (0, y), (0.7, 0.5), "any")
        fill(scene, rng, split, floor, int(rng.integers(10, 15)))
        focus = np.array([0, y, 0.1])
    add_lights(rng, focus)
    return scene, focus


def furnished_scene(rng, split: str) -> tuple[Scene, np.ndarray]:
    """A room with furniture apart, whole and mostly empty; returns it and the focus [3] of the views."""
    scene = Scene((rng.uniform(2.3, 3.0), rng.uniform(2.2, 2.8)))
    add_room(scene, rng, split)
    back = scene.half[1]
    if rng.random() < 0.85:
        furnish(
            scene, rng, split, "carpet", (rng.uniform(-0.7, 0.7), rng.uniform(-0.9, 0.4), rng.choice([0, 90]))
        )
    slots = [float(x) for x in rng.permutation([-1.35, 0.0, 1.35]) + rng.uniform(-0.1, 0.1, 3)]
    for x, kind in zip(slots, rng.permutation(["table", "shelf", "sofa", "table", "shelf"]), strict=False):
        if kind == "table":
            size = (rng.uniform(0.9, 1.2), rng.uniform(0.6, 0.8), rng.uniform(0.4, 0.74))
            fill(
                scene,
                rng,
                split,
                _table(scene, rng, split, (x, back - rng.uniform(0.5, 1.0)), size),
                rng.integers(0, 6),
            )
        elif kind == "shelf":
            for support in _shelf(scene, rng, split, x, back):
                fill(scene, rng, split, support, rng.integers(0, 3))
        elif all(instance.noun != "sofa" for instance in scene.instances):
            furnish(scene, rng, split, "sofa", (x, back - 0.55, rng.uniform(-8, 8)))
    for x in rng.permutation([-1.5, -0.75, 0.0, 0.75, 1.5])[: rng.integers(2, 5)]:
        noun = str(rng.choice(["chair", "chair", "stool"]))
        furnish(scene, rng, split, noun, (x, back - rng.uniform(1.7, 2.1), rng.uniform(-180, 180)))
    floor = _floor_support(scene, (0, back - 1.9), (1.8, 0.8))
    fill(scene, rng, split, floor, int(rng.integers(2, 8)))
    focus = np.array([rng.uniform(-0.6, 0.6), back - 1.0, 0.4])
    add_lights(rng, focus)
    return scene, focus


def walk_scene(rng, split: str) -> tuple[Scene, np.ndarray]:
    """A room with a low table, a shelf and things on the floor; labels are unique, nouns come once."""
    scene = Scene((2.6, 2.4))
    add_room(scene, rng, split)
    furnish(scene, rng, split, "carpet", (-0.1, -0.1, 0))
    size = (rng.uniform(1.15, 1.3), rng.uniform(0.65, 0.75), rng.uniform(0.42, 0.5))
    y = 0.95
    support = _table(scene, rng, split, (-0.15, y), size)
    shelf = _shelf(scene, rng, split, 1.05, scene.half[1])
    furnish(scene, rng, split, "chair", (-1.35, y + 0.1, rng.uniform(40, 75)))
    fill(scene, rng, split, support, 7, repeat=False)
    for board, count in zip(shelf[1:], (1, 2), strict=True):
        fill(scene, rng, split, board, count, repeat=False)
    floor = _floor_support(scene, (0.0, 0.35), (0.95, 0.25))
    fill(scene, rng, split, floor, 3, repeat=False)
    focus = np.array([0.0, y, 0.45])
    add_lights(rng, focus)
    return scene, focus
