"""Losses of the RGB map (docs/method.md, "Online mapping"): pure functions of tensors."""

from __future__ import annotations

import torch

_SSIM_C1, _SSIM_C2 = 0.01**2, 0.03**2  # Wang et al. 2004, for images in 0..1


def photometric(render: torch.Tensor, image: torch.Tensor, ssim_weight: float) -> torch.Tensor:
    """(1 - w) L1 + w (1 - SSIM) between RGB images [H, W, 3] in 0..1 (Kerbl et al. 2023, eq. 7)."""
    loss = (1 - ssim_weight) * (render - image).abs().mean()
    if ssim_weight > 0 and min(image.shape[:2]) >= 11:
        loss = loss + ssim_weight * (1 - box_ssim(render, image))
    return loss


def ignore_masked(render: torch.Tensor, image: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """The render [H, W, 3] with the image's pixels where the mask [H, W] is false: no loss, no gradient."""
    return render if mask is None else torch.where(mask[..., None], render, image)


def masked_psnr(render: torch.Tensor, image: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """PSNR in dB of a render after `ignore_masked`, over the pixels where the mask is true."""
    error = (render - image).square()
    mean = error.mean() if mask is None else error.sum() / (3 * mask.sum()).clamp_min(1)
    return -10 * mean.clamp_min(1e-10).log10()


def box_ssim(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Mean SSIM of images [H, W, 3] over 7 x 7 box windows at every third pixel.

    On a CPU this is many times cheaper than the dense 11 x 11 Gaussian window of Wang et al. (2004), which
    `evaluation.metrics.ssim` reports. It trains as well, because every pixel still lies in several windows.
    """
    a, b = a.permute(2, 0, 1).contiguous(), b.permute(2, 0, 1).contiguous()
    mean_a, mean_b, aa, bb, ab = (_box_means(t) for t in (a, b, a * a, b * b, a * b))
    var_a, var_b, covariance = aa - mean_a**2, bb - mean_b**2, ab - mean_a * mean_b
    score = (
        (2 * mean_a * mean_b + _SSIM_C1)
        * (2 * covariance + _SSIM_C2)
        / ((mean_a**2 + mean_b**2 + _SSIM_C1) * (var_a + var_b + _SSIM_C2))
    )
    return score.mean()


def _box_means(planes: torch.Tensor) -> torch.Tensor:
    """Means over 7 x 7 windows at every third pixel of planes [C, H, W].

    Sums of shifted slices take a third of the time of `avg_pool2d` on a CPU, forward and backward.
    """
    for _ in range(2):
        count = (planes.shape[1] - 7) // 3 + 1
        planes = sum(planes[:, i : i + 3 * count - 2 : 3] for i in range(7)).transpose(1, 2)
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
