"""Small datasets of a table top, and a folder of their maps."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.box_scene import BOXES, write_scene
from helpers.command_line import SETTINGS, ovs3d

FRAMES = 6


@pytest.fixture(scope="package")
def tables(tmp_path_factory) -> dict[str, Path]:
    """Datasets of a table with all three boxes, and of one without the red box."""
    root = tmp_path_factory.mktemp("tables")
    return {"full": write_scene(root / "full", FRAMES), "bare": write_scene(root / "bare", FRAMES, BOXES[1:])}


@pytest.fixture(scope="package")
def maps(tables, tmp_path_factory) -> Path:
    """A folder with a map of each dataset, without an index."""
    folder = tmp_path_factory.mktemp("maps")
    for name, data in tables.items():
        arguments = ["-o", folder / f"{name}.ovs3d", "--quiet", "--set", "train.final_steps=30", *SETTINGS]
        assert ovs3d("map", data, *arguments) == 0
    return folder
