"""Writes PLY files: labelled point clouds, and Gaussians in the layout of 3DGS (Kerbl et al. 2023)."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from ovs3d_ros.io.atomic import Destination, atomic_write
from ovs3d_ros.types import UserError

_log = logging.getLogger(__name__)
_PLY_TYPES = {"f4": "float", "f8": "double", "u1": "uchar", "u4": "uint", "i4": "int"}


def write_ply(path: str | Path | Destination, params: dict[str, torch.Tensor]) -> None:
    """Writes the standard binary 3DGS PLY that splat viewers read.

    Gaussians with a value that is not finite are left out: viewers fail on them.

    Args:
        path: file to write.
        params: parameters in the stored form, see `mapping.gaussians.PARAMETERS`. Means of float64 make x, y
            and z double instead of float.

    Raises:
        UserError: the file cannot be written. The earlier file stays.
    """
    params = drop_not_finite(params)
    count, rest = params["means"].shape[0], params["sh_rest"].shape[1]
    position = "<f8" if params["means"].dtype == torch.float64 else "<f4"
    names = (
        ["nx", "ny", "nz"]
        + [f"f_dc_{i}" for i in range(3)]
        + [f"f_rest_{i}" for i in range(3 * rest)]
        + ["opacity"]
        + [f"scale_{i}" for i in range(3)]
        + [f"rot_{i}" for i in range(4)]
    )
    columns = [
        torch.zeros(count, 3),
        params["sh_dc"],
        params["sh_rest"].transpose(1, 2).reshape(count, 3 * rest),
        params["opacity_logits"][:, None],
        params["log_scales"],
        F.normalize(params["quats"], dim=-1),
    ]
    table = np.empty(count, [("position", position, 3), ("rest", "<f4", len(names))])
    table["position"] = params["means"].detach().cpu().numpy()
    table["rest"] = torch.cat([c.detach().cpu().float() for c in columns], dim=1).numpy()
    properties = [(name, position[1:]) for name in "xyz"] + [(name, "f4") for name in names]
    _write_table(path, properties, table, "the PLY")


def drop_not_finite(params: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The parameters without Gaussians of which a value is NaN or infinite; logs how many went."""
    finite = [torch.isfinite(p.detach()[:, None].flatten(1)).all(-1) for p in params.values()]
    rows = torch.stack(finite).all(0)
    if bool(rows.all()):
        return params
    _log.warning(
        "%d of %d Gaussians have NaN or infinite values and are left out", int((~rows).sum()), len(rows)
    )
    return {name: p[rows] for name, p in params.items()}


def write_cloud(path: str | Path, points: np.ndarray, rgb: np.ndarray, **columns: np.ndarray) -> None:
    """Writes a binary PLY point cloud with x y z, red green blue, and one property per column.

    Args:
        path: file to write.
        points: [M, 3] metres, float32 or float64.
        rgb: [M, 3] uint8.
        columns: arrays [M] by property name, each float32, uint8, uint32 or int32.

    Raises:
        UserError: the file cannot be written. The earlier file stays.
    """
    position = "f8" if points.dtype == np.float64 else "f4"
    fields = [
        ("x", position),
        ("y", position),
        ("z", position),
        ("red", "u1"),
        ("green", "u1"),
        ("blue", "u1"),
    ]
    fields += [(name, values.dtype.str[1:]) for name, values in columns.items()]
    table = np.zeros(len(points), dtype=[(name, "<" + kind) for name, kind in fields])
    for name, values in zip("xyz", points.T, strict=True):
        table[name] = values
    for name, values in zip(("red", "green", "blue"), rgb.T, strict=True):
        table[name] = values
    for name, values in columns.items():
        table[name] = values
    _write_table(path, fields, table, "the point cloud")


def _write_table(
    path: str | Path | Destination, properties: list[tuple[str, str]], table: np.ndarray, what: str
) -> None:
    """Writes a binary PLY of one element.

    Args:
        path: file to write.
        properties: name and type (a key of `_PLY_TYPES`) of each, as they lie in the rows of the table.
        table: the rows.
        what: how an error names the content.
    """
    header = [
        "ply",
        "format binary_little_endian 1.0",
        f"element vertex {len(table)}",
        *[f"property {_PLY_TYPES[kind]} {name}" for name, kind in properties],
        "end_header",
        "",
    ]
    try:
        with atomic_write(path) as file:
            file.write("\n".join(header).encode("ascii") + table.tobytes())
    except OSError as error:
        raise UserError(f"{path}: cannot write {what} ({error.strerror})") from None
