"""Codes of unit features in 8 bits per number (docs/method.md, "Feature codec").

A code z = [a; A] is stored as a / A, rounded to 255 steps per channel, and A in half precision. Dividing by A
first bounds the range: A grows without limit where the views of a Gaussian disagree, a / A does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


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

    def pool_rows(self, rows: np.ndarray, shares: np.ndarray) -> np.ndarray:
        """Sums [G, d + 1] of the codes of chosen rows [G, K], each times its share [G, K]."""
        shares = shares * chosen_rows(self.scales, rows).astype(np.float32)
        # Unpacking each code first takes twice as long.
        relative = (shares[:, None] @ chosen_rows(self.values, rows).astype(np.float32))[:, 0]
        return np.concatenate([relative * self.steps.cpu().numpy(), shares.sum(1, keepdims=True)], axis=-1)

    def fold(self, directions: torch.Tensor) -> torch.Tensor:
        """Directions [d + 1, P] for products with values: cosine = scale * ([value, 1] . folded)."""
        return torch.cat([directions[:-1] * self.steps[:, None], directions[-1:]])


def chosen_rows(tensor: torch.Tensor, rows: np.ndarray) -> np.ndarray:
    """A few rows of a tensor, as NumPy has them."""
    if tensor.device.type == "cpu":
        return tensor.numpy()[rows]
    return tensor[torch.from_numpy(rows).to(tensor.device)].cpu().numpy()
