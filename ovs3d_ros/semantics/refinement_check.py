"""The check of a refinement: RDA plus FDA on views kept aside (docs/method.md, "Alignment losses")."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from ovs3d_ros.config import RefineConfig
from ovs3d_ros.encoders import ImageTextEncoder, PatchEncoder, encode_frame
from ovs3d_ros.encoders.validation import check_patches
from ovs3d_ros.mapping.keyframes import resize_mask
from ovs3d_ros.rasterize import Rasterizer
from ovs3d_ros.sampling import evenly_spaced_indices
from ovs3d_ros.semantics.alignment_losses import fda, pairwise_js, pairwise_kl, rda
from ovs3d_ros.semantics.class_field import SURFACE_ALPHA, render_channels
from ovs3d_ros.semantics.codec import FeatureCodec
from ovs3d_ros.semantics.lift import pixel_codes
from ovs3d_ros.types import Camera, Frame, RefinedField, RefineStep, UserError

# Largest difference of equal poses: metres, and entries of the rotation. ROS messages cost precision.
_POSE_TOLERANCE = 2e-3
_MIN_PROBABILITY = 1e-4  # bounds the cost of a class that the field rules out
_MAX_PATCHES = 400  # patches of a view that are compared pairwise
_DIVERGENCES = {"js": pairwise_js, "kl": pairwise_kl}


@dataclass(frozen=True, slots=True)
class CheckView:
    """A view kept aside.

    Attributes:
        camera: at the size of the check.
        camtoworld: [4, 4] float64.
        log_target: [H, W, V] log class distributions of the view's own features.
        mask: [H, W] bool, the pixels that are compared.
        tokens: [h * w, D'] unit DINO tokens of its patches.
        grid: (h, w) of the patches.
    """

    camera: Camera
    camtoworld: np.ndarray
    log_target: torch.Tensor
    mask: torch.Tensor
    tokens: torch.Tensor
    grid: tuple[int, int]


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
    views, device = [], field.texts.device
    for done, frame in enumerate(frames, start=1):
        camera = frame.camera.fitted(config.image_size)
        codes = codec.normalize(
            pixel_codes(encode_frame(clip, frame), codec, camera.width, camera.height).sum(0)
        )
        target = codes @ codec.directions(field.texts) / field.temperature
        tokens = check_patches(dino.encode_image(frame.image), dino).to(device)
        views.append(
            CheckView(
                camera,
                frame.camtoworld,
                target.log_softmax(-1),
                _mask_of(frame, camera).to(device),
                F.normalize(tokens.flatten(0, 1), dim=-1),
                tuple(tokens.shape[:2]),
            )
        )
        yield RefineStep("checking", done, len(frames))
    return views


def _mask_of(frame: Frame, camera: Camera) -> torch.Tensor:
    if frame.mask is None:
        return torch.ones(camera.height, camera.width, dtype=torch.bool)
    return resize_mask(torch.from_numpy(frame.mask), camera)


def alignment_objective(
    field: RefinedField,
    gaussians: dict[str, torch.Tensor],
    views: list[CheckView],
    rasterizer: Rasterizer,
    config: RefineConfig,
) -> dict[str, float]:
    """Losses of a field, mean over views; lower is better.

    Returns:
        `rda`, `attract` and `repel` (the two sides of FDA), and their weighted sum `objective`.
    """
    rng, terms, divergence = np.random.default_rng(0), [], _DIVERGENCES[config.divergence]
    for view in views:
        blended, alpha = render_channels(
            gaussians, field.probabilities, view.camera, view.camtoworld, rasterizer
        )
        is_map, p = (alpha[..., 0] > SURFACE_ALPHA) & view.mask, blended.clamp_min(_MIN_PROBABILITY)
        p = p / p.sum(-1, keepdim=True)
        patches = F.adaptive_avg_pool2d(p.permute(2, 0, 1)[None], view.grid)[0].flatten(1).T
        is_map_patch = F.adaptive_avg_pool2d(is_map[None, None].float(), view.grid).flatten() > 0.5
        chosen = torch.from_numpy(rng.permutation(len(patches))[:_MAX_PATCHES]).to(patches.device)
        chosen = chosen[is_map_patch[chosen]]
        correlation = view.tokens[chosen] @ view.tokens[chosen].T - config.similarity
        attract, repel = fda(divergence(patches[chosen].log()), correlation)
        relevancy = rda(p[is_map].log(), view.log_target[is_map]) if bool(is_map.any()) else attract * 0.0
        terms.append((float(relevancy), float(attract), float(repel)))
    relevancy, attract, repel = (float(term) for term in np.mean(terms, axis=0))
    return dict(
        rda=relevancy,
        attract=attract,
        repel=repel,
        objective=relevancy + config.attract * attract + config.repel * repel,
    )


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
        [(np.abs(keyframes - pose).max(axis=(1, 2)) < _POSE_TOLERANCE).any() for pose in camtoworlds], bool
    )
    if not is_keyframe.any():
        raise UserError("none of its poses is a keyframe of the map: give the data the map was made from")
    chosen = np.flatnonzero(~is_keyframe) if (~is_keyframe).sum() >= 2 else np.arange(len(camtoworlds))
    return chosen[evenly_spaced_indices(len(chosen), limit)].tolist()
