"""Gaussians as the browser draws them: centres, covariances, colours and opacities."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ovs3d_ros.types import MapSnapshot, QueryResult
from ovs3d_ros.viewer.drawing import Drawn, draw, visible_rows
from ovs3d_ros.visualization import pictures

_TINT = 0.75  # share of the label's colour among the colours of the map
_DIM = 0.45  # brightness of what has no label, where labels are shown alone


@dataclass(frozen=True, slots=True)
class Splats:
    """The drawn Gaussians of a snapshot.

    Attributes:
        snapshot: the map.
        indices: [M] Gaussians of the snapshot that are drawn.
        drawn: these, in their own colours.
    """

    snapshot: MapSnapshot
    indices: np.ndarray
    drawn: Drawn


def make_splats(snapshot: MapSnapshot, max_count: int) -> Splats:
    """The visible Gaussians of a snapshot, evenly thinned to `max_count`."""
    values = {name: value.cpu() for name, value in snapshot.gaussians.items()}
    rows = visible_rows(values["opacities"].numpy(), max_count)
    chosen = {name: value[rows].float().numpy() for name, value in values.items() if name != "sh"}
    return Splats(snapshot, rows, draw(**chosen, harmonics=values["sh"][rows, 0].float().numpy()))


def mode_colors(
    mode: str,
    splats: Splats,
    result: QueryResult | None,
    eye: np.ndarray | None,
    find_parts: Callable[[MapSnapshot], np.ndarray],
) -> np.ndarray:
    """Colours [M, 3] in a mode of the panel.

    Args:
        mode: colour, depth, parts, features or labels.
        splats: the map.
        result: the answer to mark; None marks nothing.
        eye: [3] from where depth is seen.
        find_parts: the part [N] of each Gaussian.
    """
    if mode == "depth" and eye is not None:
        return depth_colors(splats, eye)
    if mode == "parts":
        return part_colors(splats, find_parts(splats.snapshot))
    if mode == "features" and splats.snapshot.codec is not None:
        return feature_colors(splats)
    if mode == "labels":
        return label_colors(splats, result)
    return splats.drawn.colors if result is None else tinted_colors(splats, result)


def feature_colors(splats: Splats) -> np.ndarray:
    """Colours [M, 3] of the language features by three principal directions; similar things look alike."""
    codes = splats.snapshot.codes.cpu().numpy()
    return pictures.FeatureColors.fit(codes).paint(codes[splats.indices][None])[0]


def depth_colors(splats: Splats, eye: np.ndarray) -> np.ndarray:
    """Colours [M, 3] by the distance from a point [3]: near is bright yellow, far is dark violet."""
    distances = np.linalg.norm(splats.drawn.centers - eye, axis=1).astype(np.float32)
    return pictures.color_depth(distances[None], *pictures.depth_range([distances]))[0]


def tinted_colors(splats: Splats, result: QueryResult) -> np.ndarray:
    """Colours [M, 3]: labelled Gaussians take most of the label's colour, the others keep their own."""
    labels = result.labels.cpu().numpy()[splats.indices]
    marks = pictures.label_colors(len(result.prompts))[labels]
    mixed = np.where(
        (labels > 0)[:, None], _TINT * marks + (1 - _TINT) * splats.drawn.colors, splats.drawn.colors
    )
    return mixed.round().astype(np.uint8)


def part_colors(splats: Splats, parts: np.ndarray) -> np.ndarray:
    """Colours [M, 3] by the part [N] that each Gaussian of the snapshot belongs to, see `find_map_parts`."""
    colors = pictures.label_colors(int(parts.max(initial=0)) + 1)[1:]
    return colors[parts[splats.indices]]


def label_colors(splats: Splats, result: QueryResult | None) -> np.ndarray:
    """Colours [M, 3]: labelled Gaussians in the label's colour, the others as dim greys."""
    grey = np.repeat(splats.drawn.colors.mean(axis=1, keepdims=True), 3, axis=1) * _DIM
    if result is None:
        return grey.astype(np.uint8)
    labels = result.labels.cpu().numpy()[splats.indices]
    marks = pictures.label_colors(len(result.prompts))[labels]
    return np.where((labels > 0)[:, None], marks, grey).astype(np.uint8)
