"""Drops strays: groups of labelled Gaussians that the presence decision would not take for what is asked.

A prompt that is found labels whatever fits it a little, elsewhere too: "chair" labels parts of the table. The
presence decision saw only the Gaussians that fit best. Here each further object is judged by those of its own
that fit best.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ovs3d_ros.query.presence import PEAK_GAUSSIANS
from ovs3d_ros.rasterize.kernel_cache import cached_njit


@dataclass(frozen=True, slots=True)
class Judge:
    """Says how likely a group of labelled Gaussians is a thing.

    Attributes:
        fits: [N] how well each Gaussian fits its label.
        probability: of the labels [O], counted from 1, and Gaussians [O, K] of groups: the probabilities [O].
        least: probability from which a group is kept.
    """

    fits: np.ndarray
    probability: Callable[[np.ndarray, np.ndarray], np.ndarray]
    least: float

    def among(self, rows: np.ndarray) -> Judge:
        """The same of some Gaussians [M] only, which are numbered from 0 on."""
        return Judge(self.fits[rows], lambda labels, own: self.probability(labels, rows[own]), self.least)


def drop_strays(
    labels: np.ndarray, instances: np.ndarray, judge: Judge, limit: int
) -> tuple[np.ndarray, np.ndarray]:
    """Keeps the likeliest object of each label, and others that are likely enough.

    A label with one object is not judged: the presence decision was about it.

    Args:
        labels: [O] of the objects, label after label, best first.
        instances: [N] number of the object of each Gaussian, counted from 1 in this order; 0 = none.
        judge: says how likely an object is.
        limit: objects of each label that are kept at most, 0 = all.

    Returns:
        The objects that are kept, ascending, and the number [N] of each Gaussian's among these.
    """
    several = np.flatnonzero(np.bincount(labels, minlength=1)[labels] > 1)
    if not len(several):
        return np.arange(len(labels)), instances
    place = np.zeros(len(labels) + 1, np.int64)
    place[several + 1] = np.arange(1, len(several) + 1)
    strongest = find_strongest(instances, place, judge.fits, len(several), PEAK_GAUSSIANS)
    probability = np.ones(len(labels))
    probability[several] = judge.probability(labels[several], strongest)
    kept = choose_kept(labels, probability, judge.least, limit)
    if len(kept) == len(labels):
        return kept, instances
    number = np.zeros(len(labels) + 1, instances.dtype)
    number[kept + 1] = np.arange(1, len(kept) + 1)
    return kept, number[instances]


def choose_kept(labels: np.ndarray, probability: np.ndarray, least: float, limit: int) -> np.ndarray:
    """The objects that are kept, ascending: the likeliest of each label, and others that are likely enough.

    Args:
        labels: [O] of the objects, label after label, best first.
        probability: [O] that each is what its label names.
        least: probability that is enough.
        limit: objects of each label that are kept at most, 0 = all.
    """
    best = np.lexsort((-probability, labels))
    best = best[np.diff(labels[best], prepend=0) > 0]
    is_kept = probability >= least
    is_kept[best] = True
    kept = np.flatnonzero(is_kept)
    if limit:
        kept = kept[np.arange(len(kept)) - np.searchsorted(labels[kept], labels[kept]) < limit]
    return kept


@cached_njit(nogil=True)
def find_strongest(instances, place, fits, sets, count):
    """The rows [sets, count] that fit best in each set; a smaller set repeats its rows.

    `place` gives the set of each instance, counted from 1.
    """
    rows, values = np.empty((sets, count), np.int64), np.empty((sets, count), np.float32)
    sizes = np.zeros(sets, np.int64)
    for i in range(len(instances)):
        k = place[instances[i]] - 1
        if k >= 0 and (sizes[k] < count or fits[i] > values[k, count - 1]):
            j = min(sizes[k], count - 1)
            while j > 0 and values[k, j - 1] < fits[i]:
                values[k, j], rows[k, j] = values[k, j - 1], rows[k, j - 1]
                j -= 1
            values[k, j], rows[k, j] = fits[i], i
            sizes[k] = min(sizes[k] + 1, count)
    for k in range(sets):
        for j in range(sizes[k], count):
            rows[k, j] = rows[k, j - sizes[k]]
    return rows
