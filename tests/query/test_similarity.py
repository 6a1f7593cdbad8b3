"""Scores of Gaussians: the Numba kernel matches the tensor operations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ovs3d_ros.query import similarity as module
from ovs3d_ros.query.similarity import (
    Competition,
    lerf_competition,
    score_gaussians,
    score_with_numba,
    score_with_torch,
)
from ovs3d_ros.semantics.packing import pack_codes

TEMPERATURE = 10.0


def world(count: int, dims: int, prompts: int, negatives: int, unknown: float = 0.2):
    """Codes, which of them are known, and the competition of prompts and negatives."""
    generator = torch.Generator().manual_seed(count)
    codes = F.normalize(torch.randn(count, dims, generator=generator), dim=-1)
    codes[:, -1] = 0.5 + torch.rand(count, generator=generator)
    codes[::7] = 0.0
    known = torch.rand(count, generator=generator) >= unknown
    texts = F.normalize(torch.randn(dims, prompts + negatives, generator=generator), dim=0)
    return pack_codes(codes), known, lerf_competition(texts[:, :prompts], texts[:, prompts:], TEMPERATURE)


def same(a, b) -> None:
    assert torch.equal(a.all.known, b.all.known)
    torch.testing.assert_close(a.all.relevancy(), b.all.relevancy(), rtol=0, atol=5e-4)
    alike = a.strongest == b.strongest  # texts have 16 bits: equals may change places
    assert (~alike).sum() <= 0.01 * alike.size
    for name in ("cosines", "mean", "deviation"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=0, atol=1e-4)
    np.testing.assert_allclose(a.peaks[alike], b.peaks[alike], rtol=0, atol=5e-4)
    count = a.all.relevancy().shape[1]
    for found in (np.arange(count) % 3 != 1, np.ones(count, bool), np.zeros(count, bool)):
        for threshold in (0.3, 0.6):
            labels, scores = a.all.label(found, threshold)
            expected, likewise = b.all.label(found, threshold)
            assert (labels == expected).float().mean() >= 0.999
            same = labels == expected
            torch.testing.assert_close(scores[same], likewise[same], rtol=0, atol=5e-4)


@pytest.mark.parametrize(
    "count, dims, prompts, negatives",
    [(1, 2, 1, 1), (63, 30, 3, 4), (64, 62, 10, 4), (65, 17, 1, 64), (5000, 126, 64, 1)],
)
def test_numba_scores_match_torch(count, dims, prompts, negatives) -> None:
    inputs = world(count, dims, prompts, negatives)
    same(score_with_numba(*inputs, 60), score_with_torch(*inputs, 60))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_scores_do_not_depend_on_threads(threads, monkeypatch) -> None:
    monkeypatch.setattr(module, "_GAUSSIANS_PER_THREAD", 100)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    inputs = world(1001, 30, 5, 4)
    same(score_with_numba(*inputs, 60), score_with_torch(*inputs, 60))


@pytest.mark.parametrize("run", [score_with_numba, score_with_torch])
def test_scores_match_a_hand_calculation(run) -> None:
    codes = pack_codes(torch.tensor([[0.0, 1.0], [1.0, 0.5], [0.8, 0.6], [0.0, 1.0], [0.0, 0.0]]))
    known = torch.tensor([True, True, True, False, True])
    negatives = torch.tensor([[1.0, 0.0], [0.0, 0.5]])
    got = run(codes, known, lerf_competition(torch.tensor([[0.0], [1.0]]), negatives, TEMPERATURE), 2)
    scores = got.all.relevancy()
    rival = np.array([0.5, 1.0, 0.8])  # the nearer of both
    expected = 1 / (1 + np.exp(-TEMPERATURE * (np.array([1.0, 0.5, 0.6]) - rival)))
    np.testing.assert_allclose(scores[:3, 0], expected, rtol=0.03)  # codes have 8 bits
    assert got.all.known.tolist() == [True, True, True, False, False]
    assert scores[3, 0] == 0 and scores[4, 0] == 0, "one is not eligible, one has no code"
    assert got.strongest.tolist() == [[0, 2]] and got.cosines[0] == pytest.approx([1.0, 0.6], abs=5e-4)
    assert got.mean[0] == pytest.approx(2.1 / 3, abs=5e-4)
    assert got.deviation[0] == pytest.approx(np.std([1.0, 0.5, 0.6]), abs=5e-4)


@pytest.mark.parametrize("run", [score_with_numba, score_with_torch])
@pytest.mark.parametrize("known", [0, 3])
def test_strongest_lists_known_gaussians_only(run, known) -> None:
    codes, _, competition = world(200, 8, 4, 2)
    codes.scales[-3:] = 0.5
    mask = torch.arange(200) >= 200 - known
    got = run(codes, mask, competition, 60)
    assert got.strongest.shape == got.cosines.shape == (4, known) and (got.strongest >= 200 - known).all()
    assert (
        bool((got.all.relevancy()[~mask] == 0).all())
        and np.isfinite(got.mean).all()
        and np.isfinite(got.deviation).all()
    )


def test_scoring_leaves_its_inputs_unchanged() -> None:
    codes, known, competition = world(300, 8, 4, 2)
    tensors = [codes.values, codes.scales, codes.steps, known, competition.prompts, competition.negatives]
    before = [tensor.clone() for tensor in tensors]
    scores = score_gaussians(codes, known, competition, 60)
    scores.all.label(np.array([True, False, True, False]), 0.5)
    again = scores.all.relevancy()
    assert torch.equal(again, scores.all.relevancy())
    assert all(torch.equal(a, b) for a, b in zip(tensors, before, strict=True))


@pytest.mark.parametrize("run", [score_with_numba, score_with_torch])
def test_labels_are_the_best_found_prompts_from_the_threshold(run) -> None:
    """The best prompt of the second is not found, so the next one counts; the third reaches nothing else."""
    codes = pack_codes(torch.tensor([[1.0, 0.0, 0.5], [0.7, 0.8, 0.5], [0.0, 1.0, 0.5], [1.0, 0.0, 0.0]]))
    prompts = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    competition = lerf_competition(prompts, torch.tensor([[0.0], [0.0], [1.0]]), TEMPERATURE)
    scored = run(codes, torch.tensor([True, True, True, True]), competition, 2)
    labels, scores = scored.all.label(np.array([True, False]), 0.6)
    table = scored.all.relevancy()
    assert labels.tolist() == [1, 1, 0, 0], "the last has no code"
    torch.testing.assert_close(scores, torch.stack([table[0, 0], table[1, 0], table[2, 1], table[3, 0]]))
    assert scored.all.label(np.array([True, True]), 0.6)[0].tolist() == [1, 2, 2, 0]


@pytest.mark.parametrize("run", [score_with_numba, score_with_torch])
def test_each_prompt_may_have_a_range_of_its_own(run) -> None:
    codes, known, lerf = world(500, 20, 3, 1)
    slopes, offsets = torch.tensor([4.0, 20.0, 9.0]), torch.tensor([1.0, -2.0, 0.5])
    competition = Competition(lerf.prompts, torch.zeros_like(lerf.negatives), slopes, offsets, 1.0)
    scored = run(codes, known, competition, 5)
    seen = known & codes.known
    expected = (codes.unpack() @ lerf.prompts * slopes - offsets).sigmoid() * seen[:, None]
    torch.testing.assert_close(scored.all.relevancy(), expected, rtol=0, atol=1e-3)
    labels, _ = scored.all.label(np.ones(3, bool), 0.0)
    assert (labels[seen] == expected.argmax(1)[seen] + 1).float().mean() > 0.99
