"""An answer as plain values: the content of objects.json, see docs/objects.schema.json."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ovs3d_ros.config import QueryConfig
from ovs3d_ros.query.instances import find_map_objects
from ovs3d_ros.types import MapSnapshot, QueryResult, SemanticObject

_CANDIDATE_SHARE = 0.9  # of the highest relevancy: where an unsure thing may be


def describe(result: QueryResult, candidates: dict[int, SemanticObject]) -> list[dict[str, Any]]:
    """One entry per prompt, as docs/objects.schema.json says; `candidates` are those of `find_candidates`."""
    return [
        dict(
            prompt=prompt,
            found=bool(result.found[p]),
            verdict=result.verdicts[p],
            presence=round(float(result.presence[p]), 4),
            score=round(float(result.score[p]), 4),
            objects=[_describe_object(o) for o in result.objects if o.label == p + 1],
            candidate=_describe_object(candidates[p]) if p in candidates else None,
        )
        for p, prompt in enumerate(result.prompts)
    ]


def _describe_object(item: SemanticObject) -> dict[str, Any]:
    return dict(
        center=np.round(item.center, 4),
        size=np.round(item.size, 4),
        quat=np.round(item.quat, 6),
        num_gaussians=item.num_gaussians,
        score=round(item.score, 4),
        views=item.views,
        instance=item.instance,
    )


def find_candidates(
    result: QueryResult, snapshot: MapSnapshot, config: QueryConfig
) -> dict[int, SemanticObject]:
    """The best place for each prompt, by its index, whose verdict is "unsure" and which has no objects."""
    relevancy, seen = np.asarray(result.relevancy), snapshot.weight.cpu().numpy() >= config.min_weight
    candidates = {}
    for p in set(range(len(result.prompts))) - {item.label - 1 for item in result.objects}:
        if result.verdicts[p] == "unsure":
            least = min(result.query.threshold, _CANDIDATE_SHARE * float(result.score[p]))
            labels = np.where(seen & (relevancy[:, p] >= least), p + 1, 0)
            found, _ = find_map_objects(snapshot, labels, relevancy, result.prompts, config, 1)
            if found:
                candidates[p] = replace(found[0], instance=0)
    return candidates
