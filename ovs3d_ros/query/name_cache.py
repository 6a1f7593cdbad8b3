"""Keeps the text features of the name bank on disk, as encoding a thousand names takes seconds."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence

import torch

from ovs3d_ros.encoders.cache import TensorCache
from ovs3d_ros.rasterize.kernel_cache import cache_folder
from ovs3d_ros.types import UserError

_log = logging.getLogger(__name__)

_FOLDER = "name-bank"  # beside the compiled kernels
_BATCH = 256  # names encoded at a time
_PROBES = 8  # names that are always encoded: weights may change and the encoder's name not
_TOLERANCE = 1e-3  # of unit features


def encode_names(
    names: Sequence[str], encoder: str, encode_text: Callable[[Sequence[str]], torch.Tensor]
) -> torch.Tensor:
    """Unit text features [M, D] of names, from disk if this encoder has encoded them there.

    Args:
        names: the M names.
        encoder: name of the encoder.
        encode_text: gives unit text features [P, D].
    """
    probes = encode_text(names[:_PROBES]).float()
    cache, key = _cache(), hashlib.sha256(json.dumps([encoder, list(names)]).encode()).hexdigest()
    entry = cache.read(key) if cache is not None else None
    stored = entry[0]["features"] if entry is not None else probes[:0]
    if stored.shape == (len(names), probes.shape[1]) and torch.allclose(
        stored[:_PROBES], probes, rtol=0.0, atol=_TOLERANCE
    ):
        return stored
    parts = [encode_text(names[i : i + _BATCH]) for i in range(_PROBES, len(names), _BATCH)]
    features = torch.cat([probes, *parts]).float()
    if cache is not None:
        cache.write(key, {"features": features}, {})
    return features


def _cache() -> TensorCache | None:
    """The folder of the features; None if it cannot be written."""
    kernels = cache_folder()
    if kernels is None:
        return None
    try:
        return TensorCache(str(kernels.with_name(_FOLDER)), "the cache of names")
    except UserError as error:
        _log.info("the features of the name bank are not kept: %s", error)
        return None
