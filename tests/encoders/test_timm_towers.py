"""Dense mode of open_clip models with timm towers, at full size with random weights: shapes and algebra."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ovs3d_ros.config import ClipConfig
from ovs3d_ros.encoders.clip import ClipEncoder
from ovs3d_ros.encoders.dense import _neighbour_attention, dense_features, supports_dense

open_clip = pytest.importorskip("open_clip")


@pytest.fixture(scope="module")
def siglip():
    torch.manual_seed(0)
    return open_clip.create_model("ViT-B-16-SigLIP2").eval()


@pytest.fixture(scope="module")
def mobile():
    torch.manual_seed(0)
    return open_clip.create_model("MobileCLIP-S1").eval()


@pytest.fixture(scope="module")
def hybrid():
    """A convolutional stem before a transformer with a class token."""
    torch.manual_seed(0)
    return open_clip.create_model("MobileCLIP-B").eval()


@torch.inference_mode()
def test_cells_average_to_the_pool_that_attends_alike_to_all(siglip):
    pool = siglip.visual.trunk.attn_pool
    kept = {name: value.clone() for name, value in pool.state_dict().items()}
    for part in (pool.latent, pool.q.bias, pool.mlp.fc2.weight, pool.mlp.fc2.bias):
        part.zero_()  # the same attention for all patches, and no MLP: what is left is linear in the patches
    pixels = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    cells, pooled = dense_features(siglip.visual, pixels, 224, 224), siglip.encode_image(pixels)[0]
    pool.load_state_dict(kept)
    assert cells.shape == (14, 14, 768)
    torch.testing.assert_close(cells.mean((0, 1)), pooled, atol=1e-4, rtol=1e-3)


@torch.inference_mode()
def test_a_cell_of_an_even_image_is_the_pool_of_all(siglip):
    trunk = siglip.visual.trunk
    positions, pixels = trunk.pos_embed.clone(), torch.full((1, 3, 224, 224), 0.3)
    trunk.pos_embed.copy_(positions.mean(1, keepdim=True))  # else equal patches differ by their places
    cells, pooled = dense_features(siglip.visual, pixels, 224, 224), siglip.encode_image(pixels)[0]
    trunk.pos_embed.copy_(positions)
    torch.testing.assert_close(cells[3, 5], pooled, atol=1e-4, rtol=1e-3)


@torch.inference_mode()
@pytest.mark.parametrize("name, cell", [("siglip", 16), ("mobile", 32)])
def test_features_are_local_at_any_size(name, cell, request):
    model = request.getfixturevalue(name)
    pixels = torch.randn(1, 3, 8 * cell, 12 * cell, generator=torch.Generator().manual_seed(1))
    changed = pixels.clone()
    changed[..., : 2 * cell, : 2 * cell] += 2.0
    before, after = (dense_features(model.visual, p, 8 * cell, 12 * cell) for p in (pixels, changed))
    assert before.shape[:2] == (8, 12)
    moved = (F.normalize(before, dim=-1) - F.normalize(after, dim=-1)).norm(dim=-1)
    assert moved[:2, :2].mean() > 2 * moved[4:, 6:].mean()


@torch.inference_mode()
def test_the_last_block_of_a_class_token_model_mixes_values_of_neighbours(hybrid):
    trunk, tokens = hybrid.visual.trunk, []
    hook = trunk.blocks[-1].register_forward_hook(lambda _, inputs, __: tokens.append(inputs[0]))
    pixels = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    hybrid.encode_image(pixels)
    hook.remove()
    last = trunk.blocks[-1]
    parts = last.norm1, last.attn.qkv.weight, last.attn.qkv.bias, last.attn.proj
    mixed = _neighbour_attention(tokens[0][:, 1:], *parts, last.attn.num_heads, (14, 14))
    expected = trunk.head(trunk.norm(mixed)).view(14, 14, -1)
    cells = dense_features(hybrid.visual, pixels, 224, 224)
    torch.testing.assert_close(cells, expected, atol=1e-5, rtol=1e-4)
    assert cells.std((0, 1)).max() > 1e-3  # they differ


@torch.inference_mode()
def test_cells_of_mobile_clip_average_to_the_crop(mobile):
    pixels = torch.randn(1, 3, 256, 256, generator=torch.Generator().manual_seed(1))
    cells, pooled = dense_features(mobile.visual, pixels, 256, 256), mobile.encode_image(pixels)[0]
    torch.testing.assert_close(cells.mean((0, 1)), pooled, atol=1e-4, rtol=1e-3)


def test_encoders_with_these_towers_are_dense_by_default_on_a_cpu(siglip, mobile, hybrid):
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)

    def tokens(prompts):
        return torch.tensor([[len(p), 1] + [0] * 62 for p in prompts])

    for model in (siglip, mobile, hybrid):
        assert supports_dense(model.visual)
        length = model.context_length
        encoder = ClipEncoder(
            model,
            lambda prompts, length=length: F.pad(tokens(prompts), (0, length - 64)),
            "test",
            ClipConfig(image_size=128),
            "cpu",
        )
        assert encoder.mode == "dense"
        table = encoder.encode_image(image)
        assert table.num_levels == 1 and table.embeddings.shape == (len(table.boxes), encoder.dim)
