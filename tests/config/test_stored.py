"""Which settings a map file carries: how the map was made, and nothing of the machine that made it."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from helpers import synthetic
from safetensors import safe_open
from safetensors.torch import save_file

from ovs3d_ros.config import Config, leaves
from ovs3d_ros.config.leaf import MACHINE, MAP, SESSION
from ovs3d_ros.pipeline import Ovs3d


def read_header(path: Path) -> dict:
    """The JSON header of a map file."""
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["ovs3d"])


def write_settings(path: Path, settings: dict) -> None:
    """Puts settings into the header of a map file, as an earlier version of the package did."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    header = read_header(path)
    header["meta"]["config"] |= settings
    save_file(tensors, path, metadata={"ovs3d": json.dumps(header)})


def save_small_map(path: Path) -> Path:
    """A map of one frame, without language features."""
    pipeline = Ovs3d(synthetic.make_config(), encode=False)
    pipeline.add_frame(synthetic.make_frames(1)[0])
    pipeline.save(path)
    return path


def test_map_made_on_a_gpu_opens_without_one(tmp_path, monkeypatch) -> None:
    path = save_small_map(tmp_path / "room.ovs3d")
    write_settings(path, {"compute.device": "cuda", "compute.rasterizer": "gsplat"})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    pipeline = Ovs3d.load(path)
    assert pipeline.device == "cpu" and pipeline.stats["num_gaussians"] > 100


def test_map_files_carry_no_settings_of_the_machine_or_session(tmp_path) -> None:
    stored = read_header(save_small_map(tmp_path / "room.ovs3d"))["meta"]["config"]
    assert {"clip.model", "map.sh_degree", "seed.spacing", "input.world_frame"} <= set(stored)
    groups = ("compute.", "query.", "refine.", "output.", "qos.", "tf.")
    names = {"map.directory", "clip.cache", "dino.cache", "clip.batch_size", "clip.precision", "autostart"}
    assert not [path for path in stored if path.startswith(groups) or path in names]


def test_old_maps_open_and_their_foreign_settings_are_ignored(tmp_path) -> None:
    path = save_small_map(tmp_path / "room.ovs3d")
    old = {
        "map.max_gaussians": 7000,
        "clip.crop_metres": [0.0],
        "clip.dense_sizes": [0],
        "input.cameras": [""],
        "map.directory": "/of/another/robot",
        "output.save_on_exit": "/of/another/robot/room.ovs3d",
        "query.presence": "not even a number",
        "removed.parameter": 3,
    }
    write_settings(path, old)
    config = Ovs3d.load(path).config
    assert config.map.max_gaussians == 7000
    assert config.clip.crop_metres == config.clip.dense_sizes == config.input.cameras == ()
    assert config.map.directory == Config().map.directory and config.output == Config().output
    assert config.query == Config().query


def test_every_parameter_has_one_place() -> None:
    places = (MAP, SESSION, MACHINE)
    for spec, _ in leaves():
        assert sum(place in spec.policy for place in places) == 1, spec.path
