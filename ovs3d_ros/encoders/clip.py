"""CLIP through open_clip: the crop pyramid of 3D-OVS, one dense pass, and text.

The pyramid resizes the whole image once per crop size, so that a crop is exactly the model's input size, and cuts the
crops out as views: every crop is antialiased and none is resized on its own.
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
from ovs3d_ros.encoders.crops import Cut, relative_cuts
from ovs3d_ros.encoders.dense import dense_features, is_transformer, mean_directions, supports_dense
from ovs3d_ros.encoders.precision import image_precision
from ovs3d_ros.encoders.preprocessing import fitted_size, image_to_tensor, resize
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
        own = (calibration or {}).get("encoder", {})
        self.mode = _resolve_mode(config.mode, own.get("mode"), device, supports_dense(model.visual))
        if self.mode == "dense" and not supports_dense(model.visual):
            raise UserError(
                f"clip.mode=dense: the image tower of {name} has no dense mode; set clip.mode=pyramid"
            )
        # torch copies bfloat16 weights for each crop of a batch that goes through open_clip's own transformer (2.15: nine
        # times as slow as float32, three crops, ViT-B/16), but not for one dense pass
        slow = config.precision == "auto" and self.mode == "pyramid" and is_transformer(model.visual)
        self._precision = "float32" if slow else config.precision
        self._dense_sizes = config.dense_sizes or own.get("dense_sizes") or (config.image_size,)
        self.dim = int(self.encode_text(["a"]).shape[1])

    @torch.inference_mode()
    def encode_image(self, image: np.ndarray) -> CropTable:
        """Crop table of an image; in dense mode one box per feature cell and one scale.

        Args:
            image: [H, W, 3] uint8 RGB.

        Raises:
            UserError: not an RGB byte image.
        """
        pixels = image_to_tensor(image, self._device, self._mean, self._std)  # [1, 3, H, W]
        if self.mode == "dense":
            return self._dense(pixels)
        config = self._config
        size = fitted_size(*pixels.shape[-2:], config.image_size)
        return self._pyramid(
            pixels, relative_cuts(*size, self.crop_px, config.crop_divisors, config.crop_stride)
        )

    @torch.inference_mode()
    def encode_text(self, prompts: Sequence[str]) -> torch.Tensor:
        """[P, D] float32 unit-norm embeddings on the CPU, of the prompts as they are written: no templates.

        Raises:
            UserError: no prompt, or an empty one.
        """
        prompts = list(prompts)
        if not prompts or not all(isinstance(p, str) and p.strip() for p in prompts):
            raise UserError("encode_text: give at least one prompt, none of them empty")
        tokens = self._tokenizer(prompts)  # [P, L]
        if bool((tokens[:, -1] != 0).any()):
            longest = max(prompts, key=len)
            _log.warning(
                "prompt fills the %d tokens the model reads and may be cut: %.60s", tokens.shape[1], longest
            )
        features = self._model.encode_text(tokens.to(self._device))
        return F.normalize(features.float(), dim=-1).cpu()

    @torch.inference_mode()
    def encode_cuts(self, image: np.ndarray, cuts: Sequence[Cut]) -> CropTable:
        """Crop table of the crops that `cuts` names.

        Args:
            image: [H, W, 3] uint8 RGB.
            cuts: at least one of each level.

        Raises:
            UserError: not an RGB byte image.
        """
        return self._pyramid(image_to_tensor(image, self._device, self._mean, self._std), cuts)

    def _pyramid(self, pixels: torch.Tensor, cuts: Sequence[Cut]) -> CropTable:
        pixels = resize(pixels, *fitted_size(*pixels.shape[-2:], self._config.image_size))
        boxes, scales, embeddings = [], [], []
        for cut in cuts:
            box, embedding = self._cut(pixels, cut)
            boxes.append(box)
            embeddings.append(embedding)
            scales.append(torch.full((len(box),), cut.level, dtype=torch.int64, device=box.device))
        return CropTable(
            torch.cat(boxes), torch.cat(scales), torch.cat(embeddings), 1 + max(c.level for c in cuts)
        )

    def _cut(self, pixels: torch.Tensor, cut: Cut) -> tuple[torch.Tensor, torch.Tensor]:
        """Boxes [M, 4] and embeddings [M, D] of the crops of one size."""
        side, height, width = self.crop_px, cut.height, cut.width
        scaled = resize(pixels, height, width)[0]  # [3, H', W']
        parts = []
        for start in range(0, len(cut.corners), self._config.batch_size):
            chunk = cut.corners[start : start + self._config.batch_size]
            crops = torch.stack([scaled[:, top : top + side, left : left + side] for top, left in chunk])
            with image_precision(self._precision, self._device):
                embeddings = self._model.encode_image(crops.contiguous(memory_format=torch.channels_last))
            parts.append(embeddings.float())
        top, left = torch.tensor(cut.corners, dtype=torch.float32, device=pixels.device).unbind(-1)
        boxes = torch.stack(
            [left / width, top / height, (left + side) / width, (top + side) / height], dim=-1
        )
        return boxes, torch.cat(parts)

    def _dense(self, pixels: torch.Tensor) -> CropTable:
        sizes = [fitted_size(*pixels.shape[-2:], size, enlarge=True) for size in self._dense_sizes]
        with image_precision(self._precision, self._device):
            maps = [
                dense_features(self._model.visual, pixels, *size).float() for size in sizes
            ]  # [h, w, D] each
        features = maps[0] if len(maps) == 1 else mean_directions(maps)
        rows, columns, _ = features.shape
        y, x = torch.meshgrid(
            torch.arange(rows, device=pixels.device),
            torch.arange(columns, device=pixels.device),
            indexing="ij",
        )
        boxes = torch.stack([x / columns, y / rows, (x + 1) / columns, (y + 1) / rows], dim=-1).float()
        scales = torch.zeros(rows * columns, dtype=torch.int64, device=pixels.device)
        return CropTable(boxes.view(-1, 4), scales, features.reshape(rows * columns, -1), 1, (rows, columns))


def _resolve_mode(asked: str, calibrated: str | None, device: str, dense: bool) -> str:
    """`auto` takes what the model was calibrated with, else the pyramid on a GPU and dense on a CPU."""
    if asked != "auto":
        return asked
    if calibrated:
        return calibrated
    return "dense" if device == "cpu" and dense else "pyramid"


def load_clip(config: ClipConfig, device: str) -> ClipEncoder:
    """Loads the open_clip model that `config` names, with its weights.

    `clip.model` is `bundled`, an open_clip name with `clip.pretrained` (tag or checkpoint file), or open_clip's
    `local-dir:/path` and `hf-hub:org/name`, whose own weights are taken.

    Raises:
        UserError: open_clip is not installed, the model is unknown, or its weights cannot be had.
    """
    try:
        import open_clip
    except ImportError:
        raise UserError("CLIP needs open_clip: pip install open_clip_torch") from None
    source = f"local-dir:{BUNDLED}" if config.model == "bundled" else config.model
    has_schema = source.startswith(("local-dir:", "hf-hub:"))
    if not has_schema and source.replace("/", "-") not in open_clip.list_models():
        raise UserError(
            f"clip.model={source}: open_clip knows no such model; `open_clip.list_models()` lists "
            "them, or set clip.model=bundled"
        )
    try:
        tag = (
            not has_schema and open_clip.get_pretrained_cfg(source.replace("/", "-"), config.pretrained)
        ) or {}
        model = open_clip.create_model(
            source,
            pretrained=None if has_schema else config.pretrained,
            device=device,
            require_pretrained=True,
            force_quick_gelu=bool(tag.get("quick_gelu")),
        )
        tokenizer = open_clip.get_tokenizer(source, **_tokenizer_options(source))
    except Exception as error:  # the hub raises its own kinds, and none names a remedy
        raise _unavailable(config, has_schema, error) from None
    name, calibration = f"{config.model}/{config.pretrained}", None
    if has_schema:
        name, calibration = source, _calibration(source)
    if config.model == "bundled":
        name = f"bundled/{(calibration or {}).get('name', 'tiny_clip')}"
    model.eval()
    model.visual.to(memory_format=torch.channels_last)
    return ClipEncoder(model, tokenizer, name, config, device, calibration)


def _tokenizer_options(source: str) -> dict:
    """A model folder may bring its own byte-pair merges; open_clip takes their path as an argument."""
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


def _unavailable(config: ClipConfig, has_schema: bool, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:160] or type(error).__name__
    if config.model == "bundled":
        return UserError(f"clip.model=bundled: {BUNDLED} is incomplete ({reason}); reinstall ovs3d_ros")
    if has_schema:
        return UserError(
            f"clip.model={config.model}: cannot load it ({reason}); check the path or the network, "
            "or set clip.model=bundled"
        )
    return UserError(
        f"clip.model={config.model}: no weights for clip.pretrained={config.pretrained!r} ({reason}); "
        "connect once so that open_clip can fetch them, or give clip.pretrained=/path/to/checkpoint, or "
        "set clip.model=bundled"
    )
