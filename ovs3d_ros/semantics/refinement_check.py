"""The check of a refinement: the objective of 3D-OVS, RDA plus FDA, on views kept aside."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from ovs3d_ros.config import RefineConfig
from ovs3d_ros.encoders import ImageTextEncoder, PatchEncoder, encode_frame
from ovs3d_ros.rasterize import Rasterizer
from ovs3d_ros.sampling import evenly_spaced_indices
from ovs3d_ros.semantics.alignment_losses import fda, pairwise_js, pairwise_kl, rda
from ovs3d_ros.semantics.class_field import SURFACE_ALPHA, render_channels
from ovs3d_ros.semantics.codec import FeatureCodec
from ovs3d_ros.semantics.lift import pixel_codes
from ovs3d_ros.types import Camera, Frame, RefinedField, RefineStep, UserError

_SAME_POSE = 2e-3  # metres, and of the rotation matrix: a pose that went through ROS is no more exact
_LEAST = 1e-4  # probability: a class ruled out must not cost without bound
_MAX_PATCHES = 400  # of a view, compared pairwise by the check
_DIVERGENCES = {"js": pairwise_js, "kl": pairwise_kl}


@dataclass(frozen=True, slots=True)
class CheckView:
    """A view kept aside: log-distributions [H, W, V] of its own features, and unit DINO tokens [h * w, D']."""

    camera: Camera
    camtoworld: np.ndarray
    log_target: torch.Tensor
    tokens: torch.Tensor
    grid: tuple[int, int]


def encode_check_views(
    frames: Sequence[Frame],
    field: RefinedField,
    codec: FeatureCodec,
    encoders: tuple[ImageTextEncoder, PatchEncoder],
    config: RefineConfig,
) -> Iterator[RefineStep]:
    """Encodes frames for the check; yields after each and returns (as a generator does) the views.

    Args:
        frames: with images, of the poses to check at.
        field: temperature and texts.
        codec: of the map.
        encoders: CLIP and DINO.
        config: size of the views.
    """
    clip, dino = encoders
    views, device = [], field.texts.device
    for done, frame in enumerate(frames, start=1):
        camera = frame.camera.fitted(config.image_size)
        codes = codec.normalize(
            pixel_codes(encode_frame(clip, frame), codec, camera.width, camera.height).sum(0)
        )
        target = codes @ codec.directions(field.texts) / field.temperature
        tokens = dino.encode_image(frame.image).to(device)
        views.append(
            CheckView(
                camera,
                frame.camtoworld,
                target.log_softmax(-1),
                F.normalize(tokens.flatten(0, 1), dim=-1),
                tuple(tokens.shape[:2]),
            )
        )
        yield RefineStep("checking", done, len(frames))
    return views


def alignment_objective(
    field: RefinedField,
    gaussians: dict[str, torch.Tensor],
    views: list[CheckView],
    rasterizer: Rasterizer,
    config: RefineConfig,
) -> dict[str, float]:
    """RDA and both sides of FDA of a field at views, and their weighted sum as `objective`; lower is better."""
    rng, terms, divergence = np.random.default_rng(0), [], _DIVERGENCES[config.divergence]
    for view in views:
        blended, alpha = render_channels(
            gaussians, field.probabilities, view.camera, view.camtoworld, rasterizer
        )
        solid, p = alpha[..., 0] > SURFACE_ALPHA, blended.clamp_min(_LEAST)
        p = p / p.sum(-1, keepdim=True)
        patches = F.adaptive_avg_pool2d(p.permute(2, 0, 1)[None], view.grid)[0].flatten(1).T
        shown = F.adaptive_avg_pool2d(solid[None, None].float(), view.grid).flatten() > 0.5
        pick = torch.from_numpy(rng.permutation(len(patches))[:_MAX_PATCHES]).to(patches.device)
        pick = pick[shown[pick]]
        correlation = view.tokens[pick] @ view.tokens[pick].T - config.similarity
        attract, repel = fda(divergence(patches[pick].log()), correlation)
        match = rda(p[solid].log(), view.log_target[solid]) if bool(solid.any()) else attract * 0.0
        terms.append((float(match), float(attract), float(repel)))
    match, attract, repel = (float(term) for term in np.mean(terms, axis=0))
    return dict(
        rda=match,
        attract=attract,
        repel=repel,
        objective=match + config.attract * attract + config.repel * repel,
    )


def choose_check_views(camtoworlds: np.ndarray, keyframes: np.ndarray, limit: int) -> list[int]:
    """Indices of at most `limit` of the poses [M, 4, 4] to check at, evenly spread.

    Those that are no keyframes of the map [F, 4, 4], for the lifted field has seen the others and is favoured there;
    only where there are fewer than two, any.

    Raises:
        UserError: no pose is near any keyframe: it is another scene.
    """
    same = np.array(
        [(np.abs(keyframes - pose).max(axis=(1, 2)) < _SAME_POSE).any() for pose in camtoworlds], bool
    )
    if not same.any():
        raise UserError(
            "none of its poses is that of a keyframe of the map: give the data the map was made from"
        )
    chosen = np.flatnonzero(~same) if (~same).sum() >= 2 else np.arange(len(camtoworlds))
    return chosen[evenly_spaced_indices(len(chosen), limit)].tolist()
