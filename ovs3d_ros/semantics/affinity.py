"""Which Gaussians belong together, by geometry and colour, and class distributions that follow it.

Feature-Distribution Alignment in 3D: 3D-OVS draws pixels together that look alike to DINO; here neighbours on one
smooth surface of one colour are. With squared differences for both alignments the objective

    sum_i m_i |p_i - q_i|^2  +  strength * sum_ij w_ij |p_i - p_j|^2

of lifted class distributions q (RDA) and affinities w (FDA) has one minimum, a sparse linear system away: no steps, no
learning rate. It is the random walker of Grady (2006) with soft seeds.
"""

from __future__ import annotations

import warnings

import cv2
import numpy as np
import torch

from ovs3d_ros.config import RefineConfig
from ovs3d_ros.semantics.neighbours import nearest_neighbours

_MAX_MASS = 20.0  # pixels of evidence from which a Gaussian counts in full
_MIN_MASS = 1e-3  # of the usual mass: what was never seen follows its neighbours
_REACH = 0.7  # of the distance to the last neighbour, at which one's say in a normal has fallen to 1/e
_TOLERANCE, _MAX_ITERATIONS = 1e-3, 300


def compute_affinities(means: torch.Tensor, colors: torch.Tensor, config: RefineConfig) -> torch.Tensor:
    """Symmetric affinities of neighbouring Gaussians: exp(-(1 - |n_i n_j|) / s_n^2 - |c_i - c_j|^2 / s_c^2).

    The normal n is the direction in which a Gaussian's neighbours spread least. What stands on a table meets it at an
    angle, and so do a wall and a floor: normals tell things from what they touch better than colour does.

    Args:
        means: [N, 3] metres.
        colors: [N, 3] RGB 0..1.
        config: number of neighbours and the scales s_n and s_c.

    Returns:
        [N, N] sparse, zero diagonal.
    """
    # On the CPU, where the neighbours are found: a GPU's eigenvectors take kilobytes per Gaussian (cupy#7261).
    device, means = means.device, means.cpu()
    count, k = len(means), config.neighbours
    index = torch.from_numpy(nearest_neighbours(means.numpy(), k))  # [N, k]
    known = index >= 0
    index = torch.where(known, index, torch.arange(count)[:, None])
    normals = _normals(means, index)
    lab = cv2.cvtColor(colors.clamp(0, 1).cpu().numpy().astype(np.float32)[None], cv2.COLOR_RGB2LAB)[0]
    lab = torch.from_numpy(lab)
    bend = 1 - (normals[:, None] * normals[index]).sum(-1).abs()  # [N, k]
    contrast = (lab[:, None] - lab[index]).square().sum(-1)
    weight = 0.5 * torch.exp(-bend / config.normal_scale**2 - contrast / config.color_scale**2)
    rows = torch.arange(count)[:, None].expand(-1, k)[known]
    columns, values = index[known], weight[known]
    pairs = torch.stack([torch.cat([rows, columns]), torch.cat([columns, rows])])
    return (
        torch.sparse_coo_tensor(pairs, torch.cat([values, values]), (count, count), check_invariants=False)
        .coalesce()
        .to(device)
    )


def _normals(means: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Unit normals [N, 3] of either sign, from the neighbours `index` [N, k], nearest first.

    Near ones have more say: many neighbours alike smooth the normals of noisy surfaces, but reach round corners.
    """
    around = torch.cat([means[:, None], means[index]], dim=1)
    squared = (around - means[:, None]).square().sum(-1, keepdim=True)  # [N, 1 + k, 1]
    weight = torch.exp(-squared / (_REACH**2 * squared.amax(1, keepdim=True)).clamp_min(1e-12))
    around = around - (weight * around).sum(1, keepdim=True) / weight.sum(1, keepdim=True)
    return torch.linalg.eigh((weight * around).transpose(1, 2) @ around)[1][..., 0]


def align_distributions(
    prior: torch.Tensor, mass: torch.Tensor, affinity: torch.Tensor, strength: float
) -> torch.Tensor:
    """The minimum of the objective above, by conjugate gradients.

    Args:
        prior: [N, V] lifted class distributions q.
        mass: [N] pixels of evidence behind each; more than a few count no more.
        affinity: [N, N] symmetric, see `affinities`.
        strength: of the alignment of neighbours against that with the evidence; 0 returns the prior.

    Returns:
        [N, V] class distributions.
    """
    m = mass.clamp_max(_MAX_MASS)
    m = (m / m[m > 0].median().clamp_min(1e-6) if bool((m > 0).any()) else m).clamp_min(_MIN_MASS)[:, None]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR")  # in beta, and several times as fast as COO
        matrix = affinity.to_sparse_csr()
    degree = strength * torch.sparse.sum(affinity, dim=1).to_dense()[:, None]

    def apply(x: torch.Tensor) -> torch.Tensor:
        return (m + degree) * x - strength * (matrix @ x)

    x = prior.clone()
    residual = m * prior - apply(x)
    scaled = residual / (m + degree)
    direction, product = scaled, (residual * scaled).sum(0)  # one search per class, all at once
    limit = _TOLERANCE**2 * product.clamp_min(1e-12)
    for _ in range(_MAX_ITERATIONS):
        if bool((product <= limit).all()):
            break
        step = apply(direction)
        length = product / (direction * step).sum(0).clamp_min(1e-20)
        x, residual = x + length * direction, residual - length * step
        scaled = residual / (m + degree)
        product, before = (residual * scaled).sum(0), product
        direction = scaled + (product / before.clamp_min(1e-20)) * direction
    x = x.clamp_min(0)
    return x / x.sum(-1, keepdim=True).clamp_min(1e-12)
