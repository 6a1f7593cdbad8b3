"""The seam for models of one's own that look at an image in one pass: two functions become an encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F

from ovs3d_ros.config import ClipConfig
from ovs3d_ros.encoders.dense import average_directions, dense_table, resize_to_cells
from ovs3d_ros.encoders.preprocessing import fitted_size, image_to_tensor
from ovs3d_ros.encoders.validation import check_words
from ovs3d_ros.types import CropTable, UserError


class CellEncoder:
    """An `ImageTextEncoder` of dense cells, made of a model's image part and its text part.

    Args:
        name: says model and weights; maps and caches are told apart by it.
        dim: length D of a feature.
        cells: features [h, w, D] of pixels [1, 3, h * patch, w * patch], comparable with those of texts.
        texts: features [P, D] of P prompts.
        patch: side of a cell in pixels.
        config: `clip.dense_sizes`, or `clip.image_size` where there are none, says how large images are.
        device: of the pixels.
        mean: of the pixels from 0 to 1, per channel.
        std: their deviation.

    Raises:
        UserError: the settings ask for crops.
    """

    calibration: dict | None = None

    def __init__(
        self,
        name: str,
        dim: int,
        cells: Callable[[torch.Tensor], torch.Tensor],
        texts: Callable[[Sequence[str]], torch.Tensor],
        patch: int,
        config: ClipConfig,
        device: str,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
    ) -> None:
        if config.mode == "pyramid" or config.crop_metres:
            raise UserError(f"{name} has no crops: set clip.mode=dense and leave clip.crop_metres empty")
        self.name, self.dim, self._cells, self._texts = name, dim, cells, texts
        self._patch, self._device, self._mean, self._std = patch, device, mean, std
        self._sizes, self._image_size = config.dense_sizes, config.image_size

    @torch.inference_mode()
    def encode_image(self, image: np.ndarray) -> CropTable:
        """Crop table of the cells of an [H, W, 3] uint8 RGB image, on the grid of the largest size.

        Raises:
            UserError: not an RGB byte image, or the model gave a grid of another size.
        """
        pixels = image_to_tensor(image, self._device, self._mean, self._std)
        shape = pixels.shape[-2:]
        sizes = [fitted_size(*shape, size, enlarge=True) for size in self._sizes] or [
            fitted_size(*shape, self._image_size)
        ]
        return dense_table(average_directions([self._encode(pixels, *size) for size in sizes]))

    @torch.inference_mode()
    def encode_text(self, prompts: Sequence[str]) -> torch.Tensor:
        """[P, D] float32 unit-norm embeddings on the CPU.

        Raises:
            UserError: there is no prompt, or one of them is empty.
        """
        return F.normalize(self._texts(check_words(prompts)).float().cpu(), dim=-1)

    def _encode(self, pixels: torch.Tensor, height: int, width: int) -> torch.Tensor:
        pixels = resize_to_cells(pixels, height, width, self._patch)
        features = self._cells(pixels).float()
        expected = (pixels.shape[-2] // self._patch, pixels.shape[-1] // self._patch, self.dim)
        if tuple(features.shape) != expected:
            raise UserError(
                f"{self.name}: gave features {tuple(features.shape)}, expected {expected} for cells of "
                f"{self._patch} px"
            )
        return features
