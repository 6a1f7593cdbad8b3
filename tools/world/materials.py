"""Cycles materials: a nameable colour with natural variation, and procedural surface structure."""

from __future__ import annotations

import colorsys

import bpy
import numpy as np
from vocabulary import HSV_RANGES

FIXED_SLOTS = {
    "dark": (0.02, 0.02, 0.022),
    "light": (0.8, 0.79, 0.76),
    "paper": (0.78, 0.75, 0.66),
    "steel": (0.45, 0.45, 0.46),
    "wood": (0.16, 0.085, 0.04),
    "soil": (0.03, 0.02, 0.014),
    "screen": (0.015, 0.02, 0.03),
}
ROUGHNESS = {
    "ceramic": 0.2,
    "plastic": 0.35,
    "metal": 0.32,
    "glass": 0.06,
    "wood": 0.5,
    "planks": 0.5,
    "fabric": 0.95,
    "plush": 1.0,
    "rubber": 0.7,
    "paper": 0.6,
    "cardboard": 0.85,
    "wax": 0.45,
    "organic": 0.4,
    "leaf": 0.5,
    "wicker": 0.8,
    "leather": 0.45,
    "paint": 0.9,
    "tile": 0.25,
    "concrete": 0.8,
    "brick": 0.9,
    "wallpaper": 0.9,
}


def linear(srgb) -> np.ndarray:
    """sRGB values in [0, 1] to linear (IEC 61966-2-1)."""
    srgb = np.asarray(srgb, dtype=float)
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def sample_rgb(rng, colour: str, muted: float = 1.0) -> np.ndarray:
    """Draw a linear RGB triple [3] of a named colour; `muted` scales the saturation (walls)."""
    hue, saturation, value = (rng.uniform(*limits) for limits in HSV_RANGES[colour])
    return linear(colorsys.hsv_to_rgb(hue / 360 % 1, saturation * muted, value))


class _Graph:
    """A material's node tree with short helpers."""

    def __init__(self, name: str):
        self.material = bpy.data.materials.new(name)
        self.material.use_nodes = True
        self.tree = self.material.node_tree
        self.shader = self.tree.nodes["Principled BSDF"]

    def node(self, kind: str, **values):
        """Add a node; keyword names with '_' for ' ' set input sockets, lower-case ones attributes."""
        node = self.tree.nodes.new(kind)
        for key, value in values.items():
            if key[0].isupper():
                node.inputs[key.replace("_", " ")].default_value = value
            else:
                setattr(node, key, value)
        return node

    def link(self, source, target) -> None:
        """Connect an output socket to an input socket."""
        self.tree.links.new(source, target)

    def mix(self, factor, first, second):
        """Mix two colours (arrays or sockets) by a socket; returns the colour socket."""
        node = self.tree.nodes.new("ShaderNodeMix")
        node.data_type = "RGBA"
        self.link(factor, node.inputs[0])
        for value, socket in ((first, node.inputs[6]), (second, node.inputs[7])):
            if isinstance(value, bpy.types.NodeSocket):
                self.link(value, socket)
            else:
                socket.default_value = (*value, 1)
        return node.outputs[2]

    def coordinates(self, scale) -> object:
        """Object-space coordinates (metres) times `scale` (scalar or triple)."""
        mapping = self.node("ShaderNodeMapping", Scale=np.broadcast_to(scale, 3).tolist())
        self.link(self.node("ShaderNodeTexCoord").outputs["Object"], mapping.inputs["Vector"])
        return mapping.outputs["Vector"]

    def texture(self, kind: str, scale, output: str, **values):
        """A texture node on scaled object coordinates; returns the named output socket."""
        node = self.node(kind, **values)
        self.link(self.coordinates(scale), node.inputs["Vector"])
        return node.outputs[output]

    def bump(self, height, strength: float, distance: float) -> None:
        """Perturb the normal by a height socket."""
        node = self.node("ShaderNodeBump", Strength=strength, Distance=distance)
        self.link(height, node.inputs["Height"])
        self.link(node.outputs["Normal"], self.shader.inputs["Normal"])

    def set(self, **values) -> None:
        """Set Principled inputs."""
        for key, value in values.items():
            self.shader.inputs[key.replace("_", " ")].default_value = value


