"""Reads RGB-D recordings as their makers publish them: TUM RGB-D, 7-Scenes, and exported ScanNet scans.

All three give camera-to-world poses in OpenCV axes, and depth as 16-bit PNG.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ovs3d_ros.datasets import images
from ovs3d_ros.datasets.dataset import HELD_OUT, TRAINING, View
from ovs3d_ros.datasets.image_files import ImageFiles
from ovs3d_ros.datasets.poses import read_pose
from ovs3d_ros.datasets.text import read_text
from ovs3d_ros.geometry import check_camera, quat_to_matrix
from ovs3d_ros.sensors.sync import PoseBuffer, StampBuffer
from ovs3d_ros.sensors.undistortion import NO_DISTORTION, Distortion
from ovs3d_ros.types import Camera, UserError

logger = logging.getLogger(__name__)

_FRAME_PERIOD_S = 1 / 30  # 7-Scenes and ScanNet have no stamps
_MILLIMETRE = 0.001
_TUM_UNIT = 1 / 5000  # metres; the page "File Formats" of the TUM RGB-D benchmark
_TUM_SLOP, _TUM_GAP = 0.02, 0.1  # seconds: of depth and of single poses, and between interpolated poses
# The page "Intrinsic Camera Calibration" of the benchmark: fx, fy, cx, cy and k1, k2, p1, p2, k3 of its
# colour cameras; pixel centres at integers.
_TUM_CAMERAS = {
    "1": ((517.3, 516.5, 318.6, 255.3), (0.2624, -0.9531, -0.0054, 0.0026, 1.1633)),
    "2": ((520.9, 521.0, 325.1, 249.7), (0.2312, -0.7849, -0.0033, -0.0001, 0.9172)),
    "3": ((535.4, 539.2, 320.1, 247.6), ()),
}
_TUM_CALIBRATION = "calibration.txt"  # fx fy cx cy, as in the ETH3D SLAM benchmark, which has TUM's layout
_7SCENES_COLOR, _7SCENES_DEPTH = 525.0, 585.0  # focal lengths of the Kinect's two cameras at 640 x 480


def is_tum(root: Path) -> bool:
    """Whether a folder holds a sequence in the layout of TUM RGB-D."""
    return all((root / name).is_file() for name in ("rgb.txt", "groundtruth.txt"))


def is_7scenes(root: Path) -> bool:
    """Whether a folder holds a scene or a sequence of 7-Scenes."""
    return any(root.glob("frame-*.pose.txt")) or any(root.glob("seq-*/frame-*.pose.txt"))


def is_scannet(root: Path) -> bool:
    """Whether a folder holds a scan that ScanNet's SensReader exported."""
    return (root / "pose").is_dir() and (root / "intrinsic").is_dir() and _scannet_color(root) is not None


def read_tum(root: Path, skip_missing: bool) -> list[View]:
    """Reads `rgb.txt`, `depth.txt` (if there is one), `groundtruth.txt` and the images that they name.

    Poses are interpolated to the stamps of the images; images without a pose are left out, and counted. The
    calibration is that of `calibration.txt`, or of the freiburg camera in the folder's name.

    Raises:
        UserError: a line is malformed, no image has a pose, or the calibration is not known.
    """
    poses = PoseBuffer(_TUM_SLOP, _TUM_GAP, sys.maxsize)
    path = root / "groundtruth.txt"
    for where, stamp, (x, y, z, qx, qy, qz, qw) in _numbers(path, 8):
        if not 0.5 < np.linalg.norm([qx, qy, qz, qw]) < 2:  # NaN too
            raise UserError(f"{where}: the quaternion {qx:g} {qy:g} {qz:g} {qw:g} is not a rotation")
        matrix = np.eye(4)
        matrix[:3, :3] = quat_to_matrix(np.array([qw, qx, qy, qz]))
        matrix[:3, 3] = x, y, z
        poses.add(stamp, read_pose(matrix, where))
    depths = StampBuffer(sys.maxsize)
    if (root / "depth.txt").is_file():
        for _, stamp, name in _names(root / "depth.txt"):
            depths.add(stamp, root / name)
    files, views, lost = ImageFiles(root / "rgb.txt", root, None, skip_missing), [], 0
    listed = list(_names(root / "rgb.txt"))
    for _, stamp, name in listed:
        camtoworld, image_path = poses.at(stamp, accept_nearest=True), files.find(name)
        lost += camtoworld is None
        if camtoworld is not None and image_path is not None:
            camera, distortion = _tum_camera(root, image_path)
            depth = depths.nearest(stamp, _TUM_SLOP)
            views.append(
                View(stamp, image_path, camera, camtoworld, distortion, depth, depth_unit_m=_TUM_UNIT)
            )
    files.check(len(listed))
    _report_lost(root, lost, len(listed), "pose in groundtruth.txt at their stamp")
    return views


