"""Relevancy of prompts, as LERF defines it."""

from __future__ import annotations

import torch


def relevancy(positive: torch.Tensor, negative: torch.Tensor, temperature: float) -> torch.Tensor:
    """LERF relevancy: the smallest softmax over (prompt, negative) pairs (Kerr et al. 2023, §3.3).

    Args:
        positive: [..., P] cosines with the prompts.
        negative: [..., M] cosines with the negatives.
        temperature: factor on the cosines.

    Returns:
        [..., P] in 0..1.
    """
    # min over negatives of softmax(t [pos, neg])_0 is the sigmoid against the largest negative.
    return (positive - negative.amax(-1, keepdim=True)).mul_(temperature).sigmoid_()
