"""What each keyframe's camera made of the light: robot cameras expose as they like."""

from __future__ import annotations

import torch


class Exposure:
    """A gain and an offset per keyframe and channel, relative to their mean: the map keeps the mean exposure."""

    RATE = 1e-2
    STIFFNESS = 0.02  # draws to identity what the images leave open

    def __init__(self, device: str) -> None:
        self._device = device
        self._rows: list[torch.Tensor] = []  # each [2, 3]: log gain and offset
        self._total = torch.zeros(2, 3, device=device)  # of the rows
        self._optimizers: list[torch.optim.Optimizer] = []

    def grow(self) -> None:
        """Adds a keyframe of mean exposure."""
        row = (self._total / max(1, len(self._rows))).requires_grad_()
        self._total = self._total + row.detach()
        self._rows.append(row)
        self._optimizers.append(torch.optim.Adam([row], lr=self.RATE, fused=True))

    def of(self, index: int) -> torch.Tensor:
        """Log gain and offset [2, 3] of a keyframe."""
        return self._rows[index] - self._total / len(self._rows)

    def apply(self, rgb: torch.Tensor, index: int) -> torch.Tensor:
        """The render [H, W, 3] as this keyframe's camera exposed it."""
        log_gain, offset = self.of(index)
        return rgb * log_gain.exp() + offset

    def penalty(self, index: int) -> torch.Tensor:
        """What this keyframe's exposure adds to the loss."""
        return self.STIFFNESS * self.of(index).square().sum()

    def step(self, index: int, decay: float) -> None:
        """One step on this keyframe's exposure; `decay` is a factor on the rate."""
        row, optimizer = self._rows[index], self._optimizers[index]
        optimizer.param_groups[0]["lr"] = self.RATE * decay
        self._total -= row.detach()
        optimizer.step()
        self._total += row.detach()
        optimizer.zero_grad(set_to_none=True)
