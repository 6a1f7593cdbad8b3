"""Scores every Gaussian against prompts in one pass over the codes, and finds where each prompt fits best.

The CPU reads a million packed codes in a few milliseconds, but each intermediate tensor of that size costs as
much as the arithmetic. Kernels therefore process the codes in blocks that stay in the cache, and keep of each
Gaussian the best prompt alone; the table of all prompts is made only if somebody wants it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from ovs3d_ros.packed_codes import PackedCodes
from ovs3d_ros.query.labelling import best_found, label_scores
from ovs3d_ros.query.products import round_texts
from ovs3d_ros.query.scan import fill_logits, label_part, scan_part
from ovs3d_ros.rasterize.thread_pool import ThreadPool, shared_pool

_GAUSSIANS_PER_THREAD = 10_000  # at least; fewer take less time than waking a thread
# Torch divides operations on 2^15 numbers and more between its threads, which wait for each other in a busy
# loop: beside the mapping thread that takes several times as long as the operation.
_SLICE = 2**14


@dataclass(frozen=True, slots=True)
class Competition:
    """How the cosines of P prompts become relevancy: the sigmoid of slope * cosine - offset - rival.

    The rival is temperature times the largest cosine of a negative. With LERF's relevancy the slopes are the
    temperature and the offsets 0.

    Attributes:
        prompts: [d + 1, P] directions, see `FeatureCodec.directions`.
        negatives: [d + 1, M] directions, M > 0.
        slopes: [P].
        offsets: [P].
        temperature: factor on the cosines of negatives.
    """

    prompts: torch.Tensor
    negatives: torch.Tensor
    slopes: torch.Tensor
    offsets: torch.Tensor
    temperature: float

    def logits(self, codes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and logits of relevancy [P, N] of codes [N, d + 1]."""
        # One row per text: with a million Gaussians, row operations are several times as fast as column ones.
        cosines = torch.cat([self.prompts, self.negatives], dim=1).T.contiguous() @ codes.T  # [P + M, N]
        own, others = cosines[: self.prompts.shape[1]], cosines[self.prompts.shape[1] :]
        return own, own * self.slopes[:, None] - self.offsets[:, None] - self.temperature * others.amax(0)

    def peaks(self, codes: np.ndarray, cosines: np.ndarray) -> np.ndarray:
        """Relevancy [P, K] of each prompt at K codes of its own [P, K, d + 1], with these cosines [P, K]."""
        negatives = np.ascontiguousarray(self.negatives.numpy().T)
        rivals = self.temperature * np.einsum("pkd,md->pkm", codes, negatives).max(-1)
        logits = cosines * self.slopes.numpy()[:, None] - self.offsets.numpy()[:, None] - rivals
        return 1 / (1 + np.exp(-logits.astype(float)))

    def chosen(self, found: np.ndarray) -> Competition:
        """The competition of the found [P] ones among the prompts."""
        mask = torch.from_numpy(found).to(self.slopes.device)
        return Competition(
            self.prompts[:, mask], self.negatives, self.slopes[mask], self.offsets[mask], self.temperature
        )


def lerf_competition(prompts: torch.Tensor, negatives: torch.Tensor, temperature: float) -> Competition:
    """LERF's relevancy of prompts [d + 1, P] against negatives [d + 1, M], see `relevancy.relevancy`."""
    slopes = torch.full((prompts.shape[1],), float(temperature), device=prompts.device)
    return Competition(prompts, negatives, slopes, torch.zeros_like(slopes), temperature)


class Scores(Protocol):
    """Relevancy of P prompts at N Gaussians."""

    @property
    def known(self) -> torch.Tensor:
        """[N] bool, Gaussians that are eligible and have a code; on the device of the codes."""
        ...

    def relevancy(self) -> torch.Tensor:
        """[N, P] 0..1; 0 for Gaussians that are not known."""
        ...

    def label(self, found: np.ndarray, threshold: float) -> tuple[torch.Tensor, torch.Tensor]:
        """The best found prompt of each Gaussian, if its relevancy reaches the threshold.

        Args:
            found: [P] bool.
            threshold: relevancy from which a label is given.

        Returns:
            Labels [N], 0 = none, else 1 + prompt index; relevancy [N] of the label, or of the best prompt
            where there is none.
        """
        ...


