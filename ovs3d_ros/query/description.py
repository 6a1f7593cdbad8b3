"""An answer as plain values: the content of objects.json, see docs/objects.schema.json."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from ovs3d_ros.config import QueryConfig
from ovs3d_ros.query.instances import find_map_objects
from ovs3d_ros.types import MapSnapshot, QueryResult, SemanticObject

_CANDIDATE_SHARE = 0.9  # of the highest relevancy: where an unsure thing may be


def describe(result: QueryResult, snapshot: MapSnapshot, config: QueryConfig) -> list[dict[str, Any]]:
    """One entry per prompt, as docs/objects.schema.json says; lengths to a tenth of a millimetre.

    Args:
        result: the answer.
        snapshot: the map that answered.
        config: settings of the answer.
    """
    candidates, notes = find_candidates(result, snapshot, config), explain_missing(result, config)
    digits = 4 + more_digits(snapshot.frame.unit)
    return [
        dict(
            prompt=prompt,
            found=bool(result.found[p]),
            verdict=result.verdicts[p],
            presence=round(float(result.presence[p]), 4),
            score=round(float(result.score[p]), 4),
            objects=[_describe_object(o, digits) for o in result.objects if o.label == p + 1],
            candidate=_describe_object(candidates[p], digits) if p in candidates else None,
            note=notes.get(p),
        )
        for p, prompt in enumerate(result.prompts)
    ]


def more_digits(unit: float) -> int:
    """Decimal places that coordinates in such a unit need beyond those in metres."""
    return max(0, math.ceil(math.log10(unit)))


def _describe_object(item: SemanticObject, digits: int) -> dict[str, Any]:
    return dict(
        center=np.round(item.center, digits),
        size=np.round(item.size, digits),
        quat=np.round(item.quat, 6),
        num_gaussians=item.num_gaussians,
        score=round(item.score, 4),
        views=item.views,
        instance=item.instance,
    )


def find_candidates(
    result: QueryResult, snapshot: MapSnapshot, config: QueryConfig
) -> dict[int, SemanticObject]:
    """The best place for each prompt, by its index, that is not "no" and has no objects."""
    without = set(range(len(result.prompts))) - {item.label - 1 for item in result.objects}
    without = {p for p in without if result.verdicts[p] != "no"}
    candidates = {}
    if without:
        relevancy, seen = result.relevancy.cpu().numpy(), snapshot.weight.cpu().numpy() >= config.min_weight
        for p in sorted(without):
            # What is found but too scattered for an object still has a place.
            least_instance = 1 if result.found[p] else config.min_instance
            least = min(result.query.threshold, _CANDIDATE_SHARE * float(result.score[p]))
            labels = np.where(seen & (relevancy[:, p] >= least), p + 1, 0)
            settings = replace(config, min_instance=least_instance)
            found, _ = find_map_objects(snapshot, labels, relevancy[:, p], result.prompts, settings, 1)
            if found:
                candidates[p] = replace(found[0], instance=0)
    return candidates


def explain_missing(result: QueryResult, config: QueryConfig) -> dict[int, str]:
    """Why a prompt, by its index, has no objects although it, or what it names, is found."""
    notes = {p: note for p, note in enumerate(result.notes) if note}
    for p in set(np.flatnonzero(result.found).tolist()) - {item.label - 1 for item in result.objects}:
        count = int((result.labels == p + 1).sum())
        if count:
            notes[p] = (
                f"its {count} Gaussians form no group of query.min_instance = {config.min_instance} that are "
                f"within query.instance_gap = {config.instance_gap:g} m of each other; change these settings"
            )
        elif len(result.prompts) > 1:
            notes[p] = "all of its Gaussians fit another name better; ask for it alone"
        else:
            notes[p] = f"no Gaussian reaches the threshold, {result.query.threshold:g}; lower --threshold"
    return notes
