"""Checks of the arguments of every rasterizer; the kernels check nothing.

Values are checked on the CPU only. Reading one from a GPU would make the host wait for all pending GPU work.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ovs3d_ros.types import UserError

from .spherical_harmonics import COEFFICIENTS
from .values import Splats, Views


def check_splats(splats: Splats) -> None:
    """Raises UserError unless the four tensors are finite float32 of [N, 3], [N, 4], [N, 3], [N]."""
    count = len(splats) if splats.means.dim() else 0
    _check("means", splats.means, (count, 3))
    _check("quats", splats.quats, (count, 4))
    _check("scales", splats.scales, (count, 3))
    _check("opacities", splats.opacities, (count,))


def check_colors(colors: Tensor, sh: Tensor | None, count: int) -> None:
    """Raises UserError unless colors is finite float32 [count, D] and sh is None or [count, K, 3].

    K is 1, 4, 9 or 16. D is at least 1 without sh.
    """
    least = 1 if sh is None else 0
    _check("colors", colors, (count, max(least, colors.shape[-1]) if colors.dim() == 2 else 1))
    if sh is not None:
        known = sh.dim() == 3 and sh.shape[1] in COEFFICIENTS
        _check("sh", sh, (count, sh.shape[1] if known else COEFFICIENTS[0], 3))


def check_targets(targets: Tensor, pixel_weights: Tensor | None, views: Views) -> None:
    """Raises UserError unless targets is [C, H, W, D] and pixel_weights [C, H, W], finite float32."""
    size = (len(views), views.height, views.width)
    _check("targets", targets, (*size, max(1, targets.shape[-1]) if targets.dim() == 4 else 1))
    if pixel_weights is not None:
        _check("pixel_weights", pixel_weights, size)


def check_labels(labels: Tensor, scores: Tensor, count: int) -> None:
    """Raises UserError unless labels [count] are whole numbers from 0 on, scores [count] finite float32."""
    if labels.shape != (count,) or labels.is_floating_point() or labels.is_complex():
        raise UserError(f"labels are {labels.dtype} {list(labels.shape)}, expected whole numbers [{count}]")
    if count and labels.is_cpu and labels.min() < 0:
        raise UserError("labels has a negative number: 0 is no label")
    _check("scores", scores, (count,))


def check_views(views: Views) -> None:
    """Raises UserError unless viewmats [C, 4, 4] and Ks [C, 3, 3] are finite, for at least one camera.

    Ks must not require a gradient.
    """
    viewmats, Ks, width, height = views.viewmats, views.Ks, views.width, views.height
    count = max(1, viewmats.shape[0]) if viewmats.dim() else 1
    _check("viewmats", viewmats, (count, 4, 4), dtype=None)
    _check("Ks", Ks, (count, 3, 3), dtype=None)
    if Ks.requires_grad:
        raise UserError("Ks gets no gradient here: pass it detached")
    if width < 1 or height < 1:
        raise UserError(f"image size {width}x{height} is empty: both sides must be at least 1 pixel")
    if Ks.is_cpu and any(K[0][0] <= 0 or K[1][1] <= 0 for K in Ks.tolist()):
        raise UserError("Ks has a focal length that is not positive: check the calibration")


def _check(
    name: str, tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype | None = torch.float32
) -> None:
    if tensor.shape != shape:
        raise UserError(f"{name} has shape {list(tensor.shape)}, expected {list(shape)}")
    if dtype is not None and tensor.dtype != dtype:
        raise UserError(f"{name} is {tensor.dtype}, expected {dtype}: convert it with .to({dtype})")
    # One sum is far cheaper than a mask. The mask is needed only if the sum is not finite.
    if tensor.is_cpu and not math.isfinite(tensor.detach().sum().item()):
        bad = int((~torch.isfinite(tensor.detach())).sum())
        if bad:
            raise UserError(
                f"{name} has {bad} values that are not finite (NaN or infinite): remove them first"
            )
