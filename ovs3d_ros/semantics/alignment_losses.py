"""The alignment losses of 3D-OVS: RDA and FDA."""

from __future__ import annotations

import math

import torch

_LOG_2 = math.log(2.0)


def rda(log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    """Relevancy-Distribution Alignment: mean Jensen-Shannon divergence (3D-OVS §3.3, eq. 6).

    Args:
        log_p: [M, C] log-probabilities of the classes at M pixels, of the field.
        log_q: [M, C] those of the multi-scale relevancy maps.

    Returns:
        Scalar in 0..ln 2.
    """
    log_m = torch.logaddexp(log_p, log_q) - _LOG_2
    return 0.5 * ((log_p.exp() * (log_p - log_m)).sum(-1) + (log_q.exp() * (log_q - log_m)).sum(-1)).mean()


def pairwise_kl(log_p: torch.Tensor) -> torch.Tensor:
    """KL(P_i || P_j) of all pairs, [..., M, M], unbounded, by one matrix product; log_p: [..., M, C]."""
    p = log_p.exp()
    return (p * log_p).sum(-1)[..., :, None] - p @ log_p.transpose(-1, -2)


def pairwise_js(log_p: torch.Tensor) -> torch.Tensor:
    """Jensen-Shannon divergence of all pairs, [..., M, M] in 0..ln 2; log_p: [..., M, C] log-probabilities."""
    p = log_p.exp()
    negative_entropy = (p * log_p).sum(-1)
    m = 0.5 * (p[..., :, None, :] + p[..., None, :, :])  # [..., M, M, C]
    mixed = (m * m.clamp_min(1e-30).log()).sum(-1)  # clamped: the gradient of 0 log 0 must not be NaN
    return 0.5 * (negative_entropy[..., :, None] + negative_entropy[..., None, :]) - mixed


def fda(divergence: torch.Tensor, correlation: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Feature-Distribution Alignment, re-balanced (3D-OVS §3.3, eq. 8-9).

    Patches that look like one object are drawn to one distribution, others apart.

    Args:
        divergence: [..., M, M] of the class distributions of two patches.
        correlation: [..., M, M] cosine of their DINO features less the value that tells same from different.

    Returns:
        The attracting term (its gradient lowers the divergence of similar patches) and the repelling one, each the sum
        over its pairs by their number; 0 without such pairs.
    """
    attract, repel = correlation.clamp_min(0), correlation.clamp_max(0)
    return tuple((part * divergence).sum() / (part != 0).sum().clamp_min(1) for part in (attract, repel))
