"""The neighbour graph of Gaussians as points of surfaces."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch

from ovs3d_ros.semantics.neighbours import nearest_neighbours

_NORMAL_RADIUS = 0.7  # distances to the farthest neighbour, at which a neighbour's weight in a normal is 1/e


@dataclass(frozen=True, slots=True)
class SurfaceGraph:
    """Gaussians as points of surfaces, each with its nearest neighbours.

    Attributes:
        neighbours: [N, k] indices, nearest first; the row's own index where there are fewer.
        normals: [N, 3] unit, of arbitrary sign: the direction in which the neighbours vary least.
        lab: [N, 3] colours in CIELAB.
    """

    neighbours: torch.Tensor
    normals: torch.Tensor
    lab: torch.Tensor


def make_surface_graph(means: torch.Tensor, colors: torch.Tensor, neighbours: int) -> SurfaceGraph:
    """Finds neighbours, normals and CIELAB colours; the result is on the CPU.

    Args:
        means: [N, 3] metres.
        colors: [N, 3] RGB 0..1.
        neighbours: number k of nearest neighbours.
    """
    # On the CPU, like the neighbour search: a GPU's batched eigenvectors take kilobytes per row (cupy#7261).
    means = means.cpu()
    index = torch.from_numpy(nearest_neighbours(means.numpy(), neighbours))
    index = torch.where(index >= 0, index, torch.arange(len(means))[:, None])
    lab = cv2.cvtColor(colors.clamp(0, 1).cpu().numpy().astype(np.float32)[None], cv2.COLOR_RGB2LAB)[0]
    return SurfaceGraph(index, _normals(means, index), torch.from_numpy(lab))


def _normals(means: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Unit normals [N, 3], of arbitrary sign: weighted principal components of neighbours `index` [N, k].

    Near neighbours weigh more. Equal weights of many neighbours would smooth noisy surfaces but blur edges.
    """
    points = torch.cat([means[:, None], means[index]], dim=1)  # [N, 1 + k, 3]
    squared = (points - means[:, None]).square().sum(-1, keepdim=True)  # [N, 1 + k, 1]
    weight = torch.exp(-squared / (_NORMAL_RADIUS**2 * squared.amax(1, keepdim=True)).clamp_min(1e-12))
    points = points - (weight * points).sum(1, keepdim=True) / weight.sum(1, keepdim=True)
    return torch.linalg.eigh((weight * points).transpose(1, 2) @ points)[1][..., 0]
