"""Parts that a map tells apart without names: neighbouring Gaussians of like surface, colour and features."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch

from ovs3d_ros.config import RefineConfig
from ovs3d_ros.query.components import find_root
from ovs3d_ros.rasterize.kernel_cache import cached_njit
from ovs3d_ros.rasterize.spherical_harmonics import base_colors
from ovs3d_ros.sampling import evenly_spaced_indices
from ovs3d_ros.semantics.codec import FeatureCodec
from ovs3d_ros.semantics.surface_graph import SurfaceGraph, make_surface_graph
from ovs3d_ros.types import MapSnapshot

_MAX_GAUSSIANS = 30_000  # that are compared; the others of a larger map follow the nearest of them
_FEATURE_SCALE = 0.1  # 1 - cosine of two features that differ as much as a colour by `refine.color_scale`
_COARSENESS = 30.0  # k of Felzenszwalb and Huttenlocher: larger for larger parts
_SMALLEST = 20  # Gaussians; a smaller part joins the neighbour that it differs least from


def find_map_parts(snapshot: MapSnapshot, config: RefineConfig) -> np.ndarray:
    """Number [N] of the part that each Gaussian of a map belongs to, see `find_parts`.

    Args:
        snapshot: the map, with or without language features.
        config: number of neighbours, scales of normals and colours.
    """
    rows = torch.from_numpy(evenly_spaced_indices(snapshot.num_gaussians, _MAX_GAUSSIANS))
    means = snapshot.gaussians["means"].cpu()
    colors = base_colors(snapshot.gaussians["sh"].cpu()[rows])
    graph = make_surface_graph(means[rows], colors, config.neighbours)
    features = None
    if snapshot.codec is not None:
        codec = cast(FeatureCodec, snapshot.codec).to("cpu")
        features = codec.isometric(snapshot.packed_codes[rows].unpack().cpu())
    parts = find_parts(graph, features, config)
    if len(rows) == snapshot.num_gaussians:
        return parts
    from scipy.spatial import cKDTree

    return parts[cKDTree(means[rows].numpy()).query(means.numpy())[1]]


def find_parts(graph: SurfaceGraph, features: torch.Tensor | None, config: RefineConfig) -> np.ndarray:
    """Number [N] of each Gaussian's part, counted from 0 by falling size.

    Efficient graph-based segmentation (Felzenszwalb and Huttenlocher 2004): an edge joins two parts unless it
    is longer than the longest inside either of them plus k divided by its size. The length of an edge is the
    root of the summed squared differences of normals, colours and features, in units of their scales.

    Args:
        graph: the N Gaussians.
        features: [N, D] unit features; None: surface and colour alone.
        config: the scales of normals and colours.
    """
    lengths = _edge_lengths(graph, features, config).numpy().ravel()
    count, k = graph.neighbours.shape
    order = np.argsort(lengths, kind="stable")
    first, second = np.repeat(np.arange(count), k)[order], graph.neighbours.numpy().ravel()[order]
    root = _join(first, second, lengths[order], count, _COARSENESS, _SMALLEST)
    _, number, sizes = np.unique(root, return_inverse=True, return_counts=True)
    rank = np.empty(len(sizes), np.int64)
    rank[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
    return rank[number.reshape(-1)]


def _edge_lengths(graph: SurfaceGraph, features: torch.Tensor | None, config: RefineConfig) -> torch.Tensor:
    """Lengths [N, k] of the edges to the neighbours."""
    columns = []
    for other in graph.neighbours.T:  # one at a time: features of all neighbours would take gigabytes
        angle = 1 - (graph.normals * graph.normals[other]).sum(-1).abs()
        color = (graph.lab - graph.lab[other]).square().sum(-1)
        square = angle / config.normal_scale**2 + color / config.color_scale**2
        if features is not None:
            square += (1 - (features * features[other]).sum(-1)) / _FEATURE_SCALE
        columns.append(square.clamp_min(0).sqrt())
    return torch.stack(columns, dim=1)


@cached_njit(nogil=True)
def _join(first, second, lengths, count, coarseness, smallest):
    """A number [N] for each node that all nodes of its part have; the E edges are sorted by length."""
    parent, size = np.arange(count), np.ones(count, np.int64)
    limit = np.full(count, coarseness)
    for small in range(2):
        for e in range(len(first)):
            a, b = find_root(parent, first[e]), find_root(parent, second[e])
            joins = lengths[e] <= min(limit[a], limit[b])
            if small:
                joins = min(size[a], size[b]) < smallest
            if a != b and joins:
                if size[a] < size[b]:
                    a, b = b, a
                parent[b] = a
                size[a] += size[b]
                limit[a] = lengths[e] + coarseness / size[a]
    for i in range(count):
        parent[i] = find_root(parent, i)
    return parent
