"""Reads COLMAP sparse models, text and binary.

File formats: https://colmap.github.io/format.html. COLMAP poses are world-to-camera in OpenCV axes, with
quaternions wxyz and pixel centres at +0.5.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ovs3d_ros.datasets import images
from ovs3d_ros.datasets.dataset import View
from ovs3d_ros.datasets.image_files import ImageFiles
from ovs3d_ros.datasets.text import read_text
from ovs3d_ros.geometry import check_camera, check_coordinates, check_pose, invert_rigid, quat_to_matrix
from ovs3d_ros.io.git_lfs import check_no_lfs_pointer
from ovs3d_ros.sensors.undistortion import FISHEYE, Distortion
from ovs3d_ros.types import Camera, UserError

logger = logging.getLogger(__name__)

_MAX_LENGTH_ERROR = 5e-3  # of quaternions; three decimals leave up to 1e-3
FRAME_PERIOD_S = 0.1  # COLMAP models have no stamps
_MODEL_FOLDERS = ("sparse/0", "sparse", ".")
# of COLMAP's automatic_reconstructor and image_undistorter, of nerfstudio, and of the original 3DGS
_NESTED = ("dense/0/sparse", "dense/sparse", "colmap/sparse/0", "distorted/sparse/0")
# COLMAP model id -> (name, number of parameters)
_MODELS = {
    0: ("SIMPLE_PINHOLE", 3),
    1: ("PINHOLE", 4),
    2: ("SIMPLE_RADIAL", 4),
    3: ("RADIAL", 5),
    4: ("OPENCV", 8),
    5: ("OPENCV_FISHEYE", 8),
    6: ("FULL_OPENCV", 12),
    7: ("FOV", 5),
    8: ("SIMPLE_RADIAL_FISHEYE", 4),
    9: ("RADIAL_FISHEYE", 5),
    10: ("THIN_PRISM_FISHEYE", 12),
    11: ("RAD_TAN_THIN_PRISM_FISHEYE", 16),
}
_FISHEYE = ("OPENCV_FISHEYE", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE")
_SUPPORTED = (
    "SIMPLE_PINHOLE",
    "PINHOLE",
    "SIMPLE_RADIAL",
    "RADIAL",
    "OPENCV",
    "FULL_OPENCV",
    *_FISHEYE,
)


class _CameraRow(NamedTuple):
    id: int
    model: str
    width: int
    height: int
    params: tuple[float, ...]


class _ImageRow(NamedTuple):
    quat: tuple[float, ...]  # wxyz, world to camera
    translation: tuple[float, ...]
    camera_id: int
    name: str


def find_model(root: Path) -> Path | None:
    """The folder of the first sparse model in the usual places under `root`, or None."""
    return next(_models(root), None)


def is_nested(root: Path, model: Path) -> bool:
    """Whether the model is in a folder where other tools keep intermediate results."""
    return model.relative_to(root).parts[:1] in (("colmap",), ("dense",), ("distorted",))


def _models(root: Path) -> Iterator[Path]:
    """The folders of sparse models, in order of preference."""
    numbered = sorted((int(p.name), p) for p in (root / "sparse").glob("*") if p.name.isdigit())
    folders = [root / "sparse", root, *(path for _, path in numbered), *(root / name for name in _NESTED)]
    for folder in (root / "sparse" / "0", *folders):
        if any((folder / f"cameras{suffix}").is_file() for suffix in (".bin", ".txt")):
            yield folder


def _find_project(root: Path) -> tuple[Path, Path]:
    """The folder of the first sparse model that has photographs, and their folder.

    The photographs are beside the model or in a folder above it, up to the project folder, or up to two
    folders above `root` if that is the model itself.

    Raises:
        UserError: there is no model, or no folder of photographs.
    """
    models = list(_models(root))
    if not models:
        raise UserError(
            f"{root}: no COLMAP model (cameras.bin or .txt) in {', '.join(_MODEL_FOLDERS + _NESTED)}"
        )
    for model in models:
        if model == root:
            folders = [root, *root.resolve().parents[:2]]
        else:
            folders = [model, *model.parents][: len(model.relative_to(root).parts) + 1]
        for folder in folders:
            found = images.image_folder(folder, original=model.parent.parent.name == "distorted")
            if found is not None:
                return model, found
    raise UserError(
        f"{root}: no images folder; put the photographs into {root / 'images'}, or give their folder with "
        "--images DIR"
    )


def read(
    root: Path, images_folder: Path | None = None, skip_missing: bool = False
) -> tuple[list[View], tuple[np.ndarray, np.ndarray] | None]:
    """Reads the first sparse model of a COLMAP project; frames in the order of their image names.

    Args:
        root: the project folder with `images/` (or shrunk `images_2/`, `images_4/`, ...), or a model folder.
        images_folder: folder of the photographs; None: the one of the project.
        skip_missing: leave out images whose photograph is missing.

    Returns:
        Views, and points (xyz [P, 3] float64, rgb [P, 3] uint8) or None if there is no points3D file.

    Raises:
        UserError: a file is missing, truncated or malformed, or a camera model is not supported.
    """
    if images_folder is None:
        model, folder = _find_project(root)
    else:
        model = find_model(root) or _find_project(root)[0]
        folder = images_folder
    suffix = _suffix(model)
    cameras_path, images_path, points_path = (
        model / (name + suffix) for name in ("cameras", "images", "points3D")
    )
    binary = suffix == ".bin"
    camera_rows = _parse_file(cameras_path, _binary_cameras if binary else _text_cameras)
    image_rows = _image_rows(model)
    if not image_rows:
        raise UserError(f"{images_path}: lists no images; the reconstruction is empty")
    _warn_of_other_models(model, len(image_rows))
    used = {row.camera_id for row in image_rows}
    cameras = {row.id: _camera(row, cameras_path) for row in camera_rows if row.id in used}
    image_rows.sort(key=lambda row: row.name)
    files = ImageFiles(images_path, folder, images_folder, skip_missing)
    found = [_view(row, i, cameras, files, images_path) for i, row in enumerate(image_rows)]
    files.check(len(found))
    views = [view for view in found if view is not None]
    if not points_path.is_file():
        logger.warning("%s: no such file, so there are no sparse points to start from", points_path)
        return views, None
    return views, _points(points_path, _parse_file(points_path, _binary_points if binary else _text_points))


def _suffix(model: Path) -> str:
    return ".bin" if (model / "cameras.bin").is_file() else ".txt"


def _image_rows(model: Path) -> list[_ImageRow]:
    suffix = _suffix(model)
    return _parse_file(model / f"images{suffix}", _binary_images if suffix == ".bin" else _text_images)


def _warn_of_other_models(model: Path, count: int) -> None:
    """Warns if `sparse/1`, `sparse/2`, ... hold images too: they have other world frames and are not read."""
    if model.parent.name != "sparse":
        return
    others = []
    for folder in sorted(model.parent.iterdir()):
        if folder != model and folder.name.isdigit() and folder.is_dir():
            with contextlib.suppress(UserError):  # a broken model does not matter: it is not read
                others.append(f"{folder} ({len(_image_rows(folder))} images)")
    if others:
        logger.warning(
            "%s: only this model of %d images is read, not %s; to read another one, give its folder",
            model,
            count,
            ", ".join(others),
        )


def _camera(row: _CameraRow, path: Path) -> tuple[Camera, Distortion]:
    where = f"{path}: camera {row.id}"
    if row.model not in _SUPPORTED:
        raise UserError(
            f"{where}: camera model {row.model} is not supported ({', '.join(_SUPPORTED)} are); run "
            "colmap image_undistorter and give its output"
        )
    counts = dict(_MODELS.values())
    if len(row.params) != counts[row.model] or not np.isfinite(row.params).all():
        raise UserError(f"{where}: {row.model} needs {counts[row.model]} finite parameters, got {row.params}")
    focal_count = 2 if row.model == "PINHOLE" or "OPENCV" in row.model else 1
    fx, fy = row.params[0], row.params[focal_count - 1]
    cx, cy, *coefficients = row.params[focal_count:]
    if row.model in _FISHEYE:  # angle polynomials with k1, k2, k3, k4 of OpenCV's fisheye module
        distortion = Distortion((*coefficients, *([0.0] * (4 - len(coefficients)))), FISHEYE)
    else:  # k1, k2, p1, p2, k3, ... in the same order as OpenCV
        distortion = Distortion((*coefficients, *([0.0] * (5 - len(coefficients)))))
    K = np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])
    return check_camera(Camera(K, row.width, row.height), where), distortion


def _view(
    row: _ImageRow, index: int, cameras: dict[int, tuple[Camera, Distortion]], files: ImageFiles, path: Path
) -> View | None:
    """The view of an image, or None if its photograph is missing."""
    where = f"{path}: image {row.name}"
    if row.camera_id not in cameras:
        raise UserError(f"{where} refers to camera {row.camera_id}, which the cameras file does not list")
    image_path = files.find(row.name)
    if image_path is None:
        return None
    if not abs(math.hypot(*row.quat) - 1.0) < _MAX_LENGTH_ERROR:
        raise UserError(f"{where}: quaternion {row.quat} does not have length 1; the file is damaged")
    viewmat = np.eye(4)
    viewmat[:3, :3] = quat_to_matrix(np.array(row.quat))
    viewmat[:3, 3] = row.translation
    camera, distortion = cameras[row.camera_id]
    return View(
        stamp=index * FRAME_PERIOD_S,
        image_path=image_path,
        camera=images.fit_to_image(camera, image_path),
        camtoworld=invert_rigid(check_pose(viewmat, where)),
        distortion=distortion,
    )


def _points(path: Path, rows: list[tuple[float, ...]]) -> tuple[np.ndarray, np.ndarray]:
    table = np.array(rows, dtype=np.float64).reshape(len(rows), 6)
    if not np.isfinite(table[:, 3:]).all():
        raise UserError(f"{path}: has points with colours that are not finite; remove them")
    return check_coordinates(table[:, :3], str(path)).copy(), np.clip(table[:, 3:], 0, 255).astype(np.uint8)


def _parse_file(path: Path, parse: Callable[[Path], Iterator]) -> list:
    """All rows of one file; turns every parse error into a UserError."""
    try:
        return list(parse(path))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; a COLMAP model needs cameras, images and points3D") from None
    except (OSError, struct.error, IndexError, ValueError, MemoryError) as error:
        if isinstance(error, UserError):
            raise
        check_no_lfs_pointer(path)
        raise UserError(f"{path}: truncated or not a COLMAP file ({error}); export the model again") from None


def _text_rows(path: Path) -> Iterator[list[str]]:
    """The words of each line that is not a comment; blank lines are kept, since images.txt uses them."""
    return (
        line.split()
        for line in read_text(path, errors="surrogateescape").splitlines()
        if not line.lstrip().startswith("#")
    )


def _text_cameras(path: Path) -> Iterator[_CameraRow]:
    for words in _text_rows(path):
        if words:
            yield _CameraRow(
                int(words[0]), words[1], int(words[2]), int(words[3]), tuple(map(float, words[4:]))
            )


def _text_images(path: Path) -> Iterator[_ImageRow]:
    rows = _text_rows(path)
    for words in rows:
        if not words:
            continue
        values = tuple(map(float, words[1:8]))
        yield _ImageRow(values[:4], values[4:7], int(words[8]), " ".join(words[9:]))
        points = next(rows, [])  # the image's 2D points, x y id each, possibly a blank line
        if len(points) % 3:
            raise UserError(
                f"{path}: no line of 2D points follows image {' '.join(words[9:])}; a line of 2D points (may "
                "be blank) must follow every image"
            )


def _text_points(path: Path) -> Iterator[tuple[float, ...]]:
    for words in _text_rows(path):
        if not words:
            continue
        if len(words) < 8:
            raise ValueError(f"point {words[0]} has {len(words)} columns, expected at least 8")
        yield tuple(map(float, words[1:7]))


def _binary_cameras(path: Path) -> Iterator[_CameraRow]:
    data = path.read_bytes()
    (count,), offset = struct.unpack_from("<Q", data), 8
    for _ in range(count):
        id_, model_id, width, height = struct.unpack_from("<iiQQ", data, offset)
        if model_id not in _MODELS:
            raise UserError(
                f"{path}: camera {id_} has unknown model id {model_id}; run colmap image_undistorter"
            )
        model, num_params = _MODELS[model_id]
        params = struct.unpack_from(f"<{num_params}d", data, offset + 24)
        offset += 24 + 8 * num_params
        yield _CameraRow(id_, model, width, height, params)


def _binary_images(path: Path) -> Iterator[_ImageRow]:
    data = path.read_bytes()
    (count,), offset = struct.unpack_from("<Q", data), 8
    for _ in range(count):
        _, *pose, camera_id = struct.unpack_from("<i7di", data, offset)
        end = data.index(b"\0", offset + 64)
        name = os.fsdecode(data[offset + 64 : end])
        (num_points,) = struct.unpack_from("<Q", data, end + 1)
        offset = end + 9 + 24 * num_points
        if offset > len(data):
            raise ValueError(f"image {name} ends beyond the file")
        yield _ImageRow(tuple(pose[:4]), tuple(pose[4:]), camera_id, name)


def _binary_points(path: Path) -> Iterator[tuple[float, ...]]:
    data = path.read_bytes()
    (count,), offset = struct.unpack_from("<Q", data), 8
    for _ in range(count):
        _, x, y, z, red, green, blue, _, track = struct.unpack_from("<Q3d3BdQ", data, offset)
        offset += 51 + 8 * track
        if offset > len(data):
            raise ValueError("a point's track ends beyond the file")
        yield x, y, z, red, green, blue
