"""The alignment losses of 3D-OVS (Liu et al. 2023), RDA and FDA; see docs/method.md, "Alignment losses"."""

from __future__ import annotations

import math

import torch

_LOG_2 = math.log(2.0)


def rda(log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    """Relevancy-Distribution Alignment: mean Jensen-Shannon divergence over M pixels.

    Args:
        log_p: [M, C] log-probabilities of the classes, from the field.
        log_q: [M, C] log-probabilities of the classes, from the relevancy of the view's own features.

    Returns:
        Scalar in 0..ln 2.
    """
    log_m = torch.logaddexp(log_p, log_q) - _LOG_2
    return 0.5 * ((log_p.exp() * (log_p - log_m)).sum(-1) + (log_q.exp() * (log_q - log_m)).sum(-1)).mean()


def pairwise_kl(log_p: torch.Tensor) -> torch.Tensor:
    """KL(P_i || P_j) of all pairs, [..., M, M], unbounded; log_p: [..., M, C] log-probabilities."""
    p = log_p.exp()
    return (p * log_p).sum(-1)[..., :, None] - p @ log_p.transpose(-1, -2)


def pairwise_js(log_p: torch.Tensor) -> torch.Tensor:
    """Jensen-Shannon divergence [..., M, M], 0..ln 2, of all pairs of log-probabilities [..., M, C]."""
    p = log_p.exp()
    negative_entropy = (p * log_p).sum(-1)
    m = 0.5 * (p[..., :, None, :] + p[..., None, :, :])  # [..., M, M, C]
    mixed = (m * m.clamp_min(1e-30).log()).sum(-1)  # the clamp keeps the gradient of 0 log 0 finite
    return 0.5 * (negative_entropy[..., :, None] + negative_entropy[..., None, :]) - mixed


def fda(divergence: torch.Tensor, correlation: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Feature-Distribution Alignment with re-balancing.

    The loss pulls class distributions of similar patches together and pushes those of different ones apart.

    Args:
        divergence: [..., M, M] divergence between the class distributions of patches.
        correlation: [..., M, M] cosine of their DINO features minus a threshold: positive if similar.

    Returns:
        The attracting term, over pairs of positive correlation, and the repelling term, over pairs of
        negative correlation. Each is a mean over its pairs, or 0 without pairs.
    """
    return (
        _mean_over_pairs(correlation.clamp_min(0), divergence),
        _mean_over_pairs(correlation.clamp_max(0), divergence),
    )


def _mean_over_pairs(weights: torch.Tensor, divergence: torch.Tensor) -> torch.Tensor:
    """Mean of weights times divergence over the pairs whose weight is not zero."""
    return (weights * divergence).sum() / (weights != 0).sum().clamp_min(1)
