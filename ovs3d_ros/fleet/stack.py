"""The evidence for prompts in many maps of one encoder, by an exact scan of their regions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import expit

from ovs3d_ros.config import QueryConfig
from ovs3d_ros.encoders import ImageTextEncoder
from ovs3d_ros.fleet.parts import IndexedMap
from ovs3d_ros.fleet.regions import Regions
from ovs3d_ros.query.bank_presence import (
    MapCells,
    bank_evidence,
    decide_presence,
    describe_cells,
    range_of_labels,
)
from ovs3d_ros.query.engine import QueryEngine, TextFeatures
from ovs3d_ros.query.presence import PEAK_GAUSSIANS, Evidence


@dataclass(frozen=True, slots=True)
class MapScores:
    """How well P prompts fit M maps.

    Attributes:
        presence: [M, P] probability that the thing is in the map.
        peak: [M, P] relevancy of the map's best place.
        logits: for each map, [P, R] logits of the relevancy of its regions.
    """

    presence: np.ndarray
    peak: np.ndarray
    logits: list[np.ndarray]


class _Best:
    """The regions of M maps that fit P prompts best, K of each; [M, P, K] unless said otherwise.

    Attributes:
        rows: their numbers in their maps.
        cosines: with the prompt; where a map has fewer regions they are 0, and so are the counts.
        logits: see `MapScores`.
        counts: number of their Gaussians.
        mass: weight of their Gaussians.
        codes: [M, P, K, d + 1].
    """

    def __init__(self, maps: int, prompts: int, dim: int) -> None:
        shape = maps, prompts, PEAK_GAUSSIANS
        self.rows, self.counts = np.zeros((2, *shape), np.int64)
        self.cosines, self.logits, self.mass = np.zeros((3, *shape))
        self.codes = np.zeros((*shape, dim), np.float32)

    def take(self, m: int, cosines: np.ndarray, logits: np.ndarray, regions: Regions) -> None:
        """Takes the best regions of map `m` by their cosines [P, R]; logits [P, R] go with them."""
        size = min(PEAK_GAUSSIANS, cosines.shape[1])
        rows = np.argpartition(-cosines, size - 1)[:, :size]
        prompt = np.arange(len(rows))[:, None]
        self.rows[m, :, :size] = rows
        self.cosines[m, :, :size] = cosines[prompt, rows]
        self.logits[m, :, :size] = logits[prompt, rows]
        self.counts[m, :, :size] = regions.counts[rows]
        self.mass[m, :, :size] = regions.mass[rows]
        self.codes[m, :, :size] = regions.codes[rows]

    def weights(self) -> np.ndarray:
        """Weights that sum to 1 over the best regions that together hold `PEAK_GAUSSIANS` Gaussians.

        Of the last region only as many Gaussians count as are wanting.
        """
        order = np.argsort(-self.cosines, axis=-1, kind="stable")
        counts = np.take_along_axis(self.counts, order, -1)
        taken = np.empty_like(counts)
        before = np.cumsum(counts, axis=-1) - counts
        np.put_along_axis(taken, order, np.clip(PEAK_GAUSSIANS - before, 0, counts), -1)
        weight = self.mass * taken / np.maximum(self.counts, 1)
        return weight / weight.sum(-1, keepdims=True)


class MapStack:
    """The regions of M maps of one encoder whose codes have one length, side by side.

    Args:
        parts: the maps.
        clip: their encoder.
        config: parameters of queries.

    Attributes:
        parts: see above.
        engine: encodes texts, and holds the encoder's calibration.
    """

    def __init__(self, parts: Sequence[IndexedMap], clip: ImageTextEncoder, config: QueryConfig) -> None:
        self.parts = list(parts)
        self.engine = QueryEngine(clip, config)
        # Transposed, [d + 1, R]: a third of the time to multiply a few texts with many codes.
        self._codes = [np.ascontiguousarray(part.regions.codes.T) for part in parts]
        self._extended = np.stack([part.extended for part in parts])  # [M, D, d + 1]
        self._mean = np.stack([part.regions.mean for part in parts])
        self._second = np.stack([part.regions.second for part in parts])
        self._cells: list[MapCells] | None = None

    def encode(self, prompts: Sequence[str], negatives: Sequence[str]) -> TextFeatures:
        """Encodes the words of a question; texts are cached."""
        return TextFeatures(*map(self.engine.encode_text, (prompts, negatives)))

    def score(self, prompts: Sequence[str], texts: TextFeatures, own_negatives: bool) -> MapScores:
        """Scores P prompts against all maps.

        Args:
            prompts: the prompts.
            texts: of `encode`.
            own_negatives: the user named the negatives, so that relevancy is measured against them.
        """
        count, ranged = len(prompts), self.engine.is_ranged and not own_negatives
        words = torch.cat([texts.prompts, texts.negatives]).numpy()
        directions = words @ self._extended  # [M, P + negatives, d + 1]
        best, logits = _Best(len(self.parts), count, directions.shape[-1]), []
        for m, (part, codes) in enumerate(zip(self.parts, self._codes, strict=True)):
            # Map by map, so that what is computed stays in the cache.
            cosines = directions[m] @ codes
            logits.append(self._logits(cosines[:count], cosines[count:], ranged))
            best.take(m, cosines[:count], logits[-1], part.regions)
        evidence = self._evidence(best, directions[:, :count], texts)
        presence = self._presence(prompts, texts, evidence)
        return MapScores(presence, evidence.peak.reshape(-1, count), logits)

    def _logits(self, cosines: np.ndarray, negatives: np.ndarray, ranged: bool) -> np.ndarray:
        """Logits [P, R] of the relevancy of regions with cosines [P, R]; those with the negatives are [N, R].

        As in `QueryEngine.score`: against the strongest negative, or `ranged`, in the map's own range.
        """
        if not ranged:
            return self.engine.calibration.temperature * (cosines - negatives.max(axis=0))
        slope, offset = (v.numpy()[:, None] for v in range_of_labels(torch.from_numpy(cosines.T)))
        return cosines * slope - offset

    def _evidence(self, best: _Best, directions: np.ndarray, texts: TextFeatures) -> Evidence:
        """The evidence of `presence.presence_evidence`, map after map, with M * P rows.

        Args:
            best: the best regions.
            directions: [M, P, d + 1] of the prompts.
            texts: the words.
        """
        weight = best.weights()
        peak = (expit(best.logits) * weight).sum(-1)
        cosine = (best.cosines * weight).sum(-1)
        codes = (weight[..., None, :] @ best.codes)[..., 0, :]  # [M, P, d + 1]
        calibration = self.engine.calibration
        distractors = self.engine.encode_text(calibration.distractors)  # [F, D]
        rivals = codes @ self._extended.transpose(0, 2, 1) @ distractors.numpy().T  # [M, P, F]
        competing = texts.prompts @ distractors.T < calibration.synonym
        rival = np.where(competing.numpy(), rivals, -np.inf).max(axis=-1, initial=-np.inf)
        mean = (directions @ self._mean[..., None])[..., 0]
        square = ((directions @ self._second) * directions).sum(-1)
        deviation = np.sqrt((square - mean**2).clip(1e-12))
        return Evidence(
            peak=peak.reshape(-1),
            cosine=cosine.reshape(-1),
            margin=np.where(np.isfinite(rival), cosine - rival, 0.0).reshape(-1),
            zscore=((cosine - mean) / deviation).reshape(-1),
            strongest=best.rows.reshape(-1, PEAK_GAUSSIANS),
        )

    def _presence(self, prompts: Sequence[str], texts: TextFeatures, evidence: Evidence) -> np.ndarray:
        """Probability [M, P] that each prompt's thing is in each map, as `engine.answer_query` decides."""
        count, bank, ranks = len(self.parts), self.engine.bank, None
        if bank is not None:
            rivals = bank.names().rivals(prompts, texts.prompts)
            directions = torch.from_numpy(texts.prompts.numpy() @ self._extended).transpose(1, 2)
            described = enumerate(self._described_cells())
            ranks = np.concatenate([bank_evidence(cells, directions[m], rivals) for m, cells in described])
        everywhere = list(prompts) * count
        presence, _ = decide_presence(everywhere, evidence.table, ranks, bank, self.engine.calibration)
        return presence.reshape(count, -1)

    def _described_cells(self) -> list[MapCells]:
        """The regions as cells of the name bank, see `bank_presence`; they take seconds at first."""
        if self._cells is None:
            assert self.engine.bank is not None, "the calibration decides alone"
            bank = self.engine.bank.names()
            self._cells = []
            for part in self.parts:
                codes = torch.from_numpy(part.regions.codes)
                names = torch.from_numpy(bank.texts.numpy() @ part.extended).T
                if len(part.measures) == len(bank.names):
                    self._cells.append(MapCells(codes, names, torch.from_numpy(part.measures)))
                else:  # the index is that of a calibrated encoder, or of another bank
                    self._cells.append(describe_cells(codes, names, bank.among))
        return self._cells
