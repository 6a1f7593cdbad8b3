"""The text features of the name bank on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from ovs3d_ros.query import name_cache
from ovs3d_ros.query.name_cache import encode_names

NAMES = [f"thing {i}" for i in range(600)]


class Encoder:
    """Random features of names, and the names that were encoded."""

    def __init__(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.features = F.normalize(torch.randn(len(NAMES), 16, generator=generator), dim=-1)
        self.encoded: list[str] = []

    def __call__(self, names: Sequence[str]) -> torch.Tensor:
        self.encoded += names
        return self.features[[NAMES.index(name) for name in names]]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(name_cache, "cache_folder", lambda: tmp_path / "kernels-0")
    return tmp_path / "name-bank"


def test_names_are_encoded_once_for_all_processes():
    first, second = Encoder(0), Encoder(0)
    assert torch.equal(encode_names(NAMES, "e", first), first.features)
    assert first.encoded == NAMES
    assert torch.equal(encode_names(NAMES, "e", second), first.features)
    assert len(second.encoded) < 10


def test_other_weights_names_and_encoders_are_encoded_anew():
    encode_names(NAMES, "e", Encoder(0))
    retrained = Encoder(1)  # with the name of the first
    assert torch.equal(encode_names(NAMES, "e", retrained), retrained.features)
    assert torch.equal(encode_names(NAMES, "e", retrained), retrained.features)
    other = Encoder(2)
    assert torch.equal(encode_names(NAMES, "another", other), other.features)
    fewer = Encoder(1)
    assert torch.equal(encode_names(NAMES[:300], "e", fewer), fewer.features[:300])


def test_damaged_files_and_missing_folders_cost_time_alone(folder, monkeypatch):
    encode_names(NAMES, "e", Encoder(0))
    (entry,) = folder.glob("*.safetensors")
    entry.write_bytes(entry.read_bytes()[:1000])
    again = Encoder(0)
    assert torch.equal(encode_names(NAMES, "e", again), again.features) and again.encoded == NAMES
    monkeypatch.setattr(name_cache, "cache_folder", lambda: None)
    nowhere = Encoder(0)
    assert torch.equal(encode_names(NAMES, "e", nowhere), nowhere.features) and nowhere.encoded == NAMES
