"""Presence and labels without a calibration, for any encoder (docs/method.md, "Presence without labels").

Cosines of different encoders cannot be compared, but ranks within a bank of names can. Few of a thousand
common names are in one place: the others show what "not here" looks like in this map with this encoder.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ovs3d_ros.query.memo import SnapshotMemo
from ovs3d_ros.query.name_bank import NameBank, make_bank, read_names
from ovs3d_ros.query.presence import (
    PresenceCalibration,
    general_prompts,
    logistic_regression,
    presence_probability,
)
from ovs3d_ros.types import MapSnapshot

_MAX_CELLS = 8192
_SMALLEST_CELL = 0.04  # m
_COARSER = 1.26  # factor from one size of cells to the next: half as many per volume
_FAINT = 0.2  # share of cells, those with the least evidence, that are left out
_BEST = 4  # cells that stand for a name's best place
# Logistic weights of the columns of `bank_evidence`, and the bias: benchmarks/presence.py prints them for
# five rendered rooms with the bundled encoder, two distorted forms of it and `conse` at two sizes.
WEIGHTS = 0.235, 0.169, 0.079, 0.357
BIAS = -2.028
# A cosine this far from the text's mean over the map to its best places counts as much as a relevancy of
# `PresenceCalibration.threshold`, from which a Gaussian is labelled; docs/benchmarks.md has the figures.
_LABELLED = 0.6
_THRESHOLD = PresenceCalibration().threshold
_STEEPNESS = 10.0  # of the relevancy around that value; its order alone matters


@dataclass(frozen=True, slots=True)
class MapCells:
    """A map pooled into cells of space, and how a bank of names fits them.

    Attributes:
        codes: [V, d + 1] unit codes.
        names: [d + 1, M] directions of the names, see `FeatureCodec.directions`.
        measures: [M, 4] see `measure`.
    """

    codes: torch.Tensor
    names: torch.Tensor
    measures: torch.Tensor


class BankPresence:
    """Decides whether things are in a map by comparing prompts with a bank of names.

    Args:
        encode_text: gives unit text features [P, D].
        weights: logistic weights of the columns of `bank_evidence`.
        bias: logistic bias.
    """

    def __init__(
        self,
        encode_text: Callable[[Sequence[str]], torch.Tensor],
        weights: Sequence[float] = WEIGHTS,
        bias: float = BIAS,
    ) -> None:
        self._encode_text, self._weights, self._bias = encode_text, weights, bias
        self._bank: NameBank | None = None
        self._cells = SnapshotMemo(self._pool)

    def decide(self, evidence: np.ndarray) -> np.ndarray:
        """Probability [P] that a thing is in a map, from the evidence [P, 4] of `bank_evidence`."""
        return np.where((evidence > 0).any(1), logistic_regression(evidence, self._weights, self._bias), 0.0)

    def evidence(
        self, prompts: Sequence[str], texts: torch.Tensor, snapshot: MapSnapshot, min_weight: float
    ) -> np.ndarray:
        """Evidence [P, 4] of each prompt, see `bank_evidence`; zero in a map without evidence of anything.

        Args:
            prompts: the P prompts.
            texts: [P, D] their unit features.
            snapshot: the map, with features.
            min_weight: Gaussians with less evidence, in pixels, do not count.
        """
        bank = self.names()
        cells = self._cells(snapshot, min_weight)
        if not len(cells.codes):
            return np.zeros((len(prompts), 4))
        return bank_evidence(cells, snapshot.directions(texts), bank.rivals(prompts, texts))

    def relevancy(
        self, cosines: torch.Tensor, texts: torch.Tensor, snapshot: MapSnapshot, min_weight: float
    ) -> torch.Tensor:
        """Relevancy [..., P] of cosines [..., P] by where they lie in the map's own range for each text.

        LERF's relevancy and threshold fit the cosines of one encoder. The mean cosine of a text over a map
        and the cosine at its best places are known for each encoder.

        Args:
            cosines: of P texts at Gaussians or pixels.
            texts: [P, D] unit text features.
            snapshot: the map, with features.
            min_weight: see `evidence`.
        """
        slope, offset = self.ranges(texts, snapshot, min_weight)
        return (cosines * slope).sub_(offset).sigmoid_()

    def ranges(
        self, texts: torch.Tensor, snapshot: MapSnapshot, min_weight: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Slope and offset [P] of the logit of `relevancy`; arguments as there."""
        cells = self._cells(snapshot, min_weight)
        if not len(cells.codes):
            nothing = texts.new_zeros(len(texts), device=cells.codes.device)
            return nothing, nothing + 1e30
        return range_of_labels(cells.codes @ snapshot.directions(texts))

    def names(self) -> NameBank:
        """The bank, encoded when it is first needed. Two threads may both do that, with equal results."""
        if self._bank is None:
            self._bank = make_bank(read_names(), self._encode_text)
        return self._bank

    def _pool(self, snapshot: MapSnapshot, min_weight: float) -> MapCells:
        assert snapshot.codec is not None, "the map has no language features"
        bank = self.names()
        weight = torch.where(snapshot.weight >= min_weight, snapshot.weight, 0.0)
        codes = snapshot.codec.normalize(pool_cells(snapshot.gaussians["means"], snapshot.codes, weight))
        return describe_cells(codes, snapshot.directions(bank.texts), bank.among)


