"""ConSE: text-comparable features of photographs from an ImageNet classifier and sentence embeddings.

A cell of the image gets the mean embedding of the names of its likeliest classes, weighted by probability
(Norouzi et al., Zero-Shot Learning by Convex Combination of Semantic Embeddings, ICLR 2014). All weights come
from packages of the extra `photos`; docs/models.md says what they know and what not.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from ovs3d_ros.config import ClipConfig, DinoConfig
from ovs3d_ros.encoders.dense import average_directions, dense_table, resize_to_cells
from ovs3d_ros.encoders.minilm import DIM, MiniLM
from ovs3d_ros.encoders.packages import class_names, load_classifier
from ovs3d_ros.encoders.preprocessing import fitted_size, image_to_tensor
from ovs3d_ros.encoders.validation import check_words
from ovs3d_ros.types import CropTable, UserError

_log = logging.getLogger(__name__)

DENSE_SIZES = 640, 960  # px
KNOWLEDGE = (
    "clip.model=conse knows the things of ImageNet's 1,000 classes and what is named like them; it does not "
    "know floors, walls, colours or materials"
)
_CLASSES = 10  # likeliest classes that a cell is a mixture of; the paper's value
_POOL = 3  # cells whose mean is classified: the classifier was trained on means over 9 x 9
_CELL = 32  # px, of the last feature map
_PATCH_STAGE = 3  # of the trunk, with cells of 16 px: the finest that still holds things, not edges
_MEAN = _STD = (0.5, 0.5, 0.5)


class ConseEncoder:
    """An `ImageTextEncoder` of dense cells, for photographs, without a download at run time.

    Args:
        config: image sizes.
        device: torch device name.

    Raises:
        UserError: the extra `photos` is not installed, or the settings ask for crops.
    """

    name = "conse/efficientnet-lite2+all-minilm-l6-v2"
    dim = DIM
    calibration: dict | None = None

    def __init__(self, config: ClipConfig, device: str) -> None:
        if config.mode == "pyramid" or config.crop_metres:
            raise UserError(
                "clip.model=conse has no crops: set clip.mode=dense and leave clip.crop_metres empty"
            )
        self._sizes, self._device = config.dense_sizes or DENSE_SIZES, device
        self._classifier, self._text = load_classifier("clip.model=conse", device), MiniLM("clip.model=conse")
        names = self._text.encode([names[0] for names in class_names("clip.model=conse")])
        # What all names share says nothing; without it the cosines of unlike things are near 0.
        self._origin = names.mean(0)
        self._names = (names - self._origin).to(device)  # [1000, D]
        _log.info("%s", KNOWLEDGE)

    @torch.inference_mode()
    def encode_image(self, image: np.ndarray) -> CropTable:
        """Crop table of the cells of an [H, W, 3] uint8 RGB image, on the grid of the largest size.

        Raises:
            UserError: not an RGB byte image.
        """
        pixels = image_to_tensor(image, self._device, _MEAN, _STD)
        sizes = [fitted_size(*pixels.shape[-2:], size, enlarge=True) for size in self._sizes]
        return dense_table(
            average_directions([self._cells(resize_to_cells(pixels, *s, _CELL)) for s in sizes])
        )

    @torch.inference_mode()
    def encode_text(self, prompts: Sequence[str]) -> torch.Tensor:
        """[P, D] float32 unit-norm embeddings on the CPU, of the prompts as written, without templates.

        Raises:
            UserError: there is no prompt, or one of them is empty.
        """
        return F.normalize(self._text.encode(check_words(prompts)) - self._origin, dim=-1)

    def _cells(self, pixels: torch.Tensor) -> torch.Tensor:
        """[h, w, D] features of pixels [1, 3, 32 h, 32 w]."""
        cells = self._classifier.forward_features(pixels.contiguous(memory_format=torch.channels_last))
        cells = F.avg_pool2d(cells, _POOL, stride=1, padding=_POOL // 2, count_include_pad=False)
        scores = self._classifier.classifier(cells[0].permute(1, 2, 0)).softmax(-1)  # [h, w, 1000]
        best = scores.topk(_CLASSES, dim=-1)
        return (self._names[best.indices] * best.values[..., None]).sum(-2)


class ConsePatchEncoder:
    """A `PatchEncoder` with features from inside the image trunk of `ConseEncoder`.

    Args:
        config: image size.
        device: torch device name.

    Raises:
        UserError: the extra `photos` is not installed.
    """

    name = "conse/efficientnet-lite2"

    def __init__(self, config: DinoConfig, device: str) -> None:
        self._config, self._device = config, device
        self._trunk = load_classifier("dino.model=conse", device)
        self.dim = int(self._trunk.feature_info[_PATCH_STAGE]["num_chs"])

    @torch.inference_mode()
    def encode_image(self, image: np.ndarray) -> torch.Tensor:
        """[h, w, D] float32 features of an [H, W, 3] uint8 RGB image.

        Raises:
            UserError: not an RGB byte image.
        """
        pixels = image_to_tensor(image, self._device, _MEAN, _STD)
        size = fitted_size(*pixels.shape[-2:], self._config.image_size, enlarge=True)
        (cells,) = self._trunk.forward_intermediates(
            resize_to_cells(pixels, *size, _CELL), indices=[_PATCH_STAGE], intermediates_only=True
        )
        return cells[0].permute(1, 2, 0).contiguous()
