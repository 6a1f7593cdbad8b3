"""View-dependent colours: real spherical harmonics in torch, for any float type and device.

Order and signs are those of 3DGS (Kerbl et al. 2023) and gsplat, degrees 0 to 3. Numba: `kernels_shade`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ovs3d_ros.geometry import SH_C0

COEFFICIENTS = (1, 4, 9, 16)  # of degrees 0 to 3


def base_colors(sh: Tensor) -> Tensor:
    """Mean RGB [N, 3] of harmonics [N, K, 3] over all directions, not clipped."""
    return 0.5 + SH_C0 * sh[:, 0]


def camera_centers(viewmats: Tensor) -> Tensor:
    """Camera positions -R^T t [C, 3] of rigid view matrices [C, 4, 4], world to camera."""
    return -(viewmats[:, :3, :3].transpose(1, 2) @ viewmats[:, :3, 3:])[..., 0]


def sh_to_colors(sh: Tensor, means: Tensor, center: Tensor) -> Tensor:
    """RGB [N, 3] >= 0 of harmonics [N, K, 3], K = 1, 4, 9 or 16, seen from a camera centre [3].

    Gradients reach all three arguments.
    """
    colors = base_colors(sh)
    if sh.shape[1] > 1:
        basis = sh_basis(F.normalize(means - center, dim=-1), sh.shape[1] - 1)
        colors = colors + torch.einsum("nk,nkc->nc", basis, sh[:, 1:])
    return colors.clamp_min(0.0)


def sh_basis(directions: Tensor, count: int) -> Tensor:
    """The first `count` (3, 8 or 15) harmonics above degree 0 for unit directions [N, 3]: [N, count]."""
    x, y, z = directions.unbind(-1)
    basis = [-0.4886025119029199 * y, 0.4886025119029199 * z, -0.4886025119029199 * x]
    if count > 3:
        basis += [
            1.0925484305920792 * x * y,
            -1.0925484305920792 * y * z,
            0.31539156525252005 * (2 * z * z - x * x - y * y),
            -1.0925484305920792 * x * z,
            0.5462742152960396 * (x * x - y * y),
        ]
    if count > 8:
        basis += [
            -0.5900435899266435 * y * (3 * x * x - y * y),
            2.890611442640554 * x * y * z,
            -0.4570457994644658 * y * (4 * z * z - x * x - y * y),
            0.3731763325901154 * z * (2 * z * z - 3 * x * x - 3 * y * y),
            -0.4570457994644658 * x * (4 * z * z - x * x - y * y),
            1.445305721320277 * z * (x * x - y * y),
            -0.5900435899266435 * x * (x * x - 3 * y * y),
        ]
    return torch.stack(basis, dim=-1)
