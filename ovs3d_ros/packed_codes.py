"""Codes of unit features in 8 bits per number (docs/method.md, "Feature codec").

A code z = [a; A] is stored as a / A, rounded to 255 steps per channel, and A in half precision. Dividing by A
first bounds the range: A grows without limit where the views of a Gaussian disagree, a / A does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

_LARGEST = 127  # of a value in 8 bits
_HALF_MAX = 65504.0
_FEW_ROWS = 64


@dataclass(frozen=True, slots=True, eq=False)
class PackedCodes:
    """Codes [..., d + 1] of unit features.

    Attributes:
        values: [..., d] int8, a / A in steps.
        scales: [...] float16, A; 0 without a feature, NaN if the code had NaN.
        steps: [d] float32.
    """

    values: torch.Tensor
    scales: torch.Tensor
    steps: torch.Tensor

    def __len__(self) -> int:
        return len(self.scales)

    def __getitem__(self, rows: Any) -> PackedCodes:
        """Chosen rows, as of a tensor; slices share their memory."""
        return PackedCodes(self.values[rows], self.scales[rows], self.steps)

    @property
    def device(self) -> torch.device:
        return self.scales.device

    @property
    def known(self) -> torch.Tensor:
        """[...] bool, where there is a feature."""
        return self.scales != 0

    def unpack(self) -> torch.Tensor:
        """The codes [..., d + 1] in single precision."""
        codes = torch.empty(*self.scales.shape, len(self.steps) + 1, device=self.device)
        codes[..., -1] = self.scales
        torch.mul(self.values, self.steps, out=codes[..., :-1]).mul_(codes[..., -1:])
        return codes

    def unpack_rows(self, rows: np.ndarray) -> np.ndarray:
        """The codes [..., d + 1] of a few chosen rows, as NumPy has them."""
        scales = chosen_rows(self.scales, rows).astype(np.float32)[..., None]
        relative = chosen_rows(self.values, rows) * self.steps.cpu().numpy()
        return np.concatenate([relative * scales, scales], axis=-1)

    def with_unit_length(self, gram: torch.Tensor) -> PackedCodes:
        """The same directions with features of unit length; rounding to 8 bits changes it by a thousandth.

        Whoever reads codes from a file normalises them: only such codes come back as they were.

        Args:
            gram: [d + 1, d + 1] of the codec.
        """
        relative = self.values * self.steps
        squared = torch.linalg.vecdot(relative @ gram[:-1, :-1] + 2 * gram[:-1, -1], relative) + gram[-1, -1]
        unit = torch.where(self.scales > 0, squared.clamp_min(1e-12).rsqrt(), self.scales)
        return PackedCodes(self.values, unit.half(), self.steps)

    def fold(self, directions: torch.Tensor) -> torch.Tensor:
        """Directions [d + 1, P] for products with values: cosine = scale * ([value, 1] . folded)."""
        return torch.cat([directions[:-1] * self.steps[:, None], directions[-1:]])


def chosen_rows(tensor: torch.Tensor, rows: np.ndarray) -> np.ndarray:
    """A few rows of a tensor, as NumPy has them."""
    if tensor.device.type == "cpu":
        return tensor.numpy()[rows]
    return tensor[torch.from_numpy(rows).to(tensor.device)].cpu().numpy()


def pack_codes(codes: torch.Tensor, steps: torch.Tensor | None = None, headroom: float = 0.0) -> PackedCodes:
    """Packs codes [..., d + 1] of unit features; the error of a number is at most half a step.

    Args:
        codes: to pack.
        steps: [d] to use. None: the smallest steps that suffice.
        headroom: where `steps` do not suffice, this times the smallest that do is used; 0: they stay, and
            numbers above 127 steps become 127.
    """
    # Every publication of a growing map packs all codes: each pass over them counts. A sum shows a NaN.
    scales = codes[..., -1].clamp(-_HALF_MAX, _HALF_MAX)
    scales = torch.where(codes.sum(-1).isnan(), torch.nan, scales).half()
    relative = codes[..., :-1] / torch.where(scales == 0, 1.0, codes[..., -1])[..., None]
    relative.nan_to_num_(0.0, posinf=0.0, neginf=0.0)
    if steps is None or headroom:
        needed = (_largest(relative.flatten(0, -2)) / _LARGEST).clamp_min(1e-12)
        steps = needed if steps is None else torch.where(needed > steps, headroom * needed, steps)
    relative.div_(steps).clamp_(-_LARGEST, _LARGEST)
    return PackedCodes(relative.round_().to(torch.int8), scales, steps)


def _largest(rows: torch.Tensor) -> torch.Tensor:
    """Largest absolute value [d] of each column of rows [M, d]; 0 without rows.

    Halves are compared until few rows are left: a reduction down the columns takes torch three times as long.
    """
    rows = rows.abs()
    while len(rows) > _FEW_ROWS:
        half = (len(rows) + 1) // 2
        rows = torch.maximum(rows[:half], rows[-half:])  # of an odd number, the middle one is in both
    return rows.amax(0) if len(rows) else rows.new_zeros(rows.shape[1])
