"""Composes a scene: room, furniture, objects on supports, lights."""

from __future__ import annotations

from dataclasses import dataclass, field

import bpy
import numpy as np
from materials import make_material, sample_rgb, slot_material
from mathutils import Vector
from meshes import build
from shapes import Part, bounds, group, prism
from vocabulary import NOUNS, SMALL_NOUNS, label_name, sample_colour, sample_material, sample_variant

FACING = ("laptop", "keyboard", "clock", "phone", "lamp", "book", "teddy bear", "cushion")
"""Nouns with a front; they turn towards -y (the open side of the room) within 50 degrees."""

NATURAL_WOOD_RATE = 0.4
"""How often furniture that can be wooden is natural wood ('wooden table')."""


@dataclass
class Instance:
    """One labelled thing; `index` is its value in the instance image."""

    index: int
    noun: str
    colour: str
    material: str
    mesh_variant: int
    label_name: str
    low: np.ndarray
    high: np.ndarray


@dataclass
class Support:
    """Horizontal rectangle that carries objects: centre, half extents, height and clearance in metres."""

    kind: str  # 'table', 'floor' or 'any': which nouns it takes
    centre: tuple[float, float]
    half: tuple[float, float]
    height: float
    clearance: float = 2.0
    occupied: list = field(default_factory=list)


@dataclass
class Scene:
    """A composed room."""

    half: tuple[float, float]
    instances: list[Instance] = field(default_factory=list)
    supports: list[Support] = field(default_factory=list)

    def names(self) -> set[str]:
        """Label names in use."""
        return {instance.label_name for instance in self.instances}


def add_mesh(name: str, parts: list[Part], materials: dict, pass_index: int):
    """Create a Blender object from parts in world coordinates; `materials` maps slots to materials."""
    slots = list(dict.fromkeys(part.slot for part in parts))
    vertices, faces, face_slots, offset = [], [], [], 0
    low, high = bounds(parts)
    origin = np.array([*(low + high)[:2] / 2, low[2]])
    for part in parts:
        vertices.append(part.vertices - origin)
        faces += [tuple(index + offset for index in face) for face in part.faces]
        face_slots += [slots.index(part.slot)] * len(part.faces)
        offset += len(part.vertices)
    mesh = bpy.data.meshes.new(name)
    mesh.from_pydata(np.concatenate(vertices).tolist(), [], faces)
    mesh.polygons.foreach_set("material_index", face_slots)
    mesh.polygons.foreach_set("use_smooth", [True] * len(faces))
    mesh.set_sharp_from_angle(angle=np.radians(38))
    for slot in slots:
        mesh.materials.append(materials[slot])
    obj = bpy.data.objects.new(name, mesh)
    obj.location = origin
    obj.pass_index = pass_index
    bpy.context.scene.collection.objects.link(obj)
    return obj


def add_instance(scene: Scene, rng, noun: str, look: tuple[str, str, int], parts: list[Part]) -> Instance:
    """Materialise parts (world coordinates) as a new instance with look (colour, material, variant)."""
    colour, material, variant = look
    structure = "planks" if (noun, material) == ("floor", "wood") else material
    muted = rng.uniform(0.55, 0.8) if noun == "wall" and colour != "brown" else 1.0
    rgb = sample_rgb(rng, colour, muted)
    materials = {
        slot: make_material(rng, rgb, colour, structure)
        if slot == "main"
        else slot_material(rng, slot, rgb, colour, material)
        for slot in dict.fromkeys(part.slot for part in parts)
    }
    index = len(scene.instances) + 1
    add_mesh(f"{index} {noun}", parts, materials, index)
    low, high = bounds(parts)
    instance = Instance(index, noun, colour, material, variant, label_name(noun, colour, material), low, high)
    scene.instances.append(instance)
    return instance


def sample_look(rng, noun: str, split: str) -> tuple[str, str, int]:
    """Draw (colour, material, variant)."""
    colour = sample_colour(rng, noun, split)
    return colour, sample_material(rng, noun), sample_variant(rng, noun, split)


def add_room(scene: Scene, rng, split: str) -> None:
    """Floor and four walls of one colour; the open top lets the sky light in."""
    w, d = scene.half
    floor = prism([(-w, -d), (w, -d), (w, d), (-w, d)], 0.05).at(z=-0.05)
    add_instance(scene, rng, "floor", sample_look(rng, "floor", split), [floor])
    colour = str(rng.choice(["white", "grey"])) if rng.random() < 0.45 else sample_colour(rng, "wall", split)
    look = (colour, sample_material(rng, "wall"), 0)
    walls = []
    for turn, reach, width in ((0, d, w), (180, d, w), (90, w, d), (270, w, d)):
        panel = prism([(-width, 0), (width, 0), (width, 2.4), (-width, 2.4)], 0.05).rotated("x", 90)
        walls += group([panel.at(y=reach + 0.05)], ("z", turn))
    add_instance(scene, rng, "wall", look, walls)


