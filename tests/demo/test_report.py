"""What the report of a demo says about an answer."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ovs3d_ros.demo.report import PromptReport, Report, describe

NUMBERS = dict(
    psnr_holdout=30.0,
    num_gaussians=1000,
    frames_sent=5,
    frames_received=5,
    frames_dropped=0,
    keyframes=5,
    miou_lift=0.5,
    miou_refined=0.6,
    query_p50_ms=50.0,
    query_p95_ms=90.0,
    frame_to_map_p95_ms=500.0,
    frame_to_features_p95_ms=900.0,
    seconds_total=60.0,
)


def answer(verdict: str, present: bool) -> PromptReport:
    return PromptReport(f"{verdict} {present}", present, verdict == "yes", verdict, 0.5, None, 50.0)


@pytest.mark.parametrize(
    "verdict, present, wrong",
    [("yes", True, False), ("yes", False, True), ("no", True, True), ("no", False, False)],
)
def test_a_verdict_against_the_truth_is_wrong(verdict, present, wrong):
    assert answer(verdict, present).wrong is wrong


def test_unsure_is_neither_found_nor_wrong():
    unsure = [answer("unsure", present) for present in (True, False)]
    assert not any(query.wrong or query.found for query in unsure)
    queries = [*unsure, answer("yes", True), replace(answer("unsure", True), prompt="sofa")]
    text = describe(Report(queries=queries, **NUMBERS), "a run")
    assert "Found 1 of 3 things that are there, and 0 of 1 that are not; unsure about 2 and 1:" in text
    assert "wrong" not in text and sum("unsure  " in line for line in text.splitlines()) == 3
