"""A slow rasterizer in plain torch: every pixel against every Gaussian, gradients by autograd.

It defines the semantics (gsplat 1.5.3) that the fast rasterizers are tested against, in any float type and on
any device. Memory grows as pixels times Gaussians, so it suits small scenes only.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .spherical_harmonics import camera_centers, sh_to_colors
from .values import Splats, Views

EPS2D = 0.3
NEAR_PLANE, FAR_PLANE = 0.01, 1e10
MIN_ALPHA, MAX_ALPHA = 1.0 / 255.0, 0.999
STOP_TRANSMITTANCE = 1e-4
MAX_EXTENT = 3.33


class Projection(NamedTuple):
    """Gaussians as one camera sees them."""

    means2d: Tensor  # [N, 2] pixels
    conics: Tensor  # [N, 3] inverse covariance: xx, xy, yy
    depths: Tensor  # [N] metres
    radii: Tensor  # [N, 2] int32 pixels, 0 where culled


def rotation_matrices(quats: Tensor) -> Tensor:
    """[N, 4] wxyz of any norm to [N, 3, 3]."""
    w, x, y, z = torch.nn.functional.normalize(quats, dim=-1).unbind(-1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def project(splats: Splats, view: Views) -> Projection:
    """EWA projection of Gaussians by one camera."""
    means, opacities = splats.means, splats.opacities
    viewmat, K, width, height = view.viewmats[0].to(means), view.Ks[0].to(means), view.width, view.height
    rotation, translation = viewmat[:3, :3], viewmat[:3, 3]
    factors = rotation @ rotation_matrices(splats.quats) * splats.scales[:, None, :]  # [N, 3, 3]
    points = means @ rotation.T + translation  # [N, 3]
    depths = points[:, 2]
    # Culled Gaussians must not yield NaN.
    z = torch.where(depths > NEAR_PLANE, depths, torch.ones_like(depths))
    focal, centre, size = K.diagonal()[:2], K[:2, 2], torch.tensor([width, height]).to(K)
    slopes = points[:, :2] / z[:, None]  # [N, 2]
    margin = 0.3 * 0.5 * size / focal
    clamped = slopes.clamp(min=-(centre / focal + margin), max=(size - centre) / focal + margin)
    jacobian = torch.zeros(len(means), 2, 3).to(means)
    jacobian[:, 0, 0], jacobian[:, 1, 1] = focal[0] / z, focal[1] / z
    jacobian[:, :, 2] = -focal * clamped / z[:, None]
    screen = jacobian @ factors
    covariance = screen @ screen.transpose(1, 2) + EPS2D * torch.eye(2).to(means)
    xx, xy, yy = covariance[:, 0, 0], covariance[:, 0, 1], covariance[:, 1, 1]
    determinant = xx * yy - xy * xy
    conics = torch.stack([yy, -xy, xx], dim=-1) / determinant[:, None]
    means2d = focal * slopes + centre
    with torch.no_grad():
        extent = torch.sqrt(2 * torch.log((opacities / MIN_ALPHA).clamp_min(1))).clamp_max(MAX_EXTENT)
        radii = torch.ceil(extent[:, None] * torch.stack([xx, yy], dim=-1).sqrt())
        seen = (depths >= NEAR_PLANE) & (depths <= FAR_PLANE) & (opacities >= MIN_ALPHA) & (determinant > 0)
        seen &= ((means2d + radii > 0) & (means2d - radii < size)).all(-1)
    return Projection(means2d, conics, depths, (radii * seen[:, None]).int())


def splat_alphas(projection: Projection, opacities: Tensor, width: int, height: int) -> Tensor:
    """Uncapped alpha of every Gaussian at every pixel centre, row-major: [H * W, N]."""
    ys, xs = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    centres = torch.stack([xs, ys], dim=-1).reshape(-1, 1, 2).to(opacities) + 0.5
    dx, dy = (projection.means2d - centres).unbind(-1)
    xx, xy, yy = projection.conics.unbind(-1)
    sigma = 0.5 * (xx * dx * dx + yy * dy * dy) + xy * dx * dy
    return opacities * torch.exp(-sigma) * (sigma >= 0)


def compositing_weights(
    projection: Projection, opacities: Tensor, width: int, height: int
) -> tuple[Tensor, Tensor]:
    """Weights alpha_i T_i of all Gaussians at all pixels [H * W, N], and the final transmittance [H * W]."""
    visible = (projection.radii > 0).all(-1)
    alphas = splat_alphas(projection, opacities, width, height).clamp_max(MAX_ALPHA)
    alphas = torch.where(visible & (alphas >= MIN_ALPHA), alphas, torch.zeros_like(alphas))
    order = torch.argsort(projection.depths, stable=True)
    after = torch.cumprod(1 - alphas[:, order], dim=1)
    before = torch.cat([torch.ones_like(after[:, :1]), after[:, :-1]], dim=1)
    # The first Gaussian that would bring T to 1e-4 or below is dropped together with all behind it.
    kept = after > STOP_TRANSMITTANCE
    ordered = alphas[:, order] * before * kept
    weights = torch.zeros_like(alphas).index_copy(1, order, ordered)
    return weights, torch.where(kept, 1 - alphas[:, order], torch.ones_like(after)).prod(dim=1)


def rasterize(
    splats: Splats, colors: Tensor, views: Views, sh: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """colors [C, H, W, D] and alphas [C, H, W, 1]; arguments as in `Rasterizer.__call__`."""
    images, alphas = [], []
    width, height = views.width, views.height
    for view in views:
        (center,) = camera_centers(view.viewmats.to(splats.means))
        rgb = [] if sh is None else [sh_to_colors(sh, splats.means, center)]
        weights, transmittance = compositing_weights(project(splats, view), splats.opacities, width, height)
        images.append((weights @ torch.cat([*rgb, colors], dim=-1)).view(height, width, -1))
        alphas.append(1 - transmittance.view(height, width, 1))
    return torch.stack(images), torch.stack(alphas)


def lift(
    splats: Splats, targets: Tensor, views: Views, pixel_weights: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Numerator [N, D], weight [N] and max_weight [N]; arguments as in `Rasterizer.lift`."""
    factors = torch.ones_like(targets[..., 0]) if pixel_weights is None else pixel_weights
    numerator, weight = targets.new_zeros(len(splats), targets.shape[-1]), targets.new_zeros(len(splats))
    max_weight = torch.zeros_like(weight)
    for c, view in enumerate(views):
        weights, _ = compositing_weights(project(splats, view), splats.opacities, view.width, view.height)
        weights = weights * factors[c].reshape(-1, 1)
        numerator += weights.T @ targets[c].reshape(view.height * view.width, -1)
        weight += weights.sum(0)
        max_weight = torch.maximum(max_weight, weights.amax(0))
    return numerator, weight, max_weight
