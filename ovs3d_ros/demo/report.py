"""The figures of a demo run: `report.json` and the summary for the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from ovs3d_ros.config import QueryConfig
from ovs3d_ros.demo.evaluation import Evaluation
from ovs3d_ros.demo.scene import Scene
from ovs3d_ros.demo.session import Session
from ovs3d_ros.query.presence import verdicts


@dataclass(frozen=True, slots=True)
class PromptReport:
    """One prompt, the truth about it, and the answer.

    Attributes:
        prompt: the prompt.
        present_in_scene: the truth.
        found: the presence decision.
        verdict: one of `VERDICTS`: "yes", "unsure", "no".
        presence: probability that the thing is in the map.
        iou: IoU of its mask with the labels of the held-out views; None when those do not show it.
        latency_ms: time from the query to the answer.
    """

    prompt: str
    present_in_scene: bool
    found: bool
    verdict: str
    presence: float
    iou: float | None
    latency_ms: float

    @property
    def wrong(self) -> bool:
        """Whether the verdict is the opposite of the truth; "unsure" is not."""
        return self.verdict == ("no" if self.present_in_scene else "yes")


@dataclass(frozen=True, slots=True)
class Report:
    """The fields of `report.json`."""

    psnr_holdout: float
    num_gaussians: int
    frames_sent: int
    frames_received: int
    frames_dropped: int
    keyframes: int
    queries: list[PromptReport]
    miou_lift: float
    miou_refined: float
    query_p50_ms: float
    query_p95_ms: float
    frame_to_map_p95_ms: float
    frame_to_features_p95_ms: float
    seconds_total: float

    def as_json(self) -> dict:
        """Plain JSON values; numbers are rounded to four decimals, NaN becomes null."""
        return {key: _rounded(value) for key, value in asdict(self).items()}

    @property
    def present(self) -> list[PromptReport]:
        """The prompts for things in the scene."""
        return [q for q in self.queries if q.present_in_scene]

    @property
    def absent(self) -> list[PromptReport]:
        """The prompts for absent things."""
        return [q for q in self.queries if not q.present_in_scene]


def make_report(
    session: Session,
    evaluation: Evaluation,
    scene: Scene,
    num_gaussians: int,
    seconds: float,
    config: QueryConfig,
) -> Report:
    """Joins the figures of a run with its evaluation."""
    queries = []
    given = verdicts(np.array([answer.presence for answer in session.answers]), config)
    for answer, verdict in zip(session.answers, given, strict=True):
        iou = evaluation.ious.get(answer.prompt, math.nan)
        queries.append(
            PromptReport(
                prompt=answer.prompt,
                present_in_scene=answer.prompt in scene.present,
                found=answer.found,
                verdict=verdict,
                presence=answer.presence,
                iou=None if math.isnan(iou) else iou,
                latency_ms=answer.latency_ms,
            )
        )
    p50, p95 = np.percentile([answer.latency_ms for answer in session.answers], [50, 95])
    return Report(
        psnr_holdout=evaluation.psnr,
        num_gaussians=num_gaussians,
        frames_sent=session.frames_sent,
        frames_received=session.frames_received,
        frames_dropped=session.frames_dropped,
        keyframes=session.keyframes,
        queries=queries,
        miou_lift=evaluation.segmentation.miou,
        miou_refined=evaluation.refined.miou,
        query_p50_ms=float(p50),
        query_p95_ms=float(p95),
        frame_to_map_p95_ms=session.frame_to_map_p95_ms,
        frame_to_features_p95_ms=session.frame_to_features_p95_ms,
        seconds_total=seconds,
    )


def describe(report: Report, how_run: str) -> str:
    """The summary of a run for the terminal."""
    present, absent = report.present, report.absent
    found, wrong = sum(q.found for q in present), sum(q.found for q in absent)
    lines = [
        f"Mapped {report.frames_received} of {report.frames_sent} frames ({report.frames_dropped} dropped) "
        f"into {report.num_gaussians} Gaussians from {report.keyframes} keyframes - {how_run}",
        f"Held-out views: PSNR {report.psnr_holdout:.1f} dB, mIoU {report.miou_lift:.2f}, "
        f"refined {report.miou_refined:.2f}",
        f"Found {found} of {len(present)} things that are there, and {wrong} of {len(absent)} that are not; "
        f"unsure about {_unsure(present)} and {_unsure(absent)}:",
    ]
    width = max(len(q.prompt) for q in report.queries)
    for q in sorted(report.queries, key=lambda q: (not q.present_in_scene, -q.presence)):
        truth = "there    " if q.present_in_scene else "not there"
        verdict = {"yes": "found    ", "unsure": "unsure   ", "no": "not found"}[q.verdict]
        iou = f"  IoU {q.iou:.2f}" if q.iou is not None else ""
        wrong_mark = "  <- wrong" if q.wrong else ""
        lines.append(f"  {q.prompt:{width}}  {truth}  {verdict}  presence {q.presence:.2f}{iou}{wrong_mark}")
    lines.append(
        f"Query {report.query_p50_ms:.0f} ms median, {report.query_p95_ms:.0f} ms p95; frame to map "
        f"{report.frame_to_map_p95_ms:.0f} ms p95, with features {report.frame_to_features_p95_ms:.0f} ms; "
        f"{report.seconds_total:.0f} s in all"
    )
    return "\n".join(lines)


def _unsure(queries: Sequence[PromptReport]) -> int:
    return sum(q.verdict == "unsure" for q in queries)


def _rounded(value: object) -> object:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    if isinstance(value, float):
        return None if math.isnan(value) else round(value, 4)
    return value