def decide_presence(
    prompts: Sequence[str],
    evidence: np.ndarray,
    ranks: np.ndarray | None,
    bank: BankPresence | None,
    calibration: PresenceCalibration,
) -> tuple[np.ndarray, np.ndarray]:
    """Decides what is there: the calibration of an encoder, with or without a bank, or a bank alone.

    Args:
        prompts: the P prompts.
        evidence: [P, 4] see `presence.Evidence.table`.
        ranks: [P, 4] see `bank_evidence`; None without a bank.
        bank: the bank.
        calibration: of the encoder.

    Returns:
        The probability [P] that each prompt's thing is there, and what evidence a calibration weighs, [P, E].
    """
    if bank is not None and ranks is not None:
        if not calibration.weighs_bank:
            return bank.decide(ranks), evidence
        evidence = np.hstack([evidence, ranks])
    general = general_prompts(prompts, calibration.distractors)
    return presence_probability(evidence, general, calibration), evidence


def range_of_labels(own: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Slope and offset [P] of the logit of `BankPresence.relevancy`: cosine * slope - offset.

    Args:
        own: [V, P] cosines of P texts with the cells of the map.
    """
    mean = own.mean(0)
    slope = _STEEPNESS / (_best(own)[0] - mean).clamp_min(1e-9)
    return slope, mean * slope + _STEEPNESS * _LABELLED - math.log(_THRESHOLD / (1 - _THRESHOLD))


def pool_cells(means: torch.Tensor, codes: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Sums of codes [V, d + 1] over cubic cells of space, at most `_MAX_CELLS`, without the faintest.

    Args:
        means: [N, 3] positions in metres.
        codes: [N, d + 1] unit codes; zero for a Gaussian without a feature.
        weight: [N] evidence of each, in pixels; 0: left out.
    """
    known = (weight > 0) & (codes[:, -1] != 0)
    means, codes, weight = means[known], codes[known], weight[known]
    if not len(means):
        return codes
    side = _SMALLEST_CELL
    while True:
        # Every eighth Gaussian alone may fill too many cells: a cheap test first.
        cells = _cell_indices(means[::8], side)
        if int(cells.max()) < _MAX_CELLS:
            cells = _cell_indices(means, side)
            if int(cells.max()) < _MAX_CELLS:
                break
        side *= _COARSER
    count = int(cells.max()) + 1
    sums = codes.new_zeros(count, codes.shape[1]).index_add_(0, cells, codes * weight[:, None])
    evidence = weight.new_zeros(count).index_add_(0, cells, weight)
    return sums[evidence >= evidence.quantile(_FAINT)]


def _cell_indices(means: torch.Tensor, side: float) -> torch.Tensor:
    """Number [N] of the cubic cell of `side` metres that holds each position [N, 3], without gaps."""
    places = ((means - means.amin(0)) / side).long()
    rows = places.amax(0) + 1
    # One number per cell: a sort of rows takes twenty times as long.
    keys = (places[:, 0] * rows[1] + places[:, 1]) * rows[2] + places[:, 2]
    return torch.unique(keys, return_inverse=True)[1]


def describe_cells(codes: torch.Tensor, names: torch.Tensor, rivals: torch.Tensor) -> MapCells:
    """How a bank of names fits cells.

    Args:
        codes: [V, d + 1] unit codes of the cells.
        names: [d + 1, M] directions of the bank's names.
        rivals: [M, M] bool, see `NameBank.rivals`.
    """
    count = names.shape[1]
    measures = measure(codes, codes @ names, names, rivals) if len(codes) else names.new_zeros(count, 4)
    return MapCells(codes, names, measures)


def measure(
    codes: torch.Tensor, cosines: torch.Tensor, names: torch.Tensor, rivals: torch.Tensor
) -> torch.Tensor:
    """How well texts fit their best places, [P, 4]; only the order of the values has a meaning.

    The columns: deviation of the text's cosine at its best cells among those of the bank there; its lead over
    the best rival there, in the same deviations; its cosine there; that minus its mean over all cells.

    Args:
        codes: [V, d + 1] unit codes of the cells.
        cosines: [V, P] of the texts.
        names: [d + 1, M] directions of the bank's names.
        rivals: [P, M] bool, the names that are other things than the text.
    """
    peak, places = _best(cosines)
    there = codes[places].mean(1) @ names  # [P, M]
    mean = there.mean(1)
    scale = (there.square().mean(1) - mean.square()).clamp_min(1e-18).sqrt()  # a third of the time of std
    rival = torch.where(rivals.to(there.device), there, -1.0).amax(1)
    return torch.stack([(peak - mean) / scale, (peak - rival) / scale, peak, peak - cosines.mean(0)], dim=1)


def _best(cosines: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean cosine [P] at the best cells of each text in cosines [V, P], and their numbers [P, _BEST]."""
    best = cosines.T.contiguous().topk(min(_BEST, len(cosines)))  # along rows: half the time
    return best.values.mean(1), best.indices


def bank_evidence(cells: MapCells, prompts: torch.Tensor, rivals: torch.Tensor) -> np.ndarray:
    """Evidence [P, 4] that the thing of each prompt is in the map: per column of `measure`, a rank.

    It is minus the logarithm of the share of the bank's names that do better than the prompt.

    Args:
        cells: the map.
        prompts: [d + 1, P] directions of the prompts.
        rivals: [P, M] bool, see `NameBank.rivals`.
    """
    own = measure(cells.codes, cells.codes @ prompts, cells.names, rivals)  # [P, 4]
    better = (cells.measures[None] > own[:, None]).sum(1)  # [P, 4]
    return -((1 + better) / (1 + len(cells.measures))).double().log().cpu().numpy()
