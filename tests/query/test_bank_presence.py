"""Presence without labels: ranks within a bank of names."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ovs3d_ros.config import ClipConfig, QueryConfig
from ovs3d_ros.encoders import make_clip
from ovs3d_ros.query.bank_presence import BankPresence, decide_presence, pool_cells
from ovs3d_ros.query.engine import QueryEngine
from ovs3d_ros.query.name_bank import make_bank, read_names
from ovs3d_ros.query.presence import PresenceCalibration, load_calibration
from ovs3d_ros.semantics.codec import CodecFitter
from ovs3d_ros.semantics.packing import pack_codes
from ovs3d_ros.types import MapSnapshot, UserError

DIM, THINGS, GAUSSIANS = 48, 30, 40
NAMES = read_names()


def _texts(seed: int) -> dict[str, torch.Tensor]:
    """Random unit features of all names of the bank."""
    features = torch.randn(len(NAMES), DIM, generator=torch.Generator().manual_seed(seed))
    return dict(zip(NAMES, F.normalize(features, dim=-1), strict=True))


def _distort(features: torch.Tensor, common: torch.Tensor) -> torch.Tensor:
    """The features of an encoder with cosines in a narrow range, as CLIP's are."""
    return F.normalize(features + 3 * common, dim=-1)


def _room(texts: dict[str, torch.Tensor], common: torch.Tensor) -> tuple[MapSnapshot, BankPresence]:
    """A map of the first names, each a thing at a place of its own, and the decision for its encoder."""
    generator = torch.Generator().manual_seed(1)
    things = torch.stack([texts[name] for name in NAMES[:THINGS]]).repeat_interleave(GAUSSIANS, 0)
    noise = torch.randn(things.shape, generator=generator) / DIM**0.5
    features = _distort(F.normalize(0.6 * things + noise, dim=-1), common)
    fitter = CodecFitter(DIM, 40)
    fitter.add(features)
    codec = fitter.fit()
    means = torch.arange(THINGS).repeat_interleave(GAUSSIANS)[:, None] * torch.tensor([[1.0, 0.0, 0.0]])
    means = means + 0.2 * torch.rand(means.shape, generator=generator)
    ones, codes = torch.ones(len(means)), codec.normalize(codec.encode(features))
    snapshot = MapSnapshot(
        version=1,
        gaussians=dict(means=means),
        packed_codes=pack_codes(codes),
        packed_levels=pack_codes(codes[:, None]),
        weight=ones,
        views=ones,
        selection=ones[:, None],
        codec=codec,
        camtoworlds=np.zeros((0, 4, 4)),
        stamps=np.zeros(0),
        cameras=[],
        names=[],
    )

    def encode(names):
        return _distort(torch.stack([texts[name] for name in names]), common)

    return snapshot, BankPresence(encode)


def _ask(texts: dict[str, torch.Tensor], common: torch.Tensor) -> np.ndarray:
    """Probabilities of 30 names that are there and of 200 that are not."""
    snapshot, decision = _room(texts, common)
    asked = [*NAMES[:THINGS], *NAMES[-200:]]
    features = _distort(torch.stack([texts[name] for name in asked]), common)
    return decision.decide(decision.evidence(asked, features, snapshot, 0.5))


def test_the_bank_has_a_thousand_distinct_names():
    assert len(NAMES) >= 1000 and len(set(NAMES)) == len(NAMES)
    assert {"sofa", "floor", "piano", "dog"} <= set(NAMES)
    assert not any(name.startswith("#") or name != name.strip() for name in NAMES)


def test_no_name_of_the_bank_is_cut_off(caplog):
    make_clip(ClipConfig(model="bundled"), "cpu").encode_text(read_names())
    assert not caplog.records, caplog.text


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_what_is_there_is_found_with_any_range_of_cosines(scale):
    common = scale * F.normalize(torch.randn(DIM, generator=torch.Generator().manual_seed(2)), dim=0)
    probability = _ask(_texts(0), common)
    present, absent = probability[:THINGS], probability[THINGS:]
    assert (present >= 0.6).mean() > 0.9
    assert (absent >= 0.6).mean() < 0.15
    assert np.median(present) > 0.8 and np.median(absent) < 0.3


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_a_thing_is_labelled_with_any_range_of_cosines(scale):
    common = scale * F.normalize(torch.randn(DIM, generator=torch.Generator().manual_seed(2)), dim=0)
    texts = _texts(0)
    snapshot, decision = _room(texts, common)
    features = _distort(torch.stack([texts[name] for name in NAMES[:THINGS]]), common)
    cosines = snapshot.codes @ snapshot.directions(features)
    labelled = decision.relevancy(cosines, features, snapshot, 0.5) >= PresenceCalibration().threshold
    own = torch.eye(THINGS, dtype=torch.bool).repeat_interleave(GAUSSIANS, 0)
    assert labelled[own].float().mean() > 0.8 and labelled[~own].float().mean() < 0.02


def test_negatives_of_the_user_are_compared_as_lerf_does():
    texts, common = _texts(0), torch.zeros(DIM)
    snapshot, decision = _room(texts, common)
    engine = QueryEngine(make_clip(ClipConfig(model="bundled"), "cpu"), QueryConfig())
    engine.encode_text = lambda names: torch.stack([texts.get(name, texts["dog"]) for name in names])
    engine._bank = decision
    codes, names = snapshot.codes[: 2 * GAUSSIANS], list(NAMES[:2])
    cosines, of_map = engine.score(codes, snapshot, names, None)
    _, of_lerf = engine.score(codes, snapshot, names, [NAMES[1]])
    rival = torch.sigmoid(engine.calibration.temperature * (cosines - cosines[:, 1:]))
    assert torch.allclose(of_lerf, rival) and not torch.allclose(of_map, of_lerf, atol=0.1)
    engine.calibrate(engine.calibration)  # one of the user: the bank has no say any more
    assert not torch.allclose(engine.score(codes, snapshot, names, None)[1], of_map, atol=0.1)


