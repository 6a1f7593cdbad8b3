"""Number formats of the image towers: bfloat16 gives the same directions, and `auto` knows where it pays."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ovs3d_ros.config import ClipConfig, DinoConfig
from ovs3d_ros.encoders import make_clip, make_dino, precision
from ovs3d_ros.encoders.clip import ClipEncoder

NATIVE, NOT_NATIVE = {"avx512_bf16": True}, {"avx512_bf16": False}


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.repeat(np.repeat(coarse, 20, axis=0), 20, axis=1)  # 120 x 160


def encode(kind: str, number_format: str, image: np.ndarray) -> torch.Tensor:
    """[M, D] float32 features by the bundled models."""
    if kind == "dino":
        return make_dino(DinoConfig(precision=number_format), "cpu").encode_image(image).flatten(0, 1)
    config = ClipConfig(mode=kind, crop_divisors=(2.0,), crop_stride=1.0, precision=number_format)
    return make_clip(config, "cpu").encode_image(image).embeddings


@pytest.mark.parametrize("kind", ["dense", "pyramid", "dino"])
def test_bfloat16_gives_the_same_directions(kind, image):
    exact, reduced = (encode(kind, number_format, image) for number_format in ("float32", "bfloat16"))
    assert reduced.dtype == torch.float32 and not torch.equal(exact, reduced)
    assert F.cosine_similarity(exact, reduced, dim=-1).min() > 0.998


@pytest.mark.parametrize("kind", ["dense", "pyramid", "dino"])
@pytest.mark.parametrize("capabilities, equal", [(NATIVE, "bfloat16"), (NOT_NATIVE, "float32")])
def test_auto_follows_the_processor(kind, capabilities, equal, image, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert torch.equal(encode(kind, "auto", image), encode(kind, equal, image))


def test_an_old_torch_that_cannot_tell_takes_float32(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    with precision.image_precision("auto", "cpu"):
        assert not torch.is_autocast_enabled("cpu")


def test_auto_leaves_crops_through_a_transformer_alone(image, monkeypatch):
    """There torch multiplies batches of tokens by bfloat16 weights many times more slowly than by float32."""
    import open_clip

    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: NATIVE, raising=False)
    torch.manual_seed(0)
    model, tokenizer = open_clip.create_model("ViT-B-32").eval(), open_clip.get_tokenizer("ViT-B-32")

    def embeddings(number_format: str, mode: str) -> torch.Tensor:
        config = ClipConfig(mode=mode, crop_divisors=(1.0,), crop_stride=1.0, precision=number_format)
        return ClipEncoder(model, tokenizer, "test", config, "cpu").encode_image(image).embeddings

    assert torch.equal(embeddings("auto", "pyramid"), embeddings("float32", "pyramid"))
    assert torch.equal(embeddings("auto", "dense"), embeddings("bfloat16", "dense"))
