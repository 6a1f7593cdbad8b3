"""Renders colour, depth and alpha of a map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ovs3d_ros.rasterize import Rasterizer, Splats, Views
from ovs3d_ros.types import Camera


@dataclass(frozen=True, slots=True)
class RenderedView:
    """A rendered view.

    Attributes:
        rgb: [H, W, 3] 0..1.
        depth: [H, W] metres, blended and divided by alpha; 0 where the map is empty.
        alpha: [H, W] 0..1.
    """

    rgb: torch.Tensor
    depth: torch.Tensor
    alpha: torch.Tensor


def render_view(
    gaussians: dict[str, torch.Tensor], camera: Camera, camtoworld: np.ndarray, rasterizer: Rasterizer
) -> RenderedView:
    """Renders activated Gaussians (see `Gaussians.activated`) from a camera, without gradients."""
    with torch.no_grad():
        channels, alpha, _ = rasterize_rgbd(gaussians, camera, camtoworld, rasterizer)
    depth = torch.where(alpha > 1e-3, channels[..., 3] / alpha.clamp_min(1e-3), torch.zeros_like(alpha))
    return RenderedView(rgb=channels[..., :3].clamp(0, 1), depth=depth, alpha=alpha)


def rasterize_rgbd(
    gaussians: dict[str, torch.Tensor], camera: Camera, camtoworld: np.ndarray, rasterizer: Rasterizer
) -> tuple[torch.Tensor, torch.Tensor, dict]:
    """Rasterizes activated Gaussians, with gradients.

    Returns:
        RGB and blended depth in metres (not divided by alpha) as four channels [H, W, 4], alpha [H, W], and
        the rasterizer's meta.
    """
    splats = Splats.from_dict(gaussians)
    views = Views.from_camera(camera, camtoworld, gaussians["means"].device)
    z = splats.means @ views.viewmats[0, 2, :3] + views.viewmats[0, 2, 3]
    out, alphas, meta = rasterizer(splats, z[:, None], views, sh=gaussians["sh"])
    return out[0], alphas[0, ..., 0], meta
