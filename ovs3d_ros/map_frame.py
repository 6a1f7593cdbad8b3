"""The map frame: the one place where coordinates of the world become those of the map, and back.

Gaussians are float32, which far from the origin of the world (UTM: 4,000 km) resolves half a metre, and many
steps of mapping compare with lengths in metres, which the world may not be in (COLMAP). The map frame has the
axes of the world, an origin of whole metres near the map, and metres. Everything that comes in or goes out
(frames, poses, points, regions, boxes, clouds, files) is in the world frame, in float64.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ovs3d_ros.types import Frame, Keyframe, KeyframeView, MapFrame, SemanticObject

if TYPE_CHECKING:
    import torch

_FAR = 1000.0  # metres; nearer, float32 resolves 0.06 mm
_REACH = 20_000.0  # metres from the origin of a map, where float32 resolves 2 mm

logger = logging.getLogger(__name__)


def choose_map_frame(position: np.ndarray, unit: float) -> MapFrame:
    """The frame of a map whose first camera stands at `position` [3].

    Args:
        position: in the world. The map keeps the world's origin unless the first camera is far from it.
        unit: metres in one unit of the world.
    """
    origin = np.asarray(position, np.float64)
    if np.abs(origin).max() * unit <= _FAR:
        return MapFrame(unit=unit)
    return MapFrame(np.round(origin * unit) / unit, unit)  # whole metres: the shift is exact in float64


def is_world(place: MapFrame) -> bool:
    """Whether the map frame is the world frame, so that nothing is converted or copied."""
    return place.unit == 1 and not place.origin.any()


def check_reach(keyframe: Keyframe, earlier: Sequence[KeyframeView]) -> None:
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


def points_to_map(points: np.ndarray, place: MapFrame) -> np.ndarray:
    """World points [..., 3] in the map frame, float64."""
    return (np.asarray(points, np.float64) - place.origin) * place.unit


def points_to_world(points: np.ndarray, place: MapFrame) -> np.ndarray:
    """Points [..., 3] of the map frame in the world; float64 if the origin is not zero."""
    scaled = points if place.unit == 1 else points / points.dtype.type(place.unit)
    return scaled + place.origin if place.origin.any() else scaled


def region_to_map(roi: np.ndarray | None, place: MapFrame) -> np.ndarray | None:
    """Two opposite corners [2, 3] of a box in the map frame; None (everywhere) stays."""
    return None if roi is None else points_to_map(roi, place)


def poses_to_map(camtoworlds: np.ndarray, place: MapFrame) -> np.ndarray:
    """World poses [..., 4, 4] in the map frame."""
    return _with_positions(camtoworlds, points_to_map, place)


def poses_to_world(camtoworlds: np.ndarray, place: MapFrame) -> np.ndarray:
    """Poses [..., 4, 4] of the map frame in the world."""
    return _with_positions(camtoworlds, points_to_world, place)


def frame_to_map(frame: Frame, place: MapFrame) -> Frame:
    """A frame of the world with its pose and depth in the map frame; shares what does not change."""
    if is_world(place):
        return frame
    depth = frame.depth
    if depth is not None and place.unit != 1:
        depth = depth * np.float32(place.unit)
    return replace(frame, camtoworld=poses_to_map(frame.camtoworld, place), depth=depth)


def keyframe_to_world(keyframe: Keyframe, place: MapFrame) -> Keyframe:
    """A keyframe of the map with its pose and depth in the world; shares the image.

    That of a map in the world frame is returned as it is.
    """
    if is_world(place):
        return keyframe
    depth = None if keyframe.depth is None else depth_to_world(keyframe.depth, place)
    return replace(keyframe, camtoworld=poses_to_world(keyframe.camtoworld, place), depth=depth)


def depth_to_world(depth: torch.Tensor, place: MapFrame) -> torch.Tensor:
    """Depth of the map frame in units of the world."""
    return depth if place.unit == 1 else depth / place.unit


def object_to_world(item: SemanticObject, place: MapFrame) -> SemanticObject:
    """An object of the map frame with centre and size in the world."""
    return replace(item, center=points_to_world(item.center, place), size=item.size / place.unit)


def params_to_world(params: dict[str, torch.Tensor], place: MapFrame) -> dict[str, torch.Tensor]:
    """Parameters of Gaussians with means and scales in the world; means float64 if the origin is not zero."""
    if is_world(place):
        return params
    import torch  # here, because the viewer's first picture does not wait for it

    means = points_to_world(params["means"].detach().cpu().numpy(), place)
    return params | dict(
        means=torch.from_numpy(means), log_scales=params["log_scales"].detach() - math.log(place.unit)
    )


def without_origin(place: MapFrame) -> MapFrame:
    """The frame whose coordinates start at the origin of the map, in units of the world."""
    return MapFrame(unit=place.unit)


def _with_positions(poses: np.ndarray, convert, place: MapFrame) -> np.ndarray:
    """Poses whose positions are converted; those of a map in the world frame are returned as they are."""
    if is_world(place):
        return poses
    moved = np.array(poses, np.float64)
    moved[..., :3, 3] = convert(moved[..., :3, 3], place)
    return moved
