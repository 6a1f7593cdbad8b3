"""Relevancy matches the formula of LERF."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ovs3d_ros.query.relevancy import relevancy


def test_relevancy_is_the_formula_of_lerf() -> None:
    generator = torch.Generator().manual_seed(0)
    positive, negative = (torch.rand(50, n, generator=generator) * 2 - 1 for n in (3, 4))
    scores = relevancy(positive, negative, 10.0)
    for i in range(50):
        for p in range(3):
            literal = min(
                np.exp(10 * positive[i, p].item())
                / (np.exp(10 * positive[i, p].item()) + np.exp(10 * negative[i, m].item()))
                for m in range(4)
            )
            assert scores[i, p].item() == pytest.approx(literal, abs=1e-5)
    assert relevancy(torch.tensor([[0.3]]), torch.tensor([[0.3, 0.1]]), 10.0).item() == pytest.approx(0.5)
