"""The quality of a rendered view against its photograph, over the pixels that show the scene."""

from __future__ import annotations

import numpy as np

from ovs3d_ros.evaluation.metrics import SSIM_WINDOW, psnr, psnr_aligned, ssim

MEASURES = ("psnr", "psnr_aligned", "ssim")


def image_quality(rgb: np.ndarray, image: np.ndarray, mask: np.ndarray | None) -> dict[str, float]:
    """Measures by name, see `metrics`; SSIM is NaN for images smaller than its window.

    Args:
        rgb: [H, W, 3] render, 0..1.
        image: [H, W, 3] uint8 photograph.
        mask: [H, W] bool, the pixels that count, at least one; None: all. Masked pixels take the photograph's
            values for SSIM, whose windows also cover some beside them, and do not count in its mean.
    """
    target = image.astype(np.float32) / 255
    pair = (rgb, target) if mask is None else (rgb[mask][None], target[mask][None])
    similarity = float("nan")
    if min(image.shape[:2]) >= SSIM_WINDOW:
        shown = rgb if mask is None else np.where(mask[..., None], rgb, target)
        similarity = 1 - (1 - ssim(shown, target)) / (1.0 if mask is None else float(mask.mean()))
    return dict(psnr=psnr(*pair), psnr_aligned=psnr_aligned(*pair), ssim=similarity)
