"""The scale of data: the length of their unit where they do not say it, and whether their depth fits it."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from ovs3d_ros.datasets import Dataset
from ovs3d_ros.mapping.typical_depth import depth_of_matches, depth_of_points, depth_ratio
from ovs3d_ros.sampling import evenly_spaced_indices
from ovs3d_ros.types import Frame

logger = logging.getLogger(__name__)

TYPICAL_DEPTH = 2.0  # metres, of a room
_NEAR = 3.0  # within this factor of it, the data are taken to be in metres
_VIEWS = 8  # whose points are measured; matching takes a tenth of a second, so only half of them are matched
_IMAGE_SIZE = 480  # px
_CHECKED = 4  # views whose depth is compared with image matches
_WRONG = 1.5  # a unit that is off by this factor is wrong; matches and depth cameras agree to a few percent
_MIN_COSINE = 0.7  # between the optical axes of two views that are matched
_MIN_TURN = 1e-6  # of the camera spread; cameras nearer to each other stand at one place


def estimate_unit(dataset: Dataset, indices: Sequence[int]) -> float:
    """Metres in one unit of a dataset without depth, such that its typical depth is `TYPICAL_DEPTH`.

    It is 1 for depth images and bags, which are in metres, for a typical depth that could be in metres, and
    for one that is unknown.

    Args:
        dataset: the data.
        indices: of the frames to map.
    """
    if dataset.has_depth or dataset.format == "bag" or not len(indices):
        return 1.0
    chosen = [indices[i] for i in evenly_spaced_indices(len(indices), _VIEWS)]
    depth = None
    if dataset.points is not None:
        poses = dataset.camtoworlds[chosen]
        depth = depth_of_points(dataset.points[0], [dataset.cameras[index] for index in chosen], poses)
    if depth is None:
        depth = depth_of_matches(_overlapping_pairs(dataset.resized(_IMAGE_SIZE), indices, chosen[::2]))
    if depth is None or TYPICAL_DEPTH / _NEAR <= depth <= TYPICAL_DEPTH * _NEAR:
        return 1.0
    return TYPICAL_DEPTH / depth


def check_depth_unit(dataset: Dataset, indices: Sequence[int]) -> None:
    """Warns if the depth images are not in the unit of the poses, as far as image matches tell.

    Args:
        dataset: the data.
        indices: of the frames to map.
    """
    if not dataset.has_depth or not len(indices):
        return
    chosen = [indices[i] for i in evenly_spaced_indices(len(indices), _CHECKED)]
    ratio = depth_ratio(_overlapping_pairs(dataset.resized(_IMAGE_SIZE), indices, chosen))
    if ratio is not None and not 1 / _WRONG < ratio < _WRONG:
        logger.warning(
            "%s: the depth is %.2g times what image matches and poses say, so the map will be torn: correct "
            "its unit by this factor (depth_unit_m in transforms.json, 0.0002 for the depth of TUM RGB-D; "
            "input.depth_scale for bags), or the scale of the poses",
            dataset.name,
            ratio,
        )


def _overlapping_pairs(
    dataset: Dataset, indices: Sequence[int], chosen: Sequence[int]
) -> list[tuple[Frame, Frame]]:
    """Each chosen frame with the one whose camera stands nearest and looks the same way."""
    centers, axes = dataset.camtoworlds[indices, :3, 3], dataset.camtoworlds[indices, :3, 2]
    spread, pairs = np.ptp(centers, axis=0).max(), []
    for index in chosen:
        distances = np.linalg.norm(centers - dataset.camtoworlds[index, :3, 3], axis=1)
        usable = (distances > _MIN_TURN * spread) & (axes @ dataset.camtoworlds[index, :3, 2] > _MIN_COSINE)
        if usable.any():
            partner = indices[int(np.where(usable, distances, np.inf).argmin())]
            pairs.append((dataset[index], dataset[partner]))
    return pairs
