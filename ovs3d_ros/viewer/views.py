"""Camera poses of a visitor: flying to an object, clicking into the room, camera paths."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ovs3d_ros.geometry import OPENGL_TO_OPENCV, mean_up, quat_to_matrix, rotation_to_axis
from ovs3d_ros.sampling import evenly_spaced_indices
from ovs3d_ros.types import Camera, MapSnapshot, SemanticObject

if TYPE_CHECKING:
    from ovs3d_ros.pipeline import Ovs3d

_PROBE = Camera(np.array([[1000.0, 0, 2.5], [0, 1000.0, 2.5], [0, 0, 1]]), 5, 5)  # a third of a degree wide
_SOLID = 0.5  # alpha from which a pixel shows a surface
_UPRIGHT = np.cos(np.radians(30))  # of the angle between the cameras' up and z, to take z for up
_DISTANCE = 1.6  # of the object's diagonal, at which its view is taken
_NEAREST = 0.6  # metres
_STEP_BACK = 0.15  # of the distance to the middle, so that the first picture is not inside a frustum
_SAMPLE = 4000  # Gaussians that tell where the room is
_PATH_RATE = 24.0  # frames per second
_SECONDS_PER_VIEW = 2.0


class Outlook(NamedTuple):
    """Where a visitor stands at first: the room's direction up [3], eye [3] and target [3]."""

    up: np.ndarray
    eye: np.ndarray
    target: np.ndarray


def up_direction(camtoworlds: np.ndarray) -> np.ndarray:
    """The direction [3] that cameras [F, 4, 4] held upwards on average; z exactly if it is near."""
    z = np.array([0.0, 0.0, 1.0])
    if not len(camtoworlds):
        return z
    up = mean_up(camtoworlds)
    length = np.linalg.norm(up)
    if length < 1e-6 or up[2] >= _UPRIGHT * length:
        return z
    return up / length


def overview(snapshot: MapSnapshot) -> Outlook:
    """The first picture of a map, see `first_outlook`."""
    return first_outlook(snapshot.gaussians["means"].cpu().numpy(), snapshot.camtoworlds)


def first_outlook(means: np.ndarray, camtoworlds: np.ndarray) -> Outlook:
    """A keyframe's view of the middle of the room.

    Args:
        means: [N, 3] of the Gaussians, metres.
        camtoworlds: [F, 4, 4] of the keyframes.
    """
    up = up_direction(camtoworlds)
    middle = np.median(means[evenly_spaced_indices(len(means), _SAMPLE)], axis=0).astype(float)
    if not len(camtoworlds):
        return Outlook(up, middle + [2.0, 2.0, 2.0], middle)
    eyes = camtoworlds[:, :3, 3]
    eye = eyes[np.linalg.norm(eyes - middle, axis=1).argmax()]
    if np.linalg.norm(eye - middle) < 1e-3:
        return Outlook(up, eye + [1.0, 1.0, 1.0], middle)
    return Outlook(up, eye + _STEP_BACK * (eye - middle), middle)


def object_view(item: SemanticObject, snapshot: MapSnapshot) -> tuple[np.ndarray, np.ndarray]:
    """Eye [3] and target [3] that show an object, from the side of the nearest keyframe."""
    distance = max(_NEAREST, _DISTANCE * float(np.linalg.norm(item.size)))
    towards = np.array([1.0, 0.0, 0.5])
    if len(snapshot.camtoworlds):
        away = snapshot.camtoworlds[:, :3, 3] - item.center
        lengths = np.linalg.norm(away, axis=1)
        nearest = away[np.abs(lengths - distance).argmin()]
        towards = nearest if np.linalg.norm(nearest) > 1e-6 else towards
    return item.center + distance * towards / np.linalg.norm(towards), item.center


def look_along(eye: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """A pose [4, 4] at `eye` [3] whose z axis points along `direction` [3]."""
    pose = np.eye(4)
    pose[:3, :3] = rotation_to_axis(direction)
    pose[:3, 3] = eye
    return pose


def pick_point(
    pipeline: Ovs3d, snapshot: MapSnapshot, origin: np.ndarray, direction: np.ndarray
) -> np.ndarray | None:
    """The point [3] of the surface that a ray meets first, as a render shows it; None: it meets none."""
    if not np.isfinite([*origin, *direction]).all() or np.linalg.norm(direction) < 1e-9:
        return None
    pose = look_along(origin, direction)
    view = pipeline.render(_PROBE, pose, snapshot)
    if float(view.alpha[2, 2]) < _SOLID:
        return None
    return origin + pose[:3, 2] * float(view.depth[2, 2])


def camera_pose(wxyz: np.ndarray, position: np.ndarray) -> np.ndarray:
    """The pose [4, 4] of a visitor's camera."""
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = quat_to_matrix(np.asarray(wxyz, float)), position
    return pose


def camera_path(views: list[tuple[np.ndarray, float]], aspect: float, up: np.ndarray) -> str:
    """A camera path as JSON in the layout of nerfstudio, with OpenGL camera axes.

    Args:
        views: poses [4, 4] with their vertical fields of view in radians.
        aspect: width by height.
        up: [3] of the room.
    """
    height = 720
    return json.dumps(
        {
            "camera_type": "perspective",
            "render_height": height,
            "render_width": round(height * aspect),
            "fps": _PATH_RATE,
            "seconds": _SECONDS_PER_VIEW * len(views),
            "up": up.tolist(),
            "camera_path": [
                {
                    "camera_to_world": (pose @ OPENGL_TO_OPENCV).ravel().tolist(),
                    "fov": float(np.degrees(fov)),
                    "aspect": aspect,
                }
                for pose, fov in views
            ],
        },
        indent=1,
    )
