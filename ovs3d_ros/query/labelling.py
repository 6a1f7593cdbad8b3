"""Labels of Gaussians, and of the pixels that show them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from ovs3d_ros.map_frame import region_to_map
from ovs3d_ros.rasterize import LabelShares
from ovs3d_ros.semantics.class_field import SURFACE_ALPHA, merge_refined_scores, vocabulary_indices
from ovs3d_ros.types import MapSnapshot, Query, RefinedField

if TYPE_CHECKING:
    from ovs3d_ros.config import QueryConfig
    from ovs3d_ros.query.presence import Evidence, PresenceCalibration
    from ovs3d_ros.query.similarity import GaussianScores


@dataclass(frozen=True, slots=True)
class Similarities:
    """How well P prompts fit each of N Gaussians.

    Attributes:
        ranking: [N, P] the values mode "argmax" compares: cosines. Mode "relevancy" does not read them.
        relevancy: [N, P] 0..1 of the lifted codes; 0 where nothing was lifted.
        eligible: [N] bool, the Gaussians that may carry a label.
        strongest: [P, K] Gaussians the presence decision rests on.
        peaks: [P, K] relevancy of the lifted codes there.
        columns: [P] column of each prompt in `probabilities`; -1: the lifted codes decide.
        probabilities: [N, V] class distributions of the refined field; None where no prompt has a column.
    """

    ranking: torch.Tensor
    relevancy: torch.Tensor
    eligible: torch.Tensor
    strongest: torch.Tensor
    peaks: torch.Tensor
    columns: np.ndarray
    probabilities: torch.Tensor | None = None


@dataclass(frozen=True, slots=True)
class LabelledMap:
    """The labels of N Gaussians.

    Attributes:
        labels: [N] 0 = none, else 1 + prompt index.
        scores: [N] relevancy of each one's label, or of the best prompt where there is none.
        lifted: [N] the same by the lifted codes alone, without refinement.
        score_all: computes the relevancy [N, P] of all prompts.
    """

    labels: torch.Tensor
    scores: torch.Tensor
    lifted: torch.Tensor
    score_all: Callable[[], torch.Tensor]


def label_snapshot(
    query: Query,
    texts: torch.Tensor,
    snapshot: MapSnapshot,
    scored: tuple[GaussianScores, Evidence],
    found: np.ndarray,
    field: RefinedField | None,
    calibration: PresenceCalibration,
    config: QueryConfig,
) -> LabelledMap:
    """Labels the Gaussians of a map.

    The lifted codes alone need no table of all prompts, where they decide.

    Args:
        query: prompts, mode, threshold and region.
        texts: [P, D] unit features of the prompts.
        snapshot: the map.
        scored: scores of its Gaussians, and the evidence for each prompt.
        found: [P] bool, the presence decision.
        field: decides for the prompts it holds; None: the lifted codes do.
        calibration: of the encoder.
        config: the smallest size of an instance.
    """
    gaussians, evidence = scored
    region = region_to_map(query.roi, snapshot.frame)
    if field is None and query.mode == "relevancy":
        labels, scores = label_found(query, found, gaussians, config.min_instance)
        if region is not None:
            labels = labels * in_region(snapshot.gaussians["means"], region)
        return LabelledMap(labels, scores, scores, gaussians.all.relevancy)
    table, device = gaussians.all.relevancy(), snapshot.weight.device
    similarities = Similarities(
        # By cosines: relevancy rounds to 1 at a high temperature, and then many would be best.
        ranking=snapshot.codes @ snapshot.directions(texts) if query.mode == "argmax" else table,
        relevancy=table,
        eligible=gaussians.all.known & in_region(snapshot.gaussians["means"], region),
        strongest=torch.from_numpy(evidence.strongest).to(device),
        peaks=torch.from_numpy(gaussians.peaks).float().to(device),
        columns=vocabulary_indices(field, query.prompts, query.mode),
        probabilities=field.probabilities if field is not None else None,
    )
    labels, merged = label_gaussians(query, found, similarities, calibration.threshold, config.min_instance)
    return LabelledMap(labels, label_scores(labels, merged), label_scores(labels, table), lambda: merged)


def label_gaussians(
    query: Query, found: np.ndarray, similarities: Similarities, draw: float, min_instance: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels Gaussians by the prompts of a query.

    Args:
        query: prompts, mode and threshold.
        found: [P] bool, the presence decision.
        similarities: how well the prompts fit the Gaussians.
        draw: relevancy of a refined name that draws with its best rival, see `merge_refined_scores`.
        min_instance: Gaussians that make an instance.

    Returns:
        Labels [N] int64, 0 = none, else 1 + prompt index, and relevancy [N, P] after refinement.
    """
    ranking, relevancy = similarities.ranking, similarities.relevancy
    if similarities.probabilities is not None:
        ranking, relevancy = merge_refined_scores(
            similarities.probabilities, similarities.columns, ranking, relevancy, draw
        )
    if query.mode == "argmax":
        labels = ranking.argmax(-1) + 1
    else:
        labels = best_found(relevancy, found, query.threshold)
        first = found & (first_mentions(query.prompts) == np.arange(len(found)))
        labels = return_strongest(
            labels, similarities.peaks, first, query.threshold, similarities.strongest, min_instance
        )
    return labels * similarities.eligible, relevancy


