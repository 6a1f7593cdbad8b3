"""Depth of image matches between posed views: it tells the scale of data, and if measured depth fits it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ovs3d_ros.geometry import project
from ovs3d_ros.mapping.seeding import find_features, match_features, triangulate
from ovs3d_ros.types import Camera, Frame

_MIN_POINTS = 20  # fewer say nothing of a scene


def depth_of_points(xyz: np.ndarray, cameras: Sequence[Camera], camtoworlds: np.ndarray) -> float | None:
    """Median depth of points [P, 3] in the views that show them, in units of the poses [C, 4, 4].

    None if too few are in view.
    """
    depths = []
    for camera, camtoworld in zip(cameras, camtoworlds, strict=True):
        pixels, z = project(xyz, camera, camtoworld)
        inside = (z > 0) & (pixels >= 0).all(1) & (pixels < [camera.width, camera.height]).all(1)
        depths.append(z[inside])
    return _median(depths)


def depth_of_matches(pairs: Sequence[tuple[Frame, Frame]]) -> float | None:
    """Median depth of image matches that the poses triangulate, in units of the poses.

    None if too few matches fit the poses.
    """
    return _median([_triangulated(pair)[1] for pair in pairs])


def depth_ratio(pairs: Sequence[tuple[Frame, Frame]]) -> float | None:
    """Median ratio of measured depth to the depth of image matches that the poses triangulate.

    None if too few matches fit the poses and have depth.
    """
    ratios = []
    for pair in pairs:
        if pair[0].depth is not None:
            pixels, z = _triangulated(pair)
            height, width = pair[0].depth.shape
            inside = ((pixels >= 0) & (pixels < [width, height])).all(1)
            column, row = pixels[inside].astype(np.int64).T
            measured = pair[0].depth[row, column]
            ratios.append(measured[measured > 0] / z[inside][measured > 0])
    return _median(ratios)


def _triangulated(pair: tuple[Frame, Frame]) -> tuple[np.ndarray, np.ndarray]:
    """Pixels [M, 2] and depths [M] of image matches in the first of two views."""
    # Far from the origin, triangulation loses digits.
    first, second = (_moved(frame, -pair[0].camtoworld[:3, 3]) for frame in pair)
    features = [find_features(frame.image, frame.mask) for frame in (first, second)]
    if not min(len(pixels) for pixels, _ in features):
        return np.zeros((0, 2)), np.zeros(0)
    a, b = match_features(*features[0], *features[1])
    return project(triangulate(first, a, second, b), first.camera, first.camtoworld)


def _moved(frame: Frame, offset: np.ndarray) -> Frame:
    camtoworld = frame.camtoworld.copy()
    camtoworld[:3, 3] += offset
    return replace(frame, camtoworld=camtoworld)


def _median(depths: list[np.ndarray]) -> float | None:
    values = np.concatenate([np.zeros(0), *depths])
    return float(np.median(values)) if len(values) >= _MIN_POINTS else None
