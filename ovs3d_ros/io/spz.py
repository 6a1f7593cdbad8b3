"""Writes .spz files of version 3: Niantic's packed Gaussians, a quarter of the size of the PLY.

Layout and quantisation: https://github.com/nianticlabs/spz (README.md and `packGaussians`). A gzip stream
holds a header of 16 bytes, then all positions, opacities, colours, scales, rotations and spherical harmonics.
"""

from __future__ import annotations

import gzip
import math
import struct
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from ovs3d_ros.io.atomic import atomic_write
from ovs3d_ros.io.ply import drop_not_finite
from ovs3d_ros.io.splat import check_single_precision
from ovs3d_ros.types import UserError

_MAGIC, _VERSION = 0x5053474E, 3
_MAX_FRACTIONAL_BITS = 16  # 15 micrometres; more would only store noise
_COLOR_SCALE = 0.15  # of the coefficient of degree 0
_SH_BUCKETS = {1: 8, 2: 16, 3: 16}  # quantisation steps by degree: 5 bits, then 4, as the reference writes


def write_spz(path: str | Path, params: dict[str, torch.Tensor]) -> None:
    """Writes Gaussians with positions in fixed point (24 bits), everything else in 8 to 10 bits a number.

    The axes are those of the map, as in the PLY; programs that call them right, up, back show a map with z up
    on its side.

    Args:
        path: file to write.
        params: parameters in the stored form, see `mapping.gaussians.PARAMETERS`.

    Raises:
        UserError: the file cannot be written (the earlier file stays), or positions are float64 or beyond
            8,388 km, which the format cannot hold.
    """
    check_single_precision(path, params)
    params = {name: t.detach().cpu().float() for name, t in drop_not_finite(params).items()}
    means, harmonics = params["means"].double().numpy(), params["sh_rest"].numpy()
    bits = _fractional_bits(path, means)
    degree = math.isqrt(harmonics.shape[1] + 1) - 1
    header = struct.pack("<IIIBBBB", _MAGIC, _VERSION, len(means), degree, bits, 0, 0)
    fixed = np.round(means * 2.0**bits).astype("<i4")
    parts = [
        fixed.reshape(-1, 1).view(np.uint8)[:, :3],
        _to_bytes(torch.sigmoid(params["opacity_logits"]).numpy() * 255),
        _to_bytes(params["sh_dc"].numpy() * (_COLOR_SCALE * 255) + 0.5 * 255),
        _to_bytes((params["log_scales"].numpy() + 10) * 16),
        _pack_rotations(F.normalize(params["quats"], dim=-1).numpy()),
        _pack_harmonics(harmonics, degree),
    ]
    data = gzip.compress(b"".join([header, *(part.tobytes() for part in parts)]), mtime=0)
    try:
        with atomic_write(path) as file:
            file.write(data)
    except OSError as error:
        raise UserError(f"{path}: cannot write the splats ({error.strerror})") from None


def _fractional_bits(path: str | Path, means: np.ndarray) -> int:
    """Bits after the point, such that all positions [N, 3] fit into 24 bits with their sign."""
    reach = float(np.abs(means).max(initial=1.0))
    bits = 22 - math.floor(math.log2(reach))
    if bits < 0:
        raise UserError(f"{path}: positions reach {reach:.3g} m, too far for this format; write a .ply")
    return min(bits, _MAX_FRACTIONAL_BITS)


def _to_bytes(values: np.ndarray) -> np.ndarray:
    return np.clip(np.floor(values + 0.5), 0, 255).astype(np.uint8)


def _pack_rotations(quats: np.ndarray) -> np.ndarray:
    """[N] little-endian words of unit quaternions wxyz [N, 4]: index of the largest, and the others.

    Each of the others has a sign and 9 bits of its size relative to sqrt(1/2); the largest is positive.
    """
    xyzw = quats[:, [1, 2, 3, 0]]
    largest = np.abs(xyzw).argmax(axis=1)
    flipped = np.take_along_axis(xyzw, largest[:, None], axis=1) < 0
    sizes = np.floor(511 * np.abs(xyzw) / math.sqrt(0.5) + 0.5).astype(np.uint32)
    numbers = ((xyzw < 0) ^ flipped).astype(np.uint32) << 9 | sizes
    words = largest.astype(np.uint32)
    for axis in range(4):
        words = np.where(largest == axis, words, words << 10 | numbers[:, axis])
    return words.astype("<u4")


def _pack_harmonics(harmonics: np.ndarray, degree: int) -> np.ndarray:
    """Bytes [N, K, 3] of spherical harmonics above degree 0, rounded to the centres of their buckets."""
    steps = np.concatenate(
        [np.full(2 * band + 1, _SH_BUCKETS[band]) for band in range(1, degree + 1)] or [[]]
    )
    steps = steps.astype(np.int64)[None, :, None]
    values = np.floor(harmonics * 128 + 0.5).astype(np.int64) + 128
    return np.clip((values + steps // 2) // np.maximum(steps, 1) * steps, 0, 255).astype(np.uint8)