def _wood(graph: _Graph, rng, rgb):
    """Grain along one axis."""
    scale = np.array([rng.uniform(1.2, 2), 14, 14]) * rng.uniform(0.8, 1.4)
    grain = graph.texture("ShaderNodeTexNoise", scale, "Fac", Detail=1.0, Distortion=0.6)
    return graph.mix(grain, rgb * 1.25, rgb * 0.62)


def _planks(graph: _Graph, rng, rgb, tiles: bool):
    """Floor boards or tiles from the brick texture."""
    size = rng.uniform(0.25, 0.5)
    node = graph.node(
        "ShaderNodeTexBrick",
        Color1=(*rgb * 1.15, 1),
        Color2=(*rgb * rng.uniform(0.6, 0.85), 1),
        Mortar=(*rgb * 0.35, 1),
        Scale=1.0,
        Mortar_Size=0.004 if not tiles else 0.008,
        offset=0.0 if tiles else 0.5,
    )
    node.inputs["Brick Width"].default_value = size if tiles else rng.uniform(0.7, 1.2)
    node.inputs["Row Height"].default_value = size if tiles else rng.uniform(0.09, 0.16)
    graph.link(graph.coordinates(1.0), node.inputs["Vector"])
    return node.outputs["Color"]


def _bricks(graph: _Graph, rng, rgb):
    """Brick wall with light mortar; courses run along x + y, so that they fit walls along either axis."""
    node = graph.node(
        "ShaderNodeTexBrick",
        Color1=(*rgb * 1.1, 1),
        Color2=(*rgb * 0.75, 1),
        Mortar=(*(0.5 * rgb + 0.2), 1),
        Scale=1.0,
        Mortar_Size=0.008,
    )
    node.inputs["Brick Width"].default_value = 0.24
    node.inputs["Row Height"].default_value = 0.08
    axes = graph.node("ShaderNodeSeparateXYZ")
    graph.link(graph.coordinates(1.0), axes.inputs[0])
    along = graph.node("ShaderNodeMath", operation="ADD")
    graph.link(axes.outputs["X"], along.inputs[0])
    graph.link(axes.outputs["Y"], along.inputs[1])
    wall = graph.node("ShaderNodeCombineXYZ")
    graph.link(along.outputs[0], wall.inputs["X"])
    graph.link(axes.outputs["Z"], wall.inputs["Y"])
    graph.link(wall.outputs[0], node.inputs["Vector"])
    graph.bump(node.outputs["Fac"], -0.5, 0.01)
    return node.outputs["Color"]


def _pattern(graph: _Graph, rng, rgb, accent):
    """Stripes, dots or checks in a shade of the same colour; small enough that the colour keeps its name."""
    kind = rng.choice(["stripes", "dots", "checks"])
    scale = rng.uniform(12, 30)
    if kind == "stripes":
        axis = str(rng.choice(["X", "Z", "DIAGONAL"]))
        fac = graph.texture("ShaderNodeTexWave", scale * 0.3, "Fac", bands_direction=axis)
    elif kind == "checks":
        fac = graph.texture("ShaderNodeTexChecker", scale, "Fac", Scale=1.0)
    else:
        distance = graph.texture("ShaderNodeTexVoronoi", scale, "Distance", Randomness=0.2)
        less = graph.node("ShaderNodeMath", operation="LESS_THAN")
        less.inputs[1].default_value = 0.3
        graph.link(distance, less.inputs[0])
        fac = less.outputs[0]
    return graph.mix(fac, rgb, accent)


def shade(rng, rgb, colour: str) -> np.ndarray:
    """A darker or lighter relative of a colour that keeps its name."""
    if colour == "black":
        return rgb * rng.uniform(2.0, 4.0) + 0.01
    if colour == "white":
        return rgb * rng.uniform(0.6, 0.75)
    if rng.random() < 0.5 or colour in ("grey", "brown"):
        return rgb * rng.uniform(0.45, 0.65)
    return rgb * 0.6 + 0.4 * rng.uniform(0.5, 0.8)


