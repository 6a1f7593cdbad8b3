"""Maps as clouds of a few thousand described points, and matches between two of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ovs3d_ros.merging.surfaces import make_surface
from ovs3d_ros.semantics.codec import FeatureCodec
from ovs3d_ros.types import MapSnapshot

_SOLID = 0.3  # opacity from which a Gaussian is a surface
_VOXEL = 0.02  # metres, at first
_RADII = (0.25, 0.6, 1.2)  # metres, of the balls whose means describe a point
_LAB_SCALE = 40.0  # CIELAB distance that counts as much as opposite features
_MATCHES = 3  # nearest descriptors that are tried


@dataclass(frozen=True, slots=True)
class Cloud:
    """Points of the surfaces of a map.

    Attributes:
        points: [N, 3] float64 metres, in the map frame.
        normals: [N, 3] unit, of arbitrary sign.
        lab: [N, 3] colours in CIELAB.
        features: [N, D] unit features, less the mean of both maps.
    """

    points: np.ndarray
    normals: np.ndarray
    lab: np.ndarray
    features: np.ndarray


def make_clouds(
    maps: list[tuple[dict[str, torch.Tensor], MapSnapshot]],
    codec: FeatureCodec,
    codes: list[torch.Tensor],
    limit: int,
) -> list[Cloud]:
    """The clouds of two maps, thinned to voxels of one size.

    Args:
        maps: parameters and snapshots.
        codec: of the codes.
        codes: [N, d + 1] codes of each map's Gaussians in that codec.
        limit: points at most in each cloud.
    """
    root = _square_root(codec.gram)
    raw = []
    for (params, snapshot), z in zip(maps, codes, strict=True):
        surface = make_surface(params, snapshot.weight)
        chosen = (surface.opacities > _SOLID) & (surface.weight > 0)
        raw.append((surface.rows(chosen), (codec.normalize(z) @ root).numpy()[chosen]))
    voxel = _VOXEL
    while max(len(_voxels(surface.points, voxel)[1]) for surface, _ in raw) > limit:
        voxel *= 1.2
    mean = np.concatenate([features for _, features in raw]).mean(0)
    clouds = []
    for surface, features in raw:
        voxels, first = _voxels(surface.points, voxel)
        features = _means(features, voxels) - mean
        clouds.append(
            Cloud(
                _means(surface.points, voxels),
                surface.normals[first],
                _means(surface.lab, voxels),
                features / np.linalg.norm(features, axis=1, keepdims=True).clip(1e-9),
            )
        )
    return clouds


def match_clouds(first: Cloud, second: Cloud) -> tuple[np.ndarray, np.ndarray]:
    """Indices [M] of points in both clouds whose surroundings look alike, each among the other's likest."""
    ours, theirs = _describe(first), _describe(second)
    near = torch.cdist(theirs, ours)
    count = min(_MATCHES, *near.shape)
    forth = near.topk(count, dim=1, largest=False).indices  # of ours, for each of theirs
    back = near.topk(count, dim=0, largest=False).indices.T  # of theirs, for each of ours
    rows = torch.arange(len(theirs))[:, None].expand_as(forth)
    mutual = (back[forth] == rows[..., None]).any(-1)
    return forth[mutual].numpy(), rows[mutual].numpy()


def _describe(cloud: Cloud) -> torch.Tensor:
    """Descriptors: mean features and colours in balls, which do not change with the frame."""
    points = torch.from_numpy(cloud.points).float()
    values = torch.from_numpy(np.concatenate([cloud.features, cloud.lab / _LAB_SCALE], axis=1)).float()
    distances = torch.cdist(points, points)
    parts = []
    for radius in _RADII:
        weights = torch.exp(-0.5 * (distances / (0.5 * radius)).square())
        parts.append(weights @ values / weights.sum(1, keepdim=True))
    return torch.cat(parts, dim=1)


def _voxels(points: np.ndarray, size: float) -> tuple[np.ndarray, np.ndarray]:
    """The voxel of each point [N], and the first point of each voxel."""
    keys = np.floor(points / size).astype(np.int64)
    _, first, voxels = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    return voxels.ravel(), first


def _means(values: np.ndarray, voxels: np.ndarray) -> np.ndarray:
    sums = np.zeros((voxels.max() + 1, values.shape[1]))
    np.add.at(sums, voxels, values)
    return sums / np.bincount(voxels)[:, None]


def _square_root(gram: torch.Tensor) -> torch.Tensor:
    """R with R R^T = G: products of rows of z R are those of the decoded features."""
    values, vectors = torch.linalg.eigh(gram.double())
    return (vectors * values.clamp_min(0).sqrt()).float()
