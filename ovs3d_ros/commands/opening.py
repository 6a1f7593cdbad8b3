"""Opens the maps and the data that commands read."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ovs3d_ros.config import Config
from ovs3d_ros.datasets import Dataset, open_dataset
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.types import UserError


def load_semantic_map(path: Path, values: dict[str, Any], *, training: bool = False) -> Ovs3d:
    """Opens a map that holds language features; `training` as in `Ovs3d.load`.

    Raises:
        UserError: the map cannot be used, is of another encoder, or was made without language features.
    """
    pipeline = Ovs3d.load(path, values, training=training)
    if pipeline.clip is None:
        raise UserError(
            f"{path}: this map has no language features (made with --no-clip?); map it again without that"
        )
    return pipeline


def open_data(options: argparse.Namespace, config: Config) -> Dataset:
    """Opens the data that `shared_arguments.add_data` names; errors as in `open_dataset`."""
    return open_dataset(
        options.data,
        format=options.format,
        config=config,
        images=options.images,
        skip_missing=options.skip_missing,
    )
