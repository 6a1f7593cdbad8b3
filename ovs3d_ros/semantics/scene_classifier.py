"""A classifier that learns from a map what the names look like in it (docs/method.md, "Refinement").

Text features describe a class in general. Within one room, a class looks far more alike: the same table, the
same wall. Fisher's linear discriminant (1936), with one covariance for all classes, learns that look from
Gaussians whose aligned distribution is sure, and corrects those that are not.
"""

from __future__ import annotations

import torch

_SHRINKAGE = 0.05  # share of the diagonal in the covariance, which keeps it invertible
_MIN_MASS = 1.0  # median masses of sure Gaussians: a class with less is left to the text features
_FLOOR, _PRIOR_FLOOR = 1e-4, 1e-6  # probabilities below are equal


def adapt_distributions(
    distributions: torch.Tensor, features: torch.Tensor, mass: torch.Tensor, weight: float
) -> torch.Tensor:
    """Multiplies class distributions with those of a classifier that learned from them.

    Args:
        distributions: [N, V], aligned.
        features: [N, F] what the classifier sees of each Gaussian.
        mass: [N] weight of each Gaussian.
        weight: exponent of the classifier's distributions.

    Returns:
        [N, V] class distributions.
    """
    learned, known = discriminate(distributions, features, mass)
    if not bool(known.any()):
        return distributions
    log = distributions.clamp_min(_PRIOR_FLOOR).log() + weight * learned.clamp_min(_FLOOR).log()
    shares = log.masked_fill(~known, -torch.inf).softmax(-1)
    return torch.where(known, shares * distributions[:, known].sum(-1, keepdim=True), distributions)


def discriminate(
    labels: torch.Tensor, features: torch.Tensor, mass: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Fisher's linear discriminant, trained on all N samples.

    Args:
        labels: [N, V] soft labels. Their squares count, so that sure samples weigh more.
        features: [N, F]; their scale does not matter.
        mass: [N] weight of each sample.

    Returns:
        Its class distributions [N, V], and which classes [V] it knows; others have hardly a sure sample.
    """
    deviation = features.std(0, correction=0)
    z = (features - features.mean(0))[:, deviation > 0] / deviation[deviation > 0]
    sure = labels.square() / labels.square().sum(-1, keepdim=True).clamp_min(1e-12)
    weights = sure * (mass * labels.amax(-1).square())[:, None]  # [N, V]
    total, masses = weights.sum(), weights.sum(0)
    centers = (weights.T @ z) / masses.clamp_min(1e-9)[:, None]  # [V, F]
    mean = (masses @ centers) / total
    spread = (z * weights.sum(1, keepdim=True)).T @ z / total - torch.outer(mean, mean)
    between = ((centers - mean) * masses[:, None]).T @ (centers - mean) / total
    within = (1 - _SHRINKAGE) * (spread - between) + _SHRINKAGE * torch.diag(spread.diag())
    axes = torch.linalg.solve(within.double(), centers.T.double()).to(z.dtype)  # [F, V]
    # Half the usual prior: small things are as likely as walls to be what a name means.
    bias = 0.5 * (masses / total).clamp_min(1e-9).log() - 0.5 * (centers * axes.T).sum(-1)
    logits = z @ axes + bias
    known = masses >= _MIN_MASS
    return logits.masked_fill(~known, -torch.inf).softmax(-1), known
