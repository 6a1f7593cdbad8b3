"""Reads nerfstudio `transforms.json`, and the Blender scenes of NeRF with `camera_angle_x`."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from ovs3d_ros.datasets import images
from ovs3d_ros.datasets.dataset import View
from ovs3d_ros.datasets.image_files import ImageFiles, find_file
from ovs3d_ros.datasets.masks import dynamic_mask
from ovs3d_ros.datasets.ply import read_points
from ovs3d_ros.datasets.poses import read_pose
from ovs3d_ros.datasets.splits import assign_splits
from ovs3d_ros.datasets.text import finite_number, read_json_object
from ovs3d_ros.geometry import OPENGL_TO_OPENCV, check_camera
from ovs3d_ros.sensors.undistortion import FISHEYE, Distortion
from ovs3d_ros.types import Camera, UserError

FRAME_PERIOD_S = 0.1  # between frames without a timestamp
_OTHER_LENSES = ("ftheta_p0", "ftheta_p1", "latlong", "equirectangular")  # keys of instant-ngp
_FISHEYE = ("OPENCV_FISHEYE", "FISHEYE")
_MODELS = (
    "PINHOLE",
    "SIMPLE_PINHOLE",
    "SIMPLE_RADIAL",
    "RADIAL",
    "OPENCV",
    "PERSPECTIVE",
    "FULL_OPENCV",
    *_FISHEYE,
)
_OPENCV_KEYS = ("k1", "k2", "p1", "p2", "k3")  # in OpenCV's order, as those below
_FULL_KEYS = (*_OPENCV_KEYS, "k4", "k5", "k6")
_FISHEYE_KEYS = ("k1", "k2", "k3", "k4")


def read(
    path: Path, images_folder: Path | None = None, skip_missing: bool = False
) -> tuple[list[View], tuple[np.ndarray, np.ndarray] | None]:
    """Reads the poses and file names of a `transforms.json`.

    Poses in the file are camera-to-world in OpenGL axes; they are converted to OpenCV axes. Intrinsics may be
    global or per frame. Frames with a "timestamp" (seconds) are sorted by time.

    Args:
        path: the JSON file.
        images_folder: folder of the photographs; None: as the file names them.
        skip_missing: leave out frames whose photograph is missing.

    Returns:
        Views and sparse points (from `ply_file_path`, else None).

    Raises:
        UserError: a value is missing, malformed or implausible; the error names file and frame.
    """
    document = read_json_object(path)
    frames = document.get("frames")
    if not isinstance(frames, list) or not frames:
        raise UserError(f"{path}: 'frames' is missing or empty; list one entry per image")
    _depth_unit(document, "depth_unit_m", path)
    files = ImageFiles(path, path.parent, images_folder, skip_missing)
    found = [_view(path, document, i, frame, files) for i, frame in enumerate(frames)]
    files.check(len(frames))
    timed = sum(isinstance(frame, dict) and "timestamp" in frame for frame in frames)
    if 0 < timed < len(frames):
        raise UserError(f"{path}: only {timed} of {len(frames)} frames have a timestamp; give all or none")
    views = [view for view in assign_splits(document, frames, found, path) if view is not None]
    ply = document.get("ply_file_path")
    points = None if ply is None else read_points(_file(path, ply, f"{path}: ply_file_path"))
    return sorted(views, key=lambda view: view.stamp), points


def _depth(path: Path, document: dict, frame: dict, where: str) -> tuple[Path | None, float | None]:
    """The depth file of a frame and its unit, by keys of nerfstudio, instant-ngp or NeRFCapture."""
    if frame.get("depth_file_path") is not None:
        name, key, unit = frame["depth_file_path"], "depth_file_path", "depth_unit_m"
    elif frame.get("depth_path") is not None and document.get("enable_depth_loading", True):
        name, key = frame["depth_path"], "depth_path"
        unit = "integer_depth_scale" if "integer_depth_scale" in document else "depth_unit_m"
    else:
        return None, None
    return _file(path, name, f"{where}: {key}"), _depth_unit(document, unit, path)


def _depth_unit(document: dict, key: str, path: Path) -> float | None:
    """Metres per stored unit of depth, or None if the file does not say."""
    if key not in document:
        return None
    unit = finite_number(document[key], f"{path}: {key}")
    if unit <= 0:
        raise UserError(f"{path}: {key} is {unit:g}; give metres per stored unit, e.g. 0.001")
    return unit


def _view(path: Path, document: dict, index: int, frame: object, files: ImageFiles) -> View | None:
    """The view of a frame, or None if its photograph is missing."""
    where = f"{path}: frame {index}"
    if not isinstance(frame, dict) or "transform_matrix" not in frame:
        raise UserError(f"{where} has no transform_matrix; give a 4 x 4 camera-to-world matrix")
    image_path = files.find(_file_name(frame.get("file_path"), f"{where}: file_path"))
    if image_path is None:
        return None
    where = f"{where} ({image_path.name})"
    label, mask = frame.get("label_file_path"), frame.get("mask_path")
    depth_path, depth_unit_m = _depth(path, document, frame, where)
    camera = _camera({**document, **frame}, image_path, where)
    return View(
        stamp=finite_number(frame.get("timestamp", index * FRAME_PERIOD_S), f"{where}: timestamp"),
        image_path=image_path,
        camera=check_camera(images.fit_to_image(camera, image_path), where),
        camtoworld=_pose(frame["transform_matrix"], where),
        distortion=_distortion({**document, **frame}, where),
        depth_path=depth_path,
        depth_unit_m=depth_unit_m,
        mask_path=_file(path, mask, f"{where}: mask_path") if mask else dynamic_mask(image_path),
        label_path=None if label is None else _file(path, label, f"{where}: label_file_path"),
    )


def _pose(value: object, where: str) -> np.ndarray:
    try:
        matrix = np.array(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise UserError(f"{where}: transform_matrix is not a 4 x 4 matrix of numbers") from None
    if matrix.shape == (3, 4):
        matrix = np.vstack([matrix, [0.0, 0.0, 0.0, 1.0]])
    return read_pose(matrix, where) @ OPENGL_TO_OPENCV


def _camera(keys: dict, image_path: Path, where: str) -> Camera:
    """Intrinsics from fl_x, fl_y, cx, cy, w, h, or from camera_angle_x and the size of the image."""

    def number(key: str, default: float) -> float:
        return finite_number(keys.get(key, default), f"{where}: {key}")

    actual = (0, 0) if {"w", "h"} <= keys.keys() else images.image_size(image_path)
    width, height = number("w", actual[0]), number("h", actual[1])
    if width < 1 or height < 1 or width != int(width) or height != int(height):
        raise UserError(f"{where}: w and h are {width:g} and {height:g}; expected whole pixels, at least 1")
    focal_x, focal_y = _focal(keys, "x", width, where), _focal(keys, "y", height, where)
    if focal_x is None:
        raise UserError(f"{where}: neither fl_x nor camera_angle_x is given; add the focal length in pixels")
    focal_y = focal_x if focal_y is None else focal_y
    K = np.array(
        [[focal_x, 0.0, number("cx", width / 2)], [0.0, focal_y, number("cy", height / 2)], [0.0, 0.0, 1.0]]
    )
    return Camera(K, int(width), int(height))


def _focal(keys: dict, axis: str, side: float, where: str) -> float | None:
    """Focal length in pixels along one axis, from fl_* or the field of view; None if neither is given."""
    if f"fl_{axis}" in keys:
        return finite_number(keys[f"fl_{axis}"], f"{where}: fl_{axis}")
    if f"camera_angle_{axis}" not in keys:
        return None
    angle = finite_number(keys[f"camera_angle_{axis}"], f"{where}: camera_angle_{axis}")
    if not 0 < angle < math.pi:
        raise UserError(f"{where}: camera_angle_{axis} is {angle:g}; expected radians between 0 and pi")
    return 0.5 * side / math.tan(0.5 * angle)


def _distortion(keys: dict, where: str) -> Distortion:
    for key in _OTHER_LENSES:
        if keys.get(key):
            raise UserError(
                f"{where}: {key} belongs to a lens model of instant-ngp that is not supported; undistort the "
                "images to a pinhole first"
            )
    model = "OPENCV_FISHEYE" if keys.get("is_fisheye") else str(keys.get("camera_model", "OPENCV")).upper()
    if model not in _MODELS:
        raise UserError(
            f"{where}: camera model {model} is not supported ({', '.join(_MODELS)} are); undistort the "
            "images to a pinhole first (e.g. colmap image_undistorter)"
        )
    names = _FISHEYE_KEYS if model in _FISHEYE else _FULL_KEYS if model == "FULL_OPENCV" else _OPENCV_KEYS
    values = {key: finite_number(keys.get(key, 0.0), f"{where}: {key}") for key in {*names, "k4"}}
    if values["k4"] and "k4" not in names:
        raise UserError(
            f"{where}: k4 = {values['k4']:g} belongs to OPENCV_FISHEYE or FULL_OPENCV, not to {model}"
        )
    return Distortion(tuple(values[key] for key in names), FISHEYE if model in _FISHEYE else "plumb_bob")


def _file_name(value: object, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise UserError(f"{where} is {value!r}; expected a file name")
    return value


def _file(json_path: Path, value: object, where: str) -> Path:
    """A file named in the JSON file, relative to it."""
    name = _file_name(value, where)
    path = find_file(json_path.parent, name)
    if path is None:
        raise UserError(
            f"{json_path.parent / name}: no such file (named by {where}); restore it or remove it from "
            f"{json_path.name}"
        )
    return path
