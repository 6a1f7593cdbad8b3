"""Affinities between neighbouring Gaussians and aligned class distributions.

See docs/method.md, "Refinement".

The FDA loss of 3D-OVS pulls pixels together that look alike to DINO. Here neighbouring Gaussians on one
smooth surface of one colour are pulled together. With squared differences, the objective

    sum_i m_i |p_i - q_i|^2  +  strength * sum_{i<j} w_ij |p_i - p_j|^2

of lifted class distributions q, evidence m and affinities w has one minimum, the solution of a sparse linear
system. It is the random walker of Grady (2006) with soft seeds.
"""

from __future__ import annotations

import warnings

import torch

from ovs3d_ros.config import RefineConfig
from ovs3d_ros.semantics.surface_graph import SurfaceGraph

_MAX_MASS = 20.0  # pixels of evidence; more does not weigh more
_MIN_MASS = 1e-3  # medians; Gaussians that were never seen follow their neighbours
_TOLERANCE, _MAX_ITERATIONS = 1e-3, 300


def compute_affinities(graph: SurfaceGraph, config: RefineConfig) -> torch.Tensor:
    """Symmetric affinities of neighbouring Gaussians: exp(-(1 - |n_i n_j|) / s_n^2 - |c_i - c_j|^2 / s_c^2).

    An object meets the table it stands on at an angle, so normals n separate touching objects better than
    colours c do. A pair of which only one Gaussian lists the other as a neighbour has half the affinity.

    Args:
        graph: the N Gaussians.
        config: the scales s_n and s_c.

    Returns:
        [N, N] sparse COO tensor on the CPU with a zero diagonal.
    """
    index, normals, lab = graph.neighbours, graph.normals, graph.lab
    count, k = index.shape
    rows = torch.arange(count)[:, None].expand(-1, k)
    valid = index != rows
    angle_term = 1 - (normals[:, None] * normals[index]).sum(-1).abs()  # [N, k]
    color_term = (lab[:, None] - lab[index]).square().sum(-1)
    weight = 0.5 * torch.exp(-angle_term / config.normal_scale**2 - color_term / config.color_scale**2)
    rows, columns, values = rows[valid], index[valid], weight[valid]
    pairs = torch.stack([torch.cat([rows, columns]), torch.cat([columns, rows])])
    return torch.sparse_coo_tensor(
        pairs, torch.cat([values, values]), (count, count), check_invariants=False
    ).coalesce()


def relative_mass(mass: torch.Tensor) -> torch.Tensor:
    """Evidence [N] in pixels as weights: bounded above, in units of the median, and never 0."""
    m = mass.clamp_max(_MAX_MASS)
    return (m / m[m > 0].median().clamp_min(1e-6) if bool((m > 0).any()) else m).clamp_min(_MIN_MASS)


def align_distributions(
    prior: torch.Tensor, mass: torch.Tensor, affinity: torch.Tensor, strength: float
) -> torch.Tensor:
    """Minimises the objective of this module by conjugate gradients with a diagonal preconditioner.

    Args:
        prior: [N, V] lifted class distributions q.
        mass: [N] evidence behind each Gaussian in pixels, see `relative_mass`.
        affinity: [N, N] symmetric, see `compute_affinities`.
        strength: weight of the alignment between neighbours; 0 returns the prior.

    Returns:
        [N, V] class distributions.
    """
    # On one CPU thread, SciPy's cg for one class at a time takes 0.9 to 1.5 times as long
    # (benchmarks/libraries.py); this also runs on more threads and on the GPU of the map.
    m = relative_mass(mass)[:, None]
    with warnings.catch_warnings():
        # CSR tensors are in beta in torch, but several times faster here than COO tensors.
        warnings.filterwarnings("ignore", message="Sparse CSR")
        matrix = affinity.to_sparse_csr()
    degree = strength * torch.sparse.sum(affinity, dim=1).to_dense()[:, None]

    def apply_system(x: torch.Tensor) -> torch.Tensor:
        return (m + degree) * x - strength * (matrix @ x)

    x = prior.clone()
    residual = m * prior - apply_system(x)
    scaled = residual / (m + degree)
    direction, product = scaled, (residual * scaled).sum(0)  # one system per class, solved together
    limit = _TOLERANCE**2 * product.clamp_min(1e-12)
    for _ in range(_MAX_ITERATIONS):
        if bool((product <= limit).all()):
            break
        image = apply_system(direction)
        length = product / (direction * image).sum(0).clamp_min(1e-20)
        x, residual = x + length * direction, residual - length * image
        scaled = residual / (m + degree)
        product, previous = (residual * scaled).sum(0), product
        direction = scaled + (product / previous.clamp_min(1e-20)) * direction
    x = x.clamp_min(0)
    return x / x.sum(-1, keepdim=True).clamp_min(1e-12)
