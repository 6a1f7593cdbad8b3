"""Writes .splat files: 32 bytes per Gaussian, in the layout of antimatter15/splat, which web viewers read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from ovs3d_ros.geometry import SH_C0
from ovs3d_ros.io.atomic import atomic_write
from ovs3d_ros.io.ply import drop_not_finite
from ovs3d_ros.types import UserError

_ROW = np.dtype([("means", "<f4", 3), ("scales", "<f4", 3), ("rgba", "u1", 4), ("quats", "u1", 4)])


def check_single_precision(path: str | Path, params: dict[str, torch.Tensor]) -> None:
    """Raises UserError if the means are float64: they lie too far from the origin for the file's format."""
    if params["means"].dtype == torch.float64:
        raise UserError(
            f"{path}: the map lies too far from the origin for the coarse positions of this format; add "
            "--local, which gives positions from the map's own origin, or write a .ply"
        )


def write_splat(path: str | Path, params: dict[str, torch.Tensor]) -> None:
    """Writes means, scales in metres, colours with opacities, and quaternions wxyz as (q + 1) * 128.

    The format has no view-dependent colour, so spherical harmonics above degree 0 are left out. Large opaque
    Gaussians come first, so that viewers show the whole scene while they load.

    Args:
        path: file to write.
        params: parameters in the stored form, see `mapping.gaussians.PARAMETERS`.

    Raises:
        UserError: the file cannot be written (the earlier file stays), or the means are float64, which the
            format cannot hold.
    """
    check_single_precision(path, params)
    params = drop_not_finite(params)
    stored = {name: params[name].detach().cpu().float() for name in ("means", "log_scales", "sh_dc", "quats")}
    opacities = torch.sigmoid(params["opacity_logits"].detach().cpu().float())
    rows = np.zeros(len(opacities), _ROW)
    rows["means"] = stored["means"].numpy()
    rows["scales"] = stored["log_scales"].exp().numpy()
    rgba = torch.cat([0.5 + SH_C0 * stored["sh_dc"], opacities[:, None]], dim=1)
    rows["rgba"] = (rgba * 255).round().clamp(0, 255).to(torch.uint8).numpy()
    rows["quats"] = (
        (F.normalize(stored["quats"], dim=-1) * 128 + 128).round().clamp(0, 255).to(torch.uint8).numpy()
    )
    order = torch.argsort(stored["log_scales"].sum(dim=1).exp() * opacities, descending=True, stable=True)
    try:
        with atomic_write(path) as file:
            file.write(rows[order.numpy()].tobytes())
    except OSError as error:
        raise UserError(f"{path}: cannot write the splats ({error.strerror})") from None
