"""What of a map goes into a point cloud or an overlay, as numpy arrays."""

from __future__ import annotations

import colorsys

import numpy as np

from ovs3d_ros.config import OutputConfig
from ovs3d_ros.types import MapSnapshot, QueryResult

SH_C0 = 0.28209479177387814  # Y_00, the constant spherical harmonic
GOLDEN_RATIO = 0.6180339887498949  # successive hues stay far apart


def label_colors(count: int) -> np.ndarray:
    """RGB uint8 [count + 1, 3] of labels 0..count; 0 (none) is grey. Colours do not depend on `count`."""
    hues = [(0.02 + i * GOLDEN_RATIO) % 1.0 for i in range(count)]
    colors = [(0.5, 0.5, 0.5)] + [colorsys.hsv_to_rgb(hue, 0.85, 1.0) for hue in hues]
    return np.round(np.array(colors) * 255).astype(np.uint8)


def visible_points(snapshot: MapSnapshot, config: OutputConfig) -> np.ndarray:
    """Indices [M] of the Gaussians a cloud shows: opaque enough, evenly thinned to the largest cloud."""
    opacities = snapshot.gaussians["opacities"].cpu().numpy()
    return thin(np.flatnonzero(opacities >= config.min_opacity), config.max_points)


def thin(indices: np.ndarray, limit: int) -> np.ndarray:
    """At most `limit` of the indices, evenly spread."""
    if len(indices) <= limit:
        return indices
    return indices[np.linspace(0, len(indices) - 1, limit).round().astype(np.int64)]


def point_columns(snapshot: MapSnapshot, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points [M, 3] float32 metres and their base colours [M, 3] uint8."""
    points = snapshot.gaussians["means"].cpu().numpy()[indices]
    base = snapshot.gaussians["sh"][:, 0].cpu().numpy()[indices]
    rgb = np.clip((base * SH_C0 + 0.5) * 255.0, 0, 255).round().astype(np.uint8)
    return points.astype(np.float32), rgb


def answer_columns(result: QueryResult, indices: np.ndarray, rgb: np.ndarray) -> dict[str, np.ndarray]:
    """The columns of a labelled cloud: colours `rgb` [M, 3] by label, `label`, `instance`, `score`.

    Args:
        result: the answer.
        indices: [M] Gaussians in the cloud.
        rgb: [M, 3] uint8 base colours; what carries no label keeps a dimmed one.
    """
    labels = result.labels.cpu().numpy()[indices]
    relevancy = result.relevancy.cpu().numpy()[indices]  # [M, P]
    own = np.take_along_axis(relevancy, np.maximum(labels - 1, 0)[:, None], axis=1)[:, 0]
    colors = np.where((labels > 0)[:, None], label_colors(len(result.prompts))[labels], rgb // 2)
    return dict(
        rgb=colors.astype(np.uint8),
        label=labels.astype(np.uint32),
        instance=result.instances.cpu().numpy()[indices].astype(np.uint32),
        score=np.where(labels > 0, own, relevancy.max(axis=1)).astype(np.float32),
    )


def overlay(image: np.ndarray, labels: np.ndarray, num_labels: int) -> np.ndarray:
    """The image [H, W, 3] uint8 with labelled pixels tinted in their colour."""
    tint = label_colors(num_labels)[labels]
    mixed = (image.astype(np.uint16) * 2 + tint.astype(np.uint16) * 3) // 5
    return np.where((labels > 0)[..., None], mixed, image).astype(np.uint8)
