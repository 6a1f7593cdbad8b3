"""Gaussians as the browser draws them: centres, covariances, colours and opacities."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ovs3d_ros.rasterize.reference import rotation_matrices
from ovs3d_ros.rasterize.spherical_harmonics import base_colors
from ovs3d_ros.sampling import evenly_spaced_indices
from ovs3d_ros.types import MapSnapshot, QueryResult
from ovs3d_ros.visualization import pictures

_MIN_OPACITY = 0.02  # fainter Gaussians cost the browser time and show nothing
_TINT = 0.75  # share of the label's colour among the colours of the map
_DIM = 0.45  # brightness of what has no label, where labels are shown alone
_HALF_MAX = 60_000.0  # the browser holds covariances as 16-bit floats


@dataclass(frozen=True, slots=True)
class Splats:
    """The drawn Gaussians of a snapshot.

    Attributes:
        snapshot: the map.
        indices: [M] Gaussians of the snapshot that are drawn.
        centers: [M, 3] float32 metres.
        covariances: [M, 3, 3] float32 square metres.
        colors: [M, 3] uint8, their own.
        opacities: [M, 1] float32, 0..1.
    """

    snapshot: MapSnapshot
    indices: np.ndarray
    centers: np.ndarray
    covariances: np.ndarray
    colors: np.ndarray
    opacities: np.ndarray


def make_splats(snapshot: MapSnapshot, max_count: int) -> Splats:
    """The visible Gaussians of a snapshot, evenly thinned to `max_count`."""
    opacities = snapshot.gaussians["opacities"].cpu()
    visible = np.flatnonzero((opacities >= _MIN_OPACITY).numpy())
    indices = visible[evenly_spaced_indices(len(visible), max_count)]
    rows = torch.from_numpy(indices)
    chosen = {
        name: snapshot.gaussians[name].cpu()[rows].float() for name in ("means", "quats", "scales", "sh")
    }
    factors = rotation_matrices(chosen["quats"]) * chosen["scales"][:, None, :]
    covariances = (factors @ factors.transpose(1, 2)).clamp(-_HALF_MAX, _HALF_MAX)
    return Splats(
        snapshot,
        indices,
        chosen["means"].numpy(),
        covariances.numpy(),
        pictures.to_uint8(base_colors(chosen["sh"]).numpy()),
        opacities[rows].float()[:, None].numpy(),
    )


def feature_colors(splats: Splats) -> np.ndarray:
    """Colours [M, 3] of the language features by three principal directions; similar things look alike."""
    codes = splats.snapshot.codes.cpu().numpy()
    return pictures.FeatureColors.fit(codes).paint(codes[splats.indices][None])[0]


def depth_colors(splats: Splats, eye: np.ndarray) -> np.ndarray:
    """Colours [M, 3] by the distance from a point [3]: near is bright yellow, far is dark violet."""
    distances = np.linalg.norm(splats.centers - eye, axis=1).astype(np.float32)
    return pictures.color_depth(distances[None], *pictures.depth_range([distances]))[0]


def tinted_colors(splats: Splats, result: QueryResult) -> np.ndarray:
    """Colours [M, 3]: labelled Gaussians take most of the label's colour, the others keep their own."""
    labels = result.labels.cpu().numpy()[splats.indices]
    marks = pictures.label_colors(len(result.prompts))[labels]
    mixed = np.where((labels > 0)[:, None], _TINT * marks + (1 - _TINT) * splats.colors, splats.colors)
    return mixed.round().astype(np.uint8)


def part_colors(splats: Splats, parts: np.ndarray) -> np.ndarray:
    """Colours [M, 3] by the part [N] that each Gaussian of the snapshot belongs to, see `find_map_parts`."""
    colors = pictures.label_colors(int(parts.max(initial=0)) + 1)[1:]
    return colors[parts[splats.indices]]


def label_colors(splats: Splats, result: QueryResult | None) -> np.ndarray:
    """Colours [M, 3]: labelled Gaussians in the label's colour, the others as dim greys."""
    grey = np.repeat(splats.colors.mean(axis=1, keepdims=True), 3, axis=1) * _DIM
    if result is None:
        return grey.astype(np.uint8)
    labels = result.labels.cpu().numpy()[splats.indices]
    marks = pictures.label_colors(len(result.prompts))[labels]
    return np.where((labels > 0)[:, None], marks, grey).astype(np.uint8)
