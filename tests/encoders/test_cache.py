"""The cache of encoder results: no input is encoded twice, and no entry is used for another input."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ovs3d_ros.config import ClipConfig, Config, DinoConfig, override
from ovs3d_ros.encoders import encode_frame, make_clip, make_dino
from ovs3d_ros.encoders.cache import (
    CachedImageTextEncoder,
    CachedPatchEncoder,
    TensorCache,
    fingerprint_settings,
)
from ovs3d_ros.encoders.clip import BUNDLED as CLIP_FOLDER
from ovs3d_ros.encoders.dino import BUNDLED as DINO_FOLDER
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.types import Camera, CropTable, Frame, UserError

needs_clip = pytest.mark.skipif(not (CLIP_FOLDER / "model.safetensors").is_file(), reason="no bundled CLIP")
needs_dino = pytest.mark.skipif(not (DINO_FOLDER / "model.safetensors").is_file(), reason="no bundled DINO")

PYRAMID = ClipConfig(mode="pyramid", crop_divisors=(1.0, 2.0), crop_stride=0.5)


class Counted:
    """Wraps an encoder and counts how many images it encodes."""

    def __init__(self, encoder) -> None:
        self._encoder, self.calls = encoder, 0
        self.name, self.dim = encoder.name, encoder.dim
        self.calibration = getattr(encoder, "calibration", None)

    def encode_image(self, image: np.ndarray):
        self.calls += 1
        return self._encoder.encode_image(image)

    def encode_text(self, prompts) -> torch.Tensor:
        return self._encoder.encode_text(prompts)


class CountedFrames(Counted):
    """Wraps and counts an encoder of frames."""

    def encode_frame(self, frame: Frame) -> CropTable:
        self.calls += 1
        return self._encoder.encode_frame(frame)


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    squares = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.repeat(np.repeat(squares, 20, axis=0), 20, axis=1)


@pytest.fixture(scope="module")
def clip():
    # In bfloat16 half precision would be exact, and no test could see it.
    return make_clip(replace(PYRAMID, precision="float32"), "cpu")


def cached(encoder, folder: Path, config: ClipConfig = PYRAMID) -> CachedImageTextEncoder:
    return CachedImageTextEncoder(
        encoder, TensorCache(str(folder), "clip.cache"), fingerprint_settings(config, "cpu")
    )


def assert_close(ours: CropTable, expected: CropTable) -> None:
    assert torch.equal(ours.boxes, expected.boxes) and torch.equal(ours.levels, expected.levels)
    assert (ours.num_levels, ours.grid) == (expected.num_levels, expected.grid)
    assert ours.embeddings.dtype == torch.float32
    torch.testing.assert_close(ours.embeddings, expected.embeddings, rtol=2**-10, atol=1e-6)


@needs_clip
def test_second_run_reads_the_cache(clip, image, tmp_path) -> None:
    first, second = Counted(clip), Counted(clip)
    table = cached(first, tmp_path).encode_image(image)
    again = cached(second, tmp_path).encode_image(image.copy())
    assert (first.calls, second.calls) == (1, 0)
    assert_close(again, table)
    assert torch.equal(again.embeddings, table.embeddings), "the first run must equal later ones"
    assert [path.suffix for path in tmp_path.iterdir()] == [".safetensors"], "a temporary file is left over"
    other = image.copy()
    other[0, 0, 0] ^= 1
    cached(second, tmp_path).encode_image(other)
    cached(second, tmp_path).encode_image(image.reshape(160, 120, 3))
    assert second.calls == 2, "one flipped bit, or another shape of the same bytes, makes another image"


@needs_clip
@pytest.mark.parametrize("mode", ["pyramid", "dense"])
def test_make_clip_caches_its_tables(mode: str, image, tmp_path, monkeypatch) -> None:
    config = replace(PYRAMID, mode=mode, cache=str(tmp_path / "new" / "folder"))
    table = make_clip(config, "cpu").encode_image(image)
    again = make_clip(config, "cpu")
    monkeypatch.setattr("ovs3d_ros.encoders.clip.ClipEncoder.encode_image", None)
    assert_close(again.encode_image(image), table)
    assert (table.grid is not None) == (mode == "dense")
    assert (
        again.name.startswith("bundled/")
        and again.calibration
        and again.encode_text(["mug"]).shape == (1, again.dim)
    )


@needs_clip
@pytest.mark.parametrize(
    "change",
    [
        {"mode": "dense"},
        {"crop_divisors": (1.0, 3.0)},
        {"crop_stride": 0.4},
        {"image_size": 100},
        {"crop_metres": (1.0,)},
        {"dense_sizes": (64,)},
        {"model": "other"},
        {"pretrained": "laion"},
    ],
)
def test_other_settings_make_other_entries(change: dict, clip, image, tmp_path) -> None:
    counted = Counted(clip)
    cached(counted, tmp_path).encode_image(image)
    cached(counted, tmp_path, replace(PYRAMID, **change)).encode_image(image)
    cached(counted, tmp_path, replace(PYRAMID, batch_size=3, cache="elsewhere")).encode_image(image)
    assert counted.calls == 2
    counted.name = "another"
    cached(counted, tmp_path).encode_image(image)
    assert counted.calls == 3


def test_changed_weight_file_changes_the_fingerprint(tmp_path) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"1")
    configs = [
        ClipConfig(model="ViT-B-16", pretrained=str(weights)),
        ClipConfig(model=f"local-dir:{tmp_path}"),
        DinoConfig(model=f"local-dir:{tmp_path}"),
    ]
    before = [fingerprint_settings(config, "cpu") for config in configs]
    assert before == [fingerprint_settings(config, "cpu") for config in configs]
    weights.write_bytes(b"22")
    assert all(
        old != fingerprint_settings(config, "cpu") for old, config in zip(before, configs, strict=True)
    )
    assert fingerprint_settings(PYRAMID, "cpu") != fingerprint_settings(PYRAMID, "cuda")


def test_fingerprint_holds_the_number_format(monkeypatch):
    fingerprints = []
    for native in (True, False):
        monkeypatch.setattr(
            torch.cpu, "get_capabilities", lambda native=native: {"avx512_bf16": native}, raising=False
        )
        fingerprints.append(fingerprint_settings(PYRAMID, "cpu"))
    assert (
        fingerprints[0]
        != fingerprints[1]
        == fingerprint_settings(replace(PYRAMID, precision="float32"), "cpu")
    )


@needs_clip
def test_metric_tables_depend_on_depth_and_intrinsics(image, tmp_path) -> None:
    config = replace(PYRAMID, crop_metres=(1.0,))
    counted = CountedFrames(make_clip(config, "cpu"))
    K = np.array([[150.0, 0, 80], [0, 150, 60], [0, 0, 1]])
    frame = Frame(0.0, image, Camera(K, 160, 120), np.eye(4), np.full((120, 160), 2.0, np.float32))
    encoder = cached(counted, tmp_path, config)
    table = encode_frame(encoder, frame)
    assert_close(encode_frame(encoder, replace(frame, stamp=5.0)), table)
    assert counted.calls == 1
    nearer = encode_frame(encoder, replace(frame, depth=frame.depth / 2))
    longer = encode_frame(encoder, replace(frame, camera=Camera(K * [[2], [2], [1]], 160, 120)))
    assert (
        counted.calls == 3 and len(nearer.boxes) < len(table.boxes) and len(longer.boxes) < len(table.boxes)
    )
    for _ in range(2):
        with pytest.raises(UserError, match="no depth"):
            encode_frame(encoder, replace(frame, depth=None))


@needs_clip
def test_depth_does_not_matter_to_image_encoders(clip, image, tmp_path) -> None:
    counted = Counted(clip)
    encoder = cached(counted, tmp_path)
    frame = Frame(0.0, image, Camera(np.eye(3), 160, 120), np.eye(4), np.ones((120, 160), np.float32))
    for each in (frame, replace(frame, depth=None)):
        encode_frame(encoder, each)
    assert counted.calls == 1


@needs_clip
@pytest.mark.parametrize("damage", ["truncated", "empty", "flipped", "foreign"])
def test_damaged_entry_is_encoded_again_with_a_warning(damage: str, clip, image, tmp_path, caplog) -> None:
    counted = Counted(clip)
    encoder = cached(counted, tmp_path)
    table = encoder.encode_image(image)
    (path,) = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[-5] ^= 0x10
    path.write_bytes(
        {"truncated": content[:-40], "empty": b"", "flipped": content, "foreign": b"not tensors" * 9}[damage]
    )
    with caplog.at_level(logging.WARNING):
        assert torch.equal(encoder.encode_image(image).embeddings, table.embeddings)
    assert counted.calls == 2 and path.name in caplog.text and "encoding it again" in caplog.text
    assert_close(encoder.encode_image(image), table)
    assert counted.calls == 2, "the damaged file was not replaced"


@needs_clip
def test_failed_write_still_returns_the_result(clip, image, tmp_path, caplog) -> None:
    encoder = cached(clip, tmp_path)
    encoder.encode_image(image)
    (path,) = tmp_path.iterdir()
    path.unlink()
    path.mkdir()  # renaming the file to it fails, as on a full disk
    with caplog.at_level(logging.WARNING):
        assert len(encoder.encode_image(image).boxes)
    assert "cannot be written" in caplog.text
    assert list(tmp_path.iterdir()) == [path], "a temporary file is left over"


@pytest.mark.parametrize("make, config", [(make_clip, ClipConfig), (make_dino, DinoConfig)])
def test_unwritable_folder_is_rejected_first(make, config, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    folder = str(tmp_path / "file" / "folder")
    with pytest.raises(UserError, match=r"(clip|dino)\.cache=.*cannot write there") as caught:
        make(config(model="no_such_model", cache=folder), "cpu")  # before any model is loaded
    assert "\n" not in str(caught.value) and folder in str(caught.value)


@needs_dino
def test_make_dino_caches_its_features_in_the_same_folder(image, tmp_path, monkeypatch) -> None:
    config = DinoConfig(image_size=96, cache=str(tmp_path))
    tokens = make_dino(config, "cpu").encode_image(image)
    counted = Counted(make_dino(replace(config, cache=""), "cpu"))
    cache = TensorCache(str(tmp_path), "dino.cache")
    again = CachedPatchEncoder(counted, cache, fingerprint_settings(config, "cpu")).encode_image(image)
    assert counted.calls == 0 and again.dtype == torch.float32
    torch.testing.assert_close(again, tokens, rtol=2**-10, atol=1e-6)
    larger = CachedPatchEncoder(
        counted, cache, fingerprint_settings(replace(config, image_size=128), "cpu")
    ).encode_image(image)
    assert counted.calls == 1 and larger.shape == tokens.shape  # Counted encodes at its own size


def test_map_file_does_not_store_the_cache_folders(image, tmp_path) -> None:
    """On another machine the folder may be missing or not writable."""
    settings = {
        "compute.device": "cpu",
        "clip.cache": str(tmp_path / "c"),
        "dino.cache": str(tmp_path / "d"),
        "clip.crop_stride": 0.5,
    }
    pipeline = Ovs3d(override(Config(), settings), encode=False)
    K = np.array([[150.0, 0, 80], [0, 150, 60], [0, 0, 1]])
    pipeline.add_frame(
        Frame(0.0, image, Camera(K, 160, 120), np.eye(4), np.full((120, 160), 2.0, np.float32))
    )
    pipeline.save(tmp_path / "map.ovs3d")
    config = Ovs3d.load(tmp_path / "map.ovs3d", encode=False).config
    assert (config.clip.cache, config.dino.cache, config.clip.crop_stride) == ("", "", 0.5)
