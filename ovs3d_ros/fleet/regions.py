"""Regions of a map: near Gaussians with like features, few enough to search hundreds of maps at once.

The Gaussians are clustered by feature (spherical k-means), and each cluster is divided by a coarse grid in
space. Clusters are narrow and cells wide, because the evidence that a thing is in a map rests on its best
Gaussians: averages over unlike features would lose them, averages over one surface do not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ovs3d_ros.semantics.codec import FeatureCodec
from ovs3d_ros.types import MapSnapshot

_CELL = 0.5  # m
_MAX_CLUSTERS = 1024
_GAUSSIANS_PER_CLUSTER = 16
_SAMPLE = 20_000  # Gaussians from which the clusters are learnt
_ROUNDS = 8
_TAIL = 0.02  # share of a region's Gaussians that may lie beyond either side of its box


@dataclass(frozen=True, slots=True)
class Regions:
    """The R regions of a map, and moments of the codes of its N known Gaussians.

    Attributes:
        codes: [R, d + 1] float32 codes of unit features.
        mass: [R] float32 blending weight of the Gaussians in pixels.
        counts: [R] int32 number of Gaussians.
        views: [R] float32 largest number of keyframes that saw one of them.
        low: [R, 3] float32 lower corner of a box around them, in the map frame.
        high: [R, 3] float32 its upper corner.
        mean: [d + 1] float64 mean of the N codes.
        second: [d + 1, d + 1] float64 mean of their outer products. With `mean` it gives the exact mean and
            deviation of the cosines of all N Gaussians with any text.
    """

    codes: np.ndarray
    mass: np.ndarray
    counts: np.ndarray
    views: np.ndarray
    low: np.ndarray
    high: np.ndarray
    mean: np.ndarray
    second: np.ndarray


def make_regions(snapshot: MapSnapshot, min_weight: float) -> Regions:
    """Groups the Gaussians of a map that queries would regard.

    Args:
        snapshot: a map with features.
        min_weight: `query.min_weight`; Gaussians with less evidence do not count.
    """
    assert snapshot.codec is not None, "the map has no language features"
    known = (snapshot.weight >= min_weight) & (snapshot.codes[:, -1] != 0)
    codes, weight = snapshot.codes[known].cpu(), snapshot.weight[known].cpu()
    codec = snapshot.codec.to("cpu")
    means = snapshot.gaussians["means"][known].cpu().numpy()
    region, count = _assign_regions(means, codes, codec)
    members = torch.from_numpy(region)
    sums = torch.zeros(count, codec.dim).index_add_(0, members, codes * weight[:, None])
    views = np.zeros(count, np.float32)
    np.maximum.at(views, region, snapshot.views[known].cpu().numpy())
    low, high = _boxes(means, region, count)
    moments = codes.double()
    return Regions(
        codes=codec.normalize(sums).numpy(),
        mass=torch.zeros(count).index_add_(0, members, weight).numpy(),
        counts=np.bincount(region, minlength=count).astype(np.int32),
        views=views,
        low=low,
        high=high,
        mean=(moments.sum(0) / max(len(codes), 1)).numpy(),
        second=(moments.T @ moments / max(len(codes), 1)).numpy(),
    )


def _assign_regions(means: np.ndarray, codes: torch.Tensor, codec: FeatureCodec) -> tuple[np.ndarray, int]:
    """The region of each Gaussian [N], numbered without gaps, and their number."""
    if not len(means):
        return np.zeros(0, np.int64), 0
    cells = np.floor(means / _CELL).astype(np.int64)
    cluster = _cluster(codec.isometric(codes)).numpy()
    _, region = np.unique(np.column_stack([cells, cluster]), axis=0, return_inverse=True)
    return region.reshape(-1), int(region.max()) + 1


def _cluster(features: torch.Tensor) -> torch.Tensor:
    """Cluster [N] of unit features: spherical k-means from starting points far from each other."""
    generator = torch.Generator().manual_seed(0)
    sample = features[torch.randperm(len(features), generator=generator)[:_SAMPLE]]
    chosen, nearest = [sample[0]], sample @ sample[0]
    for _ in range(min(_MAX_CLUSTERS, len(features) // _GAUSSIANS_PER_CLUSTER) - 1):
        chosen.append(sample[int(nearest.argmin())])
        nearest = torch.maximum(nearest, sample @ chosen[-1])
    centers = torch.stack(chosen)
    for _ in range(_ROUNDS):
        sums = torch.zeros_like(centers).index_add_(0, (sample @ centers.T).argmax(1), sample)
        centers = torch.where(sums.any(1, keepdim=True), torch.nn.functional.normalize(sums, dim=1), centers)
    return torch.cat([(part @ centers.T).argmax(1) for part in features.split(_SAMPLE)])


def _boxes(means: np.ndarray, region: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper corners [R, 3] around the Gaussians of each region, without the outermost."""
    sizes = np.bincount(region, minlength=count)
    starts = np.cumsum(sizes) - sizes
    tail = np.floor(_TAIL * sizes).astype(np.int64)
    low, high = np.zeros((2, count, 3), np.float32)
    for axis in range(3):
        values = means[np.lexsort((means[:, axis], region)), axis]
        low[:, axis], high[:, axis] = values[starts + tail], values[starts + sizes - 1 - tail]
    return low, high
