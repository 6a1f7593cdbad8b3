"""What encoders gave, kept on disk: the same image under the same settings is encoded once.

An entry is one safetensors file, named by a hash of all that it depends on, so nothing in it ever has to be replaced.
Nothing is removed either: the folder may be emptied at any time.
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
from safetensors import SafetensorError, safe_open

from ovs3d_ros.config import ClipConfig, DinoConfig
from ovs3d_ros.encoders import FrameEncoder, ImageTextEncoder, PatchEncoder
from ovs3d_ros.encoders.precision import number_format
from ovs3d_ros.io.atomic import write_tensors
from ovs3d_ros.types import CropTable, Frame, UserError

_log = logging.getLogger(__name__)

FORMAT = 1  # raise it when encoders give something else for the same settings
_INDIFFERENT = ("cache", "batch_size")  # parameters that change nothing of a result
_MODELS = Path(__file__).parent.parent / "models"
_HALF_MAX = 65504.0


class TensorCache:
    """A folder of entries: named tensors, and a header of what is no tensor.

    Args:
        folder: made if it is not there.
        parameter: that named it, for the error.

    Raises:
        UserError: the folder cannot be made or written.
    """

    def __init__(self, folder: str, parameter: str) -> None:
        self._folder = Path(folder).expanduser()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self._folder).close()
        except OSError as error:
            raise UserError(
                f"{parameter}={folder}: cannot write there ({error.strerror}); name a folder of yours, or "
                "leave it empty to keep nothing"
            ) from None

    def read(self, key: str) -> tuple[dict[str, torch.Tensor], dict] | None:
        """Tensors and header of an entry; None where there is none, or, with a warning, a damaged one."""
        path = self._path(key)
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                header = json.loads((file.metadata() or {})["ovs3d"])
                tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - not a mapping
            if header["checksum"] != _checksum(tensors):
                raise ValueError("its checksum is another")
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            _log.warning("%s is damaged (%s) and made anew", path, " ".join(str(error).split()))
            return None
        return tensors, header

    def write(self, key: str, tensors: dict[str, torch.Tensor], header: dict) -> None:
        """Keeps an entry; a full disk is a warning, for the result is there without it."""
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        try:
            write_tensors(self._path(key), tensors, json.dumps(header | {"checksum": _checksum(tensors)}))
        except (OSError, SafetensorError) as error:
            _log.warning(
                "%s: cannot be kept (%s)", self._path(key), getattr(error, "strerror", None) or error
            )

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.safetensors"


class CachedClip:
    """An image-text encoder whose crop tables are kept; embeddings come back at half precision.

    Args:
        encoder: any, of images alone or of frames.
        cache: where to keep tables.
        settings: all that tables depend on beside the encoder's name and the image, see `fingerprint`.
    """

    def __init__(self, encoder: ImageTextEncoder, cache: TensorCache, settings: str) -> None:
        self.name, self.dim, self.calibration = encoder.name, encoder.dim, encoder.calibration
        self._encoder, self._cache, self._settings = encoder, cache, settings

    def encode_image(self, image: np.ndarray) -> CropTable:
        """Crop table of an [H, W, 3] uint8 RGB image."""
        return self._table((image,), lambda: self._encoder.encode_image(image))

    def encode_frame(self, frame: Frame) -> CropTable:
        """Crop table of a frame; of its image, where the encoder sees no more."""
        if not isinstance(self._encoder, FrameEncoder):
            return self.encode_image(frame.image)
        depth = np.zeros(0, np.float32) if frame.depth is None else frame.depth
        return self._table((frame.image, depth, frame.camera.K), lambda: self._encoder.encode_frame(frame))

    def encode_text(self, prompts: Sequence[str]) -> torch.Tensor:
        """[P, D], as the encoder gives them; nothing is kept."""
        return self._encoder.encode_text(prompts)

    def _table(self, seen: Sequence[np.ndarray], encode: Callable[[], CropTable]) -> CropTable:
        key = _key("crops", self.name, self._settings, seen)
        held = self._cache.read(key)
        if held is not None:
            tensors, header = held
            return CropTable(
                tensors["boxes"],
                tensors["scales"].long(),
                tensors["embeddings"].float(),
                header["num_scales"],
                header["grid"] and tuple(header["grid"]),
            )
        table = encode()
        embeddings = _half(table.embeddings)
        self._cache.write(
            key,
            {"boxes": table.boxes, "scales": table.scales.to(torch.int16), "embeddings": embeddings},
            {"num_scales": table.num_scales, "grid": table.grid},
        )
        return dataclasses.replace(table, embeddings=embeddings.float())  # the first run as all later ones


class CachedPatches:
    """A patch encoder whose features are kept; they come back at half precision.

    Args:
        encoder: any.
        cache: where to keep features.
        settings: all that they depend on beside the encoder's name and the image, see `fingerprint`.
    """

    def __init__(self, encoder: PatchEncoder, cache: TensorCache, settings: str) -> None:
        self.name, self.dim = encoder.name, encoder.dim
        self._encoder, self._cache, self._settings = encoder, cache, settings

    def encode_image(self, image: np.ndarray) -> torch.Tensor:
        """[h, w, D] float32 features of an [H, W, 3] uint8 RGB image."""
        key = _key("patches", self.name, self._settings, (image,))
        held = self._cache.read(key)
        if held is not None:
            return held[0]["features"].float()
        features = _half(self._encoder.encode_image(image))
        self._cache.write(key, {"features": features}, {})
        return features.float()


def fingerprint(config: ClipConfig | DinoConfig, device: str) -> str:
    """All settings that a result depends on, the number format they mean here, and size and time of weights that lie in
    files named by them.

    A downloaded model is known by its name, and one of an import string too: it must change its `name` with its weights.
    """
    values = {
        f.name: getattr(config, f.name) for f in dataclasses.fields(config) if f.name not in _INDIFFERENT
    }
    values["precision"] = number_format(config.precision, device)
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
    return [Path(pretrained)]  # a checkpoint, or a tag, which is no file


def _key(kind: str, name: str, settings: str, seen: Sequence[np.ndarray]) -> str:
    """The name of an entry: a hash of all that it depends on."""
    digest = hashlib.sha256(json.dumps([FORMAT, kind, name, settings]).encode())
    for array in seen:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _half(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.clamp(-_HALF_MAX, _HALF_MAX).half()


def _checksum(tensors: dict[str, torch.Tensor]) -> int:
    total = 0
    for name in sorted(tensors):
        total = zlib.crc32(np.ascontiguousarray(tensors[name].numpy()).data, total)
    return total
