"""`ovs3d info`: tells what a map, a dataset or a bag holds."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from ovs3d_ros.commands import common
from ovs3d_ros.datasets import open_dataset
from ovs3d_ros.datasets.bag_file import is_bag
from ovs3d_ros.types import Camera


def run(options: argparse.Namespace) -> int:
    """Prints one line per fact; loads no model and reads no pixels.

    Raises:
        UserError: bad settings, or a file that is neither a map nor a dataset, or is broken.
    """
    path = options.data.expanduser()
    common.check_json(options.json, path)
    is_dataset = path.is_dir() or path.suffix.lower() == ".json" or is_bag(path)
    facts = _describe_dataset(options, path) if is_dataset else _describe_map(path)
    common.write_json(options.json, facts)
    width = max(map(len, facts))
    lines = [f"{name.replace('_', ' '):<{width}}  {_format(value)}" for name, value in facts.items()]
    common.print_message(options, "\n".join(lines))
    return 0


def _describe_map(path: Path) -> dict[str, Any]:
    from ovs3d_ros.map_file import load_map  # needs torch, datasets do not
    from ovs3d_ros.map_frame import points_to_map

    params, snapshot = load_map(path)
    meta, refined = snapshot.meta, snapshot.refined
    return dict(
        kind="map",
        bytes=path.stat().st_size,
        gaussians=len(params["means"]),
        keyframes=len(snapshot.names),
        image_sizes=_image_sizes(snapshot.cameras),
        extent_m=_extent(params["means"].numpy(), 2.0),
        camera_path_extent_m=_extent(points_to_map(snapshot.camtoworlds[:, :3, 3], snapshot.frame), 0.0),
        origin=snapshot.frame.origin.tolist(),
        metres_per_unit=snapshot.frame.unit,
        frames=meta.get("frames"),
        steps=meta.get("steps"),
        training_psnr_db=meta.get("psnr"),
        encoder=meta.get("clip") if snapshot.codec is not None else None,
        refined_names=list(refined.names) if refined is not None else [],
    )


def _describe_dataset(options: argparse.Namespace, path: Path) -> dict[str, Any]:
    dataset = open_dataset(
        path,
        format=options.format,
        config=common.read_config(options),
        images=options.images,
        skip_missing=options.skip_missing,
    )
    return dict(
        kind="bag" if dataset.format == "bag" else "dataset",
        format=dataset.format,
        frames=len(dataset),
        image_sizes=_image_sizes(dataset.cameras),
        depth=dataset.has_depth,
        masked_frames=dataset.masked,
        sparse_points=len(dataset.points[0]) if dataset.points is not None else 0,
        seconds=float(np.ptp(dataset.stamps)) if len(dataset) else 0.0,
        camera_path_extent_m=_extent(dataset.camtoworlds[:, :3, 3], 0.0),
        classes=dataset.class_names,
        annotated_frames=len(dataset.annotated),
        splits={name: dataset.splits.count(name) for name in sorted(set(dataset.splits))}
        if dataset.splits
        else {},
    )


def _image_sizes(cameras: list[Camera]) -> list[str]:
    return sorted({f"{camera.width}x{camera.height}" for camera in cameras})


def _extent(points: np.ndarray, percent: float) -> list[float] | None:
    """Edge lengths [3] of the box round points [N, 3], without a share of outliers at both ends."""
    if not len(points):
        return None
    low, high = np.percentile(points, [percent, 100.0 - percent], axis=0)
    return [round(float(side), 3) for side in high - low]


def _format(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{count} {name}" for name, count in value.items()) or "-"
    if isinstance(value, list):
        return (" x " if value and isinstance(value[0], float) else ", ").join(map(_format, value)) or "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.2f}"
    return "-" if value is None else str(value)
