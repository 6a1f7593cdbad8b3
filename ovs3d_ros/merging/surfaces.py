"""Gaussians as surfaces: where two maps show the same surface, and which of them saw it better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from ovs3d_ros.geometry import SH_C0
from ovs3d_ros.semantics.surface_graph import make_surface_graph

if TYPE_CHECKING:
    from scipy.spatial import cKDTree

_NEIGHBOURS = 8  # of a Gaussian, which give its normal and the spacing of its surface
_SOLID = 0.3  # opacity from which a Gaussian is a surface
_SIDEWAYS = 1.5  # spacings between a Gaussian and one of the other map on the same surface, along it
_ACROSS = 1.0  # spacings, across it
_MAX_SPACING = 0.15  # metres; where Gaussians are sparser, they are no closed surface
_COLOR = 25.0  # CIELAB; below it two colours may be one, in different light
_EVIDENCE_NEIGHBOURS = 16  # whose weights say how well a place was seen


@dataclass(frozen=True, slots=True)
class Surface:
    """The Gaussians of a map as points of surfaces.

    Attributes:
        points: [N, 3] float64 metres.
        normals: [N, 3] unit, of arbitrary sign.
        lab: [N, 3] colours in CIELAB.
        opacities: [N] 0..1.
        weight: [N] blending weight of the lift in pixels: how well each was seen.
        spacing: [N] metres to the neighbours.
    """

    points: np.ndarray
    normals: np.ndarray
    lab: np.ndarray
    opacities: np.ndarray
    weight: np.ndarray
    spacing: np.ndarray

    def rows(self, chosen: np.ndarray) -> Surface:
        """The points of an index or a mask."""
        return Surface(
            self.points[chosen],
            self.normals[chosen],
            self.lab[chosen],
            self.opacities[chosen],
            self.weight[chosen],
            self.spacing[chosen],
        )


def make_surface(params: dict[str, torch.Tensor], weight: torch.Tensor) -> Surface:
    """The surfaces of Gaussians.

    Args:
        params: in the stored form, see `mapping.gaussians.PARAMETERS`.
        weight: [N], see `Surface`.
    """
    colors = 0.5 + SH_C0 * params["sh_dc"]
    graph = make_surface_graph(params["means"], colors, _NEIGHBOURS)
    points = params["means"].double().numpy()
    spacing = np.linalg.norm(points[graph.neighbours.numpy()] - points[:, None], axis=2).mean(1)
    return Surface(
        points,
        graph.normals.double().numpy(),
        graph.lab.double().numpy(),
        torch.sigmoid(params["opacity_logits"]).numpy(),
        weight.numpy(),
        spacing.clip(1e-3, _MAX_SPACING),
    )


def is_covered(surface: Surface, other: Surface) -> np.ndarray:
    """Whether each point [N] lies on a surface of the other map that looks the same there: [N] bool."""
    solid = other.rows(other.opacities > _SOLID)
    if not len(solid.points) or not len(surface.points):
        return np.zeros(len(surface.points), bool)
    count = min(_NEIGHBOURS, len(solid.points))
    index = _tree(solid.points).query(surface.points, np.arange(1, count + 1))[1]  # [N, count]
    offsets = surface.points[:, None] - solid.points[index]
    across = np.abs((offsets * solid.normals[index]).sum(-1))
    sideways = np.sqrt((np.square(offsets).sum(-1) - across**2).clip(0))
    spacing = np.maximum(solid.spacing[index], surface.spacing[:, None])
    same_color = np.linalg.norm(surface.lab[:, None] - solid.lab[index], axis=-1) < _COLOR
    same_place = (across < _ACROSS * spacing) & (sideways < _SIDEWAYS * spacing)
    return (same_place & same_color).any(axis=1)


def evidence_density(surface: Surface, points: np.ndarray) -> np.ndarray:
    """How well a map saw places [M, 3]: blending weight per area, in pixels per square metre, [M]."""
    if not len(surface.points):
        return np.zeros(len(points))
    count = min(_EVIDENCE_NEIGHBOURS, len(surface.points))
    distances, index = _tree(surface.points).query(points, np.arange(1, count + 1))
    return surface.weight[index].sum(axis=1) / np.square(distances[:, -1].clip(1e-3))


def choose_kept(first: Surface, second: Surface) -> tuple[np.ndarray, np.ndarray]:
    """Which points of two maps stay, so that each surface is there once: masks [N] and [M].

    Where both show the same surface, the one that saw it better keeps all of its points, for neighbours were
    optimised together. A point goes only if points that stay cover its place.
    """
    goes = is_covered(second, first)
    goes[goes] = ~_is_better_seen(second.points[goes], second, first)
    keep_second = ~goes
    goes = is_covered(first, second.rows(keep_second))
    goes[goes] = _is_better_seen(first.points[goes], second, first)
    return ~goes, keep_second


def _is_better_seen(points: np.ndarray, one: Surface, other: Surface) -> np.ndarray:
    """Whether one map saw places better than another one did."""
    return evidence_density(one, points) > evidence_density(other, points)


def nearest_kept(points: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """The nearest kept point of each that goes: indices [G] into all points [N]; `kept` is [N] bool."""
    rows = np.flatnonzero(kept)
    return rows[_tree(points[rows]).query(points[~kept])[1]]


def _tree(points: np.ndarray) -> cKDTree:
    from scipy.spatial import cKDTree  # here, because it takes a tenth of a second

    return cKDTree(points)
