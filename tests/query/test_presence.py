"""The presence decision: evidence, probability and verdict."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ovs3d_ros.config import QueryConfig
from ovs3d_ros.query.presence import (
    PEAK_GAUSSIANS,
    Evidence,
    PresenceCalibration,
    encoder_calibration,
    general_prompts,
    load_calibration,
    presence_evidence,
    presence_probability,
    verdicts,
)
from ovs3d_ros.query.similarity import GaussianScores, TensorScores, lerf_competition, score_gaussians
from ovs3d_ros.semantics.packing import pack_codes
from ovs3d_ros.types import UserError

SPECIFIC = np.array([False])


def everything(count: int) -> torch.Tensor:
    return torch.ones(count, dtype=torch.bool)


def codes_and_directions(strength: float, present: int = 80, count: int = 600):
    """Codes, the first `present` close to the prompt by `strength`; prompt; two distractors."""
    generator = torch.Generator().manual_seed(0)
    prompt, other, *_ = torch.eye(8)
    codes = F.normalize(0.3 * torch.randn(count, 8, generator=generator) + other, dim=-1)
    codes[:present] = F.normalize(codes[:present] * (1 - strength) + strength * prompt, dim=-1)
    distractors = torch.stack([other, torch.eye(8)[2]], 1)
    return with_sums(codes), with_zeros(prompt[:, None]), with_zeros(distractors)


def with_sums(codes: torch.Tensor) -> torch.Tensor:
    """Codes whose last value, the sum of weights, is 1."""
    return F.pad(codes, (0, 1), value=1.0)


def with_zeros(directions: torch.Tensor) -> torch.Tensor:
    """Directions that do not read the last value of a code."""
    return F.pad(directions, (0, 0, 0, 1))


def collect(codes, prompt, distractors, competing=(True, True), weight=None, known=None) -> Evidence:
    """Evidence from all Gaussians with weight 1, unless given."""
    known = everything(len(codes)) if known is None else known
    weight = torch.ones(len(codes)) if weight is None else weight
    packed = pack_codes(codes)
    competition = lerf_competition(prompt, torch.zeros(prompt.shape[0], 1), 10.0)
    found = score_gaussians(packed, known, competition, PEAK_GAUSSIANS)
    return presence_evidence(found, packed, weight, distractors, torch.tensor([competing]))


def evidence_of(strength: float, present: int = 80, competing=(True, True)) -> Evidence:
    return collect(*codes_and_directions(strength, present), competing)


def evidence_table(*columns: list[float]) -> Evidence:
    return Evidence(*map(np.array, columns), strongest=np.zeros((len(columns[0]), 0), np.int64))


def test_evidence_grows_with_similarity() -> None:
    tables = np.stack([evidence_of(s).table[0] for s in (0.0, 0.3, 0.5, 0.7, 0.9)])
    assert (np.diff(tables[:, :3], axis=0) > 0).all() and tables[-1, 3] > tables[0, 3]
    probabilities = [
        presence_probability(evidence_of(s).table, SPECIFIC, PresenceCalibration())[0]
        for s in (0.0, 0.3, 0.5, 0.7, 0.9)
    ]
    assert probabilities == sorted(probabilities) and probabilities[0] < 0.3 < 0.9 < probabilities[-1]


def test_evidence_matches_a_hand_calculation() -> None:
    codes = pack_codes(with_sums(torch.eye(4)))
    cosines = np.array([0.9, 0.1, 0.2, 0.0])
    scores, weight = np.array([0.8, 0.5, 0.6, 0.1]), torch.tensor([3.0, 1.0, 0.0, 0.0])
    distractors = with_zeros(torch.tensor([[0.2, 0.7], [0.4, 0.0], [0.0, 0.0], [0.0, 0.0]]))
    order = np.argsort(-cosines)[None]
    table = TensorScores(torch.from_numpy(scores)[:, None], everything(4))
    found = GaussianScores(order, cosines[order], scores[order], np.array([0.3]), np.array([0.2]), table)
    got = presence_evidence(found, codes, weight, distractors, torch.tensor([[True, False]]))
    assert got.peak[0] == pytest.approx(0.75 * 0.8 + 0.25 * 0.5)
    assert got.cosine[0] == pytest.approx(0.75 * 0.9 + 0.25 * 0.1)
    assert got.margin[0] == pytest.approx(0.7 - (0.75 * 0.2 + 0.25 * 0.4))
    assert got.strongest[0, :2].tolist() == [0, 2]
    assert got.zscore[0] == pytest.approx((0.7 - 0.3) / 0.2, rel=1e-5)


def test_synonyms_do_not_compete() -> None:
    """A distractor that is another word for the prompt must not count against it."""
    codes, prompt, _ = codes_and_directions(0.9)
    rival, synonym = (collect(codes, prompt, prompt, (competes,)) for competes in (True, False))
    assert rival.margin[0] == pytest.approx(0, abs=1e-5) and synonym.margin[0] == 0.0
    assert evidence_of(0.9, competing=(False, True)).margin[0] > 0.5


def test_ineligible_gaussians_are_no_evidence() -> None:
    """Ineligible Gaussians are neither among the strongest nor in the mean, whatever their codes are."""
    codes, prompt, distractors = codes_and_directions(0.9)
    known = torch.arange(len(codes)) >= 40  # the first 80 resemble the prompt
    got = collect(codes, prompt, distractors, known=known)
    alone = collect(codes[known], prompt, distractors)
    np.testing.assert_allclose(got.table, alone.table, rtol=1e-4)
    assert (got.strongest == alone.strongest + 40).all()
    nothing = collect(codes, prompt, distractors, known=~everything(len(codes)))
    assert (nothing.table == 0).all() and nothing.strongest.shape == (1, 0)


@pytest.mark.parametrize("count", [1, 3])
def test_evidence_of_few_gaussians_is_finite(count: int) -> None:
    codes, prompt, distractors = codes_and_directions(0.9)
    got = collect(codes[:count], prompt, distractors)
    assert (
        np.isfinite(got.table).all()
        and np.isfinite(presence_probability(got.table, SPECIFIC, PresenceCalibration())).all()
    )


def test_gaussians_without_weight_are_no_evidence() -> None:
    codes, prompt, distractors = codes_and_directions(0.9)
    got = collect(codes, prompt, distractors, weight=torch.zeros(len(codes)))
    assert got.peak[0] == 0 and got.cosine[0] == 0


def test_verdict_is_unsure_between_the_limits() -> None:
    presence = np.array([0.0, 0.19, 0.2, 0.54, 0.55, 1.0])
    config = QueryConfig(presence=0.55, absent=0.2)
    assert verdicts(presence, config) == ["no", "no", "unsure", "unsure", "yes", "yes"]
    assert verdicts(presence, QueryConfig(presence=0.1, absent=0.9)) == ["no"] + ["yes"] * 5, (
        "a found prompt is never unsure"
    )


def test_presence_is_a_logistic_regression() -> None:
    evidence = evidence_table([0.8, 0.0], [0.3, 0.1], [0.2, -0.1], [4.0, 1.0])
    calibration = PresenceCalibration(presence_weights=(2.0, 1.0, 3.0, 0.5), presence_bias=-1.0)
    expected = 1 / (1 + np.exp(-(np.array([1.6 + 0.3 + 0.6 + 2.0, 0.1 - 0.3 + 0.5]) - 1.0)))
    np.testing.assert_allclose(
        presence_probability(evidence.table, np.zeros(len(expected), bool), calibration), expected
    )
    extreme = evidence_table([1e9], [0.0], [0.0], [0.0])
    assert presence_probability(extreme.table, SPECIFIC, calibration)[0] == pytest.approx(1.0)


def test_general_names_have_their_own_weights() -> None:
    distractors = ("red mug", "blue toy car", "floor")
    assert general_prompts(
        ["mug", "Toy car", "car", "red mug", "floor", "dog", "mug red big"], distractors
    ).tolist() == [True, True, True, False, False, False, False]
    calibration = PresenceCalibration(general_weights=(0.0, 0.0, 0.0, 0.0), general_bias=-3.0)
    evidence = evidence_table(*([v] * 2 for v in (0.9, 0.9, 0.3, 5.0)))
    specific, general = presence_probability(evidence.table, np.array([False, True]), calibration)
    assert specific > 0.9 and general == pytest.approx(1 / (1 + np.exp(3.0)))


BAD_CALIBRATIONS = {
    "NaN": dict(presence_bias=float("nan")),
    "infinite": dict(general_bias=float("inf")),
    "beyond float32": dict(presence_weights=[1e39, 0, 0, 0]),
    "zero temperature": dict(temperature=0),
    "temperature zero in float32": dict(temperature=1e-60),
    "threshold": dict(threshold=55),
    "text": dict(synonym="0.9"),
    "text for a list": dict(distractors="table"),
    "unknown": dict(warmth=3),
}


@pytest.mark.parametrize("values", BAD_CALIBRATIONS.values(), ids=BAD_CALIBRATIONS)
def test_calibrations_that_no_tensor_holds_are_refused(values: dict, tmp_path) -> None:
    path = tmp_path / "c.json"
    path.write_text(json.dumps(dict(name="e", query=values)))
    with pytest.raises(UserError, match=r"c\.json: not a calibration.*make one with"):
        load_calibration(str(path), "e")
    encoder = SimpleNamespace(name="e", calibration=dict(query=values))
    with pytest.raises(UserError, match="encoder e: its calibration cannot be used"):
        encoder_calibration(encoder, "")


def test_calibration_of_a_file_answers_queries_like_one_in_python(tmp_path) -> None:
    path = tmp_path / "c.json"
    path.write_text(json.dumps(dict(name="e", query=dict(distractors=["red mug", "blue hat"]))))
    calibration = load_calibration(str(path), "e")
    assert calibration == PresenceCalibration(distractors=("red mug", "blue hat"))
    assert general_prompts(["mug", "red mug"], calibration.distractors).tolist() == [True, False]
    encoder = SimpleNamespace(name="e", calibration=dict(query=dict(distractors=["red mug", "blue hat"])))
    assert encoder_calibration(encoder, "") == calibration
