"""Objects of a map with parked parts. Groups of labelled Gaussians that nothing new touches are remembered.

What joins an object lies in voxels of one label that touch (`components.join_fragments` is what reaches
farthest). Of every part, the voxels that its labelled Gaussians fill are remembered; the voxels of the whole
map, which are few, are joined to clusters. A cluster of the same voxels of the same parts as before has the
same objects as before.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, replace

import numpy as np

from ovs3d_ros.config import QueryConfig
from ovs3d_ros.map_frame import is_world, object_to_world
from ovs3d_ros.packed_codes import chosen_rows
from ovs3d_ros.query.boxes import vertical_axis
from ovs3d_ros.query.components import connected_components
from ovs3d_ros.query.instances import find_objects
from ovs3d_ros.query.memo import PartMemo
from ovs3d_ros.query.object_presence import GroupJudge
from ovs3d_ros.query.parked import Part, PartedScores, PartLabels
from ovs3d_ros.query.presence import PEAK_GAUSSIANS
from ovs3d_ros.query.strays import choose_kept, find_strongest
from ovs3d_ros.query.voxels import WIDER, sort_into_voxels
from ovs3d_ros.rasterize.thread_pool import shared_pool
from ovs3d_ros.types import MapSnapshot, SemanticObject

_REACH, _BITS = 2**17, 18  # gaps from the origin: within, voxels are no wider; bits of a voxel along an axis
_SPARE = 1000  # objects that are not shown any more, above which all are found anew
_QUESTIONS = 16  # whose objects are remembered
_COLUMNS = 6  # label, size, total score, and the evidence of `GroupJudge`


@dataclass(frozen=True, slots=True)
class PartClusters:
    """The labelled Gaussians of a part in voxels of one label, and the objects they belonged to last.

    Attributes:
        rows: [m] int32 places of the Gaussians in the part.
        voxel: [m] int32 voxel of each Gaussian.
        places: [v, 3] int32 the voxels.
        labels: [v] int16 of the voxels.
        marks: [v] uint64 random numbers that stand for the voxels.
        clusters: [v] uint64 the cluster of each voxel when `objects` was filled; 0: it was not yet.
        objects: [m] int32 row of each Gaussian's object in the table, -1: none.
    """

    rows: np.ndarray
    voxel: np.ndarray
    places: np.ndarray
    labels: np.ndarray
    marks: np.ndarray
    clusters: np.ndarray
    objects: np.ndarray

    @property
    def nbytes(self) -> int:
        """Of memory."""
        shared = self.rows, self.voxel, self.places, self.labels, self.marks, self.clusters, self.objects
        return sum(array.nbytes for array in shared)


@dataclass(frozen=True, slots=True)
class ObjectQuestion:
    """What is asked of the labelled Gaussians of a map.

    Attributes:
        prompts: the P prompts.
        config: gap and smallest size of an instance.
        snapshot: the map.
        scores: [N] relevancy of each Gaussian's label.
        judge: says how likely an object is; None: all are kept.
    """

    prompts: tuple[str, ...]
    config: QueryConfig
    snapshot: MapSnapshot
    scores: np.ndarray
    judge: GroupJudge | None

    @property
    def up(self) -> np.ndarray | None:
        """[3] of upright boxes; None: they lie along principal axes."""
        return vertical_axis(self.snapshot.camtoworlds, self.config.upright)


class ObjectTable:
    """The objects that answer one question, in the parts of any snapshots; for one thread at a time."""

    def __init__(self) -> None:
        self._items: list[SemanticObject] = []
        self._forget()

    def update(self, parts: list[Part], known: list[PartClusters], ask: ObjectQuestion) -> None:
        """Finds the objects of clusters that are not those of the last time."""
        names = "marks", "labels", "places", "clusters"
        marks, labels, places, last = (np.concatenate([getattr(p, name) for p in known]) for name in names)
        if not len(marks):
            return
        cluster = _join_voxels(places, labels)
        sums = np.zeros(int(cluster.max()) + 1, np.uint64)
        np.add.at(sums, cluster, marks)
        sums ^= self._salt
        is_new = np.zeros(len(sums), bool)
        is_new[cluster[last != sums[cluster]]] = True
        shares, stop = [], 0
        for at, part in zip(parts, known, strict=True):
            own = cluster[stop : stop + len(part.marks)]
            stop += len(own)
            news = is_new[own]
            if news.any():
                chosen = np.flatnonzero(news[part.voxel])
                shares.append((part, chosen, part.rows[chosen] + at.rows.start, news, sums[own[news]]))
        if shares:
            labels = np.concatenate([part.labels[part.voxel[chosen]] for part, chosen, *_ in shares])
            objects = self._add(np.concatenate([rows for _, _, rows, *_ in shares]), labels, ask)
            pieces = np.split(objects, np.cumsum([len(chosen) for _, chosen, *_ in shares])[:-1])
            for (part, chosen, _, news, own), piece in zip(shares, pieces, strict=True):
                part.objects[chosen], part.clusters[news] = piece, own

    def _add(self, rows: np.ndarray, labels: np.ndarray, ask: ObjectQuestion) -> np.ndarray:
        """Adds the objects of labelled Gaussians [M], ascending; returns the row of each one's [M], or -1."""
        snapshot, config, scores = ask.snapshot, ask.config, ask.scores[rows]
        means, views = (chosen_rows(t, rows) for t in (snapshot.gaussians["means"], snapshot.views))
        objects, numbers = find_objects(means, labels, scores, views, ask.prompts, config, 0, ask.up)
        table = np.zeros((len(objects), _COLUMNS))
        if objects:
            table[:, :3] = [(o.label, o.num_gaussians, o.score * o.num_gaussians) for o in objects]
            if ask.judge is not None:
                place = np.arange(len(objects) + 1)
                strongest = find_strongest(numbers, place, scores, len(objects), PEAK_GAUSSIANS)
                table[:, 3:] = ask.judge.evidence(table[:, 0].astype(np.int64), rows[strongest])
        if not is_world(snapshot.frame):
            objects = [object_to_world(item, snapshot.frame) for item in objects]
        first = len(self._items)
        self._items += objects
        self._columns = np.concatenate([self._columns, table])
        return np.where(numbers > 0, numbers - 1 + first, -1).astype(np.int32)

    def select(
        self, known: list[PartClusters], rows: np.ndarray, ask: ObjectQuestion, limit: int
    ) -> tuple[list[SemanticObject], np.ndarray]:
        """The objects of parts as `instances.find_map_objects` lists them, and the number [N] of each one's.

        Args:
            known: the parts.
            rows: [M] their labelled Gaussians, part by part.
            ask: the question.
            limit: objects of each label at most, 0 = all.
        """
        objects = np.concatenate([part.objects for part in known])
        is_shown = np.zeros(len(self._items) + 1, bool)  # the last one is that of no object
        is_shown[objects] = True
        shown = np.flatnonzero(is_shown[:-1])
        labels, sizes, totals = self._columns[shown, :3].T
        first = np.empty(len(is_shown), np.int64)
        first[objects[::-1]] = rows[::-1]  # of several, the last assignment stays
        # Of equals, the first in the map comes first, however old it is.
        order = np.lexsort((first[shown], -totals / np.sqrt(sizes), labels))
        chosen = shown[order]
        number = np.zeros(len(is_shown), np.int64)
        number[chosen] = self._choose(chosen, labels[order].astype(np.int64), ask.judge, limit)
        instances = np.zeros(ask.snapshot.num_gaussians, np.int64)
        instances[rows] = number[objects]
        kept = chosen[number[chosen] > 0]
        items = [replace(self._items[row], instance=k) for k, row in enumerate(kept.tolist(), 1)]
        if len(self._items) > 2 * len(shown) + _SPARE:
            self._forget()
        return items, instances

    def _choose(
        self, chosen: np.ndarray, labels: np.ndarray, judge: GroupJudge | None, limit: int
    ) -> np.ndarray:
        """The number of each object [O] in the answer, 0: none; see `strays.drop_strays`."""
        probability, least = np.ones(len(labels)), 0.0
        if judge is not None:
            probability, least = judge.probability(labels, self._columns[chosen, 3:]), judge.least
        kept = choose_kept(labels, probability, least, limit)
        number = np.zeros(len(labels), np.int64)
        number[kept] = np.arange(1, len(kept) + 1)
        return number

    def _forget(self) -> None:
        """Leaves out all objects, which are found anew with the next question."""
        self._salt = _draw_marks(1)  # tells its clusters from those of other tables, and of earlier times
        self._items, self._columns = [], np.zeros((0, _COLUMNS))


