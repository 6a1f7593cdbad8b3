"""RDA and FDA against their definitions."""

from __future__ import annotations

import math

import pytest
import torch

from ovs3d_ros.semantics.alignment_losses import fda, pairwise_js, pairwise_kl, rda


def _distributions(count: int, classes: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(
        count, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    ).mul(2)


def test_rda_is_the_jensen_shannon_divergence() -> None:
    p, q = _distributions(20, 5).softmax(-1), _distributions(20, 5, seed=1).softmax(-1)
    m = (p + q) / 2
    expected = 0.5 * ((p * (p / m).log()).sum(-1) + (q * (q / m).log()).sum(-1)).mean()
    assert float(rda(p.log(), q.log())) == pytest.approx(float(expected), rel=1e-10)
    assert float(rda(q.log(), p.log())) == pytest.approx(float(expected), rel=1e-10)
    assert abs(float(rda(p.log(), p.log()))) < 1e-12
    apart = torch.tensor([[60.0, -60.0]], dtype=torch.float64).log_softmax(-1)
    assert float(rda(apart, apart.flip(-1))) == pytest.approx(math.log(2), rel=1e-6)


def test_pairwise_divergences_match_single_pairs() -> None:
    log_p = _distributions(7, 4).log_softmax(-1)
    p = log_p.exp()
    for i in range(7):
        for j in range(7):
            m = ((p[i] + p[j]) / 2).log()
            kl = (p[i] * (log_p[i] - log_p[j])).sum()
            js = 0.5 * ((p[i] * (log_p[i] - m)).sum() + (p[j] * (log_p[j] - m)).sum())
            assert float(pairwise_kl(log_p)[i, j]) == pytest.approx(float(kl), abs=1e-10)
            assert float(pairwise_js(log_p)[i, j]) == pytest.approx(float(js), abs=1e-10)


def test_js_is_bounded_where_kl_is_not() -> None:
    log_p = torch.tensor([[200.0, 0.0], [0.0, 200.0]]).log_softmax(-1)
    assert float(pairwise_kl(log_p)[0, 1]) > 100
    assert float(pairwise_js(log_p)[0, 1]) == pytest.approx(math.log(2), rel=1e-5)


@pytest.mark.parametrize("divergence", [pairwise_kl, pairwise_js])
def test_gradients_of_the_alignment_losses(divergence) -> None:
    correlation = torch.randn(6, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    other = _distributions(6, 3, seed=4).log_softmax(-1)

    def total(logits: torch.Tensor) -> torch.Tensor:
        log_p = logits.log_softmax(-1)
        attract, repel = fda(divergence(log_p), correlation)
        return rda(log_p, other) + attract + 0.3 * repel

    assert torch.autograd.gradcheck(total, (_distributions(6, 3).requires_grad_(),))


def test_fda_averages_each_side_and_handles_empty_sides() -> None:
    divergence = torch.ones(4, 4)
    correlation = torch.full((4, 4), -0.2)
    correlation[0, 1] = 0.5
    attract, repel = fda(divergence, correlation)
    assert float(attract) == pytest.approx(0.5) and float(repel) == pytest.approx(-0.2)
    attract, repel = fda(divergence, torch.full((4, 4), 0.3))
    assert float(attract) == pytest.approx(0.3) and float(repel) == 0


def test_fda_groups_similar_patches() -> None:
    """Two objects; one patch starts with the wrong label and joins the patches that look like it."""
    logits = torch.tensor([[2.0, 0]] * 3 + [[0, 1.0]] + [[0, 2.0]] * 4, requires_grad=True)
    same = torch.zeros(8, 8, dtype=torch.bool)
    same[:4, :4] = same[4:, 4:] = True
    correlation = torch.where(same, 0.25, -0.3)
    optimizer = torch.optim.Adam([logits], lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        attract, repel = fda(pairwise_js(logits.log_softmax(-1)), correlation)
        (attract + 0.2 * repel).backward()
        optimizer.step()
    assert logits.argmax(-1).tolist() == [0] * 4 + [1] * 4
