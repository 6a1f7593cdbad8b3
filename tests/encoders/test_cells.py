"""Encoders of one's own from two functions, and the examples that make them of C-RADIOv3 and TIPSv2.

Their code and weights are not to be had here. Transformers of timm with their layouts, at full size and with
random weights, stand in for the image towers.
"""

from __future__ import annotations

import runpy
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ovs3d_ros.config import ClipConfig
from ovs3d_ros.encoders.cells import CellEncoder
from ovs3d_ros.encoders.validation import check_crop_table
from ovs3d_ros.types import UserError

timm = pytest.importorskip("timm")

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
IMAGE = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
VOCABULARY, TOKENS = 300, 64


def colours(config: ClipConfig, cells=None) -> CellEncoder:
    """An encoder whose features are mean colours, for cells of 8 px."""
    cells = cells or (lambda pixels: F.avg_pool2d(pixels, 8)[0].permute(1, 2, 0))
    return CellEncoder(
        "colours", 3, cells, lambda prompts: 5 * torch.eye(3)[: len(prompts)], 8, config, "cpu"
    )


@pytest.mark.parametrize("sizes, grid", [((), (15, 20)), ((80,), (8, 10)), ((80, 320), (30, 40))])
def test_cells_lie_where_they_look(sizes, grid):
    image = np.zeros((120, 160, 3), np.uint8)
    image[..., 2], image[:60, :80] = 255, (255, 0, 0)  # red top left on blue
    encoder = colours(ClipConfig(dense_sizes=sizes, image_size=160))
    table = check_crop_table(encoder.encode_image(image), encoder)
    assert table.grid == grid
    middle = (table.boxes[:, :2] + table.boxes[:, 2:]) / 2
    red = table.embeddings[:, 0] > table.embeddings[:, 2]
    inside = (middle < 0.45).all(1)
    outside = (middle > 0.55).any(1)
    assert red[inside].all() and not red[outside].any()


def test_texts_are_unit_and_words_are_checked():
    encoder = colours(ClipConfig())
    assert torch.equal(encoder.encode_text(["a", "b"]), torch.eye(3)[:2])
    with pytest.raises(UserError):
        encoder.encode_text(["a", " "])


@pytest.mark.parametrize("settings", [dict(mode="pyramid"), dict(crop_metres=(0.3,))])
def test_crops_are_refused(settings):
    with pytest.raises(UserError, match="no crops"):
        colours(ClipConfig(**settings))


def test_a_grid_of_another_size_is_refused():
    with pytest.raises(UserError, match="expected"):
        colours(ClipConfig(image_size=160), lambda pixels: torch.zeros(3, 3, 3)).encode_image(IMAGE)


class Texts(torch.nn.Module):
    """Means of token embeddings; tokens are bytes."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.token_embedding = torch.nn.Embedding(VOCABULARY, dim)

    def forward(self, ids: torch.Tensor, paddings: torch.Tensor) -> torch.Tensor:
        known = (paddings == 0).float()[..., None]
        return (self.token_embedding(ids) * known).sum(1) / known.sum(1)


def to_bytes(prompts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    rows = [list(prompt.encode())[:TOKENS] for prompt in prompts]
    ids = np.array([row + [0] * (TOKENS - len(row)) for row in rows])
    return ids, (ids == 0).astype(np.int32)


def check(encoder: CellEncoder, grid: tuple[int, int]) -> None:
    """Shapes, unit texts, and cells that differ and depend on what is in them."""
    table = check_crop_table(encoder.encode_image(IMAGE), encoder)
    assert table.grid == grid and table.embeddings.shape == (grid[0] * grid[1], encoder.dim)
    texts = encoder.encode_text(["sofa", "red mug"])
    torch.testing.assert_close(texts.norm(dim=-1), torch.ones(2))
    assert texts.shape == (2, encoder.dim) and (texts[0] @ texts[1]) < 0.999
    assert torch.equal(encoder.encode_image(IMAGE).embeddings, table.embeddings)
    assert not torch.allclose(encoder.encode_image(255 - IMAGE).embeddings, table.embeddings, atol=1e-3)


def test_example_of_c_radio(monkeypatch):
    torch.manual_seed(0)
    tower = timm.create_model("vit_base_patch16_224", dynamic_img_size=True, num_classes=0).eval()
    head, texts = torch.nn.Sequential(torch.nn.Linear(768, 1536), torch.nn.GELU()), Texts(1536)
    asked = []

    class Tokens(dict):
        def to(self, device: str) -> Tokens:
            return self

    class Radio(torch.nn.Module):
        adaptors = {  # noqa: RUF012
            "siglip2-g": types.SimpleNamespace(
                head_mlp=head,
                tokenizer=lambda prompts: Tokens(prompts=prompts),
                encode_text=lambda tokens: texts(*map(torch.from_numpy, to_bytes(tokens["prompts"]))),
            )
        }

        def forward(self, pixels: torch.Tensor) -> dict:
            assert 0.4 < pixels.mean() < 0.6  # RADIO normalises itself
            features = tower.forward_features(pixels)[:, 1:]
            return {"backbone": types.SimpleNamespace(summary=features.mean(1), features=features)}

    def load(*arguments: str, **options: object) -> Radio:
        asked.append((arguments, options))
        return Radio()

    monkeypatch.setattr(torch.hub, "load", load)
    make = runpy.run_path(str(EXAMPLES / "07_c_radio.py"))["CRadio"]
    encoder = make(ClipConfig(pretrained="c-radio_v3-b", dense_sizes=(224, 320)), "cpu")
    expected = dict(version="c-radio_v3-b", adaptor_names=["siglip2-g"])
    assert asked == [(("NVlabs/RADIO", "radio_model"), expected)] and "c-radio_v3-b" in encoder.name
    check(encoder, (15, 20))


def test_example_of_tips(monkeypatch, tmp_path):
    torch.manual_seed(0)
    tower = timm.create_model(
        "vit_base_patch14_reg4_dinov2", img_size=448, reg_tokens=1, dynamic_img_size=True, init_values=0.5
    ).eval()
    tower.num_register_tokens = 1
    tower.prepare_tokens_with_masks = lambda pixels: tower._pos_embed(tower.patch_embed(pixels))
    texts = Texts(768)
    for part, model in (("vision", tower), ("text", texts)):
        weights = {name: weight.numpy() for name, weight in model.state_dict().items()}
        np.savez(tmp_path / f"tips_v2_oss_b14_{part}.npz", **weights, temperature=np.ones(1))
    tips = types.ModuleType("tips.pytorch")
    tips.image_encoder = types.SimpleNamespace(vit_base=lambda **_: tower)
    tips.text_encoder = types.SimpleNamespace(
        TextEncoder=lambda sizes, vocab_size: texts,
        Tokenizer=lambda path: types.SimpleNamespace(tokenize=to_bytes),
    )
    monkeypatch.setitem(sys.modules, "tips", types.ModuleType("tips"))
    monkeypatch.setitem(sys.modules, "tips.pytorch", tips)
    make = runpy.run_path(str(EXAMPLES / "08_tips.py"))["Tips"]
    encoder = make(ClipConfig(pretrained=str(tmp_path), dense_sizes=(280,)), "cpu")
    check(encoder, (15, 20))
