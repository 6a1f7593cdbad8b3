"""The check of a refinement: RDA plus FDA on views kept aside (docs/method.md, "Alignment losses")."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from ovs3d_ros.config import RefineConfig
from ovs3d_ros.encoders import ImageTextEncoder, PatchEncoder, encode_frame
from ovs3d_ros.rasterize import Rasterizer
from ovs3d_ros.sampling import evenly_spaced_indices
from ovs3d_ros.semantics.alignment_views import AlignmentView, make_alignment_view, same_pose, view_losses
from ovs3d_ros.semantics.codec import FeatureCodec
from ovs3d_ros.types import Frame, RefinedField, RefineStep, UserError


def encode_check_views(
    frames: Sequence[Frame],
    field: RefinedField,
    codec: FeatureCodec,
    encoders: tuple[ImageTextEncoder, PatchEncoder],
    config: RefineConfig,
) -> Iterator[RefineStep]:
    """Encodes frames for the check. A generator that yields after each frame.

    Args:
        frames: images and poses to check at.
        field: temperature and text features.
        codec: codec of the map.
        encoders: CLIP and DINO.
        config: size of the views.

    Returns:
        The encoded views.
    """
    clip, dino = encoders
    views = []
    for done, frame in enumerate(frames, start=1):
        views.append(make_alignment_view(frame, encode_frame(clip, frame), dino, field, codec, config))
        yield RefineStep("checking", done, len(frames))
    return views


@torch.no_grad()
def alignment_objective(
    field: RefinedField,
    gaussians: dict[str, torch.Tensor],
    views: list[AlignmentView],
    rasterizer: Rasterizer,
    config: RefineConfig,
) -> dict[str, float]:
    """Losses of a field, mean over views, see `view_losses`; lower is better."""
    rng = np.random.default_rng(0)
    losses = [view_losses(field.probabilities, gaussians, v, rasterizer, config, rng) for v in views]
    return {name: float(torch.stack([loss[name] for loss in losses]).double().mean()) for name in losses[0]}


def choose_check_views(camtoworlds: np.ndarray, keyframes: np.ndarray, limit: int) -> list[int]:
    """Chooses poses to check at, evenly spaced.

    Poses of keyframes are left out if two others remain: the lifted field has already seen the keyframes.

    Args:
        camtoworlds: [M, 4, 4] poses to choose from.
        keyframes: [F, 4, 4] poses of the map's keyframes.
        limit: number of poses at most.

    Returns:
        Indices of the chosen poses.

    Raises:
        UserError: no pose is that of a keyframe, so the data show another scene.
    """
    is_keyframe = np.array(
        [any(same_pose(keyframe, pose) for keyframe in keyframes) for pose in camtoworlds], bool
    )
    if not is_keyframe.any():
        raise UserError("none of its poses is a keyframe of the map: give the data the map was made from")
    chosen = np.flatnonzero(~is_keyframe) if (~is_keyframe).sum() >= 2 else np.arange(len(camtoworlds))
    return chosen[evenly_spaced_indices(len(chosen), limit)].tolist()
