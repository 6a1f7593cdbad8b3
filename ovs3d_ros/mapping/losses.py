"""Losses of the map: pure functions of tensors."""

from __future__ import annotations

import math

import torch

_LOG_2 = math.log(2.0)
_SSIM_C1, _SSIM_C2 = 0.01**2, 0.03**2  # Wang et al. 2004, for images in 0..1


def photometric(render: torch.Tensor, image: torch.Tensor, ssim_weight: float) -> torch.Tensor:
    """(1 - w) L1 + w (1 - SSIM) between RGB images [H, W, 3] in 0..1 (Kerbl et al. 2023, eq. 7)."""
    loss = (1 - ssim_weight) * (render - image).abs().mean()
    if ssim_weight > 0 and min(image.shape[:2]) >= 11:
        loss = loss + ssim_weight * (1 - box_ssim(render, image))
    return loss


def box_ssim(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Mean SSIM of images [H, W, 3] over 7 x 7 box windows at every third pixel.

    Many times cheaper on a CPU than the dense 11 x 11 Gaussian of Wang et al. (2004) that `evaluate.ssim` reports,
    and as good a training signal: every pixel still lies in several windows.
    """
    a, b = a.permute(2, 0, 1).contiguous(), b.permute(2, 0, 1).contiguous()
    mean_a, mean_b, aa, bb, ab = (_box_means(t) for t in (a, b, a * a, b * b, a * b))
    var_a, var_b, covariance = aa - mean_a**2, bb - mean_b**2, ab - mean_a * mean_b
    score = ((2 * mean_a * mean_b + _SSIM_C1) * (2 * covariance + _SSIM_C2)
             / ((mean_a**2 + mean_b**2 + _SSIM_C1) * (var_a + var_b + _SSIM_C2)))
    return score.mean()


def _box_means(planes: torch.Tensor) -> torch.Tensor:
    """Means over 7 x 7 windows at every third pixel of [C, H, W]; transposed, as no caller minds.

    Sums of shifted slices: on a CPU three times as fast as `avg_pool2d`, forward and backward.
    """
    for _ in range(2):
        count = (planes.shape[1] - 7) // 3 + 1
        planes = sum(planes[:, i:i + 3 * count - 2:3] for i in range(7)).transpose(1, 2)
    return planes / 49


def depth_l1(depth: torch.Tensor, alpha: torch.Tensor, measured: torch.Tensor) -> torch.Tensor:
    """Mean relative error |sum w z - A z*| / z* over pixels with a measurement.

    Args:
        depth: [H, W] blended depth sum_i w_i z_i in metres, not divided by alpha.
        alpha: [H, W] accumulated alpha A.
        measured: [H, W] metres, 0 = none.
    """
    valid = measured > 0
    error = (depth - alpha * measured).abs() / measured.clamp_min(1e-3)
    return (error * valid).sum() / valid.sum().clamp_min(1)


def rda(log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    """Relevancy-Distribution Alignment: mean Jensen-Shannon divergence (3D-OVS §3.3, eq. 6).

    Args:
        log_p: [M, C] log-probabilities of the classes at M pixels, of the field.
        log_q: [M, C] those of the multi-scale relevancy maps.

    Returns:
        Scalar in 0..ln 2.
    """
    log_m = torch.logaddexp(log_p, log_q) - _LOG_2
    return 0.5 * ((log_p.exp() * (log_p - log_m)).sum(-1) + (log_q.exp() * (log_q - log_m)).sum(-1)).mean()


def pairwise_kl(log_p: torch.Tensor) -> torch.Tensor:
    """KL(P_i || P_j) of all pairs, [..., M, M], unbounded, by one matrix product; log_p: [..., M, C]."""
    p = log_p.exp()
    return (p * log_p).sum(-1)[..., :, None] - p @ log_p.transpose(-1, -2)


def pairwise_js(log_p: torch.Tensor) -> torch.Tensor:
    """Jensen-Shannon divergence of all pairs, [..., M, M] in 0..ln 2; log_p: [..., M, C] log-probabilities."""
    p = log_p.exp()
    negative_entropy = (p * log_p).sum(-1)
    m = 0.5 * (p[..., :, None, :] + p[..., None, :, :])  # [..., M, M, C]
    mixed = (m * m.clamp_min(1e-30).log()).sum(-1)  # clamped: the gradient of 0 log 0 must not be NaN
    return 0.5 * (negative_entropy[..., :, None] + negative_entropy[..., None, :]) - mixed


def fda(divergence: torch.Tensor, correlation: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Feature-Distribution Alignment, re-balanced (3D-OVS §3.3, eq. 8-9).

    Patches that look like one object are drawn to one distribution, others apart.

    Args:
        divergence: [..., M, M] of the class distributions of two patches.
        correlation: [..., M, M] cosine of their DINO features less the value that tells same from different.

    Returns:
        The attracting term (its gradient lowers the divergence of similar patches) and the repelling one, each the sum
        over its pairs by their number; 0 without such pairs.
    """
    attract, repel = correlation.clamp_min(0), correlation.clamp_max(0)
    return tuple((part * divergence).sum() / (part != 0).sum().clamp_min(1) for part in (attract, repel))
