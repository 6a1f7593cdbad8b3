"""The scene, the map and the answers that the tests of the commands share."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.box_scene import CLASSES, write_scene
from helpers.command_line import COUNT, HOLDOUT, PROMPTS, SETTINGS, ovs3d


@pytest.fixture(scope="package")
def scene(tmp_path_factory) -> Path:
    return write_scene(tmp_path_factory.mktemp("boxes") / "table", COUNT)


@pytest.fixture(scope="package")
def mapped(scene, tmp_path_factory) -> tuple[Path, dict]:
    """A map of the scene and what `map --json` said about it."""
    folder = tmp_path_factory.mktemp("map")
    assert (
        ovs3d(
            "map",
            scene,
            "-o",
            folder / "table.ovs3d",
            "--holdout",
            HOLDOUT,
            "--json",
            folder / "map.json",
            "--quiet",
            "--set",
            "train.final_steps=120",
            *SETTINGS,
        )
        == 0
    )
    return folder / "table.ovs3d", json.loads((folder / "map.json").read_text())


@pytest.fixture(scope="package")
def answered(mapped, tmp_path_factory) -> tuple[Path, list[dict]]:
    """The folder of a query for what is there and for what is not, and its objects.json."""
    out = tmp_path_factory.mktemp("answer") / "new" / "out"
    assert ovs3d("query", mapped[0], *PROMPTS, "purple box", "-o", out) == 0
    return out, json.loads((out / "objects.json").read_text())


@pytest.fixture(scope="package")
def refined(mapped, scene, tmp_path_factory) -> tuple[Path, dict]:
    """The map refined for its classes, and what `refine --json` said about it."""
    folder = tmp_path_factory.mktemp("refined")
    assert (
        ovs3d(
            "refine",
            mapped[0],
            scene,
            "--names",
            *CLASSES,
            "-o",
            folder / "r.ovs3d",
            "--json",
            folder / "refine.json",
            "--quiet",
            *SETTINGS,
            "--set",
            "dino.model=helpers.color_encoder:ColorPatches",
            "--set",
            "refine.background=object",
        )
        == 0
    )
    return folder / "r.ovs3d", json.loads((folder / "refine.json").read_text())
