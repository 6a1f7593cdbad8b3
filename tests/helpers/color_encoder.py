"""An image-text encoder that knows only colours.

It is exact where CLIP is vague, so tests can check positions.

Tests select it by import string: `clip.model:=helpers.color_encoder:ColorEncoder`.
"""

from __future__ import annotations

import os
import re
import time
import zlib
from typing import ClassVar

import cv2
import numpy as np
import torch

from ovs3d_ros.types import CropTable, UserError

COLORS = ("red", "green", "blue", "grey")
CELL = 4  # pixels
CHROMA_OF_GREY = 40.0  # a cell is grey where no channel exceeds the mean by more


class ColorEncoder:
    """Embeds a cell by its dominant colour channel, and a text by the colour that it names."""

    name = "tests/colors"
    dim = 16
    # The negatives name no colour: relevancy is sigmoid(4 cos). Labels need cos > 0.55, presence needs 0.4.
    calibration: ClassVar = {
        "query": {
            "temperature": 4.0,
            "threshold": 0.9,
            "presence_weights": (0.0, 20.0, 0.0, 0.0),  # of peak, cosine, margin, z-score
            "presence_bias": -8.0,
            "source": "by construction",
        }
    }

    def __init__(self, config, device):
        random = torch.randn(self.dim, self.dim, generator=torch.Generator().manual_seed(0))
        self.basis = torch.linalg.qr(random)[0]

    def encode_image(self, image: np.ndarray) -> CropTable:
        rows, columns = image.shape[0] // CELL, image.shape[1] // CELL
        cells = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA).astype(np.float32)
        chroma = np.maximum(cells - cells.mean(-1, keepdims=True), 0)
        strength = np.concatenate([chroma, np.full((rows, columns, 1), CHROMA_OF_GREY, np.float32)], -1)
        left, top = np.meshgrid(np.arange(columns) / columns, np.arange(rows) / rows)
        boxes = np.stack([left, top, left + 1 / columns, top + 1 / rows], -1).reshape(-1, 4)
        return CropTable(
            torch.from_numpy(boxes).float(),
            torch.zeros(rows * columns, dtype=torch.int64),
            torch.from_numpy(strength.reshape(-1, 4)) @ self.basis[:4],
            1,
            (rows, columns),
        )

    def encode_text(self, prompts) -> torch.Tensor:
        return torch.stack([self._text(prompt) for prompt in prompts])

    def _text(self, prompt: str) -> torch.Tensor:
        for color, vector in zip(COLORS, self.basis, strict=False):
            if re.search(rf"\b{color}\b", prompt):
                return vector
        return self.basis[4 + zlib.crc32(prompt.encode()) % (self.dim - 4)]  # a direction that no image has


class ColorPatches:
    """A patch encoder whose features are mean colours."""

    name = "tests/color-patches"
    dim = 3

    def __init__(self, config, device):
        pass

    def encode_image(self, image: np.ndarray) -> torch.Tensor:
        rows, columns = image.shape[0] // CELL, image.shape[1] // CELL
        cells = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA).astype(np.float32)
        return torch.from_numpy(cells - cells.mean(-1, keepdims=True) + 10.0)


def wait_at_gate() -> None:
    """Waits as long as the file exists that the environment variable GATE names."""
    while os.path.exists(os.environ.get("GATE", "")):
        time.sleep(0.02)


class GatedPatches(ColorPatches):
    """Waits as long as the file exists that the environment variable GATE names."""

    def encode_image(self, image: np.ndarray) -> torch.Tensor:
        wait_at_gate()
        return super().encode_image(image)


class GatedEncoder(ColorEncoder):
    """Cannot be made as long as the file exists that the environment variable GATE names."""

    def __init__(self, config, device):
        wait_at_gate()
        super().__init__(config, device)


class BrokenEncoder(ColorEncoder):
    """Raises in `encode_image`, like a bug or a failing GPU."""

    def encode_image(self, image: np.ndarray) -> CropTable:
        raise RuntimeError("the encoder broke")


class FragileEncoder(ColorEncoder):
    """Fails at its fifth image; the first is the warm-up."""

    images = 0

    def encode_image(self, image: np.ndarray) -> CropTable:
        self.images += 1
        if self.images == 5:
            raise RuntimeError("the encoder wore out")
        return super().encode_image(image)


class LateEncoder(ColorEncoder):
    """Needs the file that WEIGHTS names."""

    def __init__(self, config, device):
        if not os.path.exists(os.environ["WEIGHTS"]):
            raise UserError("clip.model: the weights are not there; fetch them")
        super().__init__(config, device)


class OtherEncoder(ColorEncoder):
    """The same encoder under another name, so that maps of the one are refused by the other."""

    name = "tests/other"


class UncalibratedEncoder(ColorEncoder):
    """An encoder that brings no calibration of its own."""

    name = "tests/uncalibrated"
    calibration = None


class OtherUncalibratedEncoder(ColorEncoder):
    """A second encoder without calibration."""

    name = "tests/other_uncalibrated"
    calibration = None
