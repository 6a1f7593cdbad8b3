"""Objects of the labelled Gaussians of a map, at the cost of these alone, or of those that changed."""

from __future__ import annotations

import numpy as np

from ovs3d_ros.config import QueryConfig
from ovs3d_ros.query.instances import find_map_objects
from ovs3d_ros.query.labelling import LabelledMap
from ovs3d_ros.query.object_presence import GroupJudge
from ovs3d_ros.query.parked import PartedScores
from ovs3d_ros.query.parked_objects import ObjectMemo, ObjectQuestion
from ovs3d_ros.query.similarity import Scores
from ovs3d_ros.query.voxels import PointGrid
from ovs3d_ros.types import MapSnapshot, Query, SemanticObject


def find_query_objects(
    query: Query,
    labelled: LabelledMap,
    scores: Scores,
    snapshot: MapSnapshot,
    config: QueryConfig,
    grid: PointGrid | None,
    memo: ObjectMemo,
    judge: GroupJudge | None,
) -> tuple[list[SemanticObject], np.ndarray]:
    """The objects that answer a query, and the number [N] of each Gaussian's, 0 = none.

    Args:
        query: the question.
        labelled: the labels of the N Gaussians.
        scores: of the prompts.
        snapshot: the map.
        config: what an object is.
        grid: of all Gaussians; None: the labelled ones alone are sorted.
        memo: of objects among parked Gaussians.
        judge: says how likely an object is; None: all are kept.
    """
    labels, own_scores = labelled.labels.cpu().numpy(), labelled.scores.cpu().numpy()
    # Labels that depend on other places, as of strongest Gaussians that were given back, are not remembered.
    is_local = isinstance(scores, PartedScores) and scores.labels is labelled.labels
    if is_local and len({*query.prompts}) == len(query.prompts):
        ask = ObjectQuestion(query.prompts, config, snapshot, own_scores, judge)
        found = memo.find(scores, ask, query.max_instances)
        if found is not None:
            return found
    rules = query.prompts, config, query.max_instances, grid, judge and judge.judge()
    return find_map_objects(snapshot, labels, own_scores, *rules)