def _tum_camera(root: Path, image_path: Path) -> tuple[Camera, Distortion]:
    width, height = images.image_size(image_path)
    distortion: tuple[float, ...] = ()
    if (root / _TUM_CALIBRATION).is_file():
        fields = read_text(root / _TUM_CALIBRATION).split()
        try:
            fx, fy, cx, cy = map(float, fields)
        except ValueError:
            raise UserError(
                f"{root / _TUM_CALIBRATION}: expected the four numbers fx fy cx cy in pixels"
            ) from None
    else:
        found = re.search(r"(?:freiburg|fr)([123])", root.resolve().name)
        if found is None or (width, height) != (640, 480):
            raise UserError(
                f"{root}: its calibration is not known, as the folder's name has no freiburg1, 2 or 3; write "
                f"fx fy cx cy in pixels into {_TUM_CALIBRATION} there"
            )
        (fx, fy, cx, cy), distortion = _TUM_CAMERAS[found[1]]
    K = np.array([[fx, 0, cx + 0.5], [0, fy, cy + 0.5], [0, 0, 1]])
    return check_camera(Camera(K, width, height), str(root)), Distortion(distortion) if distortion else (
        NO_DISTORTION
    )


def read_7scenes(root: Path) -> list[View]:
    """Reads the `frame-*.color.png`, `.depth.png` and `.pose.txt` of one sequence, or of all `seq-*`.

    `TrainSplit.txt` and `TestSplit.txt` of the scene, if both are there, divide the sequences.

    Raises:
        UserError: a file is missing or malformed.
    """
    sequences = sorted(folder for folder in root.glob("seq-*") if folder.is_dir()) or [root]
    splits = _7scenes_splits(root)
    views: list[View] = []
    for folder in sequences:
        for pose_path in sorted(folder.glob("frame-*.pose.txt")):
            stem = pose_path.name.removesuffix(".pose.txt")
            image_path, depth_path = folder / f"{stem}.color.png", folder / f"{stem}.depth.png"
            size = images.image_size(image_path)
            views.append(
                View(
                    stamp=len(views) * _FRAME_PERIOD_S,
                    image_path=image_path,
                    camera=_centred_camera(_7SCENES_COLOR, size),
                    camtoworld=read_pose(_numbers_4x4(pose_path), str(pose_path)),
                    depth_path=depth_path if depth_path.is_file() else None,
                    depth_unit_m=_MILLIMETRE,
                    depth_camera=_centred_camera(_7SCENES_DEPTH, size),
                    split=splits.get(folder.name),
                )
            )
    return views


def _centred_camera(focal: float, size: tuple[int, int]) -> Camera:
    """The Kinect's camera of this focal length at 640 pixels, for images of another size."""
    scaled = focal * size[0] / 640
    return Camera(np.array([[scaled, 0, size[0] / 2], [0, scaled, size[1] / 2], [0, 0, 1]]), *size)


def _7scenes_splits(root: Path) -> dict[str, str]:
    splits = {}
    for name, split in (("TrainSplit.txt", TRAINING), ("TestSplit.txt", HELD_OUT)):
        if not (root / name).is_file():
            return {}
        for number in re.findall(r"sequence(\d+)", read_text(root / name)):
            splits[f"seq-{int(number):02d}"] = split
    return splits


