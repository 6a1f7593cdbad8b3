"""Image-text and patch encoders: what the rest of the system needs from CLIP and from DINO.

`make_clip` and `make_dino` are the only ways in. A model that is not there is an error that names the remedy;
no encoder ever runs on random weights.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from ovs3d_ros.config import ClipConfig, DinoConfig
from ovs3d_ros.types import CropTable, Frame, UserError

if TYPE_CHECKING:
    import numpy as np
    import torch


class ImageTextEncoder(Protocol):
    """Embeds crops of an image, or the cells of one dense pass over it, and texts into one space.

    Attributes:
        name: recorded in map files; a map refuses another encoder.
        dim: length D of an embedding.
        calibration: contents of `calibration.json` beside the model, or None.
    """

    name: str
    dim: int
    calibration: dict | None

    def encode_image(self, image: np.ndarray) -> CropTable:
        """`image` is [H, W, 3] uint8 RGB."""
        ...

    def encode_text(self, prompts: Sequence[str]) -> torch.Tensor:
        """[P, D] float32 unit-norm embeddings on the CPU."""
        ...


@runtime_checkable
class FrameEncoder(Protocol):
    """What an `ImageTextEncoder` may be beside: one whose crops depend on depth and intrinsics too."""

    def encode_frame(self, frame: Frame) -> CropTable:
        """A UserError where the frame lacks what it needs."""
        ...


class PatchEncoder(Protocol):
    """Self-supervised patch features of an image.

    Attributes:
        name: recorded in map files.
        dim: length D of a feature.
    """

    name: str
    dim: int

    def encode_image(self, image: np.ndarray) -> torch.Tensor:
        """[h, w, D] float32 features of an [H, W, 3] uint8 RGB image; cell (0, 0) is its top left corner."""
        ...


def encode_frame(encoder: ImageTextEncoder, frame: Frame) -> CropTable:
    """Crop table of a frame: from all of it where the encoder can use that, else from its image.

    Raises:
        UserError: the frame lacks what the encoder needs.
    """
    if isinstance(encoder, FrameEncoder):
        return encoder.encode_frame(frame)
    return encoder.encode_image(frame.image)


def make_clip(config: ClipConfig, device: str) -> ImageTextEncoder:
    """The image-text encoder that `config.model` names, behind `config.cache` if there is one.

    Raises:
        UserError: unknown model, weights that are neither here nor reachable, a broken import string, crops in metres of
            an encoder that has none, or a cache that cannot be written.
    """
    if not config.cache:
        return _clip(config, device)
    from ovs3d_ros.encoders.cache import CachedClip, TensorCache, fingerprint

    cache = TensorCache(config.cache, "clip.cache")  # first: a model takes seconds to load
    return CachedClip(_clip(config, device), cache, fingerprint(config, device))


def make_dino(config: DinoConfig, device: str) -> PatchEncoder:
    """The patch encoder that `config.model` names, behind `config.cache` if there is one.

    Raises:
        UserError: unknown model, weights that are neither here nor reachable, a broken import string, or a cache that
            cannot be written.
    """
    if not config.cache:
        return _dino(config, device)
    from ovs3d_ros.encoders.cache import CachedPatches, TensorCache, fingerprint

    cache = TensorCache(config.cache, "dino.cache")
    return CachedPatches(_dino(config, device), cache, fingerprint(config, device))


def _clip(config: ClipConfig, device: str) -> ImageTextEncoder:
    if _is_import_string(config.model):
        encoder = _imported("clip.model", config.model)(config, device)
        if config.crop_metres and not isinstance(encoder, FrameEncoder):
            raise UserError(
                f"clip.crop_metres: {config.model} has no encode_frame, which would see depth; leave it empty"
            )
        return encoder
    from ovs3d_ros.encoders.clip import load_clip
    from ovs3d_ros.encoders.metric_crops import MetricClip

    encoder = load_clip(config, device)
    return MetricClip(encoder, config) if config.crop_metres else encoder


def _dino(config: DinoConfig, device: str) -> PatchEncoder:
    if _is_import_string(config.model):
        return _imported("dino.model", config.model)(config, device)
    from ovs3d_ros.encoders.dino import load_dino

    return load_dino(config, device)


def _is_import_string(name: str) -> bool:
    """`pkg.module:Class`; open_clip and timm use a colon too, in `hf-hub:` and `local-dir:`."""
    return ":" in name and not name.startswith(("hf-hub:", "hf_hub:", "local-dir:"))


def _imported(leaf: str, name: str) -> type:
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"{leaf}: cannot import {name} ({error}); give pkg.module:Class of an installed "
            "package whose constructor takes (config, device)"
        ) from None
