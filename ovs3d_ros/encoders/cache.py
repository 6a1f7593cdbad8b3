"""Results of encoders on disk: the same image with the same settings is encoded once.

An entry is one safetensors file, named by a hash of everything that it depends on, so no entry ever becomes
stale. The cache removes nothing; users may empty the folder at any time.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import tempfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from ovs3d_ros.config import ClipConfig, DinoConfig
from ovs3d_ros.encoders import FrameEncoder, ImageTextEncoder, PatchEncoder
from ovs3d_ros.encoders.precision import resolve_precision
from ovs3d_ros.encoders.validation import check_crop_table, check_patches
from ovs3d_ros.io.atomic import remove_leftovers
from ovs3d_ros.io.tensors import read_tensors, write_tensors
from ovs3d_ros.types import CropTable, Frame, UserError

_log = logging.getLogger(__name__)

FORMAT = 1  # raise it when encoders change their results for the same settings
_IRRELEVANT_PARAMETERS = ("cache", "batch_size")  # they do not change a result
_MODELS = Path(__file__).parent.parent / "models"
_FLOAT16_MAX = 65504.0


class TensorCache:
    """A folder of entries; an entry holds named tensors and a header of JSON values.

    Args:
        folder: path; created if missing.
        parameter: name of the parameter that holds the path, for the error message.

    Raises:
        UserError: the folder cannot be created or written.
    """

    def __init__(self, folder: str, parameter: str) -> None:
        self._folder = Path(folder).expanduser()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self._folder).close()
            remove_leftovers(self._folder)
        except OSError as error:
            raise UserError(
                f"{parameter}={folder}: cannot write there ({error.strerror}); name a writable folder, or "
                "leave it empty to disable the cache"
            ) from None

    def read(self, key: str) -> tuple[dict[str, torch.Tensor], dict] | None:
        """Tensors and header of an entry; None if it is missing or, with a warning, damaged."""
        path = self._path(key)
        if not path.is_file():
            return None
        try:
            tensors, text = read_tensors(path)
            header = json.loads(text or "null")
            if header["checksum"] != _checksum(tensors):
                raise ValueError("wrong checksum")
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            _log.warning("%s is damaged (%s): encoding it again", path, " ".join(str(error).split()))
            return None
        return tensors, header

    def write(self, key: str, tensors: dict[str, torch.Tensor], header: dict) -> None:
        """Writes an entry. A full disk only logs a warning, since the caller already has the result."""
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        try:
            write_tensors(self._path(key), tensors, json.dumps(header | {"checksum": _checksum(tensors)}))
        except OSError as error:
            _log.warning("%s: cannot be written (%s)", self._path(key), error.strerror or error)

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.safetensors"


class CachedImageTextEncoder:
    """An image-text encoder with cached crop tables; its embeddings have half precision.

    Args:
        encoder: any encoder, of images or of frames.
        cache: holds the tables.
        settings: fingerprint of all settings that a table depends on, see `fingerprint_settings`.
    """

    def __init__(self, encoder: ImageTextEncoder, cache: TensorCache, settings: str) -> None:
        self.name, self.dim, self.calibration = encoder.name, encoder.dim, encoder.calibration
        self._encoder, self._cache, self._settings = encoder, cache, settings

    def encode_image(self, image: np.ndarray) -> CropTable:
        """Crop table of an [H, W, 3] uint8 RGB image."""
        return self._read_or_encode((image,), lambda: self._encoder.encode_image(image))

    def encode_frame(self, frame: Frame) -> CropTable:
        """Crop table of a frame; of its image only, if the encoder is no `FrameEncoder`."""
        if not isinstance(self._encoder, FrameEncoder):
            return self.encode_image(frame.image)
        depth = np.zeros(0, np.float32) if frame.depth is None else frame.depth
        inputs = (frame.image, depth, frame.camera.K)
        return self._read_or_encode(inputs, lambda: self._encoder.encode_frame(frame))

    def encode_text(self, prompts: Sequence[str]) -> torch.Tensor:
        """[P, D] embeddings from the encoder; texts are not cached."""
        return self._encoder.encode_text(prompts)

    def _read_or_encode(self, inputs: Sequence[np.ndarray], encode: Callable[[], CropTable]) -> CropTable:
        key = _entry_key("crops", self.name, self._settings, inputs)
        entry = self._cache.read(key)
        if entry is not None:
            tensors, header = entry
            return CropTable(
                tensors["boxes"],
                tensors["scales"].long(),
                tensors["embeddings"].float(),
                header["num_scales"],
                header["grid"] and tuple(header["grid"]),
            )
        table = check_crop_table(encode(), self._encoder)
        embeddings = _to_half(table.embeddings)
        self._cache.write(
            key,
            {"boxes": table.boxes, "scales": table.levels.to(torch.int16), "embeddings": embeddings},
            {"num_scales": table.num_levels, "grid": table.grid},
        )
        return dataclasses.replace(table, embeddings=embeddings.float())  # as in later runs


class CachedPatchEncoder:
    """A patch encoder with cached features of half precision.

    Args:
        encoder: any patch encoder.
        cache: holds the features.
        settings: fingerprint of all settings that features depend on, see `fingerprint_settings`.
    """

    def __init__(self, encoder: PatchEncoder, cache: TensorCache, settings: str) -> None:
        self.name, self.dim = encoder.name, encoder.dim
        self._encoder, self._cache, self._settings = encoder, cache, settings

    def encode_image(self, image: np.ndarray) -> torch.Tensor:
        """[h, w, D] float32 features of an [H, W, 3] uint8 RGB image."""
        key = _entry_key("patches", self.name, self._settings, (image,))
        entry = self._cache.read(key)
        if entry is not None:
            return entry[0]["features"].float()
        features = _to_half(check_patches(self._encoder.encode_image(image), self._encoder))
        self._cache.write(key, {"features": features}, {})
        return features.float()


def fingerprint_settings(config: ClipConfig | DinoConfig, device: str) -> str:
    """JSON text of everything that a result depends on, apart from the encoder's name and the image.

    It holds the device, the settings, the number format that `precision` means on this machine, and size and
    time of local weight files. A downloaded model, or one from an import string, is identified by its name
    only: such an encoder must change its `name` when its weights change.
    """
    values = {
        f.name: getattr(config, f.name)
        for f in dataclasses.fields(config)
        if f.name not in _IRRELEVANT_PARAMETERS
    }
    values["precision"] = resolve_precision(config.precision, device)
    weights = [
        (file.name, file.stat().st_size, file.stat().st_mtime_ns)
        for file in _weight_files(config.model, values.get("pretrained", ""))
        if file.is_file()
    ]
    return json.dumps([device, values, weights], sort_keys=True)


def _weight_files(model: str, pretrained: str) -> list[Path]:
    if model == "bundled":
        return sorted(_MODELS.rglob("*"))
    if model.startswith("local-dir:"):
        return sorted(Path(model.partition(":")[2]).rglob("*"))
    return [Path(pretrained)]  # a checkpoint file; a tag names no file, and the caller skips it


def _entry_key(kind: str, name: str, settings: str, inputs: Sequence[np.ndarray]) -> str:
    """The name of an entry: a hash of everything that it depends on."""
    digest = hashlib.sha256(json.dumps([FORMAT, kind, name, settings]).encode())
    for array in inputs:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _to_half(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.clamp(-_FLOAT16_MAX, _FLOAT16_MAX).half()


def _checksum(tensors: dict[str, torch.Tensor]) -> int:
    total = 0
    for name in sorted(tensors):
        total = zlib.crc32(np.ascontiguousarray(tensors[name].numpy()).data, total)
    return total
