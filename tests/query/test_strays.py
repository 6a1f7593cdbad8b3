"""Groups that the presence decision would not take for what is asked are no objects."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import synthetic

from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.query import instances as instances_module
from ovs3d_ros.query.distractors import DistractorMemo
from ovs3d_ros.query.object_presence import GroupJudge
from ovs3d_ros.query.presence import (
    PEAK_GAUSSIANS,
    PresenceCalibration,
    general_prompts,
    presence_evidence,
    presence_probability,
)
from ovs3d_ros.query.similarity import lerf_competition, score_gaussians
from ovs3d_ros.query.strays import Judge, drop_strays
from ovs3d_ros.semantics.packing import pack_codes
from ovs3d_ros.types import QueryResult

NAME, OTHER = "red box", "green box"


@pytest.fixture(scope="module")
def room() -> Ovs3d:
    """A mapped room; tests must not change it."""
    return synthetic.build_map(synthetic.make_frames(6))


def make_objects(*labels: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels of objects with 100 Gaussians each, after ten without one, and their numbers."""
    return np.array(labels, np.int64), np.repeat(np.arange(len(labels) + 1), [10, *[100] * len(labels)])


def test_the_likeliest_of_a_label_stays_and_others_if_they_are_likely() -> None:
    labels, instances = make_objects(1, 1, 1, 2, 3, 3)
    asked = []

    def judge(labels: np.ndarray, rows: np.ndarray) -> np.ndarray:
        asked.append((labels.tolist(), rows))
        return np.array([0.7, 0.9, 0.2, 0.1, 0.3])

    fits = np.random.default_rng(0).permutation(len(instances)).astype(np.float32)
    kept, numbers = drop_strays(labels, instances, Judge(fits, judge, 0.6), 0)
    assert kept.tolist() == [0, 1, 3, 5]
    # The only object of label 2 is not judged.
    for old, new in ((0, 0), (1, 1), (2, 2), (3, 0), (4, 3), (5, 0), (6, 4)):
        assert (numbers[instances == old] == new).all(), old
    ((judged, rows),) = asked
    assert judged == [1, 1, 1, 3, 3] and rows.shape == (5, PEAK_GAUSSIANS)
    for strongest, number in zip(rows, (1, 2, 3, 5, 6), strict=True):
        own = np.flatnonzero(instances == number)
        assert strongest.tolist() == own[np.argsort(-fits[own])][:PEAK_GAUSSIANS].tolist()


def test_a_limit_counts_what_is_kept() -> None:
    labels, instances = make_objects(1, 1, 1, 1)
    judge = Judge(np.ones(len(instances)), lambda labels, rows: np.array([0.7, 0.5, 0.8, 0.9]), 0.6)
    kept, numbers = drop_strays(labels, instances, judge, 2)
    assert kept.tolist() == [0, 2]
    assert [int(numbers[instances == k][0]) for k in range(5)] == [0, 1, 0, 2, 0]
    assert not len(drop_strays(labels[:0], instances * 0, judge, 0)[0])


def test_small_objects_repeat_their_gaussians() -> None:
    labels, _ = make_objects(1, 1)
    instances = np.array([1] * 13 + [0] + [2] * 200)
    seen = []
    judge = Judge(np.arange(214.0), lambda labels, rows: seen.append(rows) or np.ones(2), 0.6)
    drop_strays(labels, instances, judge, 0)
    counts = np.bincount(seen[0][0], minlength=13)
    assert counts[:13].min() >= PEAK_GAUSSIANS // 13 and counts.sum() == PEAK_GAUSSIANS == counts[:13].sum()


def test_strays_get_no_boxes(room: Ovs3d, monkeypatch) -> None:
    fitted = []

    def counted(points, segments, *rest):
        fitted.append(len(segments))
        return plain(points, segments, *rest)

    plain = instances_module.fit_boxes
    monkeypatch.setattr(instances_module, "fit_boxes", counted)
    snapshot, config = room.snapshot(), room.config.query
    both = sum(room.query([name]).labels > 0 for name in (NAME, OTHER)).numpy().astype(np.int16)
    ones = np.ones(len(both), np.float32)
    fitted.clear()
    everything, _ = instances_module.find_map_objects(snapshot, both, ones, [NAME], config, 0)
    judge = Judge(ones, lambda labels, rows: np.zeros(len(labels)), 0.5)
    (kept,), numbers = instances_module.find_map_objects(snapshot, both, ones, [NAME], config, 0, judge=judge)
    assert fitted == [len(everything), 1] and len(everything) >= 2
    assert kept.instance == 1 and (numbers == 1).sum() == kept.num_gaussians and numbers.max() == 1


def repaint(room: Ovs3d, share: float) -> tuple[QueryResult, np.ndarray]:
    """Asks for the red box where the other looks like it by a share, and which Gaussians that has."""
    snapshot = room.snapshot()
    red, other = (room.query([name]).labels == 1 for name in (NAME, OTHER))
    codes = snapshot.codes.clone()
    assert snapshot.codec is not None
    codes[other] = snapshot.codec.normalize(share * codes[red].mean(0) + (1 - share) * codes[other])
    painted = replace(snapshot, packed_codes=pack_codes(codes))
    return room.query([NAME], snapshot=painted), other.numpy()


def test_what_fits_a_little_is_labelled_but_no_object(room: Ovs3d) -> None:
    settings = room.config.query
    room.queries.configure(replace(settings, presence=0.99))  # the boxes are very clear
    try:
        little, other = repaint(room, 0.55)
        much, _ = repaint(room, 0.8)
    finally:
        room.queries.configure(settings)
    for result in (little, much):
        assert (result.labels.numpy()[other] == 1).mean() > 0.9
    assert len(little.objects) == 1 and not little.instances.numpy()[other].any()
    assert len(much.objects) == 2 and len(np.unique(much.instances.numpy()[other])) == 1


def test_an_object_is_judged_as_the_presence_decision_judges_a_map(room: Ovs3d) -> None:
    snapshot, names = room.snapshot(), ("red box", "green box", "blue box")
    calibration = PresenceCalibration(
        presence_weights=(1.0, 2.0, 3.0, 0.1),
        presence_bias=-3.0,
        general_weights=(0.0, 0.0, 0.0, 0.0),
        distractors=("a red ball", "green grass", "grey wall", "blue box"),  # "blue box" is general then
    )
    texts = room.encode_text(names)
    rivals = DistractorMemo(room.encode_text, 10).rivals(names, texts, snapshot, calibration)
    directions = snapshot.directions(texts), snapshot.directions(room.encode_text(["object"]))
    codes, weight = snapshot.packed_codes, snapshot.weight
    gaussians = score_gaussians(codes, weight > 0, lerf_competition(*directions, 4.0), PEAK_GAUSSIANS)
    evidence = presence_evidence(gaussians, codes, weight, rivals.directions, rivals.competing)
    general = general_prompts(names, calibration.distractors)
    expected = presence_probability(evidence.table, general, calibration)
    lifted = torch.zeros(snapshot.num_gaussians)
    lifted[gaussians.strongest] = torch.from_numpy(gaussians.peaks).float()
    judge = GroupJudge(names, texts, snapshot, gaussians, lifted.numpy(), rivals, calibration, 0.6).judge()
    found = judge.probability(np.array([3, 1, 2]), gaussians.strongest[[2, 0, 1]])
    assert found == pytest.approx(expected[[2, 0, 1]], abs=2e-3)
    # With the rivals of another prompt, such as its own colour, the margin would be gone.
    assert evidence.margin.min() > 0.2