class ObjectMemo:
    """Finds the objects of maps with parked parts. Any thread may use it.

    Args:
        parts: keeps what is remembered of parts.
    """

    def __init__(self, parts: PartMemo) -> None:
        self._parts = parts
        self._tables: OrderedDict[Hashable, ObjectTable] = OrderedDict()
        self._lock = threading.Lock()

    def find(
        self, scores: PartedScores, ask: ObjectQuestion, limit: int
    ) -> tuple[list[SemanticObject], np.ndarray] | None:
        """Objects and instance numbers [N] of a map, as `instances.find_map_objects` finds them.

        Args:
            scores: of the map, which labelled its Gaussians.
            ask: the question.
            limit: objects of each label at most, 0 = all.

        Returns:
            None for a map that is too wide, see `_REACH`.
        """
        question, labelled = scores.labelled
        config, judge = ask.config, ask.judge
        shape = config.instance_gap, config.min_instance, ask.up is None
        rivals = judge and (tuple(judge.calibration.distractors), judge.calibration.synonym)
        rules = ask.prompts, shape, rivals
        known = self._parts.gather(
            ("objects", question, rules),
            [part.shared for part in scores.parts],
            lambda places: [_sort_part(scores.parts[k], labelled[k], ask) for k in places],
        )
        if any(abs(part.places).max(initial=0) >= _REACH // WIDER for part in known):
            return None
        with self._lock:
            table = self._tables.setdefault((question, rules), ObjectTable())
            self._tables.move_to_end((question, rules))
            if len(self._tables) > _QUESTIONS:
                self._tables.popitem(last=False)
            table.update(scores.parts, known, ask)
            return table.select(known, scores.rows, ask, limit)


def _sort_part(part: Part, labelled: PartLabels, ask: ObjectQuestion) -> PartClusters:
    """The labelled Gaussians of a part, in voxels."""
    rows = labelled.rows.astype(np.int64) + part.rows.start
    means = chosen_rows(ask.snapshot.gaussians["means"], rows).astype(np.float64)
    places = np.floor(means / ask.config.instance_gap).astype(np.int64) // WIDER
    keys = labelled.labels.astype(np.int64)
    for axis in range(3):
        keys = (keys << _BITS) + places[:, axis] + (1 << _BITS - 1)
    order = np.argsort(keys)  # `np.unique` takes twice as long
    is_first = np.diff(keys[order], prepend=-1) != 0
    first, voxel = order[is_first], np.empty(len(keys), np.int32)
    voxel[order] = is_first.cumsum() - 1
    return PartClusters(
        rows=labelled.rows,
        voxel=voxel,
        places=places[first].astype(np.int32),
        labels=labelled.labels[first],
        marks=_draw_marks(len(first)),
        clusters=np.zeros(len(first), np.uint64),
        objects=np.full(len(rows), -1, np.int32),
    )


def _join_voxels(places: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Number [V] of the cluster of each voxel [V, 3]: those of one label that touch, corners included."""
    grid = sort_into_voxels(places + 0.5, 1.0).fine
    return connected_components(labels, grid, shared_pool(1)).number


def _draw_marks(count: int) -> np.ndarray:
    """Random numbers [count] uint64, whose sums hardly ever agree."""
    return np.frombuffer(os.urandom(8 * count), np.uint64).copy()
