"""Groups labelled Gaussians into objects: connected components of one label, each with an oriented box."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ovs3d_ros.config import QueryConfig
from ovs3d_ros.geometry import matrix_to_quat
from ovs3d_ros.map_frame import object_to_world
from ovs3d_ros.query.boxes import oriented_boxes, vertical_axis
from ovs3d_ros.query.components import connected_components, group_indices, join_fragments
from ovs3d_ros.rasterize.thread_pool import shared_pool
from ovs3d_ros.types import MapSnapshot, SemanticObject

_FRAGMENT_GAPS = 4.0  # instance gaps across which a fragment belongs to a larger instance


@dataclass(frozen=True, slots=True)
class _Instances:
    """The instances of one prompt, best first.

    Attributes:
        rows: [M] Gaussians that carry the label.
        number: [M] instance of each Gaussian, counted from 1; 0 = none.
        scores: [K] mean relevancy.
        sizes: [K] number of Gaussians.
        views: [K] largest number of keyframes that saw one of them.
        centers: [K, 3] metres.
        axes: [K, 3, 3] of the boxes, see `oriented_boxes`.
        extents: [K, 3] metres.
    """

    rows: np.ndarray
    number: np.ndarray
    scores: np.ndarray
    sizes: np.ndarray
    views: np.ndarray
    centers: np.ndarray
    axes: np.ndarray
    extents: np.ndarray


def find_map_objects(
    snapshot: MapSnapshot,
    labels: np.ndarray,
    scores: np.ndarray,
    prompts: Sequence[str],
    config: QueryConfig,
    max_instances: int,
) -> tuple[list[SemanticObject], np.ndarray]:
    """Groups the labelled Gaussians of a map into objects in the world, see `find_objects`."""
    means, views = snapshot.gaussians["means"].cpu().numpy(), snapshot.views.cpu().numpy()
    up = vertical_axis(snapshot.camtoworlds, config.upright)
    objects, instances = find_objects(means, labels, scores, views, prompts, config, max_instances, up)
    return [object_to_world(o, snapshot.frame) for o in objects], instances


def find_objects(
    means: np.ndarray,
    labels: np.ndarray,
    scores: np.ndarray,
    views: np.ndarray,
    prompts: Sequence[str],
    config: QueryConfig,
    max_instances: int,
    up: np.ndarray | None = None,
) -> tuple[list[SemanticObject], np.ndarray]:
    """Groups labelled Gaussians into instances with oriented boxes, prompt by prompt, best first.

    Prompts are processed in parallel, on as many threads as torch has.

    Args:
        means: [N, 3] metres.
        labels: [N] 0 = none, else 1 + prompt index.
        scores: [N, P] relevancy.
        views: [N] number of keyframes that saw each Gaussian.
        prompts: the P prompts.
        config: gap and smallest size of an instance.
        max_instances: per prompt, 0 = all.
        up: [3] of upright boxes, see `oriented_boxes`.

    Returns:
        The objects and the instance number [N] of each Gaussian (0 = none).
    """
    by_label, starts = group_indices(labels, len(prompts) + 1)
    counts = np.diff(starts)[1:]

    def instances_of(p: int) -> _Instances:
        rows = by_label[starts[p + 1] : starts[p + 2]]
        return _find_instances(rows, means[rows], scores[rows, p], views[rows], config, max_instances, up)

    largest_first = [int(p) for p in np.argsort(-counts, kind="stable") if counts[p]]
    by_prompt = dict(
        zip(largest_first, shared_pool(torch.get_num_threads()).map(instances_of, largest_first), strict=True)
    )
    objects, instances = [], np.zeros(len(labels), np.int64)
    for p, found in sorted(by_prompt.items()):
        instances[found.rows] = np.where(found.number > 0, found.number + len(objects), 0)
        quats = matrix_to_quat(found.axes)
        for k in range(len(found.sizes)):
            objects.append(
                SemanticObject(
                    prompt=prompts[p],
                    label=p + 1,
                    instance=len(objects) + 1,
                    score=float(found.scores[k]),
                    center=found.centers[k],
                    quat=quats[k],
                    size=found.extents[k],
                    num_gaussians=int(found.sizes[k]),
                    views=int(found.views[k]),
                )
            )
    return objects, instances


def _find_instances(
    rows: np.ndarray,
    points: np.ndarray,
    scores: np.ndarray,
    views: np.ndarray,
    config: QueryConfig,
    limit: int,
    up: np.ndarray | None,
) -> _Instances:
    """At most `limit` instances (0: all) among Gaussians `rows` [M] of one label at `points` [M, 3]."""
    components = connected_components(points, config.instance_gap)
    component, count = join_fragments(points, components, _FRAGMENT_GAPS * config.instance_gap)
    order, starts = group_indices(component, count)
    sizes = np.diff(starts)
    totals = np.add.reduceat(scores[order], starts[:-1], dtype=float)
    seen = np.maximum.reduceat(views[order], starts[:-1])
    ranked = np.argsort(-totals / np.sqrt(sizes), kind="stable")
    chosen = ranked[sizes[ranked] >= config.min_instance][: limit or None]
    segments = np.stack([starts[:-1], starts[1:]], 1)[chosen]
    centers, axes, extents = oriented_boxes(points[order], segments, up)
    number = np.zeros(count, np.int64)
    number[chosen] = np.arange(1, len(chosen) + 1)
    return _Instances(
        rows,
        number[component],
        totals[chosen] / sizes[chosen],
        sizes[chosen],
        seen[chosen],
        centers,
        axes,
        extents,
    )