def _base_colour(graph: _Graph, rng, rgb, colour: str, material: str):
    """The colour socket of structured materials, or None for a plain one; adds relief where it helps."""
    if material == "wood":
        return _wood(graph, rng, rgb)
    if material in ("fabric", "plush", "concrete", "cardboard"):
        scale = {"fabric": 90, "plush": 60, "concrete": 5, "cardboard": 12}[material]
        noise = graph.texture("ShaderNodeTexNoise", scale, "Fac", Detail=1.0)
        if material in ("fabric", "plush"):
            graph.bump(noise, 0.6, 0.012 if material == "plush" else 0.004)
        if material == "fabric" and rng.random() < 0.35:
            return _pattern(graph, rng, rgb, shade(rng, rgb, colour))
        return graph.mix(noise, rgb * 1.12, rgb * 0.8)
    if material == "wicker":
        bands = graph.texture(
            "ShaderNodeTexWave", rng.uniform(2.2, 3.2), "Fac", bands_direction="Z", Distortion=0.5
        )
        graph.bump(bands, 0.8, 0.02)
        weave = graph.texture("ShaderNodeTexChecker", rng.uniform(32, 48), "Fac", Scale=1.0)
        return graph.mix(weave, graph.mix(bands, rgb * 0.3, rgb), graph.mix(bands, rgb * 0.75, rgb * 1.2))
    if material in ("organic", "leaf"):
        noise = graph.texture("ShaderNodeTexNoise", 14, "Fac", Detail=1.0)
        return graph.mix(noise, rgb * 1.2, rgb * 0.7)
    if material in ("ceramic", "plastic", "rubber") and rng.random() < 0.25:
        return _pattern(graph, rng, rgb, shade(rng, rgb, colour))
    return None


def make_material(rng, rgb, colour: str, material: str):
    """Material for the slot that carries the colour name.

    Args:
        rng: numpy Generator.
        rgb: linear colour [3].
        colour: its name (for shades).
        material: a key of `ROUGHNESS`.
    """
    graph = _Graph(f"{colour} {material}")
    rgb = np.clip(rgb, 0, 1)
    if material in ("planks", "tile"):
        socket = _planks(graph, rng, rgb, material == "tile")
    elif material == "brick":
        socket = _bricks(graph, rng, rgb)
    elif material == "wallpaper":
        stripes = graph.texture("ShaderNodeTexWave", rng.uniform(1.5, 4), "Fac", bands_direction="X")
        socket = graph.mix(stripes, rgb, rgb * 0.8)
    else:
        socket = _base_colour(graph, rng, rgb, colour, material)
    graph.set(
        Base_Color=(*rgb, 1), Roughness=float(np.clip(ROUGHNESS[material] + rng.uniform(-0.05, 0.1), 0.05, 1))
    )
    if socket is not None:
        graph.link(socket, graph.shader.inputs["Base Color"])
    if material == "metal":
        graph.set(Metallic=0.55)
    elif material == "glass":
        graph.set(Alpha=0.78, Coat_Weight=1.0, Specular_IOR_Level=0.8)
    elif material in ("fabric", "plush", "concrete", "paint", "wallpaper", "brick", "cardboard"):
        graph.set(Specular_IOR_Level=0.1)
    return graph.material


def slot_material(rng, slot: str, main_rgb, colour: str, material: str):
    """Material of a secondary slot; 'accent' is a shade of the main colour, others are fixed or neutral."""
    graph = _Graph(slot)
    if slot == "accent":
        accent = np.clip(shade(rng, main_rgb, colour), 0, 1)
        graph.set(Base_Color=(*accent, 1), Roughness=ROUGHNESS[material])
    elif slot == "flame":
        graph.set(Base_Color=(1, 0.5, 0.1, 1), Emission_Color=(1, 0.55, 0.12, 1), Emission_Strength=3.0)
    elif slot == "glow":
        graph.set(Base_Color=(1, 0.9, 0.7, 1), Emission_Color=(1, 0.85, 0.6, 1), Emission_Strength=2.5)
    elif slot == "leaf":
        return make_material(rng, sample_rgb(rng, "green") * rng.uniform(0.6, 1.0), "green", "leaf")
    elif slot == "pot":
        pot = rng.choice(["white", "grey", "brown", "black"])
        graph.set(Base_Color=(*sample_rgb(rng, str(pot)), 1), Roughness=0.5)
    elif slot == "screen":
        if rng.random() < 0.5:
            tint = rng.uniform(0.05, 0.35, size=3)
            graph.set(Emission_Color=(*tint, 1), Emission_Strength=1.0)
        graph.set(Base_Color=(*FIXED_SLOTS["screen"], 1), Roughness=0.15)
    else:
        graph.set(
            Base_Color=(*FIXED_SLOTS[slot], 1),
            Roughness=0.35 if slot == "steel" else 0.6,
            Metallic=0.8 if slot == "steel" else 0.0,
        )
    return graph.material
