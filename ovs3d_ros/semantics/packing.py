"""Packs codes of features into 8 bits per number: a snapshot of a growing map packs all of them anew."""

from __future__ import annotations

import numpy as np
import torch

from ovs3d_ros.packed_codes import PackedCodes
from ovs3d_ros.rasterize.kernel_cache import cached_njit

_LARGEST = 127  # of a value in 8 bits
_HALF_MAX = 65504.0
_HALF_ZERO = 2.0**-25  # this and less is 0 in half precision
_LEAST_STEP = 1e-12
_LEAST_SQUARE = 1e-12  # of the length of a feature


def pack_codes(codes: torch.Tensor, steps: torch.Tensor | None = None, headroom: float = 0.0) -> PackedCodes:
    """Packs codes [..., d + 1] of unit features; the error of a number is at most half a step.

    Args:
        codes: to pack.
        steps: [d] to use. None: the smallest steps that suffice.
        headroom: where `steps` do not suffice, this times the smallest that do is used; 0: they stay, and
            numbers above 127 steps become 127.
    """
    rows, on_cpu = codes.detach().flatten(0, -2).contiguous(), codes.device.type == "cpu"
    if steps is None or headroom:
        largest = _largest_on_cpu(rows) if on_cpu else _largest(rows)
        needed = (largest / _LARGEST).clamp_min(_LEAST_STEP)
        steps = needed if steps is None else torch.where(needed > steps, headroom * needed, steps)
    values, scales = _round_on_cpu(rows, steps) if on_cpu else _round(rows, steps)
    shape = codes.shape[:-1]
    return PackedCodes(values.view(*shape, len(steps)), scales.half().view(shape), steps)


def with_unit_length(codes: PackedCodes, gram: torch.Tensor) -> PackedCodes:
    """The same directions with features of unit length; rounding to 8 bits changes it by a thousandth.

    Whoever reads codes from a file normalises them: only such codes come back as they were. With an
    orthonormal basis, |B a + A mu|^2 = |a|^2 + 2 A a . B^T mu + A^2 |mu|^2.

    Args:
        codes: to normalise.
        gram: [d + 1, d + 1] of the codec.
    """
    slope, offset = 2 * gram[:-1, -1], gram[-1, -1]
    values = codes.values.flatten(0, -2).contiguous()
    measure = _measure_on_cpu if codes.device.type == "cpu" else _measure
    lengths = (measure(values, codes.steps, slope) + offset).clamp_min(_LEAST_SQUARE).sqrt()
    unit = torch.where(codes.scales > 0, 1 / lengths.view(codes.scales.shape), codes.scales)
    return PackedCodes(codes.values, unit.half(), codes.steps)


def _ratios(rows: torch.Tensor) -> torch.Tensor:
    """a / A [M, d] of codes [M, d + 1]; 0 where there is no feature, and for what is not finite."""
    alpha = rows[:, -1:]
    ratios = torch.where(alpha.abs() > _HALF_ZERO, rows[:, :-1] / alpha, 0.0)
    return ratios.nan_to_num_(0.0, posinf=0.0, neginf=0.0)


def _largest(rows: torch.Tensor) -> torch.Tensor:
    """Largest |a / A| [d] of codes [M, d + 1]; 0 without rows."""
    return _ratios(rows).abs().amax(0) if len(rows) else rows.new_zeros(rows.shape[1] - 1)


def _round(rows: torch.Tensor, steps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """a / A in steps, [M, d] int8, and A [M] within half precision, of codes [M, d + 1]."""
    scales = rows[:, -1].clamp(-_HALF_MAX, _HALF_MAX)
    scales = torch.where(rows.sum(1).isnan(), torch.nan, scales)  # a sum shows a NaN
    return (_ratios(rows) / steps).clamp(-_LARGEST, _LARGEST).round().to(torch.int8), scales


def _largest_on_cpu(rows: torch.Tensor) -> torch.Tensor:
    """As `_largest`, in one pass."""
    largest = torch.zeros(rows.shape[1] - 1)
    _find_largest(rows.numpy(), largest.numpy())
    return largest


def _round_on_cpu(rows: torch.Tensor, steps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """As `_round`, in one pass."""
    values = torch.empty(len(rows), len(steps), dtype=torch.int8)
    scales = torch.empty(len(rows))
    _round_rows(rows.numpy(), steps.numpy(), values.numpy(), scales.numpy())
    return values, scales


def _measure(values: torch.Tensor, steps: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
    """|r|^2 + r . slope, [M], of ratios r = values [M, d] times steps."""
    ratios = values * steps
    return torch.linalg.vecdot(ratios + slope, ratios)


def _measure_on_cpu(values: torch.Tensor, steps: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
    """As `_measure`, in one pass."""
    squared = torch.empty(len(values))
    _measure_rows(values.numpy(), steps.numpy(), slope.numpy(), squared.numpy())
    return squared


@cached_njit(nogil=True, fastmath={"contract"})
def _find_largest(rows, largest):
    """Raises `largest` [d] to the largest finite |a / A| of rows [M, d + 1]."""
    d = len(largest)
    for i in range(len(rows)):
        alpha = rows[i, d]
        if abs(alpha) > _HALF_ZERO:
            inverse = np.float32(1.0) / alpha
            for k in range(d):
                ratio = abs(rows[i, k] * inverse)
                largest[k] = ratio if largest[k] < ratio < np.float32(np.inf) else largest[k]


@cached_njit(nogil=True, fastmath={"contract"})
def _round_rows(rows, steps, values, scales):
    """Sets values [M, d] int8 and scales [M] of rows [M, d + 1]."""
    d, most = len(steps), np.float32(_LARGEST)
    inverses = np.float32(1.0) / steps
    for i in range(len(rows)):
        alpha = rows[i, d]
        total = alpha
        inverse = np.float32(1.0) / alpha if abs(alpha) > _HALF_ZERO else np.float32(0.0)
        for k in range(d):
            total += rows[i, k]
            ratio = rows[i, k] * inverse * inverses[k]
            ratio = ratio if abs(ratio) < np.float32(np.inf) else np.float32(0.0)
            ratio = min(max(ratio, -most), most)
            values[i, k] = np.int8(np.rint(ratio))
        scales[i] = total if np.isnan(total) else min(max(alpha, -_HALF_MAX), _HALF_MAX)


@cached_njit(nogil=True, fastmath={"contract", "reassoc"})
def _measure_rows(values, steps, slope, squared):
    """Sets squared [M] to |r|^2 + r . slope of r = values [M, d] times steps."""
    for i in range(len(values)):
        total = np.float32(0.0)
        for k in range(len(steps)):
            ratio = np.float32(values[i, k]) * steps[k]
            total += ratio * (ratio + slope[k])
        squared[i] = total
