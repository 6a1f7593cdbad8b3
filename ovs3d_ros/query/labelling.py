"""Labels of Gaussians and of pixels: both come from the same steps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ovs3d_ros.map_frame import region_to_map
from ovs3d_ros.rasterize import Rasterizer
from ovs3d_ros.semantics.class_field import merge_refined_scores, render_channels, vocabulary_indices
from ovs3d_ros.types import Camera, MapSnapshot, Query, QueryResult


@dataclass(frozen=True, slots=True)
class Similarities:
    """How well P prompts fit each of several places: Gaussians [N] or pixels [H, W], written [...] here.

    Attributes:
        ranking: [..., P] the values mode "argmax" compares: cosines. Mode "relevancy" does not read them.
        relevancy: [..., P] 0..1 of the lifted codes; 0 where nothing was lifted.
        eligible: [...] bool, the places that may carry a label.
        columns: [P] column of each prompt in `probabilities`; -1: the lifted codes decide.
        probabilities: [..., V] class distributions of the refined field; None where no prompt has a column.
        strongest: [P, K] Gaussians the presence decision rests on; None for pixels.
    """

    ranking: torch.Tensor
    relevancy: torch.Tensor
    eligible: torch.Tensor
    columns: np.ndarray
    probabilities: torch.Tensor | None = None
    strongest: torch.Tensor | None = None


def label_places(
    query: Query, found: np.ndarray, places: Similarities, draw: float, min_instance: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels Gaussians or pixels by the prompts of a query.

    Args:
        query: prompts, mode and threshold.
        found: [P] bool, the presence decision.
        places: the places, and how well the prompts fit them.
        draw: relevancy of a refined name that draws with its best rival, see `merge_refined_scores`.
        min_instance: Gaussians that make an instance.

    Returns:
        Labels [...] int64, 0 = none, else 1 + prompt index, and relevancy [..., P] after refinement.
    """
    ranking, relevancy = places.ranking, places.relevancy
    if places.probabilities is not None:
        ranking, relevancy = merge_refined_scores(
            places.probabilities, places.columns, ranking, relevancy, draw
        )
    if query.mode == "argmax":
        labels = ranking.argmax(-1) + 1
    else:
        labels = best_found(relevancy, found, query.threshold)
        if places.strongest is not None:
            first = found & (first_mentions(query.prompts) == np.arange(len(found)))
            labels = return_strongest(
                labels, places.relevancy, first, query.threshold, places.strongest, min_instance
            )
    return labels * places.eligible, relevancy


def pixel_similarities(
    result: QueryResult,
    cosines: torch.Tensor,
    relevancy: torch.Tensor,
    snapshot: MapSnapshot,
    view: tuple[Camera, np.ndarray, Rasterizer],
) -> Similarities:
    """How well a query's prompts fit the pixels of a view.

    Args:
        result: the answer to the query.
        cosines: [H, W, P] rendered, 0 where the map is not.
        relevancy: [H, W, P] likewise.
        snapshot: the map; the one that answered where `result.field` is set.
        view: camera, pose [4, 4] in the map frame, and rasterizer.
    """
    eligible, probabilities = (cosines != 0).any(-1), None
    if result.query.roi is not None:
        inside = in_region(snapshot.gaussians["means"], region_to_map(result.query.roi, snapshot.frame))
        share, alpha = render_channels(snapshot.gaussians, inside.float()[:, None], *view)
        eligible &= (share > 0.5 * alpha)[..., 0]
    columns = vocabulary_indices(result.field, result.prompts, result.query.mode)
    if result.field is not None and (columns >= 0).any():
        probabilities, _ = render_channels(snapshot.gaussians, result.field.probabilities, *view)
    return Similarities(cosines, relevancy, eligible, columns, probabilities)


def first_mentions(prompts: tuple[str, ...]) -> np.ndarray:
    """Index [P] of the first prompt with the same words."""
    return np.array([prompts.index(prompt) for prompt in prompts])


def best_found(relevancy: torch.Tensor, found: np.ndarray, threshold: float) -> torch.Tensor:
    """Labels [...] in 0..P of relevancy [..., P]: the best found prompt over the threshold, else 0."""
    labels = torch.zeros(relevancy.shape[:-1], dtype=torch.int64, device=relevancy.device)
    best = torch.full_like(relevancy[..., 0], threshold)
    best = best.nextafter(best - 1)  # the threshold itself is enough
    for p in np.flatnonzero(found):  # one prompt at a time: a row holds a million Gaussians
        labels.masked_fill_(relevancy[..., p] > best, int(p) + 1)
        torch.maximum(best, relevancy[..., p], out=best)
    return labels


def return_strongest(
    labels: torch.Tensor,
    relevancy: torch.Tensor,
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
        relevancy: [N, P] of the lifted codes; the presence decision rests on it.
        found: [P] the presence decision.
        threshold: relevancy from which a label is given.
        strongest: [P, K] Gaussians the presence decision rests on.
        min_instance: Gaussians that make an instance; the other prompt keeps as many.
    """
    labels = labels.clone()
    counts = torch.bincount(labels, minlength=len(found) + 1)
    for p in np.flatnonzero(found):
        if counts[p + 1] < min_instance:
            own = strongest[p][relevancy[strongest[p], p] >= threshold]
            for owner in labels[own].unique().tolist():
                taken = own[labels[own] == owner]
                # Two prompts may name one thing, and both keep Gaussians.
                spare = max(int(counts[owner]) - min_instance, 0)
                labels[taken if owner == 0 else taken[:spare]] = int(p) + 1
            counts = torch.bincount(labels, minlength=len(found) + 1)
    return labels


def in_region(points: torch.Tensor, roi: np.ndarray | None) -> torch.Tensor:
    """Which points [N, 3] lie in the box between two corners [2, 3] in metres: bool [N]; None: all."""
    if roi is None:
        return torch.ones(len(points), dtype=torch.bool, device=points.device)
    low, high = torch.as_tensor(np.sort(np.asarray(roi, np.float32), axis=0), device=points.device)
    return ((points >= low) & (points <= high)).all(-1)
