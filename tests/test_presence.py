"""The presence decision: evidence that means something, and a probability that follows it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ovs3d_ros.config import QueryConfig
from ovs3d_ros.presence import Calibration, Evidence, is_general, presence_evidence, presence_probability, verdicts
from ovs3d_ros.query import relevancy

SPECIFIC = np.array([False])


def everything(count: int) -> torch.Tensor:
    return torch.ones(count, dtype=torch.bool)


def codes_and_cosines(strength: float, present: int = 80, count: int = 600):
    """Unit codes of which the first `present` resemble the prompt by `strength`; two distractors."""
    generator = torch.Generator().manual_seed(0)
    prompt, other, *_ = torch.eye(8)
    codes = F.normalize(0.3 * torch.randn(count, 8, generator=generator) + other, dim=-1)
    codes[:present] = F.normalize(codes[:present] * (1 - strength) + strength * prompt, dim=-1)
    distractors = torch.stack([other, torch.eye(8)[2]], 1)
    return codes, codes @ prompt[:, None], distractors


def evidence_of(strength: float, present: int = 80, competing=(True, True)) -> Evidence:
    codes, cosines, distractors = codes_and_cosines(strength, present)
    scores = relevancy(cosines, torch.zeros(len(codes), 1), 10.0)
    return presence_evidence(codes, torch.ones(len(codes)), cosines, scores, distractors, torch.tensor([competing]),
                             everything(len(codes)))


def evidence_table(*columns: list[float]) -> Evidence:
    return Evidence(*map(np.array, columns), strongest=np.zeros((len(columns[0]), 0), np.int64))


def test_evidence_grows_with_the_likeness_of_the_thing() -> None:
    tables = np.stack([evidence_of(s).table[0] for s in (0.0, 0.3, 0.5, 0.7, 0.9)])
    assert (np.diff(tables[:, :3], axis=0) > 0).all() and tables[-1, 3] > tables[0, 3]
    probabilities = [presence_probability(evidence_of(s), SPECIFIC, Calibration())[0] for s in (0.0, 0.3, 0.5, 0.7, 0.9)]
    assert probabilities == sorted(probabilities) and probabilities[0] < 0.3 < 0.9 < probabilities[-1]


def test_evidence_by_hand() -> None:
    codes = torch.eye(4)
    cosines = torch.tensor([[0.9], [0.1], [0.2], [0.0]])
    scores, weight = torch.tensor([[0.8], [0.5], [0.6], [0.1]]), torch.tensor([3.0, 1.0, 0.0, 0.0])
    distractors = torch.tensor([[0.2, 0.7], [0.4, 0.0], [0.0, 0.0], [0.0, 0.0]])
    got = presence_evidence(codes, weight, cosines, scores, distractors, torch.tensor([[True, False]]),
                            everything(4))
    assert got.peak[0] == pytest.approx(0.75 * 0.8 + 0.25 * 0.5)
    assert got.cosine[0] == pytest.approx(0.75 * 0.9 + 0.25 * 0.1)
    assert got.margin[0] == pytest.approx(0.7 - (0.75 * 0.2 + 0.25 * 0.4))
    assert got.strongest[0, :2].tolist() == [0, 2]
    assert got.zscore[0] == pytest.approx((0.7 - 0.3) / np.std([0.9, 0.1, 0.2, 0.0]), rel=1e-5)


def test_synonyms_do_not_compete() -> None:
    """A distractor that is another word for the prompt must not count against it."""
    codes, cosines, _ = codes_and_cosines(0.9)
    same = torch.eye(8)[:1].T
    scores = relevancy(cosines, torch.zeros(len(codes), 1), 10.0)
    rival, synonym = (presence_evidence(codes, torch.ones(len(codes)), cosines, scores, same, torch.tensor([[c]]),
                                         everything(len(codes))) for c in (True, False))
    assert rival.margin[0] == pytest.approx(0, abs=1e-5) and synonym.margin[0] == 0.0
    assert evidence_of(0.9, competing=(False, True)).margin[0] > 0.5


def test_what_does_not_count_is_no_evidence() -> None:
    """Unknown Gaussians neither fit best nor enter the mean, whatever their codes say."""
    codes, cosines, distractors = codes_and_cosines(0.9)
    known = torch.arange(len(codes)) >= 40  # the first 80 resemble the prompt
    scores, both, weight = relevancy(cosines, torch.zeros(len(codes), 1), 10.0), torch.ones(1, 2) > 0, torch.ones(len(codes))
    got = presence_evidence(codes, weight, cosines, scores, distractors, both, known)
    alone = presence_evidence(codes[known], weight[known], cosines[known], scores[known], distractors, both,
                              everything(int(known.sum())))
    np.testing.assert_allclose(got.table, alone.table, rtol=1e-4)
    assert (got.strongest == alone.strongest + 40).all()
    nothing = presence_evidence(codes, weight, cosines, scores, distractors, both, ~everything(len(codes)))
    assert (nothing.table == 0).all() and nothing.strongest.shape == (1, 0)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_evidence_of_next_to_nothing_is_finite(count: int) -> None:
    codes, cosines, distractors = codes_and_cosines(0.9)
    got = presence_evidence(codes[:count], torch.ones(count), cosines[:count], cosines[:count], distractors,
                            torch.ones(1, 2, dtype=torch.bool), everything(count))
    assert np.isfinite(got.table).all() and np.isfinite(presence_probability(got, SPECIFIC, Calibration())).all()


def test_evidence_without_weight_is_no_evidence() -> None:
    codes, cosines, distractors = codes_and_cosines(0.9)
    got = presence_evidence(codes, torch.zeros(len(codes)), cosines, cosines, distractors,
                            torch.ones(1, 2, dtype=torch.bool), everything(len(codes)))
    assert got.peak[0] == 0 and got.cosine[0] == 0


def test_verdicts_leave_room_for_doubt() -> None:
    presence = np.array([0.0, 0.19, 0.2, 0.54, 0.55, 1.0])
    config = QueryConfig(presence=0.55, absent=0.2)
    assert verdicts(presence, config) == ["no", "no", "unsure", "unsure", "yes", "yes"]
    assert verdicts(presence, QueryConfig(presence=0.1, absent=0.9)) == ["no"] + ["yes"] * 5, "found is found"


def test_presence_is_the_logistic_of_the_weighted_table() -> None:
    evidence = evidence_table([0.8, 0.0], [0.3, 0.1], [0.2, -0.1], [4.0, 1.0])
    calibration = Calibration(presence_weights=(2.0, 1.0, 3.0, 0.5), presence_bias=-1.0)
    expected = 1 / (1 + np.exp(-(np.array([1.6 + 0.3 + 0.6 + 2.0, 0.1 - 0.3 + 0.5]) - 1.0)))
    np.testing.assert_allclose(presence_probability(evidence, np.zeros(len(expected), bool), calibration), expected)
    extreme = evidence_table([1e9], [0.0], [0.0], [0.0])
    assert presence_probability(extreme, SPECIFIC, calibration)[0] == pytest.approx(1.0)


def test_bare_nouns_are_judged_by_a_calibration_of_their_own() -> None:
    distractors = ("red mug", "blue toy car", "floor")
    assert is_general(["mug", "Toy car", "car", "red mug", "floor", "dog", "mug red big"], distractors).tolist() == [
        True, True, True, False, False, False, False]
    calibration = Calibration(general_weights=(0.0, 0.0, 0.0, 0.0), general_bias=-3.0)
    evidence = evidence_table(*([v] * 2 for v in (0.9, 0.9, 0.3, 5.0)))
    specific, general = presence_probability(evidence, np.array([False, True]), calibration)
    assert specific > 0.9 and general == pytest.approx(1 / (1 + np.exp(3.0)))
