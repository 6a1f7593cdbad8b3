"""Views at which the alignment losses of a refined field are taken (docs/method.md, "Alignment losses")."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from ovs3d_ros.config import RefineConfig
from ovs3d_ros.encoders import PatchEncoder
from ovs3d_ros.encoders.validation import check_patches
from ovs3d_ros.mapping.keyframes import resize_mask
from ovs3d_ros.rasterize import Rasterizer, Splats, Views
from ovs3d_ros.semantics.alignment_losses import fda, pairwise_js, pairwise_kl, rda
from ovs3d_ros.semantics.class_field import SURFACE_ALPHA
from ovs3d_ros.semantics.codec import FeatureCodec
from ovs3d_ros.semantics.lift import pixel_codes
from ovs3d_ros.types import Camera, CropTable, Frame, RefinedField

_MIN_PROBABILITY = 1e-4  # bounds the cost of a class that the field rules out
_MAX_PATCHES = 400  # patches of a view that are compared pairwise
# Largest difference of equal poses: metres, and entries of the rotation. ROS messages cost precision.
_POSE_TOLERANCE = 2e-3
_DIVERGENCES = {"js": pairwise_js, "kl": pairwise_kl}


@dataclass(frozen=True, slots=True)
class AlignmentView:
    """An image as the losses see it.

    Attributes:
        camera: at the size of the losses.
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


def make_alignment_view(
    frame: Frame,
    crops: CropTable,
    dino: PatchEncoder,
    field: RefinedField,
    codec: FeatureCodec,
    config: RefineConfig,
) -> AlignmentView:
    """The view of a frame.

    Args:
        frame: image, camera and pose, in the frame of the map.
        crops: CLIP features of the image.
        dino: encodes its patches.
        field: temperature and text features.
        codec: codec of the map.
        config: size of the views.
    """
    camera, device = frame.camera.fitted(config.image_size), field.texts.device
    codes = codec.normalize(pixel_codes(crops, codec, camera.width, camera.height).sum(0))
    target = codes @ codec.directions(field.texts) / field.temperature
    tokens = check_patches(dino.encode_image(frame.image), dino).to(device)
    return AlignmentView(
        camera,
        frame.camtoworld,
        target.log_softmax(-1),
        _mask_of(frame, camera).to(device),
        F.normalize(tokens.flatten(0, 1), dim=-1),
        tuple(tokens.shape[:2]),
    )


def same_pose(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether poses [4, 4] are equal but for rounding."""
    return bool(np.abs(a - b).max() < _POSE_TOLERANCE)


def _mask_of(frame: Frame, camera: Camera) -> torch.Tensor:
    if frame.mask is None:
        return torch.ones(camera.height, camera.width, dtype=torch.bool)
    return resize_mask(torch.from_numpy(frame.mask), camera)


def view_losses(
    probabilities: torch.Tensor,
    gaussians: dict[str, torch.Tensor],
    view: AlignmentView,
    rasterizer: Rasterizer,
    config: RefineConfig,
    rng: np.random.Generator,
) -> dict[str, torch.Tensor]:
    """Losses of class distributions at a view; gradients reach the distributions and nothing else.

    Args:
        probabilities: [N, V] class distributions of the Gaussians.
        gaussians: the activated Gaussians.
        view: the view.
        rasterizer: renders them.
        config: weights, divergence and threshold of FDA.
        rng: chooses the patches that are compared.

    Returns:
        Scalars: `rda`, `attract` and `repel` (the two sides of FDA), and their weighted sum `objective`.
    """
    views = Views.from_camera(view.camera, view.camtoworld, probabilities.device)
    blended, alphas, _ = rasterizer(Splats.from_dict(gaussians), probabilities.contiguous(), views)
    is_map, p = (alphas[0, ..., 0] > SURFACE_ALPHA) & view.mask, blended[0].clamp_min(_MIN_PROBABILITY)
    p = p / p.sum(-1, keepdim=True)
    patches = F.adaptive_avg_pool2d(p.permute(2, 0, 1)[None], view.grid)[0].flatten(1).T
    is_map_patch = F.adaptive_avg_pool2d(is_map[None, None].float(), view.grid).flatten() > 0.5
    chosen = torch.from_numpy(rng.permutation(len(patches))[:_MAX_PATCHES]).to(patches.device)
    chosen = chosen[is_map_patch[chosen]]
    correlation = view.tokens[chosen] @ view.tokens[chosen].T - config.similarity
    attract, repel = fda(_DIVERGENCES[config.divergence](patches[chosen].log()), correlation)
    relevancy = rda(p[is_map].log(), view.log_target[is_map]) if bool(is_map.any()) else attract * 0.0
    objective = relevancy + config.attract * attract + config.repel * repel
    return dict(rda=relevancy, attract=attract, repel=repel, objective=objective)
