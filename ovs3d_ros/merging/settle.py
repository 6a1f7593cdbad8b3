"""Settles a merged map: its Gaussians learn to show together what each map showed from its keyframes.

Few map files hold images (`map.keep_keyframes`), but each map can render its own keyframes. These renders
heal what fusion leaves: seams, layers that hide each other, and Gaussians at the edge of one map that reach
into what the other shows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from ovs3d_ros.config import TrainConfig
from ovs3d_ros.config.stored import restore_config
from ovs3d_ros.map_frame import poses_to_map
from ovs3d_ros.mapping.gaussians import PARAMETERS, Gaussians, activate
from ovs3d_ros.mapping.losses import depth_l1, ignore_masked, photometric
from ovs3d_ros.mapping.rendering import rasterize_rgbd, render_view
from ovs3d_ros.merging.merge import MergedMap, StoredMap
from ovs3d_ros.rasterize import Rasterizer
from ovs3d_ros.sampling import evenly_spaced_indices
from ovs3d_ros.types import Camera, TrainingState

_MAX_VIEWS = 200  # of each map; each takes 1 to 2 MB
_OPAQUE = 0.9  # alpha from which a render shows the map
_FIRST_DECAY, _LAST_DECAY = 0.3, 0.03  # on the learning rate of the means: they are near their places
_OTHER_DECAY = 0.1  # on all other rates, at the end

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class RenderedKeyframe:
    """What a map shows from one of its keyframes.

    Attributes:
        camera: of the keyframe.
        camtoworld: [4, 4] in the map frame of the merged map.
        image: [H, W, 3] RGB 0..1.
        depth: [H, W] metres, 0 = none.
        mask: [H, W] bool, where the map is opaque.
    """

    camera: Camera
    camtoworld: np.ndarray
    image: torch.Tensor
    depth: torch.Tensor
    mask: torch.Tensor


def settle_map(
    merged: MergedMap,
    parts: Sequence[StoredMap],
    rasterizer: Rasterizer,
    steps: int,
    on_step: Callable[[], object] = bool,
) -> MergedMap:
    """The merged map after steps on the keyframes of its parts.

    Args:
        merged: of `merge_maps`.
        parts: the maps that were merged, in its map frame.
        rasterizer: renders, with gradients.
        steps: optimisation steps.
        on_step: called after each step.
    """
    config = restore_config(merged.snapshot.meta.get("config", {})).train
    views = [view for part in parts for view in render_keyframes(part, rasterizer)]
    if not views or not steps:
        return merged
    return replace(merged, params=settle(merged.params, views, config, rasterizer, steps, on_step))


def render_keyframes(
    stored: StoredMap, rasterizer: Rasterizer, limit: int = _MAX_VIEWS
) -> list[RenderedKeyframe]:
    """What a map shows from its keyframes, or from `limit` of them, evenly spread.

    Where the map holds their images, those take the place of the renders, in its mean exposure.
    """
    gaussians, snapshot, views = activate(stored.params), stored.snapshot, []
    poses = poses_to_map(snapshot.camtoworlds, snapshot.frame)
    for index in evenly_spaced_indices(len(poses), limit):
        view = render_view(gaussians, snapshot.cameras[index], poses[index], rasterizer)
        image, mask = view.rgb, view.alpha > _OPAQUE
        if snapshot.training is not None:
            image = _in_mean_exposure(snapshot.training, index)
            shown = snapshot.training.keyframes[index].mask
            mask = mask if shown is None else mask & shown
        if bool(mask.any()):
            views.append(
                RenderedKeyframe(snapshot.cameras[index], poses[index], image, view.depth * mask, mask)
            )
    return views


def _in_mean_exposure(training: TrainingState, index: int) -> torch.Tensor:
    """The image [H, W, 3] of a keyframe as the map shows it, see `mapping.exposure`."""
    log_gain, offset = training.exposures[index] - training.exposures.mean(0)
    return ((training.keyframes[index].rgb - offset) / log_gain.exp()).clamp(0, 1)


def settle(
    params: Tensors,
    views: list[RenderedKeyframe],
    config: TrainConfig,
    rasterizer: Rasterizer,
    steps: int,
    on_step: Callable[[], object],
) -> Tensors:
    """Parameters after optimisation steps on the views, each drawn equally often.

    Args:
        params: of the merged map.
        views: of both maps.
        config: learning rates and weights of the losses.
        rasterizer: renders, with gradients.
        steps: number of steps.
        on_step: called after each step.
    """
    degree = round((params["sh_rest"].shape[1] + 1) ** 0.5) - 1
    gaussians = Gaussians(config, degree, str(params["means"].device))
    gaussians.load_params(params)
    gaussians.extent = _extent(views)
    rng = np.random.default_rng(0)
    order = np.concatenate([rng.permutation(len(views)) for _ in range(steps // len(views) + 1)])[:steps]
    for step, index in enumerate(order):
        view, progress = views[index], step / max(1, steps - 1)
        out, alpha, meta = rasterize_rgbd(gaussians.activated(), view.camera, view.camtoworld, rasterizer)
        rgb = ignore_masked(out[..., :3], view.image, view.mask)
        loss = photometric(rgb, view.image, config.ssim_weight)
        loss = loss + config.depth_weight * depth_l1(out[..., 3], alpha, view.depth)
        loss.backward()
        decay = _FIRST_DECAY * (_LAST_DECAY / _FIRST_DECAY) ** progress
        gaussians.step((meta["radii"][0] > 0).all(-1), decay, _OTHER_DECAY**progress)
        on_step()
    return {name: gaussians.params[name].detach() for name in PARAMETERS}


def _extent(views: list[RenderedKeyframe]) -> float:
    """Camera spread plus typical depth in metres, as in `Mapper`."""
    centers = np.stack([view.camtoworld[:3, 3] for view in views])
    depths = [float(view.depth[view.mask].median()) for view in views]
    return float(np.linalg.norm(centers - np.median(centers, axis=0), axis=1).mean() + np.median(depths))
