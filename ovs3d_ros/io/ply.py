"""Writes PLY files: labelled point clouds, and Gaussians in the layout of 3DGS (Kerbl et al. 2023)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from ovs3d_ros.io.atomic import Destination, atomic_write
from ovs3d_ros.types import UserError

_PLY_TYPES = {"f4": "float", "u1": "uchar", "u4": "uint", "i4": "int"}


def write_ply(path: str | Path | Destination, params: dict[str, torch.Tensor]) -> None:
    """Writes the standard binary 3DGS PLY that splat viewers read.

    Args:
        path: file to write.
        params: parameters in the stored form, see `mapping.gaussians.PARAMETERS`.

    Raises:
        UserError: the file cannot be written. The earlier file stays.
    """
    count, rest = params["means"].shape[0], params["sh_rest"].shape[1]
    names = (
        ["x", "y", "z", "nx", "ny", "nz"]
        + [f"f_dc_{i}" for i in range(3)]
        + [f"f_rest_{i}" for i in range(3 * rest)]
        + ["opacity"]
        + [f"scale_{i}" for i in range(3)]
        + [f"rot_{i}" for i in range(4)]
    )
    columns = [
        params["means"],
        torch.zeros(count, 3),
        params["sh_dc"],
        params["sh_rest"].transpose(1, 2).reshape(count, 3 * rest),
        params["opacity_logits"][:, None],
        params["log_scales"],
        F.normalize(params["quats"], dim=-1),
    ]
    table = torch.cat([c.detach().cpu().float() for c in columns], dim=1).numpy().astype("<f4")
    header = [
        "ply",
        "format binary_little_endian 1.0",
        f"element vertex {count}",
        *[f"property float {name}" for name in names],
        "end_header",
        "",
    ]
    try:
        with atomic_write(path) as file:
            file.write("\n".join(header).encode("ascii"))
            file.write(np.ascontiguousarray(table).tobytes())
    except OSError as error:
        raise UserError(f"{path}: cannot write the PLY ({error.strerror})") from None


def write_cloud(path: str | Path, points: np.ndarray, rgb: np.ndarray, **columns: np.ndarray) -> None:
    """Writes a binary PLY point cloud with x y z, red green blue, and one property per column.

    Args:
        path: file to write.
        points: [M, 3] metres.
        rgb: [M, 3] uint8.
        columns: arrays [M] by property name, each float32, uint8, uint32 or int32.

    Raises:
        UserError: the file cannot be written. The earlier file stays.
    """
    fields = [("x", "f4"), ("y", "f4"), ("z", "f4"), ("red", "u1"), ("green", "u1"), ("blue", "u1")]
    fields += [(name, values.dtype.str[1:]) for name, values in columns.items()]
    table = np.zeros(len(points), dtype=[(name, "<" + kind) for name, kind in fields])
    for name, values in zip("xyz", points.T, strict=True):
        table[name] = values
    for name, values in zip(("red", "green", "blue"), rgb.T, strict=True):
        table[name] = values
    for name, values in columns.items():
        table[name] = values
    header = [
        "ply",
        "format binary_little_endian 1.0",
        f"element vertex {len(points)}",
        *[f"property {_PLY_TYPES[kind]} {name}" for name, kind in fields],
        "end_header",
        "",
    ]
    try:
        with atomic_write(path) as file:
            file.write("\n".join(header).encode("ascii") + table.tobytes())
    except OSError as error:
        raise UserError(f"{path}: cannot write the point cloud ({error.strerror})") from None