@dataclass(frozen=True, slots=True)
class GaussianScores:
    """How well P prompts fit N Gaussians.

    Attributes:
        strongest: [P, K] Gaussians that fit each prompt best, best first.
        cosines: [P, K] float64 cosine of these Gaussians with the prompt.
        peaks: [P, K] float64 relevancy of the prompt at these Gaussians.
        mean: [P] mean cosine of the known Gaussians.
        deviation: [P] standard deviation of that cosine.
        all: the scores of all Gaussians.
    """

    strongest: np.ndarray
    cosines: np.ndarray
    peaks: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray
    all: Scores


def score_gaussians(
    codes: PackedCodes, eligible: torch.Tensor, competition: Competition, strongest: int
) -> GaussianScores:
    """Scores every Gaussian against prompts.

    Args:
        codes: [N].
        eligible: [N] bool, the Gaussians that take part.
        competition: the prompts, and what they compete against.
        strongest: number of Gaussians to list; fewer where fewer are known.
    """
    score = score_with_numba if codes.device.type == "cpu" else score_with_torch
    return score(codes, eligible, competition, strongest)


def at_least(numbers: torch.Tensor, least: float) -> torch.Tensor:
    """Which numbers [N] reach a limit, bool [N]; on the CPU without torch's threads, see `_SLICE`."""
    if numbers.device.type != "cpu":
        return numbers >= least
    return torch.from_numpy(numbers.numpy() >= np.float32(least))


def score_with_torch(
    codes: PackedCodes, eligible: torch.Tensor, competition: Competition, strongest: int
) -> GaussianScores:
    """`score_gaussians` on any device, in tensor operations."""
    positive, logits = competition.logits(codes.unpack())
    known = eligible & codes.known
    scores = logits.sigmoid_().mul_(known)
    count = int(known.sum())
    best = torch.where(known, positive, -torch.inf).topk(min(count, strongest))
    counted = torch.where(known, positive, 0.0)
    sums, squares = counted.sum(1).double(), counted.square().sum(1).double()
    return GaussianScores(
        best.indices.cpu().numpy(),
        best.values.double().cpu().numpy(),
        scores.gather(1, best.indices).double().cpu().numpy(),
        *_moments(sums.cpu().numpy(), squares.cpu().numpy(), count),
        TensorScores(scores.T, known),
    )


