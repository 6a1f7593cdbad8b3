"""Scores a map part by part, and remembers what was computed from parked parts, which snapshots share.

A map that grows changes where the robot is. Asking it the same names a third time costs what changed since.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

from ovs3d_ros.packed_codes import PackedCodes
from ovs3d_ros.query.memo import PartMemo
from ovs3d_ros.query.scan import label_part, scan_part
from ovs3d_ros.query.similarity import (
    Competition,
    GaussianScores,
    at_least,
    choose_strongest,
    join_scores,
    kernel_texts,
    pool_for,
    score_gaussians,
    score_with_numba,
)
from ovs3d_ros.types import MapSnapshot

_PIECE = 2**14  # rows that are not parked are divided into pieces of so many
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of a snapshot that follow each other.

    Attributes:
        rows: from the first to the last.
        shared: stands for them in all snapshots that have it; None: they are of this snapshot alone.
    """

    rows: slice
    shared: object | None

    @property
    def size(self) -> int:
        """Number of rows."""
        return self.rows.stop - self.rows.start


@dataclass(frozen=True, slots=True)
class PartScores:
    """How well P prompts fit the n Gaussians of a part.

    Attributes:
        cosines: [P, K] of the Gaussians that fit each prompt best, in any order.
        strongest: [P, K] int32 these Gaussians, within the part.
        sums: [P] sum of the cosines of the known Gaussians.
        squares: [P] sum of their squares.
        known: number of known Gaussians.
        scores: [n] relevancy of the best prompt.
        columns: [n] int16, which prompt that is.
    """

    cosines: np.ndarray
    strongest: np.ndarray
    sums: np.ndarray
    squares: np.ndarray
    known: int
    scores: np.ndarray
    columns: np.ndarray

    @property
    def nbytes(self) -> int:
        """Of memory."""
        arrays = self.cosines, self.strongest, self.sums, self.squares, self.scores, self.columns
        return _size_of(*arrays)


@dataclass(frozen=True, slots=True)
class PartLabels:
    """The labelled Gaussians of a part.

    Attributes:
        rows: [m] int32 their places in the part.
        labels: [m] int16.
        scores: [m] relevancy of the labels.
    """

    rows: np.ndarray
    labels: np.ndarray
    scores: np.ndarray

    @property
    def nbytes(self) -> int:
        """Of memory."""
        return _size_of(self.rows, self.labels, self.scores)


