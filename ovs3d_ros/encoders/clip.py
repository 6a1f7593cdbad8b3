"""CLIP through open_clip: the crop pyramid of 3D-OVS, one dense pass, and text.

The pyramid resizes the whole image once per crop size, so a crop has exactly the size of the model's input.
Crops are views of the resized image: every crop is antialiased and none is resized on its own.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from ovs3d_ros.config import ClipConfig
from ovs3d_ros.encoders.checkpoints import check_weight_files
from ovs3d_ros.encoders.crops import CropGroup, plan_relative_crops
from ovs3d_ros.encoders.dense import (
    average_directions,
    dense_features,
    dense_table,
    is_transformer,
    supports_dense,
)
from ovs3d_ros.encoders.folding import fold_batch_norms
from ovs3d_ros.encoders.precision import image_autocast
from ovs3d_ros.encoders.preprocessing import fitted_size, image_to_tensor, resize
from ovs3d_ros.encoders.text import encode_tokens
from ovs3d_ros.encoders.validation import check_words
from ovs3d_ros.types import CropTable, UserError

_log = logging.getLogger(__name__)

BUNDLED = Path(__file__).parent.parent / "models" / "tiny_clip"


class ClipEncoder:
    """An open_clip model behind the `ImageTextEncoder` protocol.

    Args:
        model: an open_clip model in eval mode, on `device`.
        tokenizer: open_clip tokenizer of that model.
        name: recorded in map files.
        config: mode, crop pyramid and batch size.
        device: torch device name.
        calibration: contents of `calibration.json`; its `encoder` section may give `mode` and `dense_sizes`.

    Attributes:
        mode: "pyramid" or "dense".
        crop_px: side of the model's input in pixels.

    Raises:
        UserError: `clip.mode=dense` for an image tower that has no dense mode.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        tokenizer,
        name: str,
        config: ClipConfig,
        device: str,
        calibration: dict | None = None,
    ) -> None:
        self.name = name
        self.calibration = calibration
        self._model, self._tokenizer, self._config, self._device = model, tokenizer, config, device
        self.crop_px = int(np.min(model.visual.image_size))
        preprocess = model.visual.preprocess_cfg
        self._mean, self._std = preprocess["mean"], preprocess["std"]
        calibrated = (calibration or {}).get("encoder", {})
        self.mode = _resolve_mode(config.mode, calibrated.get("mode"), device, supports_dense(model.visual))
        if self.mode == "dense" and not supports_dense(model.visual):
            raise UserError(
                f"clip.mode=dense: the image tower of {name} has no dense mode; set clip.mode=pyramid"
            )
        # In open_clip's own transformer torch copies bfloat16 weights for each crop of a batch, though not
        # for one dense pass: torch 2.15 was nine times slower than with float32 on three crops, ViT-B/16.
        copies_weights = self.mode == "pyramid" and is_transformer(model.visual)
        self._precision = "float32" if config.precision == "auto" and copies_weights else config.precision
        self._dense_sizes = config.dense_sizes or calibrated.get("dense_sizes") or (config.image_size,)
        self.dim = int(self.encode_text(["a"]).shape[1])

    @torch.inference_mode()
    def encode_image(self, image: np.ndarray) -> CropTable:
        """Crop table of an image; in dense mode one box per feature cell and one level.

        Args:
            image: [H, W, 3] uint8 RGB.

        Raises:
            UserError: not an RGB byte image.
        """
        pixels = image_to_tensor(image, self._device, self._mean, self._std)  # [1, 3, H, W]
        if self.mode == "dense":
            return self._encode_dense(pixels)
        config = self._config
        size = fitted_size(*pixels.shape[-2:], config.image_size)
        groups = plan_relative_crops(*size, self.crop_px, config.crop_divisors, config.crop_stride)
        return self._encode_groups(pixels, groups)

    @torch.inference_mode()
    def encode_text(self, prompts: Sequence[str]) -> torch.Tensor:
        """[P, D] float32 unit-norm embeddings on the CPU, of the prompts as written, without templates.

        Raises:
            UserError: there is no prompt, or one of them is empty.
        """
        prompts = check_words(prompts)
        tokens = self._tokenizer(prompts)  # [P, L]
        for index in (tokens[:, -1] != 0).nonzero()[:, 0].tolist():
            _log.warning(
                "prompt fills the model's %d tokens and may be truncated: %.60s",
                tokens.shape[1],
                prompts[index],
            )
        features = encode_tokens(self._model, tokens.to(self._device))
        return F.normalize(features.float(), dim=-1).cpu()

    @torch.inference_mode()
    def encode_crops(self, image: np.ndarray, groups: Sequence[CropGroup]) -> CropTable:
        """Crop table of planned crops.

        Args:
            image: [H, W, 3] uint8 RGB.
            groups: at least one for each level.

        Raises:
            UserError: not an RGB byte image.
        """
        return self._encode_groups(image_to_tensor(image, self._device, self._mean, self._std), groups)

    def _encode_groups(self, pixels: torch.Tensor, groups: Sequence[CropGroup]) -> CropTable:
        pixels = resize(pixels, *fitted_size(*pixels.shape[-2:], self._config.image_size))
        boxes, levels, embeddings = [], [], []
        for group in groups:
            group_boxes, group_embeddings = self._encode_group(pixels, group)
            boxes.append(group_boxes)
            embeddings.append(group_embeddings)
            levels.append(
                torch.full((len(group_boxes),), group.level, dtype=torch.int64, device=pixels.device)
            )
        num_levels = 1 + max(group.level for group in groups)
        return CropTable(torch.cat(boxes), torch.cat(levels), torch.cat(embeddings), num_levels)

    def _encode_group(self, pixels: torch.Tensor, group: CropGroup) -> tuple[torch.Tensor, torch.Tensor]:
        """Boxes [M, 4] and embeddings [M, D] of the crops of one size."""
        side, height, width = self.crop_px, group.height, group.width
        scaled = resize(pixels, height, width)[0]  # [3, H', W']
        parts = []
        for start in range(0, len(group.corners), self._config.batch_size):
            chunk = group.corners[start : start + self._config.batch_size]
            crops = torch.stack([scaled[:, top : top + side, left : left + side] for top, left in chunk])
            with image_autocast(self._precision, self._device):
                embeddings = self._model.encode_image(crops.contiguous(memory_format=torch.channels_last))
            parts.append(embeddings.float())
        top, left = torch.tensor(group.corners, dtype=torch.float32, device=pixels.device).unbind(-1)
        boxes = torch.stack(
            [left / width, top / height, (left + side) / width, (top + side) / height], dim=-1
        )
        return boxes, torch.cat(parts)

    def _encode_dense(self, pixels: torch.Tensor) -> CropTable:
        sizes = [fitted_size(*pixels.shape[-2:], size, enlarge=True) for size in self._dense_sizes]
        with image_autocast(self._precision, self._device):
            # One map [h, w, D] per size.
            maps = [dense_features(self._model.visual, pixels, *size).float() for size in sizes]
        return dense_table(maps[0] if len(maps) == 1 else average_directions(maps))


