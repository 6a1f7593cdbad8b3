"""How the labels of Gaussians share the pixels of views."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .values import Splats, Views

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class LabelShares:
    """How labels share the pixels of C images, [C, H, W] each. A share is a sum of blending weights.

    Attributes:
        best: the label with the largest share, the first of equal ones; 0: none has any.
        most: its share.
        labelled: share of all Gaussians with a label.
        score: the sum of weight times score over these.
        alpha: share of all Gaussians; only where there is a best label.
    """

    best: Tensor
    most: Tensor
    labelled: Tensor
    score: Tensor
    alpha: Tensor


def blend_shares(
    render: Callable[..., tuple[Tensor, Tensor, dict[str, Any]]],
    splats: Splats,
    labels: Tensor,
    scores: Tensor,
    views: Views,
) -> LabelShares:
    """`Rasterizer.share_labels` from one channel per label, with `Rasterizer.__call__`."""
    import torch

    used = labels[labels > 0].unique()
    channels = (labels[:, None] == torch.cat([used, used.new_zeros(1)])).float()
    channels[:, -1] = scores * (labels > 0)
    image, alphas, _ = render(splats, channels, views)
    shares, alpha = image[..., :-1], alphas[..., 0]
    if not len(used):
        nothing = torch.zeros_like(alpha)
        return LabelShares(nothing.int(), nothing, nothing, nothing, alpha)
    most, index = shares.max(-1)
    return LabelShares((used[index] * (most > 0)).int(), most, shares.sum(-1), image[..., -1], alpha)
