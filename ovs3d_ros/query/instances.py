"""Groups labelled Gaussians into objects: connected components of one label, each with an oriented box."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from ovs3d_ros.config import QueryConfig
from ovs3d_ros.geometry import matrix_to_quat
from ovs3d_ros.map_frame import is_world, object_to_world
from ovs3d_ros.packed_codes import chosen_rows
from ovs3d_ros.query.boxes import fit_boxes, sample_steps, vertical_axis
from ovs3d_ros.query.components import connected_components, join_fragments
from ovs3d_ros.query.labelling import first_mentions, labelled_rows
from ovs3d_ros.query.sampling import Sampler
from ovs3d_ros.query.strays import Judge, drop_strays
from ovs3d_ros.query.voxels import PointGrid, sort_into_voxels
from ovs3d_ros.rasterize.kernel_cache import cached_njit
from ovs3d_ros.rasterize.kernels_project import thread_range
from ovs3d_ros.rasterize.thread_pool import ThreadPool, shared_pool
from ovs3d_ros.types import MapSnapshot, SemanticObject

_GAUSSIANS_PER_THREAD = 10_000  # at least; fewer take less time than waking a thread
_MOMENTS = 9  # sums of x, y, z, xx, xy, xz, yy, yz, zz
_SQUARES = np.array([[3, 4, 5], [4, 6, 7], [5, 7, 8]])  # where a matrix of second moments finds them


@dataclass(frozen=True, slots=True)
class _Members:
    """The points of each of C groups.

    Attributes:
        origin: [3] metres, what the moments are measured from.
        moments: [C, 9] sums over the points in metres, see `_MOMENTS`.
        totals: [C] sum of scores.
        views: [C] largest number of keyframes that saw a point.
        parts: [parts, C] number of points in each part of the rows.
    """

    origin: np.ndarray
    moments: np.ndarray
    totals: np.ndarray
    views: np.ndarray
    parts: np.ndarray

    @property
    def sizes(self) -> np.ndarray:
        """[C] number of points."""
        return self.parts.sum(0)

    @property
    def means(self) -> np.ndarray:
        """[C, 3] metres."""
        return self.origin + self.moments[:, :3] / self.sizes[:, None]

    @property
    def covariances(self) -> np.ndarray:
        """[C, 3, 3] square metres."""
        means = self.moments / self.sizes[:, None]
        return means[:, _SQUARES] - means[:, :3, None] * means[:, None, :3]

    def joined(self, target: np.ndarray, count: int) -> _Members:
        """The members of `count` groups, where group c of these belongs to `target[c]`."""
        if count == len(target):
            return self
        moments, totals, views = (
            np.zeros((count, _MOMENTS)),
            np.zeros(count),
            np.zeros_like(self.views[:count]),
        )
        parts = np.zeros((len(self.parts), count), np.int64)
        np.add.at(moments, target, self.moments)
        np.add.at(totals, target, self.totals)
        np.add.at(parts, (slice(None), target), self.parts)
        np.maximum.at(views, target, self.views)
        return _Members(self.origin, moments, totals, views, parts)

    def __getitem__(self, groups: np.ndarray) -> _Members:
        """The members of some groups."""
        columns = self.moments[groups], self.totals[groups], self.views[groups], self.parts[:, groups]
        return _Members(self.origin, *columns)


def map_grid(snapshot: MapSnapshot, gap: float) -> PointGrid:
    """The Gaussians of a map in voxels of side `gap` in metres."""
    return sort_into_voxels(snapshot.gaussians["means"].cpu().numpy(), gap)


def find_map_objects(
    snapshot: MapSnapshot,
    labels: np.ndarray,
    scores: np.ndarray,
    prompts: Sequence[str],
    config: QueryConfig,
    max_instances: int,
    grid: PointGrid | None = None,
    judge: Judge | None = None,
) -> tuple[list[SemanticObject], np.ndarray]:
    """Groups the labelled Gaussians of a map into objects in the world, see `find_objects` and `drop_strays`.

    A repeated prompt gets the objects of its first mention. Without a judge no group is a stray. Without a
    grid of all Gaussians, those without a label are not looked at.
    """
    if grid is None:
        rows, instances = labelled_rows(labels), np.zeros(len(labels), np.int64)
        columns = (chosen_rows(tensor, rows) for tensor in (snapshot.gaussians["means"], snapshot.views))
        means, views = map(torch.from_numpy, columns)
        part = replace(snapshot, gaussians=dict(means=means), views=views, parked=())
        whole, among = map_grid(part, config.instance_gap), judge and judge.among(rows)
        rules = prompts, config, max_instances, whole, among
        objects, instances[rows] = find_map_objects(part, labels[rows], scores[rows], *rules)
        return objects, instances
    means, views = snapshot.gaussians["means"].cpu().numpy(), snapshot.views.cpu().numpy()
    up = vertical_axis(snapshot.camtoworlds, config.upright)
    if not len(means):
        return [], np.zeros(0, np.int64)
    groups = _group((np.asarray(labels, np.int16), means, scores, views), grid)
    chosen = _rank(groups.labels, groups.members, config.min_instance, 0 if judge else max_instances)
    instances = groups.number(chosen)
    if judge is not None:
        kept, instances = drop_strays(groups.labels[chosen], instances, judge, max_instances)
        chosen = chosen[kept]
    objects = groups.describe(chosen, prompts, up)
    if not is_world(snapshot.frame):
        objects = [object_to_world(o, snapshot.frame) for o in objects]
    first = first_mentions(tuple(prompts))
    for repeated in np.flatnonzero(first < np.arange(len(first))):
        objects += [replace(o, label=int(repeated) + 1) for o in objects if o.label == first[repeated] + 1]
    return objects, instances


def find_objects(
    means: np.ndarray,
    labels: np.ndarray,
    scores: np.ndarray,
    views: np.ndarray,
    prompts: Sequence[str],
    config: QueryConfig,
    max_instances: int,
    up: np.ndarray | None = None,
    grid: PointGrid | None = None,
) -> tuple[list[SemanticObject], np.ndarray]:
    """Groups labelled Gaussians into instances with oriented boxes, prompt by prompt, best first.

    The work is divided between as many threads as torch has.

    Args:
        means: [N, 3] metres.
        labels: [N] 0 = none, else 1 + prompt index.
        scores: [N] relevancy of each one's own label.
        views: [N] number of keyframes that saw each Gaussian.
        prompts: the P prompts.
        config: gap and smallest size of an instance.
        max_instances: per prompt, 0 = all.
        up: [3] of upright boxes, see `oriented_boxes`.
        grid: of the means, with the gap of `config`; None: it is made.

    Returns:
        The objects and the instance number [N] of each Gaussian (0 = none).
    """
    if not len(means):
        return [], np.zeros(0, np.int64)
    if grid is None:
        grid = sort_into_voxels(means, config.instance_gap)
    groups = _group((np.asarray(labels, np.int16), means, scores, views), grid)
    chosen = _rank(groups.labels, groups.members, config.min_instance, max_instances)
    return groups.describe(chosen, prompts, up), groups.number(chosen)


def _group(columns: tuple[np.ndarray, ...], grid: PointGrid) -> _Groups:
    """Groups labels [N], means [N, 3], scores [N] and views [N], see `find_objects`."""
    labels, means, *_ = columns
    threads = torch.get_num_threads()
    pool = shared_pool(threads if len(means) >= threads * _GAUSSIANS_PER_THREAD else 1)
    components = connected_components(labels, grid.fine, pool)
    members = _add_up(components.number, len(components.labels), columns, pool)
    sampler = Sampler(components.number, labels, means, members.parts, pool)
    target, count = join_fragments(components, grid, members.sizes, members.means, sampler.sample)
    label = np.zeros(count, np.int64)
    label[target] = components.labels
    return _Groups(label, members.joined(target, count), target, sampler)


def _rank(label: np.ndarray, members: _Members, least: int, limit: int) -> np.ndarray:
    """The groups with at least `least` points, label by label, best first, at most `limit` each (0: all)."""
    sizes = members.sizes
    order = np.lexsort((-members.totals / np.sqrt(sizes), label))
    order = order[sizes[order] >= least]
    if limit:
        ordered = label[order]
        order = order[np.arange(len(order)) - np.searchsorted(ordered, ordered) < limit]
    return order


def _list_objects(
    labels: np.ndarray, members: _Members, boxes: tuple[np.ndarray, ...], prompts: Sequence[str]
) -> list[SemanticObject]:
    centers, axes, extents = boxes
    columns = labels, members.totals / members.sizes, members.sizes, members.views
    rows = zip(*(column.tolist() for column in columns), matrix_to_quat(axes), centers, extents, strict=True)
    return [
        SemanticObject(
            prompt=prompts[label - 1],
            label=label,
            instance=k,
            score=score,
            center=center,
            quat=quat,
            size=extent,
            num_gaussians=size,
            views=int(views),
        )
        for k, (label, score, size, views, quat, center, extent) in enumerate(rows, 1)
    ]


def _add_up(number: np.ndarray, count: int, columns: tuple[np.ndarray, ...], pool: ThreadPool) -> _Members:
    """The members of `count` groups; `number` [N] is the group of each labelled row of the columns."""
    labels, means, scores, views = columns
    sums, sizes = np.zeros((pool.size, count, _MOMENTS + 1)), np.zeros((pool.size, count), np.int64)
    seen, origin = np.zeros((pool.size, count), views.dtype), means[0].astype(np.float64)
    pool.run(
        lambda *part: _add_points(
            part,
            number,
            labels,
            (means, origin, scores, views),
            (sums[part[0]], sizes[part[0]], seen[part[0]]),
        )
    )
    total = sums.sum(0)
    return _Members(origin, total[:, :_MOMENTS], total[:, _MOMENTS], seen.max(0), sizes)


@cached_njit(nogil=True)
def _add_points(part, number, labels, columns, totals):
    """Adds the points of one part to sums [C, 10], sizes [C] and views [C]."""
    (means, origin, scores, views), (sums, sizes, seen) = columns, totals
    start, stop = thread_range(part[0], part[1], len(labels))
    for i in range(start, stop):
        if labels[i]:
            c = number[i]
            x, y, z = means[i, 0] - origin[0], means[i, 1] - origin[1], means[i, 2] - origin[2]
            values = (x, y, z, x * x, x * y, x * z, y * y, y * z, z * z, np.float64(scores[i]))
            for k in range(len(values)):
                sums[c, k] += values[k]
            sizes[c] += 1
            seen[c] = max(seen[c], views[i])


@dataclass(frozen=True, slots=True)
class _Groups:
    """Groups of labelled points: components, and what their fragments joined.

    Attributes:
        labels: [G] of the groups.
        members: of the groups.
        target: [C] the group of each component.
        sampler: of the components.
    """

    labels: np.ndarray
    members: _Members
    target: np.ndarray
    sampler: Sampler

    def _place(self, chosen: np.ndarray) -> np.ndarray:
        """The number [C] of each component among the chosen groups, counted from 1; 0 = none."""
        place = np.zeros(len(self.labels), np.int64)
        place[chosen] = np.arange(1, len(chosen) + 1)
        return place[self.target]

    def number(self, chosen: np.ndarray) -> np.ndarray:
        """The number [N] of each point's group among the chosen ones [K], counted from 1; 0 = none."""
        points, place = self.sampler, self._place(chosen)
        numbers = np.empty(len(points.labels), np.int64)
        points.pool.run(lambda *part: _number_part(part, points.number, place, points.labels, numbers))
        return numbers

    def describe(
        self, chosen: np.ndarray, prompts: Sequence[str], up: np.ndarray | None
    ) -> list[SemanticObject]:
        """The chosen groups [K] as objects; `up` as of `find_objects`."""
        members = self.members[chosen]
        drawn = self.sampler.draw(self._place(chosen), members.parts, sample_steps(members.sizes))
        boxes = fit_boxes(*drawn, members.means, members.covariances, up, self.sampler.pool)
        return _list_objects(self.labels[chosen], members, boxes, prompts)


@cached_njit(nogil=True)
def _number_part(part, number, place, labels, instances):
    """Fills one part of the instances [N] of points, from the instance of each component."""
    start, stop = thread_range(part[0], part[1], len(labels))
    for i in range(start, stop):
        instances[i] = place[number[i]] if labels[i] else 0
