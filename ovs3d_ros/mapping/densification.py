"""Where the map gains and loses Gaussians while it is optimised (docs/method.md, "Online mapping")."""

from __future__ import annotations

import torch

from ovs3d_ros.config import TrainConfig
from ovs3d_ros.mapping.gaussians import Gaussians

_SPLIT_SCALE = 0.01  # scene extents: larger Gaussians are split, smaller ones cloned


def record_gradients(gaussians: Gaussians, absgrad: torch.Tensor, visible: torch.Tensor, side: int) -> None:
    """Adds the screen-space gradients of one view to the running sums that `densify_and_prune` reads.

    Args:
        gaussians: the map.
        absgrad: [N, 2] absolute gradients of the projected means, loss per pixel (AbsGS, Ye et al. 2024);
            zero for Gaussians outside the view.
        visible: [N] bool, Gaussians in the view.
        side: longer image side in pixels; sums are in loss per half image side.
    """
    stats = gaussians.stats
    if "gradient" not in stats:
        for name in ("gradient", "gradient_count"):
            stats[name] = torch.zeros(len(gaussians), device=gaussians.device)
    stats["gradient"] += torch.hypot(*absgrad.unbind(-1)) * (side / 2)
    stats["gradient_count"] += visible


@torch.no_grad()
def densify(gaussians: Gaussians, config: TrainConfig, max_gaussians: int) -> None:
    """Clones or splits Gaussians whose mean screen-space gradient is large, up to `max_gaussians` in all."""
    mean_gradient = gaussians.stats["gradient"] / gaussians.stats["gradient_count"].clamp_min(1)
    chosen = mean_gradient > config.densify_gradient
    room = max_gaussians - len(gaussians)
    if int(chosen.sum()) > room:
        threshold = mean_gradient.sort(descending=True).values[max(room, 0)]
        chosen = mean_gradient > threshold
    gaussians.densify(chosen, split_above=_SPLIT_SCALE * gaussians.extent)


@torch.no_grad()
def prune(gaussians: Gaussians, min_opacity: float, max_scale: float) -> None:
    """Removes transparent Gaussians and those above `max_scale` metres (fog); resets gradient sums."""
    gaussians.stats["gradient"].zero_()
    gaussians.stats["gradient_count"].zero_()
    opacity = torch.sigmoid(gaussians.params["opacity_logits"])
    fog = gaussians.params["log_scales"].amax(-1).exp() > max_scale
    gaussians.keep((opacity > min_opacity) & ~fog)


def remove_least_contributing(gaussians: Gaussians, count: int) -> None:
    """Removes the `count` Gaussians with the smallest opacity times area."""
    p = gaussians.params
    contribution = torch.sigmoid(p["opacity_logits"]) * p["log_scales"].sum(-1).mul(2 / 3).exp()
    mask = torch.ones(len(gaussians), dtype=torch.bool, device=gaussians.device)
    mask[contribution.detach().argsort()[:count]] = False
    gaussians.keep(mask)
