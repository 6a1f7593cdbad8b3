"""Text-comparable features per cell from one forward pass (docs/method.md, "Language features").

Vision transformers: the last block keeps only its value path, mixed by key-key attention with a Gaussian over
the grid, without residual and MLP (Hajimiri et al., NACLIP, WACV 2025; the value path is that of MaskCLIP,
Zhou et al., ECCV 2022). Convolutional timm trunks that end in global average pooling: their head is applied
to every cell of the map before the pool. For a linear head the cells average to the crop embedding exactly.
Vision transformers of timm that end in attention pooling (SigLIP, Zhai et al., ICCV 2023): the pool sees each
cell alone, so its attention is 1 and its value path, projection and MLP apply to the cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from ovs3d_ros.encoders.preprocessing import resize
from ovs3d_ros.types import CropTable

NEIGHBOUR_SIGMA = 5.0  # cells; NACLIP's published value


def supports_dense(visual: torch.nn.Module) -> bool:
    """Whether `dense_features` can handle this image tower."""
    return is_transformer(visual) or _is_timm_transformer(visual) or _is_pooled_conv(visual)


def dense_features(visual: torch.nn.Module, pixels: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Projected local features of an image.

    Args:
        visual: image tower of an open_clip model for which `supports_dense` holds.
        pixels: [1, 3, H, W] normalised image.
        height: height to encode it at, rounded to whole cells.
        width: width to encode it at, rounded to whole cells.

    Returns:
        [h, w, D] features, not normalised.
    """
    if is_transformer(visual):
        patch = visual.patch_size[0]
        return _vit_features(visual, resize_to_cells(pixels, height, width, patch))
    if _is_timm_transformer(visual):
        patch = visual.image_size[0] // visual.trunk.patch_embed.grid_size[0]
        return _timm_features(visual, resize_to_cells(pixels, height, width, patch))
    stride = visual.trunk.feature_info[-1]["reduction"]
    return _conv_features(visual, resize_to_cells(pixels, height, width, stride))


def average_directions(maps: Sequence[torch.Tensor]) -> torch.Tensor:
    """Averages the directions of feature maps [h, w, D] of one image at several sizes.

    CLIP recognises an object best where it fills the model's field of view; the image size for that differs
    between objects.

    Returns:
        [H, W, D] unit features on the grid of the largest map.
    """
    rows, columns = max((m.shape[:2] for m in maps), key=lambda grid: grid[0] * grid[1])
    units = (F.normalize(m, dim=-1).permute(2, 0, 1)[None] for m in maps)
    total = sum(F.interpolate(unit, (rows, columns), mode="bilinear", align_corners=False) for unit in units)
    return F.normalize(total[0].permute(1, 2, 0), dim=-1)


def dense_table(features: torch.Tensor) -> CropTable:
    """Crop table of a feature map [h, w, D]: one box per cell, one level."""
    rows, columns, _ = features.shape
    y, x = torch.meshgrid(
        torch.arange(rows, device=features.device),
        torch.arange(columns, device=features.device),
        indexing="ij",
    )
    boxes = torch.stack([x / columns, y / rows, (x + 1) / columns, (y + 1) / rows], dim=-1).float()
    levels = torch.zeros(rows * columns, dtype=torch.int64, device=features.device)
    return CropTable(boxes.view(-1, 4), levels, features.reshape(rows * columns, -1), 1, (rows, columns))


def is_transformer(visual: torch.nn.Module) -> bool:
    """Whether an image tower is open_clip's own transformer with a class token and plain blocks."""
    blocks = getattr(getattr(visual, "transformer", None), "resblocks", None)
    return (
        blocks is not None
        and hasattr(blocks[-1], "attn")
        and hasattr(blocks[-1].attn, "in_proj_weight")
        and getattr(visual, "attn_pool", None) is None
        and getattr(visual, "class_embedding", None) is not None
    )


def _is_timm_transformer(visual: torch.nn.Module) -> bool:
    """Whether an image tower is a timm transformer with absolute positions that `_timm_features` can handle.

    It pools patches alone by attention, or has a class token.
    """
    trunk = getattr(visual, "trunk", None)
    prefix = getattr(trunk, "num_prefix_tokens", None)
    pools_patches = prefix == 0 and getattr(trunk, "attn_pool", None) is not None
    has_class_token = prefix == 1 and getattr(trunk, "global_pool", None) == "token"
    return (
        (pools_patches or has_class_token)
        and getattr(trunk, "pos_embed", None) is not None
        and getattr(trunk, "rope", None) is None
        and hasattr(getattr(trunk, "patch_embed", None), "grid_size")
        and hasattr(getattr(getattr(trunk, "blocks", (None,))[-1], "attn", None), "qkv")
    )


def _is_pooled_conv(visual: torch.nn.Module) -> bool:
    trunk = getattr(visual, "trunk", None)
    pools = (getattr(part, "global_pool", None) for part in (trunk, getattr(trunk, "head", None)))
    is_mean = any(getattr(pool, "pool_type", None) == "avg" for pool in pools)
    return is_mean and bool(getattr(trunk, "feature_info", None))


