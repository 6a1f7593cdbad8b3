"""Exposure of each keyframe: robot cameras change theirs at any time."""

from __future__ import annotations

import torch

_LEARNING_RATE = 1e-2
_PENALTY = 0.02  # pulls gain and offset to identity where the images leave them open


def join_exposures(*parts: torch.Tensor) -> torch.Tensor:
    """Log gains and offsets [F, 2, 3] of several maps on the CPU, one after the other.

    Each map keeps its own mean exposure: what it shows has that one.
    """
    return torch.cat([torch.zeros(0, 2, 3), *((part - part.mean(0)).cpu() for part in parts if len(part))])


class Exposure:
    """A gain and an offset per keyframe and channel.

    Both are relative to their mean over keyframes, so the map keeps the mean exposure.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self._rows: list[torch.Tensor] = []  # each [2, 3]: log gain and offset
        self._total = torch.zeros(2, 3, device=device)  # sum of the rows
        self._optimizers: list[torch.optim.Optimizer] = []

    def add_keyframe(self) -> None:
        """Adds a keyframe of mean exposure."""
        row = (self._total / max(1, len(self._rows))).requires_grad_()
        self._total = self._total + row.detach()
        self._rows.append(row)
        self._optimizers.append(torch.optim.Adam([row], lr=_LEARNING_RATE, fused=True))

    def rows(self) -> torch.Tensor:
        """A copy of all log gains and offsets [F, 2, 3], before their mean is taken off."""
        return torch.stack([row.detach() for row in self._rows]) if self._rows else torch.zeros(0, 2, 3)

    def load_rows(self, rows: torch.Tensor) -> None:
        """Replaces log gains and offsets by [F, 2, 3] of `rows`."""
        with torch.no_grad():
            for own, row in zip(self._rows, rows, strict=True):
                own.copy_(row)
            self._total = rows.sum(0).to(self._total)

    def log_gain_and_offset(self, index: int) -> torch.Tensor:
        """Log gain and offset [2, 3] of a keyframe, relative to the mean exposure."""
        return self._rows[index] - self._total / len(self._rows)

    def apply(self, rgb: torch.Tensor, index: int) -> torch.Tensor:
        """The render [H, W, 3] with the exposure of a keyframe."""
        log_gain, offset = self.log_gain_and_offset(index)
        return rgb * log_gain.exp() + offset

    def penalty(self, index: int) -> torch.Tensor:
        """Loss term that keeps a keyframe's exposure near the mean."""
        return _PENALTY * self.log_gain_and_offset(index).square().sum()

    def step(self, index: int, decay: float) -> None:
        """One Adam step on a keyframe's exposure; `decay` multiplies the learning rate."""
        row, optimizer = self._rows[index], self._optimizers[index]
        optimizer.param_groups[0]["lr"] = _LEARNING_RATE * decay
        self._total -= row.detach()
        optimizer.step()
        self._total += row.detach()
        optimizer.zero_grad(set_to_none=True)
