"""Checkpoints that users name by path are never unpickled."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch

from ovs3d_ros.config import ClipConfig, DinoConfig
from ovs3d_ros.encoders import make_clip, make_dino
from ovs3d_ros.encoders.checkpoints import check_weight_files
from ovs3d_ros.types import UserError


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def write_trap(path: Path, sprung: Path, zipped: bool) -> None:
    if zipped:
        torch.save({"state_dict": Trap(sprung)}, path)
    else:
        path.write_bytes(pickle.dumps(Trap(sprung)))


@pytest.fixture(autouse=True)
def careless_torch(monkeypatch) -> None:
    """Loads every object unless told otherwise, as torch before 2.6 did for older open_clip and timm."""
    load = torch.load

    def load_carelessly(*arguments, weights_only=False, **options):
        return load(*arguments, weights_only=weights_only, **options)

    monkeypatch.setattr(torch, "load", load_carelessly)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", ["weights.pt", "weights.ckpt", "weights"])
def test_checkpoint_with_code_is_refused_and_not_run(name: str, zipped: bool, tmp_path) -> None:
    write_trap(tmp_path / name, tmp_path / "sprung", zipped)
    with pytest.raises(UserError, match=r"clip\.pretrained: .*weights.*convert it to \.safetensors"):
        make_clip(ClipConfig(model="ViT-B-16", pretrained=str(tmp_path / name)), "cpu")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("make, config", [(make_clip, ClipConfig), (make_dino, DinoConfig)])
def test_model_folder_with_code_is_refused_and_not_run(make, config, tmp_path) -> None:
    write_trap(tmp_path / "pytorch_model.bin", tmp_path / "sprung", True)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"model: .*pytorch_model\.bin"):
        make(config(model=f"local-dir:{tmp_path}"), "cpu")
    assert not (tmp_path / "sprung").exists()


def test_weights_and_tags_pass(tmp_path) -> None:
    torch.save({"state_dict": {"a": torch.zeros(2)}, "epoch": 3}, tmp_path / "weights.pt")
    check_weight_files("clip.pretrained", str(tmp_path / "weights.pt"))
    check_weight_files("clip.pretrained", str(tmp_path))
    check_weight_files("clip.pretrained", "openai")
