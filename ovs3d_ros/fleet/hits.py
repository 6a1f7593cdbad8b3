"""Groups the regions that fit a prompt into things with a place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from ovs3d_ros.config import QueryConfig
from ovs3d_ros.fleet.parts import IndexedMap
from ovs3d_ros.map_frame import points_to_world
from ovs3d_ros.query.presence import verdicts

_CANDIDATE_SHARE = 0.9  # of the highest relevancy: where an unsure thing may be


@dataclass(frozen=True, slots=True)
class Hit:
    """A thing in one of many maps.

    Attributes:
        prompt: its name.
        map: the map file.
        verdict: "yes" or "unsure", whether the map holds such a thing.
        presence: probability that the map holds it.
        score: mean relevancy of the thing's Gaussians, 0..1.
        center: [3] middle of its box, metres, in the world of the map.
        size: [3] edges of its box along the axes of that world, metres.
        num_gaussians: number of its Gaussians.
        views: number of keyframes that saw it.
        keyframe: index of the keyframe that shows it best; None if no keyframe does.
        keyframe_name: name of that keyframe, or "".
        time: when that keyframe was taken, in seconds; None without a keyframe.
    """

    prompt: str
    map: Path
    verdict: str
    presence: float
    score: float
    center: np.ndarray
    size: np.ndarray
    num_gaussians: int
    views: int
    keyframe: int | None
    keyframe_name: str
    time: float | None


def find_hits(
    part: IndexedMap,
    prompt: str,
    relevancy: np.ndarray,
    presence: float,
    peak: float,
    threshold: float,
    config: QueryConfig,
) -> list[Hit]:
    """The things in a map that fit a prompt, best first; at least one.

    Where none is large enough, the place that fits best is given, as `ovs3d query` gives a candidate.

    Args:
        part: the map.
        prompt: the name.
        relevancy: [R] of the regions.
        presence: probability that the map holds the thing.
        peak: relevancy of the best place.
        threshold: relevancy from which a region counts.
        config: gap and smallest size of a thing, and what counts as found.
    """
    counts = part.regions.counts
    least = min(threshold, _CANDIDATE_SHARE * min(peak, float(relevancy.max())))
    groups = _group(part, np.flatnonzero(relevancy >= threshold), config.instance_gap)
    groups = [rows for rows in groups if counts[rows].sum() >= config.min_instance]
    if not groups or verdicts(np.array([presence]), config) != ["yes"]:
        groups = _group(part, np.flatnonzero(relevancy >= least), config.instance_gap)
        groups = [max(groups, key=lambda rows: _rank(relevancy[rows], counts[rows]))]
    groups.sort(key=lambda rows: -_rank(relevancy[rows], counts[rows]))
    verdict = verdicts(np.array([presence]), config)[0]
    return [_describe(part, prompt, rows, relevancy[rows], verdict, presence) for rows in groups]


def _rank(relevancy: np.ndarray, counts: np.ndarray) -> float:
    """Sum of the Gaussians' relevancy over the root of their number, as `instances` ranks."""
    return float((relevancy * counts).sum() / np.sqrt(counts.sum()))


def _group(part: IndexedMap, rows: np.ndarray, gap: float) -> list[np.ndarray]:
    """Divides regions [S] into groups whose boxes are within `gap` metres of each other along every axis."""
    low, high = part.regions.low[rows] - gap / 2, part.regions.high[rows] + gap / 2
    touching = (low[:, None] <= high[None]).all(-1)
    touching &= touching.T
    count, number = connected_components(csr_matrix(touching), directed=False)
    return [rows[number == k] for k in range(count)]


def _describe(
    part: IndexedMap, prompt: str, rows: np.ndarray, relevancy: np.ndarray, verdict: str, presence: float
) -> Hit:
    regions = part.regions
    counts, low, high = regions.counts[rows], regions.low[rows].min(axis=0), regions.high[rows].max(axis=0)
    seen = part.keyframes[rows] >= 0
    keyframe = None
    if seen.any():
        votes = np.bincount(part.keyframes[rows[seen]], regions.mass[rows[seen]])
        keyframe = int(votes.argmax())
    return Hit(
        prompt=prompt,
        map=part.path,
        verdict=verdict,
        presence=presence,
        score=float((relevancy * counts).sum() / counts.sum()),
        center=points_to_world(((low + high) / 2).astype(np.float64), part.frame),
        size=(high - low).astype(np.float64) / part.frame.unit,
        num_gaussians=int(counts.sum()),
        views=int(regions.views[rows].max()),
        keyframe=keyframe,
        keyframe_name="" if keyframe is None else part.names[keyframe],
        time=None if keyframe is None else float(part.stamps[keyframe]),
    )
