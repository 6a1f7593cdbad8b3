"""The keyframe that shows each region of a map best."""

from __future__ import annotations

import numpy as np

from ovs3d_ros.geometry import project
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.sampling import evenly_spaced_indices
from ovs3d_ros.types import MapSnapshot

_CANDIDATES = 64  # keyframes among which the best is chosen
_SIZE = 96  # px, longer side of the renders that tell what is hidden
_BEHIND = 1.1  # a place this many times as far as the surface in front of it is hidden
_NEAREST = 0.5  # m; a nearer view shows less of a thing's surroundings, and is no better


def best_keyframes(pipeline: Ovs3d, snapshot: MapSnapshot, centers: np.ndarray) -> np.ndarray:
    """Chooses a keyframe for each place: near, in the middle of the picture, and with nothing in front.

    Args:
        pipeline: renders the map.
        snapshot: the map.
        centers: [R, 3] places in the world.

    Returns:
        [R] int32 index of the keyframe; -1 where no keyframe shows the place.
    """
    best, quality = np.full(len(centers), -1, np.int32), np.zeros(len(centers))
    unit = snapshot.frame.unit
    for index in evenly_spaced_indices(len(snapshot.names), _CANDIDATES):
        camera, pose = snapshot.cameras[index].fitted(_SIZE), snapshot.camtoworlds[index]
        pixels, z = project(centers, camera, pose)
        inset = np.minimum(pixels, [camera.width, camera.height] - pixels) / [camera.width, camera.height]
        inset = inset.min(axis=1)  # 0 at the border of the picture, 1/2 in its middle
        rows = np.flatnonzero((z > 0) & (inset > 0))
        if not len(rows):
            continue
        depth = pipeline.render(camera, pose, snapshot).depth.cpu().numpy()
        columns = np.minimum(pixels[rows].astype(np.int64), [camera.width - 1, camera.height - 1])
        surface = depth[columns[:, 1], columns[:, 0]]
        is_seen = (surface <= 0) | (z[rows] < _BEHIND * surface)
        # What is hidden in all keyframes still gets the view that points at it.
        found = inset[rows] / np.maximum(z[rows] * unit, _NEAREST) * np.where(is_seen, 1.0, 1e-3)
        better = found > quality[rows]
        best[rows[better]], quality[rows[better]] = index, found[better]
    return best
