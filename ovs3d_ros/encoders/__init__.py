"""Image-text encoders (CLIP) and patch encoders (DINO) behind two protocols.

`make_clip` and `make_dino` are the only ways to make one. A missing model raises an error that names the
remedy; no encoder ever runs on random weights.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, cast, runtime_checkable

from ovs3d_ros.config import ClipConfig, DinoConfig
from ovs3d_ros.types import CropTable, Frame, UserError

if TYPE_CHECKING:
    import numpy as np
    import torch


class ImageTextEncoder(Protocol):
    """Embeds images and texts into one space; an image yields embeddings of its crops or of dense cells.

    Attributes:
        name: recorded in map files; a map rejects queries with another encoder.
        dim: length D of an embedding.
        calibration: contents of `calibration.json` in the model's folder, or None.
    """

    name: str
    dim: int
    calibration: dict | None

    def encode_image(self, image: np.ndarray) -> CropTable:
        """Crop table of an [H, W, 3] uint8 RGB image."""
        ...

    def encode_text(self, prompts: Sequence[str]) -> torch.Tensor:
        """[P, D] float32 unit-norm embeddings on the CPU."""
        ...


@runtime_checkable
class FrameEncoder(Protocol):
    """Optional addition to `ImageTextEncoder`: an encoder whose crops depend on depth and intrinsics too."""

    def encode_frame(self, frame: Frame) -> CropTable:
        """Crop table of a frame.

        Raises:
            UserError: the frame lacks depth, or other data that the encoder needs.
        """
        ...


class PatchEncoder(Protocol):
    """Computes self-supervised patch features of an image.

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
    """Checked crop table of a frame. A `FrameEncoder` reads all of it, any other encoder only its image.

    Raises:
        UserError: the frame lacks data that the encoder needs, or the encoder returned an unusable table.
    """
    from ovs3d_ros.encoders.validation import check_crop_table

    if isinstance(encoder, FrameEncoder):
        return check_crop_table(encoder.encode_frame(frame), encoder)
    return check_crop_table(encoder.encode_image(frame.image), encoder)


def make_clip(config: ClipConfig, device: str) -> ImageTextEncoder:
    """Makes the image-text encoder that `config.model` names; it caches its results if `config.cache` is set.

    Raises:
        UserError: the model is unknown, its weights are neither local nor downloadable, the import string is
            broken, the encoder has no crops in metres for `config.crop_metres`, or the cache is not writable.
    """
    if not config.cache:
        return _make_uncached_clip(config, device)
    from ovs3d_ros.encoders.cache import CachedImageTextEncoder, TensorCache, fingerprint_settings

    cache = TensorCache(config.cache, "clip.cache")  # fails before the model takes seconds to load
    encoder = _make_uncached_clip(config, device)
    return CachedImageTextEncoder(encoder, cache, fingerprint_settings(config, device))


def make_dino(config: DinoConfig, device: str) -> PatchEncoder:
    """Makes the patch encoder that `config.model` names; it caches its results if `config.cache` is set.

    Raises:
        UserError: the model is unknown, its weights are neither local nor downloadable, the import string is
            broken, or the cache is not writable.
    """
    if not config.cache:
        return _make_uncached_dino(config, device)
    from ovs3d_ros.encoders.cache import CachedPatchEncoder, TensorCache, fingerprint_settings

    cache = TensorCache(config.cache, "dino.cache")
    return CachedPatchEncoder(
        _make_uncached_dino(config, device), cache, fingerprint_settings(config, device)
    )


def _make_uncached_clip(config: ClipConfig, device: str) -> ImageTextEncoder:
    if _is_import_string(config.model):
        encoder = _import_class("clip.model", config.model)(config, device)
        if config.crop_metres and not isinstance(encoder, FrameEncoder):
            raise UserError(
                f"clip.crop_metres: {config.model} has no encode_frame and cannot read depth; leave it empty"
            )
        return cast(ImageTextEncoder, encoder)
    if config.model == "conse":
        from ovs3d_ros.encoders.conse import ConseEncoder

        return ConseEncoder(config, device)
    from ovs3d_ros.encoders.clip import load_clip
    from ovs3d_ros.encoders.metric_crops import MetricCropEncoder

    encoder = load_clip(config, device)
    return MetricCropEncoder(encoder, config) if config.crop_metres else encoder


def _make_uncached_dino(config: DinoConfig, device: str) -> PatchEncoder:
    if _is_import_string(config.model):
        return _import_class("dino.model", config.model)(config, device)
    if config.model == "conse":
        from ovs3d_ros.encoders.conse import ConsePatchEncoder

        return ConsePatchEncoder(config, device)
    from ovs3d_ros.encoders.dino import load_dino

    return load_dino(config, device)


def _is_import_string(name: str) -> bool:
    """Whether `name` is `pkg.module:Class`, not open_clip's and timm's `hf-hub:` or `local-dir:`."""
    return ":" in name and not name.startswith(("hf-hub:", "hf_hub:", "local-dir:"))


def _import_class(parameter: str, name: str) -> type:
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"{parameter}: cannot import {name} ({error}); give pkg.module:Class of an installed "
            "package whose constructor takes (config, device)"
        ) from None
