"""Image preparation for both encoders."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from ovs3d_ros.types import UserError


def image_to_tensor(
    image: np.ndarray, device: str, mean: Sequence[float], std: Sequence[float]
) -> torch.Tensor:
    """[1, 3, H, W] float32, normalised per channel.

    Raises:
        UserError: not an [H, W, 3] uint8 image.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or min(image.shape[:2]) < 2:
        raise UserError(
            f"encode_image: expected an RGB image [H, W, 3] uint8, got {image.dtype} {image.shape}"
        )
    pixels = torch.from_numpy(np.ascontiguousarray(image)).to(device)
    pixels = pixels.permute(2, 0, 1)[None].float().div_(255.0)
    shape = (1, 3, 1, 1)
    return (pixels - pixels.new_tensor(mean).view(shape)) / pixels.new_tensor(std).view(shape)


def fitted_size(height: int, width: int, longer_side: int, enlarge: bool = False) -> tuple[int, int]:
    """Height and width of an image scaled so that its longer side has `longer_side` px.

    0 leaves the size unchanged. Images with a shorter longer side grow only with `enlarge`.
    """
    factor = longer_side / max(height, width) if longer_side else 1.0
    if not enlarge:
        factor = min(1.0, factor)
    return max(1, round(height * factor)), max(1, round(width * factor))


def resize(pixels: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Bicubic antialiased resize of [B, C, H, W]."""
    if tuple(pixels.shape[-2:]) == (height, width):
        return pixels
    return F.interpolate(pixels, size=(height, width), mode="bicubic", antialias=True, align_corners=False)
