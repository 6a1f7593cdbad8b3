"""Masked pixels do not count in the quality of a view."""

from __future__ import annotations

import numpy as np
import pytest

from ovs3d_ros.evaluation.image_quality import image_quality
from ovs3d_ros.evaluation.metrics import psnr, psnr_aligned, ssim


def test_masked_pixels_do_not_count():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)
    rgb = np.clip(image / 255 + rng.normal(0, 0.05, image.shape), 0, 1)
    whole = image_quality(rgb, image, None)
    assert whole == pytest.approx(
        dict(psnr=psnr(rgb, image), psnr_aligned=psnr_aligned(rgb, image), ssim=ssim(rgb, image)), rel=1e-6
    )
    mask = np.ones((60, 80), bool)
    mask[:, 50:] = False
    spoiled = rgb.copy()
    spoiled[:, 50:] = 0
    masked = image_quality(spoiled, image, mask)
    assert masked["psnr"] == pytest.approx(psnr(rgb[:, :50], image[:, :50]), abs=1e-6)
    assert masked["psnr_aligned"] == pytest.approx(psnr_aligned(rgb[:, :50], image[:, :50]), abs=1e-6)
    assert masked["ssim"] == pytest.approx(ssim(rgb[:, :50], image[:, :50]), abs=0.03)
    assert image_quality(spoiled, image, None)["psnr"] < whole["psnr"] - 10


def test_small_image_has_no_ssim():
    image = np.zeros((8, 20, 3), np.uint8)
    assert np.isnan(image_quality(image / 255, image, None)["ssim"])