def label_found(
    query: Query, found: np.ndarray, gaussians: GaussianScores, min_instance: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels Gaussians by their lifted codes, in mode "relevancy".

    Args:
        query: prompts and threshold.
        found: [P] bool, the presence decision.
        gaussians: scores of the prompts.
        min_instance: Gaussians that make an instance.

    Returns:
        Labels [N], 0 = none, else 1 + prompt index, and relevancy [N] of each one's label, or of the best
        prompt where there is none.
    """
    labels, scores = gaussians.all.label(found, query.threshold)
    first = found & (first_mentions(query.prompts) == np.arange(len(found)))
    strongest, peaks = (
        torch.from_numpy(a).to(labels.device)
        for a in (gaussians.strongest, gaussians.peaks.astype(np.float32))
    )
    kept = return_strongest(labels, peaks, first, query.threshold, strongest, min_instance)
    if kept is not labels:
        for p in np.flatnonzero(first):
            own = kept[strongest[p]] == p + 1
            scores[strongest[p][own]] = peaks[p][own]
    return kept, scores


def own_scores(labels: torch.Tensor, relevancy: torch.Tensor) -> torch.Tensor:
    """Relevancy [N] of each Gaussian's own label, 0 without one, from relevancy [N, P]."""
    return relevancy.gather(1, (labels - 1).clamp_min(0)[:, None])[:, 0] * (labels > 0)


def label_scores(labels: torch.Tensor, relevancy: torch.Tensor) -> torch.Tensor:
    """Relevancy [N] of each Gaussian's label, or of the best prompt without one, from relevancy [N, P]."""
    return torch.where(labels > 0, own_scores(labels, relevancy), relevancy.amax(1))


def label_pixels(shares: LabelShares) -> tuple[np.ndarray, np.ndarray]:
    """Labels [C, H, W] of pixels, 0 = none, and the mean score [C, H, W] of the labelled Gaussians there.

    A pixel has the label that fills more of it than any other label, and than Gaussians without one.
    """
    # With NumPy: a query thread should not wake torch's threads.
    fields = shares.best, shares.most, shares.labelled, shares.score, shares.alpha
    best, most, labelled, score, alpha = (field.numpy(force=True) for field in fields)
    shown = (alpha > SURFACE_ALPHA) & (most > alpha - labelled)
    return best * shown, score / labelled.clip(1e-6) * shown


def labelled_rows(labels: np.ndarray) -> np.ndarray:
    """The Gaussians with a label, ascending, of labels [N], 0 = none."""
    return np.flatnonzero(labels > 0)  # of bools: several times as fast as of numbers


def first_mentions(prompts: tuple[str, ...]) -> np.ndarray:
    """Index [P] of the first prompt with the same words."""
    return np.array([prompts.index(prompt) for prompt in prompts])


def best_found(relevancy: torch.Tensor, found: np.ndarray, threshold: float) -> torch.Tensor:
    """Labels [N] in 0..P of relevancy [N, P]: the best found prompt over the threshold, else 0."""
    labels = torch.zeros(len(relevancy), dtype=torch.int64, device=relevancy.device)
    best = torch.full_like(relevancy[:, 0], threshold)
    best = best.nextafter(best - 1)  # the threshold itself is enough
    for p in np.flatnonzero(found):  # one prompt at a time: a row holds a million Gaussians
        labels.masked_fill_(relevancy[:, p] > best, int(p) + 1)
        torch.maximum(best, relevancy[:, p], out=best)
    return labels


def return_strongest(
    labels: torch.Tensor,
    peaks: torch.Tensor,
    found: np.ndarray,
    threshold: float,
    strongest: torch.Tensor,
    min_instance: int,
) -> torch.Tensor:
    """Gives a found prompt with too few Gaussians its strongest ones back.

    A Gaussian carries one label, so a small thing ("yellow phone") may lose all of its Gaussians to a similar
    one ("yellow keyboard"). A robot has no use for a found prompt without a place.

    Args:
        labels: [N] of `best_found`.
        peaks: [P, K] relevancy of the lifted codes at the strongest.
        found: [P] the presence decision.
        threshold: relevancy from which a label is given.
        strongest: [P, K] Gaussians the presence decision rests on.
        min_instance: Gaussians that make an instance; the other prompt keeps as many.
    """
    counts = _count_labels(labels, len(found))
    if (counts[1:][found] >= min_instance).all():
        return labels
    labels = labels.clone()
    for p in np.flatnonzero(found):
        if counts[p + 1] < min_instance:
            own = strongest[p][peaks[p] >= threshold]
            for owner in labels[own].unique().tolist():
                taken = own[labels[own] == owner]
                # Two prompts may name one thing, and both keep Gaussians.
                spare = max(int(counts[owner]) - min_instance, 0)
                labels[taken if owner == 0 else taken[:spare]] = int(p) + 1
            counts = _count_labels(labels, len(found))
    return labels


def _count_labels(labels: torch.Tensor, prompts: int) -> np.ndarray:
    """How many Gaussians each label has [P + 1]; those without one are not counted."""
    numbers = labels.numpy(force=True)
    return np.bincount(numbers[labelled_rows(numbers)], minlength=prompts + 1)


def in_region(points: torch.Tensor, roi: np.ndarray | None) -> torch.Tensor:
    """Which points [N, 3] lie in the box between two corners [2, 3] in metres: bool [N]; None: all."""
    if roi is None:
        return torch.ones(len(points), dtype=torch.bool, device=points.device)
    low, high = torch.as_tensor(np.sort(np.asarray(roi, np.float32), axis=0), device=points.device)
    return ((points >= low) & (points <= high)).all(-1)
