"""Scores of Gaussians: the Numba kernel matches the tensor operations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ovs3d_ros.packed_codes import pack_codes
from ovs3d_ros.query import similarity as module
from ovs3d_ros.query.similarity import score_gaussians, score_with_numba, score_with_torch

TEMPERATURE = 10.0


def world(count: int, dims: int, prompts: int, negatives: int, unknown: float = 0.2):
    """Codes, which of them are known, and directions of prompts and negatives."""
    generator = torch.Generator().manual_seed(count)
    codes = F.normalize(torch.randn(count, dims, generator=generator), dim=-1)
    codes[:, -1] = 0.5 + torch.rand(count, generator=generator)
    codes[::7] = 0.0
    known = torch.rand(count, generator=generator) >= unknown
    texts = F.normalize(torch.randn(dims, prompts + negatives, generator=generator), dim=0)
    return pack_codes(codes), known, texts[:, :prompts], texts[:, prompts:]


def same(a, b) -> None:
    assert torch.equal(a.known, b.known)
    torch.testing.assert_close(a.scores, b.scores, rtol=1e-4, atol=1e-5)
    assert (a.strongest == b.strongest).all()
    for name in ("cosines", "mean", "deviation"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "count, dims, prompts, negatives",
    [(1, 2, 1, 1), (63, 30, 3, 4), (64, 62, 10, 4), (65, 17, 1, 64), (5000, 126, 64, 1)],
)
def test_numba_scores_match_torch(count, dims, prompts, negatives) -> None:
    inputs = world(count, dims, prompts, negatives)
    same(score_with_numba(*inputs, TEMPERATURE, 60), score_with_torch(*inputs, TEMPERATURE, 60))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_scores_do_not_depend_on_threads(threads, monkeypatch) -> None:
    monkeypatch.setattr(module, "_GAUSSIANS_PER_THREAD", 100)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    inputs = world(1001, 30, 5, 4)
    same(score_with_numba(*inputs, TEMPERATURE, 60), score_with_torch(*inputs, TEMPERATURE, 60))


@pytest.mark.parametrize("run", [score_with_numba, score_with_torch])
def test_scores_match_a_hand_calculation(run) -> None:
    codes = pack_codes(torch.tensor([[0.0, 1.0], [1.0, 0.5], [0.8, 0.6], [0.0, 1.0], [0.0, 0.0]]))
    known = torch.tensor([True, True, True, False, True])
    got = run(
        codes, known, torch.tensor([[0.0], [1.0]]), torch.tensor([[1.0, 0.0], [0.0, 0.5]]), TEMPERATURE, 2
    )
    rival = np.array([0.5, 1.0, 0.8])  # the nearer of both
    expected = 1 / (1 + np.exp(-TEMPERATURE * (np.array([1.0, 0.5, 0.6]) - rival)))
    np.testing.assert_allclose(got.scores[:3, 0], expected, rtol=0.03)  # codes have 8 bits
    assert got.known.tolist() == [True, True, True, False, False]
    assert got.scores[3, 0] == 0 and got.scores[4, 0] == 0, "one is not eligible, one has no code"
    assert got.strongest.tolist() == [[0, 2]] and got.cosines[0] == pytest.approx([1.0, 0.6], abs=5e-4)
    assert got.mean[0] == pytest.approx(2.1 / 3, abs=5e-4)
    assert got.deviation[0] == pytest.approx(np.std([1.0, 0.5, 0.6]), abs=5e-4)


@pytest.mark.parametrize("run", [score_with_numba, score_with_torch])
@pytest.mark.parametrize("known", [0, 3])
def test_strongest_lists_known_gaussians_only(run, known) -> None:
    codes, _, prompts, negatives = world(200, 8, 4, 2)
    codes.scales[-3:] = 0.5
    mask = torch.arange(200) >= 200 - known
    got = run(codes, mask, prompts, negatives, TEMPERATURE, 60)
    assert got.strongest.shape == got.cosines.shape == (4, known) and (got.strongest >= 200 - known).all()
    assert (
        bool((got.scores[~mask] == 0).all())
        and np.isfinite(got.mean).all()
        and np.isfinite(got.deviation).all()
    )


def test_scoring_leaves_its_inputs_unchanged() -> None:
    codes, *others = world(300, 8, 4, 2)
    tensors = [codes.values, codes.scales, codes.steps, *others]
    before = [tensor.clone() for tensor in tensors]
    score_gaussians(codes, *others, TEMPERATURE, 60)
    assert all(torch.equal(a, b) for a, b in zip(tensors, before, strict=True))