def furnish(scene: Scene, rng, split: str, noun: str, pose: tuple[float, float, float], **shape) -> Instance:
    """Place furniture at pose (x, y, degrees); `shape` goes to the builder (table and shelf dimensions)."""
    look = sample_look(rng, noun, split)
    if "wood" in NOUNS[noun].materials and rng.random() < NATURAL_WOOD_RATE:
        look = ("brown", "wood", look[2])
    parts = build(noun, rng, look[2], **shape)
    if noun == "carpet":
        width = rng.uniform(*NOUNS[noun].size_m)
        parts = [part.scaled(width, width, 1) for part in parts]
    return add_instance(scene, rng, noun, look, group(parts, ("z", pose[2]), (pose[0], pose[1], 0)))


def _object_parts(rng, noun: str, variant: int) -> list[Part]:
    """A small object in metres, standing at the origin, with a random yaw."""
    parts = build(noun, rng, variant)
    low, high = bounds(parts)
    scale = rng.uniform(*NOUNS[noun].size_m) / (high - low).max()
    stretch = scale * rng.uniform(0.93, 1.07, size=3)
    yaw = rng.uniform(-50, 50) if noun in FACING else rng.uniform(0, 360)
    parts = group([part.scaled(*stretch) for part in parts], ("z", yaw))
    low, high = bounds(parts)
    return group(parts, offset=(*(-(low + high) / 2)[:2], -low[2] + 0.001))


def place_object(scene: Scene, rng, split: str, noun: str, support: Support) -> Instance | None:
    """Put a new object of `noun` on a support without overlap; None if its name is taken or nothing fits."""
    look = sample_look(rng, noun, split)
    if label_name(noun, look[0], look[1]) in scene.names():
        return None
    parts = _object_parts(rng, noun, look[2])
    low, high = bounds(parts)
    if high[2] > support.clearance:
        return None
    half = (high - low)[:2] / 2
    room = np.array(support.half) - half
    if (room < 0).any():
        return None
    gap = rng.uniform(0.004, 0.03)
    for _ in range(30):
        spot = np.array(support.centre) + rng.uniform(-room, room)
        rectangle = (*(spot - half - gap), *(spot + half + gap))
        if all(
            rectangle[0] > other[2]
            or rectangle[2] < other[0]
            or rectangle[1] > other[3]
            or rectangle[3] < other[1]
            for other in support.occupied
        ):
            support.occupied.append(rectangle)
            return add_instance(scene, rng, noun, look, group(parts, offset=(*spot, support.height)))
    return None


def fill(scene: Scene, rng, split: str, support: Support, count: int, repeat: bool = True) -> None:
    """Place up to `count` objects of nouns that suit the support; without `repeat` every noun comes once."""
    candidates = [noun for noun in SMALL_NOUNS if support.kind in (*NOUNS[noun].places, "any")]
    placed = 0
    for _ in range(count * 8):
        used = {instance.noun for instance in scene.instances}
        choices = candidates if repeat else [noun for noun in candidates if noun not in used]
        if placed == count or not choices:
            return
        placed += place_object(scene, rng, split, str(rng.choice(choices)), support) is not None


def add_lights(rng, focus: np.ndarray) -> None:
    """Sky plus one or two area lights, calibrated so that a white matt surface at the focus is near 0.9.

    An area light of power P at distance d gives a white surface the radiance P / (pi^2 d^2).
    """
    world = bpy.data.worlds.new("sky")
    bpy.context.scene.world = world
    world.use_nodes = True
    sky = rng.uniform(1.2, 1.6)
    warmth = rng.uniform(-0.07, 0.07)
    background = world.node_tree.nodes["Background"]
    background.inputs["Color"].default_value = (1 + warmth / 2, 1, 1 - warmth / 2, 1)
    background.inputs["Strength"].default_value = sky
    total = rng.uniform(1.2, 1.45)
    shares = [1.0] if rng.random() < 0.5 else [0.65, 0.35]
    for share in shares:
        light = bpy.data.lights.new("area", "AREA")
        light.size = rng.uniform(0.4, 1.2)
        tint = rng.uniform(-0.08, 0.08)
        light.color = (1 + tint, 1.0, 1 - tint)
        azimuth, elevation = rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(45, 80))
        direction = np.array(
            [np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)]
        )
        distance = rng.uniform(1.6, 2.4)
        light.energy = share * max(total - 0.55 * sky, 0.2) * np.pi**2 * distance**2 / np.sin(elevation)
        obj = bpy.data.objects.new("area", light)
        obj.location = focus + distance * direction
        obj.rotation_euler = _look_rotation(-direction)
        bpy.context.scene.collection.objects.link(obj)


def _look_rotation(direction: np.ndarray):
    """Euler angles that turn -z towards `direction`."""
    return Vector(direction).to_track_quat("-Z", "Y").to_euler()
