"""Makes the object index of a folder of maps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ovs3d_ros.fleet.best_views import best_keyframes
from ovs3d_ros.fleet.parts import MAP_SUFFIX, IndexedMap, identity, read_part, write_part
from ovs3d_ros.fleet.regions import Regions, make_regions
from ovs3d_ros.map_frame import points_to_world
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.query.bank_presence import describe_cells
from ovs3d_ros.types import MapSnapshot, UserError


def index_map(pipeline: Ovs3d, path: Path) -> IndexedMap:
    """Makes and writes the index of one map.

    Args:
        pipeline: the map.
        path: the file that holds it.

    Raises:
        UserError: the map has no language features, or the index cannot be written.
    """
    of, snapshot = identity(path), pipeline.snapshot()
    if snapshot.codec is None:
        raise UserError(f"{path}: this map has no language features (made with --no-clip?)")
    regions = make_regions(snapshot, pipeline.config.query.min_weight)
    part = IndexedMap(
        path=path,
        encoder=snapshot.meta["clip"],
        settings=snapshot.meta["config"],
        frame=snapshot.frame,
        extended=snapshot.codec.extended.cpu().numpy(),
        regions=regions,
        keyframes=best_keyframes(
            pipeline, snapshot, points_to_world((regions.low + regions.high) / 2, snapshot.frame)
        ),
        stamps=np.asarray(snapshot.stamps, np.float64),
        names=list(snapshot.names),
        measures=_bank_measures(pipeline, snapshot, regions),
    )
    write_part(part, of)
    return part


def _bank_measures(pipeline: Ovs3d, snapshot: MapSnapshot, regions: Regions) -> np.ndarray:
    """How well the name bank fits regions, [M, 4]; M = 0 where a calibration decides about presence."""
    if pipeline.queries.bank is None:
        return np.zeros((0, 4), np.float32)
    bank = pipeline.queries.bank.names()
    directions = snapshot.directions(bank.texts).cpu()
    return describe_cells(torch.from_numpy(regions.codes), directions, bank.among).measures.numpy()


def open_parts(
    folder: Path, settings: dict[str, Any], on_map: Callable[[int, int], None]
) -> tuple[list[IndexedMap], dict[str, str]]:
    """Reads the index of all maps in a folder, and makes what is missing of it.

    Args:
        folder: holds the maps.
        settings: dotted parameters for the maps that must be opened.
        on_map: is told how many of how many maps are done.

    Returns:
        The parts, and for each map file that cannot be searched, by its name, the reason.

    Raises:
        UserError: the folder holds no map.
    """
    paths = sorted(folder.glob(f"*{MAP_SUFFIX}"))
    if not paths:
        raise UserError(
            f"{folder}: holds no maps (*{MAP_SUFFIX}); `ovs3d fleet map DATA -o {folder}` makes some"
        )
    parts, skipped = [], {}
    for done, path in enumerate(paths, start=1):
        part = read_part(path)
        if part is None:
            try:
                part = index_map(Ovs3d.load(path, settings), path)
            except UserError as error:
                skipped[path.name] = str(error)
        if part is not None:
            parts.append(part)
        on_map(done, len(paths))
    return parts, skipped