@dataclass(frozen=True, slots=True)
class TensorScores:
    """Scores that are at hand: a table [N, P], and which Gaussians are known [N]."""

    table: torch.Tensor
    known: torch.Tensor

    def relevancy(self) -> torch.Tensor:
        """See `Scores`."""
        return self.table

    def label(self, found: np.ndarray, threshold: float) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Scores`."""
        labels = best_found(self.table, found, threshold)
        return labels, label_scores(labels, self.table)


def score_with_numba(
    codes: PackedCodes, eligible: torch.Tensor, competition: Competition, strongest: int
) -> GaussianScores:
    """`score_gaussians` on the CPU, block by block, on as many threads as torch has."""
    count, scales = competition.prompts.shape[1], torch.empty(len(codes))
    for out, half in zip(scales.split(_SLICE), codes.scales.split(_SLICE), strict=True):
        out.copy_(half)
    known = torch.from_numpy(eligible.numpy() & (scales.numpy() != 0))
    scores, columns = torch.empty(len(codes)), torch.empty(len(codes), dtype=torch.int16)
    scan = PackedScores(codes, scales, known, competition, scores, columns)
    parts = scan.run(competition, scan_part, strongest, scores.numpy(), columns.numpy())
    for part in scores.split(_SLICE):
        part.sigmoid_()
    values, rows, sums, squares = map(np.stack, zip(*parts, strict=True))
    total = int(np.count_nonzero(known.numpy()))
    values, rows = (np.moveaxis(a, 0, 1).reshape(count, -1) for a in (values, rows))  # [P, threads K]
    best = choose_strongest(values, rows, min(total, strongest))
    return join_scores(codes, competition, best, (sums.sum(0), squares.sum(0), total), scan)


def choose_strongest(values: np.ndarray, rows: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The `count` largest of values [P, M] of Gaussians [P, M], largest first; and these Gaussians."""
    if 2 * count < values.shape[1]:  # sorting all of them takes ten times as long
        chosen = np.argpartition(-values, count, axis=1)[:, :count]
        values, rows = (np.take_along_axis(a, chosen, 1) for a in (values, rows))
    order = np.lexsort((rows, -values))[:, :count]
    return np.take_along_axis(values, order, 1), np.take_along_axis(rows, order, 1)


def join_scores(
    codes: PackedCodes,
    competition: Competition,
    best: tuple[np.ndarray, np.ndarray],
    moments: tuple[np.ndarray, np.ndarray, int],
    scores: Scores,
) -> GaussianScores:
    """What the parts of a scan make together.

    Args:
        codes: [N].
        competition: the prompts, and what they compete against.
        best: cosines [P, K] of the strongest Gaussians, and these Gaussians [P, K].
        moments: sums [P] of the cosines of all known Gaussians, sums of their squares [P], and their number.
        scores: of all Gaussians.
    """
    cosines, rows = best
    peaks = competition.peaks(codes.unpack_rows(rows), cosines)
    return GaussianScores(rows, cosines.astype(float), peaks, *_moments(*moments), scores)


@dataclass(frozen=True, slots=True)
class PackedScores:
    """Scores of packed codes on the CPU, see `Scores`.

    Attributes:
        codes: [N].
        scales: [N] those of the codes in single precision.
        known: [N] bool.
        competition: the prompts, and what they compete against.
        scores: [N] relevancy of the best prompt.
        columns: [N] int16, which prompt that is.
    """

    codes: PackedCodes
    scales: torch.Tensor
    known: torch.Tensor
    competition: Competition
    scores: torch.Tensor
    columns: torch.Tensor

    def relevancy(self) -> torch.Tensor:
        """See `Scores`."""
        logits = torch.empty(self.competition.prompts.shape[1], len(self.codes))
        self.run(self.competition, fill_logits, logits.numpy())
        return logits.sigmoid_().T

    def label(self, found: np.ndarray, threshold: float) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Scores`."""
        numbers = np.flatnonzero(found).astype(np.int16) + np.int16(1)
        label_of = np.zeros(len(found), np.int16)
        label_of[found] = numbers
        labels, scores = torch.empty_like(self.columns), torch.empty_like(self.scores)
        best, filled = (a.numpy() for a in (self.scores, self.columns)), (scores.numpy(), labels.numpy())
        rules = (label_of, numbers), np.float32(threshold), tuple(best), filled
        self.run(self.competition.chosen(found), label_part, *rules)
        return labels, scores

    def run(self, competition: Competition, kernel: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Runs a kernel of `scan` with the texts of a competition; its results, by thread."""
        pool = pool_for(len(self.codes))
        codes = np.ascontiguousarray(self.codes.values.numpy()), self.scales.numpy()
        common = codes, self.known.numpy(), *kernel_texts(self.codes, competition)
        return pool.run(lambda *part: kernel(part, *common, *arguments))


def pool_for(count: int) -> ThreadPool:
    """The threads that share the work on so many Gaussians."""
    threads = torch.get_num_threads()
    return shared_pool(threads if count >= threads * _GAUSSIANS_PER_THREAD else 1)


def kernel_texts(codes: PackedCodes, competition: Competition) -> tuple[tuple, tuple]:
    """The texts of a competition and its rule, as the kernels of `scan` take them."""
    texts = torch.cat([competition.prompts, competition.negatives], dim=1)
    rule = competition.slopes.numpy(), competition.offsets.numpy(), np.float32(competition.temperature)
    return round_texts(codes.fold(texts).numpy()), (*rule, texts.shape[1])


def _moments(sums: np.ndarray, squares: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of `count` numbers from their sums and sums of squares."""
    mean = sums / max(count, 1)
    return mean, np.sqrt((squares / max(count, 1) - mean**2).clip(1e-12))
