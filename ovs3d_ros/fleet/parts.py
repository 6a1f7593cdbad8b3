"""The object index on disk: one file per map, `index/NAME.safetensors` in the folder of the maps.

Each part is written atomically and depends on its map alone. So any number of machines may add parts, and a
part that is lost or of another state of its map is made again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ovs3d_ros.fleet.regions import Regions
from ovs3d_ros.io.tensors import read_tensors, write_tensors
from ovs3d_ros.types import MapFrame, UserError

FOLDER = "index"
VERSION = 1
MAP_SUFFIX = ".ovs3d"


@dataclass(frozen=True, slots=True)
class IndexedMap:
    """What the index holds of one map.

    Attributes:
        path: the map file.
        encoder: name of its encoder.
        settings: stored settings of the map, by dotted path.
        frame: the map frame.
        extended: [D, d + 1] float32 basis of the codes, see `FeatureCodec.extended`.
        regions: the R regions.
        keyframes: [R] int32 keyframe that shows each region best; -1: none.
        stamps: [K] seconds of the keyframes.
        names: the K names of the keyframes.
        measures: [M, 4] how well the name bank fits the regions, see `bank_presence.measure`; M = 0 for an
            encoder that is calibrated.
    """

    path: Path
    encoder: str
    settings: dict[str, Any]
    frame: MapFrame
    extended: np.ndarray
    regions: Regions
    keyframes: np.ndarray
    stamps: np.ndarray
    names: list[str]
    measures: np.ndarray


def part_path(path: Path) -> Path:
    """The file that holds a map's part of the index."""
    return path.parent / FOLDER / f"{path.stem}.safetensors"


def identity(path: Path) -> list[int]:
    """Size in bytes and time of change in nanoseconds of a map file: another map has others."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def write_part(part: IndexedMap, of: list[int]) -> None:
    """Writes a map's part of the index.

    Args:
        part: what to write.
        of: `identity` of the map file that it was made from.

    Raises:
        UserError: it cannot be written.
    """
    tensors = {field.name: getattr(part.regions, field.name) for field in fields(Regions)}
    tensors |= {name: getattr(part, name) for name in ("extended", "keyframes", "stamps", "measures")}
    header = dict(
        version=VERSION,
        map=of,
        encoder=part.encoder,
        settings=part.settings,
        origin=part.frame.origin.tolist(),
        unit=part.frame.unit,
        names=part.names,
    )
    target = part_path(part.path)
    try:
        target.parent.mkdir(exist_ok=True)
        arrays = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in tensors.items()}
        write_tensors(target, arrays, json.dumps(header))
    except OSError as error:
        raise UserError(f"{target}: cannot write the index ({error.strerror or error})") from None


def read_part(path: Path) -> IndexedMap | None:
    """Reads a map's part of the index.

    Returns:
        The part; None if there is none, it is damaged, of another version, or of another state of the map.
    """
    try:
        # `safetensors` would map the file into memory: a fleet's index is small enough to be read.
        tensors, text = read_tensors(part_path(path))
        header = json.loads(text or "null")
        if header["version"] != VERSION or header["map"] != identity(path):
            return None
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        return IndexedMap(
            path=path,
            encoder=header["encoder"],
            settings=header["settings"],
            frame=MapFrame(np.array(header["origin"], np.float64), float(header["unit"])),
            regions=Regions(**{field.name: arrays[field.name] for field in fields(Regions)}),
            names=header["names"],
            **{name: arrays[name] for name in ("extended", "keyframes", "stamps", "measures")},
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