def test_words_for_one_thing_do_not_compete():
    texts = _texts(0) | {"couch": F.normalize(_texts(0)["sofa"] + 0.01, dim=-1)}
    bank = make_bank(NAMES, lambda names: torch.stack([texts[name] for name in names]))
    rivals = bank.rivals(["couch", "red office chair"], torch.stack([texts["couch"], texts["dog"]]))
    column = NAMES.index
    assert not rivals[0, column("sofa")] and rivals[0, column("dog")]
    assert not rivals[1, [column("chair"), column("office chair"), column("dog")]].any()
    assert rivals[1, column("desk")]
    assert not bank.among.diagonal().any() and bank.among.float().mean() > 0.98


def test_cells_hold_the_evidence_of_their_gaussians():
    means = torch.tensor(
        [[0.0, 0.0, 0.0], [0.01, 0.0, 0.0], [1.0, 0.0, 0.0], [2.0, 0.0, 0.0], [3.0, 0.0, 0.0]]
    )
    codes = torch.tensor([[1.0, 1.0], [0.0, 1.0], [2.0, 1.0], [9.0, 1.0], [0.0, 0.0]])
    sums = pool_cells(means, codes, torch.tensor([3.0, 1.0, 5.0, 0.0, 7.0]))
    # The fourth has no evidence, the fifth no feature; the cell of the first two is the faintest fifth.
    assert sums.tolist() == [[10.0, 5.0]]
    spread = torch.rand(30_000, 3) * 10
    assert 500 < len(pool_cells(spread, torch.ones(30_000, 2), torch.ones(30_000))) <= 8192


def test_a_map_without_features_holds_nothing():
    texts, common = _texts(0), torch.zeros(DIM)
    snapshot, decision = _room(texts, common)
    empty = replace(snapshot, weight=torch.zeros_like(snapshot.weight))
    assert decision.decide(decision.evidence(["sofa"], texts["sofa"][None], empty, 0.5)).tolist() == [0.0]


def test_a_newer_map_is_looked_at_anew():
    texts, common = _texts(0), torch.zeros(DIM)
    snapshot, decision = _room(texts, common)
    name = texts[NAMES[0]][None]

    def probability(newest: MapSnapshot, min_weight: float) -> float:
        return decision.decide(decision.evidence([NAMES[0]], name, newest, min_weight))[0]

    before = probability(snapshot, 0.5)
    gone = torch.arange(len(snapshot.weight)) < GAUSSIANS  # the first thing
    newer = replace(snapshot, weight=torch.where(gone, 0.0, 1.0))
    after = probability(newer, 0.5)
    assert before > 0.6 > 0.4 > after
    assert probability(newer, 2.0) == 0.0  # nothing has so much evidence


def test_an_encoder_without_a_calibration_is_judged_by_the_bank():
    clip = make_clip(ClipConfig(model="bundled"), "cpu")
    assert QueryEngine(clip, QueryConfig())._bank is None
    clip.calibration = None
    assert QueryEngine(clip, QueryConfig())._bank is not None


def test_a_calibration_may_weigh_the_bank_and_keeps_its_own_labels():
    texts, common = _texts(0), torch.zeros(DIM)
    snapshot, bank = _room(texts, common)
    names = [NAMES[0], NAMES[-1]]  # one that is there, one that is not
    features = torch.stack([texts[name] for name in names])
    ranks, evidence = bank.evidence(names, features, snapshot, 0.5), np.zeros((2, 4))
    own = PresenceCalibration(presence_weights=(0.0,) * 4, presence_bias=-2.0)
    both = replace(own, presence_weights=(0.0,) * 4 + (0.5,) * 4, general_weights=(0.0,) * 8)
    alone, _ = decide_presence(names, evidence, None, None, own)
    assert alone[0] == alone[1] < 0.2
    presence, table = decide_presence(names, evidence, ranks, bank, both)
    assert presence[0] > 0.9 and presence[1] < 0.5 and table.shape == (2, 8)
    engine = QueryEngine(make_clip(ClipConfig(model="bundled"), "cpu"), QueryConfig())
    engine.encode_text = lambda prompts: torch.stack([texts.get(name, texts["dog"]) for name in prompts])
    engine.calibrate(own)
    assert engine.bank is None
    of_lerf = engine.score(snapshot.codes, snapshot, names, None)[1]
    engine.calibrate(both)
    assert engine.bank is not None
    assert torch.equal(engine.score(snapshot.codes, snapshot, names, None)[1], of_lerf)


@pytest.mark.parametrize("sizes, ok", [((4, 4), True), ((8, 8), True), ((8, 4), False), ((6, 6), False)])
def test_a_file_has_weights_with_or_without_the_bank(sizes, ok, tmp_path):
    weights = dict(
        zip(("presence_weights", "general_weights"), ([1.0] * size for size in sizes), strict=True)
    )
    path = tmp_path / "c.json"
    path.write_text(json.dumps(dict(name="e", query=weights)))
    if ok:
        assert load_calibration(str(path), "e").weighs_bank == (sizes[0] == 8)
    else:
        with pytest.raises(UserError, match="weighs"):
            load_calibration(str(path), "e")
