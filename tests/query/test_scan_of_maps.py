"""On trained maps that grow, the scan of codes gives the answers that tensor operations give."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import synthetic

from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.query import engine
from ovs3d_ros.query.bank_presence import BankPresence
from ovs3d_ros.query.request import MAX_PROMPTS
from ovs3d_ros.query.similarity import score_with_torch
from ovs3d_ros.types import MapSnapshot, QueryResult

NAMES = ("red box", "green box", "blue box", "grey wall", "red ball", "green", "purple cow", "blue", "box")
OPTIONS = (
    {},
    {"threshold": 0.6},
    {"negatives": ["grey wall", "white thing"]},
    {"roi": np.array([[-1.0, -1.0, 0.0], [0.6, 0.5, 0.4]])},
)


@pytest.fixture(scope="module")
def maps() -> tuple[Ovs3d, list[MapSnapshot]]:
    """One map after 2, 4 and 7 keyframes; later codes are packed with the steps of earlier ones."""
    pipeline, snapshots = Ovs3d(synthetic.make_config()), []
    for number, frame in enumerate(synthetic.make_frames(7), 1):
        assert pipeline.add_frame(frame)
        pipeline.optimize(10)
        if number in (2, 4, 7):
            snapshots.append(pipeline.snapshot())
    sizes = [snapshot.num_gaussians for snapshot in snapshots]
    assert sizes[0] > 1000 and sizes == sorted(set(sizes))
    return pipeline, snapshots


def compare(ours: QueryResult, exact: QueryResult) -> None:
    assert (ours.found == exact.found).all() and ours.verdicts == exact.verdicts
    for name in ("presence", "score", "evidence"):
        np.testing.assert_allclose(getattr(ours, name), getattr(exact, name), rtol=0, atol=2e-3)
    torch.testing.assert_close(ours.relevancy, exact.relevancy, rtol=0, atol=5e-4)
    torch.testing.assert_close(ours.scores, exact.scores, rtol=0, atol=5e-4)
    assert (ours.labels != exact.labels).sum() <= 1e-3 * len(ours.labels)  # those at the threshold
    assert len(ours.objects) == len(exact.objects)
    for a, b in zip(ours.objects, exact.objects, strict=True):
        assert a.label == b.label and abs(a.num_gaussians - b.num_gaussians) <= 3
        np.testing.assert_allclose(a.center, b.center, rtol=0, atol=0.01)


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: next(iter(options), "plain"))
@pytest.mark.parametrize("decides", ["calibration", "bank"])
def test_scan_of_a_growing_map_agrees_with_tensors(maps, decides, options, monkeypatch) -> None:
    pipeline, snapshots = maps
    if decides == "bank":
        monkeypatch.setattr(pipeline.queries, "_bank", BankPresence(pipeline.encode_text))
    found = 0
    for snapshot in snapshots:
        for names in (NAMES[:1], NAMES[:4], NAMES):
            # Of copies: answers are remembered by snapshot.
            ours = pipeline.query(names, snapshot=replace(snapshot), **options)
            with monkeypatch.context() as patch:
                patch.setattr(engine, "score_gaussians", score_with_torch)
                exact = pipeline.query(names, snapshot=replace(snapshot), **options)
            compare(ours, exact)
            found += len(exact.objects)
    assert found > 0, "nothing was compared"


def test_as_many_prompts_as_allowed_agree_with_tensors(maps, monkeypatch) -> None:
    pipeline, snapshots = maps
    names = [*(f"thing {number}" for number in range(MAX_PROMPTS - 4)), *NAMES[:4]]
    ours = pipeline.query(names, snapshot=snapshots[-1])
    monkeypatch.setattr(engine, "score_gaussians", score_with_torch)
    compare(ours, pipeline.query(names, snapshot=replace(snapshots[-1])))
    assert int(ours.labels.max()) > MAX_PROMPTS - 4, "the last names were not found"


def test_labels_follow_a_growing_map_as_tensors_do(maps, monkeypatch) -> None:
    """`label_map` labels a map that grew since the answer."""
    pipeline, snapshots = maps
    result = pipeline.query(NAMES[:4], snapshot=snapshots[0])
    for snapshot in snapshots[1:]:
        labels, scores = pipeline.queries.label_map(result, snapshot)
        with monkeypatch.context() as patch:
            patch.setattr(engine, "score_gaussians", score_with_torch)
            expected, likewise = pipeline.queries.label_map(result, snapshot)
        assert (expected > 0).sum() > 100
        assert (labels != expected).sum() <= 1e-3 * len(labels)
        same = labels == expected
        torch.testing.assert_close(scores[same], likewise[same], rtol=0, atol=5e-4)