def _resolve_mode(configured: str, calibrated: str | None, device: str, has_dense: bool) -> str:
    """`auto` becomes the mode of the model's calibration, else dense on a CPU and the pyramid on a GPU."""
    if configured != "auto":
        return configured
    if calibrated:
        return calibrated
    return "dense" if device == "cpu" and has_dense else "pyramid"


def load_clip(config: ClipConfig, device: str) -> ClipEncoder:
    """Loads the open_clip model that `config` names, with its weights.

    `clip.model` is `bundled`, an open_clip name with `clip.pretrained` (tag or checkpoint file), or
    open_clip's `local-dir:/path` and `hf-hub:org/name`, which include their weights.

    Raises:
        UserError: open_clip is not installed, the model is unknown, or its weights cannot be loaded.
    """
    try:
        import open_clip
    except ImportError:
        raise UserError("CLIP needs open_clip: pip install open_clip_torch") from None
    source = f"local-dir:{BUNDLED}" if config.model == "bundled" else config.model
    is_self_contained = source.startswith(("local-dir:", "hf-hub:"))
    if not is_self_contained:
        check_weight_files("clip.pretrained", config.pretrained)
    elif source.startswith("local-dir:"):
        check_weight_files("clip.model", source.partition(":")[2])
    if not is_self_contained and source.replace("/", "-") not in open_clip.list_models():
        raise UserError(
            f"clip.model={source}: open_clip knows no such model; `open_clip.list_models()` lists "
            "them, or set clip.model=bundled"
        )
    try:
        tag = (
            not is_self_contained
            and open_clip.get_pretrained_cfg(source.replace("/", "-"), config.pretrained)
        ) or {}
        model = open_clip.create_model(
            source,
            pretrained=None if is_self_contained else config.pretrained,
            device=device,
            require_pretrained=True,
            force_quick_gelu=bool(tag.get("quick_gelu")),
        )
        tokenizer = open_clip.get_tokenizer(source, **_tokenizer_options(source))
    except Exception as error:  # the hub raises many types, and none names a remedy
        raise _unavailable(config, is_self_contained, error) from None
    name, calibration = f"{config.model}/{config.pretrained}", None
    if is_self_contained:
        name, calibration = source, _calibration(source)
    if config.model == "bundled":
        name = f"bundled/{(calibration or {}).get('name', 'tiny_clip')}"
    fold_batch_norms(model.eval().visual)
    model.visual.to(memory_format=torch.channels_last)
    return ClipEncoder(model, tokenizer, name, config, device, calibration)


def _tokenizer_options(source: str) -> dict:
    """Path of the byte-pair merges, as a keyword of open_clip, if the model's folder holds its own."""
    merges = Path(source.partition(":")[2]) / "bpe_merges.txt.gz"
    return {"bpe_path": str(merges)} if source.startswith("local-dir:") and merges.is_file() else {}


def _calibration(source: str) -> dict | None:
    path = Path(source.partition(":")[2]) / "calibration.json"
    if not source.startswith("local-dir:") or not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error}); write it again with tools/models") from None


def _unavailable(config: ClipConfig, is_self_contained: bool, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:160] or type(error).__name__
    if config.model == "bundled":
        return UserError(f"clip.model=bundled: {BUNDLED} is incomplete ({reason}); reinstall ovs3d_ros")
    if is_self_contained:
        return UserError(
            f"clip.model={config.model}: cannot load it ({reason}); check the path or the network, "
            "or set clip.model=bundled"
        )
    return UserError(
        f"clip.model={config.model}: no weights for clip.pretrained={config.pretrained!r} ({reason}); "
        "connect once so that open_clip can fetch them, or give clip.pretrained=/path/to/checkpoint, or "
        "set clip.model=bundled"
    )