def resize_to_cells(pixels: torch.Tensor, height: int, width: int, cell: int) -> torch.Tensor:
    """Pixels [1, 3, H, W] resized to about height x width: whole cells of `cell` px, at least one."""
    return resize(pixels, *(max(1, round(length / cell)) * cell for length in (height, width)))


def _conv_features(visual: torch.nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    cells = visual.trunk.forward_features(pixels)  # [1, C, h, w]
    _, channels, rows, columns = cells.shape
    single = cells[0].permute(1, 2, 0).reshape(rows * columns, channels, 1, 1)
    return visual.head(visual.trunk.forward_head(single)).view(rows, columns, -1)


def _timm_features(visual: Any, pixels: torch.Tensor) -> torch.Tensor:
    trunk = visual.trunk
    embed, prefix = trunk.patch_embed, trunk.num_prefix_tokens
    x = embed.proj(embed.backbone(pixels) if hasattr(embed, "backbone") else pixels)  # [1, C, h, w]
    rows, columns = x.shape[-2:]
    x = x.flatten(2).transpose(1, 2)
    x = embed.norm(x) if hasattr(embed, "norm") else x
    positions, size = trunk.pos_embed[0], embed.grid_size
    own, grid = positions.split([len(positions) - size[0] * size[1], size[0] * size[1]])
    x = x + _resample_grid(grid, size, rows, columns)
    if prefix:
        x = torch.cat([trunk.cls_token + (own if len(own) else 0.0), x], dim=1)
    x = trunk.norm_pre(x)
    *blocks, last = trunk.blocks
    for block in blocks:
        x = block(x)
    if prefix:  # the class token gathers the image: its last block becomes that of NACLIP, for each cell
        parts = last.norm1, last.attn.qkv.weight, last.attn.qkv.bias, last.attn.proj
        x = _neighbour_attention(x[:, prefix:], *parts, last.attn.num_heads, (rows, columns))
    else:
        x = last(x)
    cells = trunk.norm(x)[0][:, None]  # [hw, 1, C]: the pool sees one token each time
    return visual.head(trunk.forward_head(cells)).view(rows, columns, -1)


def _vit_features(visual: Any, pixels: torch.Tensor) -> torch.Tensor:
    x = visual.conv1(pixels)  # [1, C, h, w]
    rows, columns = x.shape[-2:]
    x = x.flatten(2).transpose(1, 2)  # [1, hw, C]
    cls = visual.class_embedding.view(1, 1, -1)
    x = torch.cat([cls, x], dim=1) + _position_embedding(visual, rows, columns)
    x = visual.ln_pre(x)
    *blocks, last = visual.transformer.resblocks
    for block in blocks:
        x = block(x)
    parts = last.ln_1, last.attn.in_proj_weight, last.attn.in_proj_bias, last.attn.out_proj
    x = _neighbour_attention(x[:, 1:], *parts, last.attn.num_heads, (rows, columns))
    x = visual.ln_post(x)
    return (x @ visual.proj if visual.proj is not None else x).view(rows, columns, -1)


def _position_embedding(visual: Any, rows: int, columns: int) -> torch.Tensor:
    """[1 + hw, C] position embedding: the class token's entry, then the grid resampled to rows x columns."""
    cls, grid = visual.positional_embedding[:1], visual.positional_embedding[1:]
    return torch.cat([cls, _resample_grid(grid, visual.grid_size, rows, columns)])


def _resample_grid(
    embedding: torch.Tensor, grid_size: Sequence[int], rows: int, columns: int
) -> torch.Tensor:
    """Position embedding [rows * columns, C] from that of a grid of another size."""
    if tuple(grid_size) == (rows, columns):
        return embedding
    grid = embedding.T.reshape(1, -1, *grid_size)
    return F.interpolate(grid, size=(rows, columns), mode="bicubic", align_corners=False)[0].flatten(1).T


def _neighbour_attention(
    tokens: torch.Tensor,
    norm: torch.nn.Module,
    weight: torch.Tensor,
    bias: torch.Tensor,
    projection: torch.nn.Module,
    heads: int,
    size: tuple[int, int],
) -> torch.Tensor:
    """Value path of a block: softmax(k k^T / sqrt(d) + Gaussian of the cell distance) v, then the projection.

    Args:
        tokens: [1, hw, C] patch tokens.
        norm: before the attention.
        weight: [3 C, C] of queries, keys and values.
        bias: [3 C] likewise.
        projection: after the attention.
        heads: number of attention heads.
        size: rows and columns of the cells.

    Returns:
        [1, hw, C].
    """
    _, count, channels = tokens.shape
    projected = F.linear(norm(tokens), weight, bias)
    _, k, v = projected[0].view(count, 3, heads, channels // heads).permute(1, 2, 0, 3)  # each [heads, hw, d]
    y, x = (torch.arange(n, device=tokens.device, dtype=tokens.dtype) for n in size)
    falloffs = (torch.exp(-((axis[:, None] - axis) ** 2) / (2 * NEIGHBOUR_SIGMA**2)) for axis in (y, x))
    prior = torch.kron(*falloffs)  # [hw, hw]: a Gaussian of the distance is separable
    mixed = F.scaled_dot_product_attention(k[None], k[None], v[None], attn_mask=prior)[0]
    return projection(mixed.permute(1, 0, 2).reshape(1, count, channels))
