"""Checks the tensors and the header of a map file, and converts them to the types they are used in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from ovs3d_ros.geometry import MAX_COORDINATE, check_camera, check_coordinates, check_pose, check_stamp
from ovs3d_ros.types import Camera, MapFrame, UserError

WORLD_VERSION = 1  # no map frame
_DOUBLE = ("camtoworlds", "stamps")  # used in double precision, all others in single precision
_MAX_COUNT = 2**63  # ROS messages carry versions and counts in 64 bits
_MAX_PSNR = 1000.0  # dB
_WHOLE = dict(  # types of the tensors that hold no floating-point numbers
    code_values=torch.int8,
    keyframe_images=torch.uint8,
    keyframe_depths=torch.uint8,
    keyframe_masks=torch.uint8,
    keyframe_owners=torch.int32,
    crop_levels=torch.int32,
)

Tensors = dict[str, torch.Tensor]


def to_frame(path: Path, header: dict[str, Any]) -> MapFrame:
    """The map frame; that of the world in a file of `WORLD_VERSION`, which may lack it."""
    if header["format_version"] == WORLD_VERSION:
        return MapFrame()
    origin, unit = np.array(header["frame"]["origin"], np.float64), float(header["frame"]["unit"])
    if origin.shape != (3,) or not 1 / MAX_COORDINATE <= unit <= MAX_COORDINATE:
        raise UserError(f"{path}: the origin and unit are {header['frame']}; make the map anew")
    return MapFrame(check_coordinates(origin, f"{path}: the origin"), unit)


def to_poses(path: Path, camtoworlds: torch.Tensor) -> np.ndarray:
    """Poses [F, 4, 4] float64."""
    poses = camtoworlds.double().numpy()
    for index, pose in enumerate(poses):
        check_pose(pose, f"{path}: keyframe {index}")
    return poses


def to_stamps(path: Path, stamps: torch.Tensor) -> np.ndarray:
    """Stamps [F] float64 in seconds."""
    seconds = stamps.double().numpy()
    for index, stamp in enumerate(seconds):
        check_stamp(float(stamp), f"{path}: keyframe {index}")
    return seconds


def to_count(path: Path, value: Any, name: str) -> int:
    """A number that ROS messages can carry."""
    count = int(value)
    if not 0 <= count < _MAX_COUNT:
        raise UserError(f"{path}: {name} is {count}, expected 0 or more, in 63 bits; make the map anew")
    return count


def to_psnr(path: Path, value: Any) -> float | None:
    """The running PSNR in dB; None for a map that was not trained."""
    if value is None:
        return None
    if not abs(float(value)) < _MAX_PSNR:
        raise UserError(f"{path}: psnr is {value}; make the map anew")
    return float(value)


def to_camera(path: Path, entry: dict[str, Any]) -> Camera:
    """A camera of the header."""
    K = np.array(entry["K"], np.float64)
    return check_camera(Camera(K, int(entry["width"]), int(entry["height"])), str(path))


def check_shapes(path: Path, tensors: Tensors, **expected: tuple[int, ...]) -> None:
    """Raises UserError unless the tensors have the expected shapes."""
    for name, shape in expected.items():
        if tuple(tensors[name].shape) != shape:
            raise UserError(
                f"{path}: tensor {name} has shape {list(tensors[name].shape)}, expected {list(shape)}"
            )


def convert_values(path: Path, tensors: Tensors) -> None:
    """Converts tensors to the type they are used in.

    Raises:
        UserError: a tensor is not of finite floating-point numbers, or the codec's two do not match.
    """
    for name, tensor in tensors.items():
        if name in _WHOLE and tensor.dtype == _WHOLE[name]:
            continue
        if not tensor.is_floating_point():
            raise UserError(f"{path}: tensor {name} holds {tensor.dtype}, expected floating point")
        if name not in _DOUBLE:
            tensors[name] = tensor = tensor.float()
        if not torch.isfinite(tensor).all():
            raise UserError(f"{path}: tensor {name} has NaN or infinite values; make the map anew")
    if "codec_basis" in tensors:
        basis, mean = tensors["codec_basis"].shape, tensors["codec_mean"].shape
        if len(basis) != 2 or tuple(mean) != (basis[0],):
            raise UserError(
                f"{path}: codec of shapes {list(basis)} and {list(mean)}, expected [D, d] and [D]"
            )
