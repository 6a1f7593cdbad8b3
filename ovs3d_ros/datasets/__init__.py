"""Datasets on disk as sequences of `Frame`: nerfstudio, COLMAP, LLFF / 3D-OVS, RGB-D scans, and bags."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from ovs3d_ros.config import Config
from ovs3d_ros.datasets import bag, colmap, llff, nerfstudio, scans
from ovs3d_ros.datasets.bag_file import is_bag
from ovs3d_ros.datasets.dataset import Dataset, FileDataset, View
from ovs3d_ros.datasets.images import OTHER_FORMATS
from ovs3d_ros.datasets.labels import attach_annotations, attach_labels
from ovs3d_ros.datasets.masks import attach_masks
from ovs3d_ros.datasets.splits import split_frames, split_holdout
from ovs3d_ros.types import UserError

__all__ = ["FORMATS", "Dataset", "View", "open_dataset", "split_frames", "split_holdout"]

FORMATS = ("nerfstudio", "colmap", "llff", "tum", "7scenes", "scannet", "bag")
_FILE_REMEDIES = {suffix: f"; {remedy}" for suffix, remedy in OTHER_FORMATS.items()}
_FILE_REMEDIES[".sens"] = "; export color/, depth/, pose/ and intrinsic/ with ScanNet's SensReader"
_WITH_IMAGES_ELSEWHERE = ("nerfstudio", "colmap", "llff")


def open_dataset(
    path: str | Path,
    max_image_size: int = 0,
    format: str | None = None,
    config: Config | None = None,
    labels: bool = True,
    images: str | Path | None = None,
    skip_missing: bool = False,
) -> Dataset:
    """Opens a dataset: checks poses, file names and annotations at once, and reads pixels frame by frame.

    Labels (`labels/`, 3D-OVS `segmentations/`) and lerf_ovs annotations are included. The annotations
    lie in `label/` or in `../label/<scene>/`.

    Args:
        path: a folder with `transforms.json`, a COLMAP model (`sparse/0` and other usual places),
            or `poses_bounds.npy`; or a sequence of TUM RGB-D, 7-Scenes or ScanNet; or a nerfstudio JSON file
            such as `transforms_train.json`; or a bag: a rosbag2 folder, its .mcap or .db3 file, or a .bag of
            ROS 1.
        max_image_size: longest image side in pixels; larger images, depth and labels are shrunk. 0: no limit.
        format: one of FORMATS; needed only if the folder holds data of several formats.
        config: for bags, names topics and tolerances; default `Config()`.
        images: folder of the photographs, if they are not where the dataset names them; not for bags.
        skip_missing: leave out frames whose photograph is missing, instead of refusing the dataset.
        labels: whether to read labels and annotations; if not, faults in them are not noticed.

    Raises:
        UserError: no format or several formats fit, or the data is broken; names the file and a remedy.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    if format is not None and format not in FORMATS:
        raise UserError(f"dataset format {format!r} is unknown; choose one of {', '.join(FORMATS)}")
    if max_image_size < 0:
        raise UserError(
            f"{path}: max_image_size {max_image_size} is negative; give pixels, or 0 for full size"
        )
    format = format or _recognise(path)
    if format not in _WITH_IMAGES_ELSEWHERE and images is not None:
        raise UserError(f"{path}: data of the format {format} hold their images; leave out --images")
    if format == "bag":
        return bag.read(path, config or Config(), max_image_size)
    root = path.parent if path.is_file() else path
    views, points = _read_views(path, format, None if images is None else Path(images), skip_missing)
    if format != "nerfstudio":  # which names its masks itself
        views = attach_masks(root, views)
    if labels:
        views, classes = attach_labels(root, attach_annotations(root, views))
    else:
        views, classes = [replace(view, label_path=None) for view in views], None
    return FileDataset(root.resolve().name, format, views, classes, points, max_image_size)


def _read_views(
    path: Path, format: str, images: Path | None, skip_missing: bool
) -> tuple[list[View], tuple[np.ndarray, np.ndarray] | None]:
    """The views of a dataset of files, and its sparse points (xyz, rgb) if it has any."""
    if format == "nerfstudio":
        return nerfstudio.read(path if path.is_file() else path / "transforms.json", images, skip_missing)
    root = path.parent if path.is_file() else path
    if format == "colmap":
        return colmap.read(root, images, skip_missing)
    if format == "llff":
        return llff.read(root, images), None
    if format == "tum":
        return scans.read_tum(root, skip_missing), None
    return (scans.read_7scenes(root) if format == "7scenes" else scans.read_scannet(root)), None


def _recognise(path: Path) -> str:
    """The format whose files are at `path`."""
    if path.is_file():
        if is_bag(path):
            return "bag"
        if path.suffix != ".json":
            raise UserError(
                f"{path}: a dataset is a folder or a nerfstudio .json, .mcap, .db3 or .bag file"
                + _FILE_REMEDIES.get(path.suffix.lower(), "")
            )
        return "nerfstudio"
    found = []
    if (path / "transforms.json").is_file():
        found.append("nerfstudio")
    model = colmap.find_model(path)
    if model is not None and not colmap.is_nested(path, model):
        found.append("colmap")
    if (path / "poses_bounds.npy").is_file():
        found.append("llff")
    readers = {"tum": scans.is_tum, "7scenes": scans.is_7scenes, "scannet": scans.is_scannet, "bag": is_bag}
    found += [name for name, fits in readers.items() if fits(path)]
    if found == ["colmap", "llff"] and (path / "segmentations").is_dir():
        return "llff"  # a 3D-OVS scene: it always contains the COLMAP model that it was made from
    if len(found) > 1:
        raise UserError(
            f"{path}: holds {' and '.join(found)} data; choose one with format (--format {found[0]})"
        )
    if found:
        return found[0]
    if model is not None:
        return "colmap"
    if (path / "transforms_train.json").is_file():
        raise UserError(f"{path}: has split files; give one of them, e.g. {path / 'transforms_train.json'}")
    raise UserError(
        f"{path}: no dataset found; expected transforms.json, sparse/0/cameras.bin (or .txt), "
        "poses_bounds.npy, a bag's metadata.yaml, or the folders of TUM RGB-D, 7-Scenes or ScanNet"
    )
