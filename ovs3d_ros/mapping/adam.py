"""Adam that moves only the Gaussians which a view shows (Mallick et al. 2024, Taming 3DGS, for speed).

One view gives no gradient to the others. Plain Adam would move those all the same, by earlier gradients, and
let their mean squared gradients fade: when they are seen again, their first steps are far too large.
That costs a room decibels while another one is mapped.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch

from ovs3d_ros.rasterize.kernel_cache import cached_njit

_MEAN_DECAY, _SQUARE_DECAY = 0.9, 0.999  # beta 1 and beta 2 of Kingma and Ba 2015
_EPSILON = 1e-15


class RowAdam:
    """Moments of the gradients of parameters [N, ...], and steps on chosen rows.

    Attributes:
        means: of the gradients, [N, ...] by parameter; empty before the first step.
        squares: means of the squared gradients, likewise.
        steps: taken so far.
        rates: learning rates by parameter of the last step.
    """

    def __init__(self) -> None:
        self.means: dict[str, torch.Tensor] = {}
        self.squares: dict[str, torch.Tensor] = {}
        self.steps = 0
        self.rates: dict[str, float] = {}

    @torch.no_grad()
    def step(self, params: dict[str, torch.Tensor], rates: dict[str, float], visible: torch.Tensor) -> None:
        """One step on the rows that a view shows; removes the gradients.

        Args:
            params: leaf tensors [N, ...] with gradients, contiguous.
            rates: learning rate of each.
            visible: [N] bool, the rows.
        """
        self.steps, self.rates = self.steps + 1, rates
        mean_share, square_share = 1 - _MEAN_DECAY**self.steps, 1 - _SQUARE_DECAY**self.steps
        update = _update_on_cpu if visible.device.type == "cpu" else _update
        for name, p in params.items():
            if p.grad is None:
                continue
            if name not in self.means:
                self.means[name], self.squares[name] = torch.zeros_like(p), torch.zeros_like(p)
            moments = self.means[name], self.squares[name]
            update(visible, p, p.grad, moments, rates[name] / mean_share, 1 / math.sqrt(square_share))
            p.grad = None

    def rewrite(
        self,
        on_mean: Callable[[str, torch.Tensor], torch.Tensor],
        on_square: Callable[[str, torch.Tensor], torch.Tensor],
    ) -> None:
        """Rewrites the rows of both moments by functions of a parameter's name and a moment of it."""
        self.means = {name: on_mean(name, t).contiguous() for name, t in self.means.items()}
        self.squares = {name: on_square(name, t).contiguous() for name, t in self.squares.items()}


def _update(
    visible: torch.Tensor,
    p: torch.Tensor,
    gradient: torch.Tensor,
    moments: tuple[torch.Tensor, torch.Tensor],
    rate: float,
    correction: float,
) -> None:
    """Moves the visible rows of a parameter [N, ...] and of its moments; see `_move_rows`."""
    (mean, square), seen = moments, visible.view(-1, *[1] * (p.dim() - 1)).to(p)
    mean.addcmul_(gradient - mean, seen, value=1 - _MEAN_DECAY)
    square.addcmul_(gradient.square() - square, seen, value=1 - _SQUARE_DECAY)
    p.addcdiv_(mean * seen, square.sqrt().mul_(correction).add_(_EPSILON), value=-rate)


def _update_on_cpu(
    visible: torch.Tensor,
    p: torch.Tensor,
    gradient: torch.Tensor,
    moments: tuple[torch.Tensor, torch.Tensor],
    rate: float,
    correction: float,
) -> None:
    """The same in one pass over the visible rows."""
    if p.numel():
        # `view` refuses what is not contiguous, where `reshape` would copy it.
        rows = [t.detach().view(len(visible), -1).numpy() for t in (p, gradient.contiguous(), *moments)]
        _move_rows(visible.numpy(), *rows, np.float32(rate), np.float32(correction))


@cached_njit(nogil=True, fastmath={"contract"})
def _move_rows(visible, values, gradients, means, squares, rate, correction):
    """Moves the visible rows of values [N, C] and of their moments.

    Args:
        visible: [N] bool.
        values, gradients, means, squares: [N, C] float32.
        rate: learning rate, divided by the share of the mean that the gradients so far have.
        correction: 1 / sqrt of the share of the squares.
    """
    for i in range(len(visible)):
        if visible[i]:
            for k in range(values.shape[1]):
                gradient = gradients[i, k]
                mean = means[i, k] + np.float32(1 - _MEAN_DECAY) * (gradient - means[i, k])
                square = squares[i, k] + np.float32(1 - _SQUARE_DECAY) * (gradient * gradient - squares[i, k])
                means[i, k], squares[i, k] = mean, square
                values[i, k] -= rate * mean / (np.sqrt(square) * correction + np.float32(_EPSILON))
