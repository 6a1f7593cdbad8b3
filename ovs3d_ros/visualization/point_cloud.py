"""Selects the Gaussians of a point cloud and makes its columns, as numpy arrays."""

from __future__ import annotations

import numpy as np

from ovs3d_ros.config import OutputConfig
from ovs3d_ros.rasterize.spherical_harmonics import base_colors
from ovs3d_ros.sampling import evenly_spaced_indices
from ovs3d_ros.types import MapSnapshot, QueryResult
from ovs3d_ros.visualization.pictures import label_colors


def visible_points(snapshot: MapSnapshot, config: OutputConfig) -> np.ndarray:
    """Indices [M] of the Gaussians in a cloud: those above `min_opacity`, evenly thinned to `max_points`."""
    opacities = snapshot.gaussians["opacities"].cpu().numpy()
    opaque = np.flatnonzero(opacities >= config.min_opacity)
    return opaque[evenly_spaced_indices(len(opaque), config.max_points)]


def point_columns(snapshot: MapSnapshot, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points [M, 3] float32 in the map frame (see `map_frame`), and their base colours [M, 3] uint8."""
    points = snapshot.gaussians["means"].cpu().numpy()[indices]
    base = base_colors(snapshot.gaussians["sh"]).cpu().numpy()[indices]
    rgb = np.clip(base * 255.0, 0, 255).round().astype(np.uint8)
    return points.astype(np.float32), rgb


def answer_columns(result: QueryResult, indices: np.ndarray, rgb: np.ndarray) -> dict[str, np.ndarray]:
    """The columns of a labelled cloud: `rgb` [M, 3], `label` [M], `instance` [M] and `score` [M].

    Args:
        result: the answer.
        indices: [M] Gaussians in the cloud.
        rgb: [M, 3] uint8 base colours; points without a label keep them, dimmed. Labelled points take the
            label's colour.
    """
    labels = result.labels.cpu().numpy()[indices]
    colors = np.where((labels > 0)[:, None], label_colors(len(result.prompts))[labels], rgb // 2)
    return dict(
        rgb=colors.astype(np.uint8),
        label=labels.astype(np.uint32),
        instance=result.instances.cpu().numpy()[indices].astype(np.uint32),
        score=result.scores.cpu().numpy()[indices],
    )
