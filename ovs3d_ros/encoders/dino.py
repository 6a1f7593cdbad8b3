"""DINO and other self-supervised vision transformers through timm: patch tokens of the last block."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ovs3d_ros.config import DinoConfig
from ovs3d_ros.encoders.checkpoints import check_weight_files
from ovs3d_ros.encoders.precision import image_autocast
from ovs3d_ros.encoders.preprocessing import fitted_size, image_to_tensor, resize
from ovs3d_ros.types import UserError

BUNDLED = Path(__file__).parent.parent / "models" / "tiny_dino"


class DinoEncoder:
    """A timm vision transformer behind the `PatchEncoder` protocol.

    Args:
        model: a timm vision transformer that takes any image size, in eval mode, on `device`.
        name: recorded in map files.
        config: image size.
        device: torch device name.
    """

    def __init__(self, model: torch.nn.Module, name: str, config: DinoConfig, device: str) -> None:
        self.name = name
        self.dim = int(model.embed_dim)
        self._model, self._config, self._device = model, config, device
        self._patch = model.patch_embed.patch_size
        self._mean, self._std = model.pretrained_cfg["mean"], model.pretrained_cfg["std"]

    @torch.inference_mode()
    def encode_image(self, image: np.ndarray) -> torch.Tensor:
        """[h, w, D] float32 tokens of the last block before the final norm, of an [H, W, 3] uint8 RGB image.

        Raises:
            UserError: not an RGB byte image.
        """
        pixels = image_to_tensor(image, self._device, self._mean, self._std)
        size = fitted_size(*pixels.shape[-2:], self._config.image_size, enlarge=True)
        pixels = resize(pixels, *(max(1, round(s / p)) * p for s, p in zip(size, self._patch, strict=True)))
        with image_autocast(self._config.precision, self._device):
            (tokens,) = self._model.forward_intermediates(
                pixels, indices=1, norm=False, intermediates_only=True
            )
        return tokens[0].permute(1, 2, 0).float()  # [h, w, D]


def load_dino(config: DinoConfig, device: str) -> DinoEncoder:
    """Loads the timm vision transformer that `config` names, with its weights.

    `dino.model` is `bundled`, a timm name, or timm's `local-dir:/path` and `hf-hub:org/name`.

    Raises:
        UserError: timm is not installed, the model is unknown or not a vision transformer, or its weights
            cannot be loaded.
    """
    try:
        import timm
    except ImportError:
        raise UserError("DINO needs timm: pip install timm") from None
    source = f"local-dir:{BUNDLED}" if config.model == "bundled" else config.model
    if source.startswith("local-dir:"):
        check_weight_files("dino.model", source.partition(":")[2])
    try:
        model = timm.create_model(source, pretrained=True, num_classes=0, dynamic_img_size=True)
    except Exception as error:  # the hub raises many types, and none names a remedy
        raise _unavailable(config, error) from None
    if not hasattr(model, "patch_embed") or not hasattr(model, "forward_intermediates"):
        raise UserError(
            f"dino.model={config.model}: not a vision transformer; set vit_base_patch8_224.dino or bundled"
        )
    name = "bundled/ovs3d-tiny-dino" if config.model == "bundled" else config.model
    return DinoEncoder(model.eval().to(device), name, config, device)


def _unavailable(config: DinoConfig, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:160] or type(error).__name__
    if config.model == "bundled":
        return UserError(f"dino.model=bundled: {BUNDLED} is incomplete ({reason}); reinstall ovs3d_ros")
    return UserError(
        f"dino.model={config.model}: cannot load it ({reason}); connect once so that timm can fetch the "
        "weights, or give dino.model=local-dir:/path/to/model, or set dino.model=bundled"
    )
