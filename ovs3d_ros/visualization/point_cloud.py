"""What of a map goes into a point cloud, as numpy columns, and point clouds as PLY files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ovs3d_ros.config import OutputConfig
from ovs3d_ros.io.atomic import replacing
from ovs3d_ros.rasterize.spherical_harmonics import base_colors
from ovs3d_ros.types import MapSnapshot, QueryResult, UserError
from ovs3d_ros.visualization.pictures import label_colors

_PLY_TYPES = {"f4": "float", "u1": "uchar", "u4": "uint", "i4": "int"}


def visible_points(snapshot: MapSnapshot, config: OutputConfig) -> np.ndarray:
    """Indices [M] of the Gaussians a cloud shows: opaque enough, evenly thinned to the largest cloud."""
    opacities = snapshot.gaussians["opacities"].cpu().numpy()
    return thin(np.flatnonzero(opacities >= config.min_opacity), config.max_points)


def thin(indices: np.ndarray, limit: int) -> np.ndarray:
    """At most `limit` of the indices, evenly spread."""
    if len(indices) <= limit:
        return indices
    return indices[np.linspace(0, len(indices) - 1, limit).round().astype(np.int64)]


def point_columns(snapshot: MapSnapshot, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points [M, 3] float32 metres and their base colours [M, 3] uint8."""
    points = snapshot.gaussians["means"].cpu().numpy()[indices]
    base = base_colors(snapshot.gaussians["sh"]).cpu().numpy()[indices]
    rgb = np.clip(base * 255.0, 0, 255).round().astype(np.uint8)
    return points.astype(np.float32), rgb


def answer_columns(result: QueryResult, indices: np.ndarray, rgb: np.ndarray) -> dict[str, np.ndarray]:
    """The columns of a labelled cloud: colours `rgb` [M, 3] by label, `label`, `instance`, `score`.

    Args:
        result: the answer.
        indices: [M] Gaussians in the cloud.
        rgb: [M, 3] uint8 base colours; what carries no label keeps a dimmed one.
    """
    labels = result.labels.cpu().numpy()[indices]
    relevancy = result.relevancy.cpu().numpy()[indices]  # [M, P]
    own = np.take_along_axis(relevancy, np.maximum(labels - 1, 0)[:, None], axis=1)[:, 0]
    colors = np.where((labels > 0)[:, None], label_colors(len(result.prompts))[labels], rgb // 2)
    return dict(
        rgb=colors.astype(np.uint8),
        label=labels.astype(np.uint32),
        instance=result.instances.cpu().numpy()[indices].astype(np.uint32),
        score=np.where(labels > 0, own, relevancy.max(axis=1)).astype(np.float32),
    )


def write_cloud(path: str | Path, points: np.ndarray, rgb: np.ndarray, **columns: np.ndarray) -> None:
    """Writes a point cloud as binary PLY: x y z, red green blue, and one property per further column.

    Args:
        path: file to write.
        points: [M, 3] metres.
        rgb: [M, 3] uint8.
        columns: [M] float32, uint8, uint32 or int32 each.

    Raises:
        UserError: the file cannot be written; what was there before stays.
    """
    fields = [("x", "f4"), ("y", "f4"), ("z", "f4"), ("red", "u1"), ("green", "u1"), ("blue", "u1")]
    fields += [(name, values.dtype.str[1:]) for name, values in columns.items()]
    table = np.zeros(len(points), dtype=[(name, "<" + kind) for name, kind in fields])
    for name, values in zip("xyz", points.T):
        table[name] = values
    for name, values in zip(("red", "green", "blue"), rgb.T):
        table[name] = values
    for name, values in columns.items():
        table[name] = values
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(points)}",
              *[f"property {_PLY_TYPES[kind]} {name}" for name, kind in fields], "end_header", ""]
    try:
        with replacing(Path(path)) as temporary, open(temporary, "wb") as file:
            file.write("\n".join(header).encode("ascii") + table.tobytes())
    except OSError as error:
        raise UserError(f"{path}: cannot write the point cloud ({error.strerror})") from None