class PartedScores:
    """Scores of a map with parked parts on the CPU, see `Scores`.

    Args:
        snapshot: the map.
        competition: the prompts, and what they compete against.
        min_weight: evidence from which a Gaussian takes part.
        strongest: number K of Gaussians that each part lists.
        memo: of what was computed from parked parts.

    Attributes:
        parts: of the map.
        scores: of each part.
        labels: what `label` returned last.
        rows: [M] the Gaussians it labelled, ascending.
        labelled: what it was asked, and the labelled Gaussians of each part.
    """

    def __init__(
        self,
        snapshot: MapSnapshot,
        competition: Competition,
        min_weight: float,
        strongest: int,
        memo: PartMemo,
    ) -> None:
        self._snapshot, self._competition, self._memo = snapshot, competition, memo
        self._least, self._strongest = np.float32(min_weight), strongest
        self._question = _fingerprint(min_weight, strongest, *self._texts(competition))
        self.parts = divide(snapshot)
        self._read: dict[int, tuple[tuple[np.ndarray, np.ndarray], np.ndarray]] = {}
        self.labels: torch.Tensor | None = None
        self.rows = np.zeros(0, np.int64)
        self.labelled: tuple[Hashable, list[PartLabels]] = (), []
        self.scores = self._gather("scores", self._question, self._scan, competition)

    @property
    def known(self) -> torch.Tensor:
        """See `Scores`."""
        codes = self._snapshot.packed_codes
        return at_least(self._snapshot.weight, float(self._least)) & codes.known

    def relevancy(self) -> torch.Tensor:
        """See `Scores`."""
        codes, eligible = self._snapshot.packed_codes, at_least(self._snapshot.weight, float(self._least))
        return score_with_numba(codes, eligible, self._competition, 1).all.relevancy()

    def label(self, found: np.ndarray, threshold: float) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Scores`; pages of labels that nothing labels take no memory."""
        question = self._question, found.tobytes(), threshold
        numbers = np.flatnonzero(found).astype(np.int16) + np.int16(1)
        label_of = np.zeros(len(found), np.int16)
        label_of[found] = numbers
        rules = (label_of, numbers), np.float32(threshold)
        chosen = self._competition.chosen(found)
        parts = self._gather("labels", question, lambda *part: self._label(*part, rules), chosen)
        self.labelled = question, parts
        self._read.clear()
        placed = zip(self.parts, parts, strict=True)
        self.rows = rows = np.concatenate([part.rows + np.int64(at.rows.start) for at, part in placed])
        labels = np.zeros(self._snapshot.num_gaussians, np.int64)
        scores = np.concatenate([part.scores for part in self.scores])
        labels[rows] = np.concatenate([part.labels for part in parts])
        scores[rows] = np.concatenate([part.scores for part in parts])
        self.labels = torch.from_numpy(labels)
        return self.labels, torch.from_numpy(scores)

    def _gather(
        self,
        kind: str,
        question: Hashable,
        compute: Callable[[int, tuple, tuple], Value],
        competition: Competition,
    ) -> list[Value]:
        """The value of each part; `compute` makes it of a part's place, and texts and rule of the kernels."""
        texts = self._texts(competition)

        def compute_all(places: list[int]) -> list[Value]:
            pool = pool_for(sum(self.parts[place].size for place in places))
            shares = pool.run(lambda k, n: [compute(place, *texts) for place in places[k::n]])
            values: list = [None] * len(places)
            for k, share in enumerate(shares):
                values[k :: pool.size] = share
            return values

        owners = [part.shared for part in self.parts]
        return self._memo.gather((kind, question), owners, compute_all)

    def _texts(self, competition: Competition) -> tuple[tuple, tuple]:
        return kernel_texts(self._snapshot.packed_codes, competition)

    def _scan(self, place: int, texts: tuple, rule: tuple) -> PartScores:
        part, prompts = self.parts[place], (texts, rule)
        codes, known = self._rows(place)
        scores, columns = torch.empty(part.size), np.empty(part.size, np.int16)
        found = scan_part((0, 1), codes, known, *prompts, self._strongest, scores.numpy(), columns)
        cosines, rows, sums, squares = found
        count = int(np.count_nonzero(known))
        best = cosines, rows.astype(np.int32), sums, squares
        return PartScores(*best, count, scores.sigmoid_().numpy(), columns)

    def _label(self, place: int, texts: tuple, rule: tuple, rules: tuple) -> PartLabels:
        part, scored = self.parts[place], self.scores[place]
        if not (scored.scores >= rules[1]).any():
            return PartLabels(*(np.zeros(0, kind) for kind in (np.int32, np.int16, np.float32)))
        labels, scores = np.empty(part.size, np.int16), np.empty(part.size, np.float32)
        best, filled = (scored.scores, scored.columns), (scores, labels)
        label_part((0, 1), *self._rows(place), texts, rule, *rules, best, filled)
        rows = np.flatnonzero(labels > 0)
        return PartLabels(rows.astype(np.int32), labels[rows], scores[rows])

    def _rows(self, place: int) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
        """Codes of a part as kernels take them, and which of its Gaussians are known."""
        if place not in self._read:
            codes: PackedCodes = self._snapshot.packed_codes[self.parts[place].rows]
            scales = codes.scales.numpy().astype(np.float32)
            weight = self._snapshot.weight[self.parts[place].rows].numpy()
            arrays = np.ascontiguousarray(codes.values.numpy()), scales
            self._read[place] = arrays, (weight >= self._least) & (scales != 0)
        return self._read[place]


def score_map(
    snapshot: MapSnapshot, competition: Competition, min_weight: float, strongest: int, memo: PartMemo
) -> GaussianScores:
    """`similarity.score_gaussians` of a map with parked parts on the CPU; arguments of `PartedScores`.

    Names that are asked for the first time go over the whole map at once: part by part takes longer.
    """
    codes, rules = snapshot.packed_codes, (min_weight, strongest)
    if not memo.is_repeated(_fingerprint(*rules, *kernel_texts(codes, competition))):
        return score_gaussians(codes, at_least(snapshot.weight, min_weight), competition, strongest)
    scores = PartedScores(snapshot, competition, min_weight, strongest, memo)
    placed = list(zip(scores.parts, scores.scores, strict=True))
    cosines = np.concatenate([part.cosines for _, part in placed], axis=1)
    rows = np.concatenate([part.strongest.astype(np.int64) + at.rows.start for at, part in placed], axis=1)
    total = sum(part.known for _, part in placed)
    sums, squares = sum(part.sums for _, part in placed), sum(part.squares for _, part in placed)
    best = choose_strongest(cosines, rows, min(total, strongest))
    return join_scores(snapshot.packed_codes, competition, best, (sums, squares, total), scores)


def divide(snapshot: MapSnapshot) -> list[Part]:
    """The parts of a map: what is parked, then the rest in pieces."""
    parts, first = [], 0
    for shared in snapshot.parked:
        parts.append(Part(slice(first, first + shared.count), shared))
        first += shared.count
    for start in range(first, snapshot.num_gaussians, _PIECE):
        parts.append(Part(slice(start, min(start + _PIECE, snapshot.num_gaussians)), None))
    return parts


def _fingerprint(min_weight: float, strongest: int, texts: tuple, rule: tuple) -> Hashable:
    """What tells two questions to a part apart."""
    arrays = *texts, *rule[:2]
    return (min_weight, strongest, float(rule[2]), rule[3], *(a.tobytes() for a in arrays))


def _size_of(*arrays: np.ndarray) -> int:
    return sum(array.nbytes for array in arrays)
