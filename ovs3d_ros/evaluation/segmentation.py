"""Segments views by a full list of names: every pixel gets a name, as segmentation benchmarks require."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.semantics.class_field import SURFACE_ALPHA, vocabulary_indices
from ovs3d_ros.types import Camera, MapSnapshot, RefinedField

_CHANNELS = 32  # one-hot labels rendered at a time

# Segments the view of a camera and pose: labels [H, W], 1 + index of the name, 0 where the map is not.
Segmenter = Callable[[Camera, np.ndarray], np.ndarray]


def field_for_names(field: RefinedField | None, names: list[str]) -> RefinedField | None:
    """The field if it holds all of the names and can segment by them; else None."""
    return field if (vocabulary_indices(field, names, "argmax") >= 0).all() else None


def pixel_segmenter(
    pipeline: Ovs3d, snapshot: MapSnapshot, names: list[str], field: RefinedField | None
) -> Segmenter:
    """Blends features or distributions of the Gaussians, then decides at each pixel (protocols A and C).

    Args:
        pipeline: encodes the names and renders.
        snapshot: the map.
        names: the P names.
        field: refined distributions that hold all names, see `field_for_names`; None: the lifted features.
    """
    if field is not None:
        probabilities = _columns(field, names)

        def segment(camera: Camera, camtoworld: np.ndarray) -> np.ndarray:
            blended, alpha = pipeline.renderer.channels(probabilities, camera, camtoworld, snapshot)
            return torch.where(alpha[..., 0] > SURFACE_ALPHA, blended.argmax(-1) + 1, 0).cpu().numpy()
    else:
        directions = snapshot.directions(pipeline.encode_text(names))

        def segment(camera: Camera, camtoworld: np.ndarray) -> np.ndarray:
            z = pipeline.render_codes(camera, camtoworld, snapshot)
            best = torch.stack([(row @ directions).argmax(-1) + 1 for row in z])  # row by row: memory
            return torch.where(z[..., -1] != 0, best, 0).cpu().numpy()

    return segment


def gaussian_segmenter(
    pipeline: Ovs3d, snapshot: MapSnapshot, names: list[str], field: RefinedField | None
) -> Segmenter:
    """Decides for each Gaussian, then renders the labels (protocol D); arguments as in `pixel_segmenter`."""
    likeness = (
        _columns(field, names)
        if field is not None
        else snapshot.codes @ snapshot.directions(pipeline.encode_text(names))
    )
    labels = torch.where(snapshot.packed_codes.known, likeness.argmax(-1), -1)

    def segment(camera: Camera, camtoworld: np.ndarray) -> np.ndarray:
        shares = []
        for start in range(0, len(names), _CHANNELS):
            one_hot = labels[:, None] == torch.arange(
                start, min(start + _CHANNELS, len(names)), device=labels.device
            )
            out, alpha = pipeline.renderer.channels(one_hot.float(), camera, camtoworld, snapshot)
            shares.append(out)
        weight, best = torch.cat(shares, dim=-1).max(-1)
        return torch.where((alpha[..., 0] > SURFACE_ALPHA) & (weight > 0), best + 1, 0).cpu().numpy()

    return segment


def _columns(field: RefinedField, names: list[str]) -> torch.Tensor:
    return field.probabilities[:, vocabulary_indices(field, names, "argmax")]