def read_scannet(root: Path) -> list[View]:
    """Reads `color/`, `depth/`, `pose/` and `intrinsic/`; frames whose pose is not finite are left out.

    Raises:
        UserError: a file is missing or malformed, or no frame has a pose.
    """
    color = _scannet_color(root)
    if color is None:
        raise UserError(f"{root}: no folder color/ (or rgb/), as ScanNet's SensReader exports it")
    K, depth_K = (_numbers_4x4(root / "intrinsic" / f"intrinsic_{kind}.txt") for kind in ("color", "depth"))
    photographs = sorted(
        (
            path
            for path in color.iterdir()
            if path.suffix.lower() in images.IMAGE_SUFFIXES and path.stem.isdigit()
        ),
        key=lambda path: int(path.stem),
    )
    views, lost = [], 0
    for path in photographs:
        pose = _numbers_4x4(root / "pose" / f"{path.stem}.txt")
        if not np.isfinite(pose).all():
            lost += 1
            continue
        depth_path = root / "depth" / f"{path.stem}.png"
        camera, has_depth = _scannet_camera(K, path), depth_path.is_file()
        views.append(
            View(
                stamp=int(path.stem) * _FRAME_PERIOD_S,
                image_path=path,
                camera=camera,
                camtoworld=read_pose(pose, str(root / "pose" / f"{path.stem}.txt")),
                depth_path=depth_path if has_depth else None,
                depth_unit_m=_MILLIMETRE,
                depth_camera=_scannet_camera(depth_K, depth_path) if has_depth else None,
            )
        )
    _report_lost(root, lost, len(photographs), "finite pose")
    return views


def _scannet_color(root: Path) -> Path | None:
    return next((root / name for name in ("color", "rgb") if (root / name).is_dir()), None)


def _scannet_camera(K: np.ndarray, path: Path) -> Camera:
    """The camera of an image file; ScanNet puts pixel centres at integers."""
    shifted = K[:3, :3].copy()
    shifted[:2, 2] += 0.5
    return check_camera(Camera(shifted, *images.image_size(path)), str(path))


def _report_lost(root: Path, lost: int, count: int, what: str) -> None:
    if lost == count:
        raise UserError(f"{root}: none of the {count} images has a {what}")
    if lost:
        logger.warning("%s: %d of %d images are left out: they have no %s", root, lost, count, what)


def _numbers_4x4(path: Path) -> np.ndarray:
    """The matrix [4, 4] in a text file; its numbers may be infinite."""
    fields = read_text(path).split()
    try:
        return np.array(fields, np.float64).reshape(4, 4)
    except ValueError:
        raise UserError(f"{path}: expected 4 x 4 numbers") from None


def _names(path: Path) -> Iterator[tuple[str, float, str]]:
    """Place, stamp and file name of each line of a list of TUM."""
    for where, stamp, fields in _lines(path):
        if len(fields) != 1:
            raise UserError(f"{where}: expected a stamp in seconds and a file name")
        yield where, stamp, fields[0]


def _numbers(path: Path, count: int) -> Iterator[tuple[str, float, list[float]]]:
    """Place, stamp and the other numbers of each line of a list of TUM."""
    for where, stamp, fields in _lines(path):
        try:
            numbers = [float(field) for field in fields]
        except ValueError:
            numbers = []
        if len(numbers) != count - 1:
            raise UserError(f"{where}: expected {count} numbers: stamp tx ty tz qx qy qz qw")
        yield where, stamp, numbers


def _lines(path: Path) -> Iterator[tuple[str, float, list[str]]]:
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        fields = line.replace(",", " ").split()
        if fields and not fields[0].startswith("#"):
            where = f"{path}: line {number}"
            try:
                stamp = float(fields[0])
            except ValueError:
                raise UserError(f"{where}: {fields[0]!r} is no stamp in seconds") from None
            yield where, stamp, fields[1:]
