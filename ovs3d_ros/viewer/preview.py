"""The first picture of a map file, before torch and the map are loaded, which takes seconds."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ovs3d_ros.io.arrays import read_arrays
from ovs3d_ros.map_frame import poses_to_map
from ovs3d_ros.types import MapFrame
from ovs3d_ros.viewer import views
from ovs3d_ros.viewer.drawing import Drawn, draw, visible_rows

_STORED = ("means", "quats", "log_scales", "opacity_logits", "sh_dc")


@dataclass(frozen=True, slots=True)
class Preview:
    """What the first picture shows, in the map frame.

    Attributes:
        drawn: Gaussians.
        outlook: where the camera stands.
    """

    drawn: Drawn
    outlook: views.Outlook


def read_preview(path: Path, max_splats: int) -> Preview | None:
    """The first picture of a map file; None where there is none to show, and `load_map` says why.

    Args:
        path: a `*.ovs3d` file.
        max_splats: larger maps are thinned evenly.
    """
    try:
        with np.errstate(all="ignore"):
            return _read(path.expanduser(), max_splats)
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        return None


def _read(path: Path, max_splats: int) -> Preview | None:
    stored, text = read_arrays(path, (*_STORED, "camtoworlds"))
    opacities = 1 / (1 + np.exp(-stored["opacity_logits"].astype(np.float32)))
    rows = visible_rows(opacities, max_splats)
    means, quats, scales, _, harmonics = (stored[name][rows].astype(np.float32) for name in _STORED)
    drawn = draw(means, quats, np.exp(scales), opacities[rows], harmonics)
    if not len(rows) or not all(np.isfinite(values).all() for values in (means, drawn.covariances)):
        return None
    place = json.loads(text or "null").get("frame", {})
    frame = MapFrame(np.array(place.get("origin", np.zeros(3)), float), float(place.get("unit", 1)))
    poses = poses_to_map(stored["camtoworlds"].astype(np.float64), frame)
    if poses.shape[1:] != (4, 4) or not np.isfinite(poses).all():
        return None
    return Preview(drawn, views.first_outlook(stored["means"], poses))
