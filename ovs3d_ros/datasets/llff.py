"""Reads LLFF `poses_bounds.npy`, the layout of the 3D-OVS scenes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ovs3d_ros.datasets import images
from ovs3d_ros.datasets.dataset import View
from ovs3d_ros.datasets.poses import read_pose
from ovs3d_ros.geometry import check_camera
from ovs3d_ros.types import Camera, UserError

FRAME_PERIOD_S = 0.1  # LLFF scenes have no stamps


def read(root: Path, images_folder: Path | None = None) -> list[View]:
    """Reads an LLFF scene: `poses_bounds.npy` and an image folder whose sorted names match its rows.

    A row holds 3 x 5 numbers [down, right, backward, position, (H, W, f)] camera-to-world and the near and
    far bounds (unused). In OpenCV axes R = [right, down, forward] = [column 1, column 0, -column 2]. The
    focal length is that of the row, scaled to the image file; the principal point is the image centre. The
    world frame is kept, without recentring or NDC.

    Args:
        root: folder of the scene.
        images_folder: folder of the photographs; None: the one of the scene.

    Raises:
        UserError: a file is missing; poses have a wrong shape, are not finite or contradict the images.
    """
    path = root / "poses_bounds.npy"
    table = images.load_npy(path)
    if table.ndim != 2 or table.shape[1] != 17 or not len(table) or table.dtype.kind not in "fiu":
        raise UserError(f"{path}: has shape {table.shape} and dtype {table.dtype}; expected N x 17 numbers")
    folder = images_folder or images.image_folder(root)
    if folder is None or not folder.is_dir():
        raise UserError(
            f"{folder or root}: no images folder; put the photographs into {root / 'images'}, or give their "
            "folder with --images DIR"
        )
    # Names with a leading dot are no photographs: macOS writes `._a.jpg` beside `a.jpg` on foreign disks.
    paths = sorted(
        p
        for p in folder.iterdir()
        if p.suffix.lower() in images.IMAGE_SUFFIXES and not p.name.startswith(".")
    )
    if len(paths) != len(table):
        others = sorted({p.suffix.lower() for p in folder.iterdir()} & set(images.OTHER_FORMATS))
        hint = f"; {others[0]} files are not read: {images.OTHER_FORMATS[others[0]]}" if others else ""
        raise UserError(
            f"{folder}: has {len(paths)} images but {path.name} has {len(table)} poses; they must match{hint}"
        )
    rows = table[:, :15].astype(np.float64).reshape(-1, 3, 5)
    return [
        _view(row, i, image_path, f"{path}: row {i} ({image_path.name})")
        for i, (row, image_path) in enumerate(zip(rows, paths, strict=True))
    ]


def _view(row: np.ndarray, index: int, image_path: Path, where: str) -> View:
    down, right, backward, position, (height, width, focal) = row.T
    if not np.isfinite(row).all():
        raise UserError(f"{where}: has NaN or infinite entries; run LLFF's imgs2poses again")
    if min(height, width) < 1 or height != round(height) or width != round(width):
        raise UserError(f"{where}: image size {width:g}x{height:g} is not a whole number of pixels")
    camtoworld = np.eye(4)
    camtoworld[:3, :4] = np.stack([right, down, -backward, position], axis=1)
    K = np.array([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])
    camera = check_camera(Camera(K, int(width), int(height)), where)
    return View(
        stamp=index * FRAME_PERIOD_S,
        image_path=image_path,
        camera=images.fit_to_image(camera, image_path),
        camtoworld=read_pose(camtoworld, where),
    )
