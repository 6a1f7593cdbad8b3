"""Checks what an encoder returns, before any of it reaches the map: encoders of users have errors too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from ovs3d_ros.types import CropTable, UserError

MAX_LEVELS = 64
_MAX_FRACTION = 16.0  # box edges are fractions of the image, and padding may lie outside
_UNIT_TOLERANCE = 0.02  # of the length of text features; half precision needs 0.001


def check_crop_table(table: Any, encoder: Any) -> CropTable:
    """Returns a crop table with plain tensors of the documented types, if it can be lifted.

    Args:
        table: result of `encode_image` or `encode_frame`.
        encoder: for its `name` and `dim`.

    Raises:
        UserError: it is no crop table, or its shapes, types or values are wrong.
    """
    name = f"encoder {encoder.name}"
    if not isinstance(table, CropTable):
        raise UserError(f"{name}: returned {type(table).__name__} for an image, expected a CropTable")
    embeddings = _check_tensor(table.embeddings, (None, encoder.dim), f"{name}: embeddings")
    count = len(embeddings)
    if count == 0:
        raise UserError(f"{name}: returned no crop for the image; give at least one")
    boxes = _check_tensor(table.boxes, (count, 4), f"{name}: boxes")
    if float(boxes.abs().max()) > _MAX_FRACTION or bool((boxes[:, :2] > boxes[:, 2:]).any()):
        raise UserError(
            f"{name}: boxes must be left, top, right, bottom as fractions of the image; left and top are the "
            "smaller ones"
        )
    levels = _check_levels(table, count, name)
    _check_grid(table, count, name)
    return replace(table, boxes=boxes, levels=levels, embeddings=embeddings)


def check_words(prompts: Sequence[str]) -> list[str]:
    """Returns the prompts as a list.

    Raises:
        UserError: there is no prompt, or one of them is empty.
    """
    prompts = list(prompts)
    if not prompts or not all(isinstance(p, str) and p.strip() for p in prompts):
        raise UserError("encode_text: no prompt, or an empty prompt; give at least one, and none empty")
    return prompts


def check_texts(features: Any, count: int, encoder: Any) -> torch.Tensor:
    """Returns text features [P, D] as float32 on the CPU, if queries can use them.

    Args:
        features: result of `encode_text`.
        count: number P of texts.
        encoder: for its `name` and `dim`.

    Raises:
        UserError: the shape or the type is wrong, or features are not finite or not of unit length.
    """
    name = f"encoder {encoder.name}: text features"
    features = _check_tensor(features, (count, encoder.dim), name).cpu()
    if bool(((features.norm(dim=-1) - 1).abs() > _UNIT_TOLERANCE).any()):
        raise UserError(f"{name} must have unit length; normalise them in encode_text")
    return features


def check_patches(features: Any, encoder: Any) -> torch.Tensor:
    """Returns patch features [h, w, D] as float32, if they can be compared.

    Args:
        features: result of `PatchEncoder.encode_image`.
        encoder: for its `name` and `dim`.

    Raises:
        UserError: the shape or the type is wrong, or features are not finite.
    """
    features = _check_tensor(features, (None, None, encoder.dim), f"encoder {encoder.name}: patch features")
    if features.numel() == 0:
        raise UserError(f"encoder {encoder.name}: returned no patch features for the image")
    return features


def _check_tensor(tensor: Any, shape: tuple[int | None, ...], name: str) -> torch.Tensor:
    """Returns a floating-point tensor as finite float32; None in `shape` stands for any length."""
    expected = "x".join("any" if length is None else str(length) for length in shape)
    if not isinstance(tensor, torch.Tensor):
        raise UserError(f"{name} are of type {type(tensor).__name__}, expected a torch tensor {expected}")
    actual = tuple(tensor.shape)
    if len(actual) != len(shape) or any(
        want not in (None, got) for want, got in zip(shape, actual, strict=True)
    ):
        raise UserError(f"{name} have shape {list(actual)}, expected {expected}")
    if not tensor.is_floating_point():
        raise UserError(f"{name} are {tensor.dtype}, expected floating point")
    tensor = _plain(tensor).float()
    if not bool(torch.isfinite(tensor).all()):
        raise UserError(f"{name} have NaN or infinite values")
    return tensor


def _check_levels(table: CropTable, count: int, name: str) -> torch.Tensor:
    levels, number = table.levels, table.num_levels
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= MAX_LEVELS:
        raise UserError(f"{name}: num_levels is {number!r}, expected a whole number from 1 to {MAX_LEVELS}")
    if not isinstance(levels, torch.Tensor) or tuple(levels.shape) != (count,):
        raise UserError(f"{name}: levels must be a tensor with one entry for each of the {count} embeddings")
    if levels.is_floating_point() or levels.is_complex() or levels.dtype == torch.bool:
        raise UserError(f"{name}: levels are {levels.dtype}, expected int64")
    if int(levels.min()) < 0 or int(levels.max()) >= number:
        raise UserError(f"{name}: levels must be from 0 to {number - 1}, since num_levels is {number}")
    return _plain(levels).long()


def _check_grid(table: CropTable, count: int, name: str) -> None:
    grid = table.grid
    if grid is None:
        return
    is_pair = isinstance(grid, (tuple, list)) and len(grid) == 2 and all(isinstance(n, int) for n in grid)
    if not is_pair or min(grid) < 1 or grid[0] * grid[1] != count or table.num_levels != 1:
        raise UserError(
            f"{name}: grid is {grid!r}, expected (rows, columns) of the {count} embeddings, at one level; "
            "for crops, set it to None"
        )


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor without a graph, and no inference tensor, which forbids changes in place."""
    tensor = tensor.detach()
    return tensor.clone() if tensor.is_inference() else tensor
