"""The map frame: the one place where coordinates of the world become those of the map, and back.

Gaussians are float32, which far from the origin of the world (UTM: 4,000 km) resolves half a metre. The map
frame has the axes of the world and an origin of whole metres near the map. Everything that comes in or goes
out (frames, poses, points, regions, boxes, clouds, files) is in the world frame, in float64.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from ovs3d_ros.types import Frame, Keyframe

_FAR = 1000.0  # metres; nearer, float32 resolves 0.06 mm
_REACH = 20_000.0  # metres from the origin of a map, where float32 resolves 2 mm

logger = logging.getLogger(__name__)


def choose_origin(position: np.ndarray) -> np.ndarray:
    """Origin [3] of a map whose first camera stands at `position` [3]: zero unless that is far away."""
    if np.abs(position).max() <= _FAR:
        return np.zeros(3)
    return np.round(np.asarray(position, np.float64))  # whole metres: the shift is exact in float64


def check_reach(keyframe: Keyframe, earlier: Sequence[Keyframe]) -> None:
    """Warns of the first keyframe, in the map frame, that lies so far away that float32 gets coarse."""
    distance = np.abs(keyframe.camtoworld[:3, 3]).max()
    if distance > _REACH and not (earlier and np.abs(earlier[-1].camtoworld[:3, 3]).max() > _REACH):
        logger.warning(
            "%s lies %.0f km from where the map began: positions there are rounded to %.1g m. Check the pose "
            "source; if the poses are right, begin a new map",
            keyframe.name or "a keyframe",
            distance / 1e3,
            np.spacing(np.float32(distance)),
        )


def points_to_map(points: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """World points [..., 3] in the map frame, float64."""
    return np.asarray(points, np.float64) - origin


def region_to_map(roi: np.ndarray | None, origin: np.ndarray) -> np.ndarray | None:
    """Two opposite corners [2, 3] of a box in the map frame; None (everywhere) stays."""
    return None if roi is None else points_to_map(roi, origin)


def points_to_world(points: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """Points [..., 3] of the map frame in the world; float64 if the origin is not zero."""
    return points + origin if origin.any() else points


def poses_to_map(camtoworlds: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """World poses [..., 4, 4] in the map frame."""
    return _shift(camtoworlds, -origin)


def poses_to_world(camtoworlds: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """Poses [..., 4, 4] of the map frame in the world."""
    return _shift(camtoworlds, origin)


def frame_to_map(frame: Frame, origin: np.ndarray) -> Frame:
    """A frame with its pose in the map frame."""
    return replace(frame, camtoworld=poses_to_map(frame.camtoworld, origin))


def keyframe_to_world(keyframe: Keyframe, origin: np.ndarray) -> Keyframe:
    """A keyframe of the map with its pose in the world; shares the images."""
    return replace(keyframe, camtoworld=poses_to_world(keyframe.camtoworld, origin))


def params_to_world(params: dict[str, torch.Tensor], origin: np.ndarray) -> dict[str, torch.Tensor]:
    """Parameters of Gaussians with their means in the world; float64 if the origin is not zero."""
    if not origin.any():
        return params
    means = params["means"].detach().cpu().double()
    return params | dict(means=means + torch.from_numpy(origin))


def _shift(poses: np.ndarray, offset: np.ndarray) -> np.ndarray:
    if not offset.any():
        return poses
    shifted = np.array(poses, np.float64)
    shifted[..., :3, 3] += offset
    return shifted
