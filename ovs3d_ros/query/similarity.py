"""Scores every Gaussian against prompts in one pass over the codes, and finds where each prompt fits best.

The CPU reads a million packed codes in a few milliseconds, but each intermediate tensor of that size costs as
much as the arithmetic. One kernel therefore processes the codes in blocks that stay in the cache.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ovs3d_ros.packed_codes import PackedCodes
from ovs3d_ros.query.relevancy import relevancy
from ovs3d_ros.rasterize.kernel_cache import cached_njit
from ovs3d_ros.rasterize.simd import set_products
from ovs3d_ros.rasterize.thread_pool import shared_pool

_BLOCK = 64  # Gaussians
_TEXTS, _ROWS = (0,) * 16, (0,) * 4  # `set_products` multiplies 16 texts with 4 codes
_FAST = {"contract", "reassoc", "nnan", "nsz"}  # lets the compiler vectorise sums and maxima
_UNKNOWN = np.float32(-1e30)  # logit of relevancy 0
_GAUSSIANS_PER_THREAD = 10_000  # at least; fewer take less time than waking a thread


@dataclass(frozen=True, slots=True)
class GaussianScores:
    """How well P prompts fit N Gaussians.

    Attributes:
        known: [N] bool, Gaussians that are eligible and have a code; on the device of the codes.
        scores: [N, P] relevancy 0..1, on the same device; 0 for all others.
        strongest: [P, K] Gaussians that fit each prompt best, best first.
        cosines: [P, K] float64 cosine of these Gaussians with the prompt.
        mean: [P] mean cosine of the known Gaussians.
        deviation: [P] standard deviation of that cosine.
    """

    known: torch.Tensor
    scores: torch.Tensor
    strongest: np.ndarray
    cosines: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray


def score_gaussians(
    codes: PackedCodes,
    eligible: torch.Tensor,
    prompts: torch.Tensor,
    negatives: torch.Tensor,
    temperature: float,
    strongest: int,
) -> GaussianScores:
    """Scores every Gaussian against prompts.

    Args:
        codes: [N].
        eligible: [N] bool, the Gaussians that take part.
        prompts: [d + 1, P] directions, see `FeatureCodec.directions`.
        negatives: [d + 1, M] directions of the names the prompts compete against, M > 0.
        temperature: factor on cosines, see `relevancy`.
        strongest: number of Gaussians to list; fewer where fewer are known.
    """
    score = score_with_numba if codes.device.type == "cpu" else score_with_torch
    return score(codes, eligible, prompts, negatives, temperature, strongest)


def score_with_torch(
    codes: PackedCodes,
    eligible: torch.Tensor,
    prompts: torch.Tensor,
    negatives: torch.Tensor,
    temperature: float,
    strongest: int,
) -> GaussianScores:
    """`score_gaussians` on any device, in tensor operations."""
    # One row per text: with a million Gaussians, row operations are several times as fast as column ones.
    cosines = torch.cat([prompts, negatives], dim=1).T.contiguous() @ codes.unpack().T  # [P + M, N]
    positive, negative = cosines[: prompts.shape[1]], cosines[prompts.shape[1] :]
    known = eligible & codes.known
    scores = relevancy(positive.T, negative.T, temperature).mul_(known[:, None])
    count = int(known.sum())
    best = torch.where(known, positive, -torch.inf).topk(min(count, strongest))
    counted = torch.where(known, positive, 0.0)
    sums, squares = counted.sum(1).double(), counted.square().sum(1).double()
    return GaussianScores(
        known,
        scores,
        best.indices.cpu().numpy(),
        best.values.double().cpu().numpy(),
        *_moments(sums.cpu().numpy(), squares.cpu().numpy(), count),
    )


def score_with_numba(
    codes: PackedCodes,
    eligible: torch.Tensor,
    prompts: torch.Tensor,
    negatives: torch.Tensor,
    temperature: float,
    strongest: int,
) -> GaussianScores:
    """`score_gaussians` on the CPU, block by block, on as many threads as torch has."""
    count, threads = prompts.shape[1], torch.get_num_threads()
    known, scores = eligible & codes.known, torch.empty(count, len(codes))
    texts = _groups(codes.fold(torch.cat([prompts, negatives], dim=1)).numpy())
    arrays = (
        (np.ascontiguousarray(codes.values.numpy()), codes.scales.float().numpy()),
        known.numpy(),
        (np.ascontiguousarray(texts[:, :-1]), texts[:, -1].ravel()),
    )
    sizes = np.float32(temperature), count + negatives.shape[1]

    def score_part(part: int, parts: int) -> tuple[np.ndarray, ...]:
        start, stop = (len(codes) * i // parts for i in (part, part + 1))
        return _score_range(*arrays, *sizes, start, stop, strongest, scores.numpy())

    if len(codes) < threads * _GAUSSIANS_PER_THREAD:
        threads, parts = 1, [score_part(0, 1)]
    else:
        parts = shared_pool(threads).run(score_part)
    values, rows, sums, squares = map(
        np.concatenate, zip(*((v[None], r[None], s, q) for v, r, s, q in parts), strict=True)
    )
    total = int(known.sum())
    values, rows = (np.moveaxis(a, 0, 1).reshape(count, -1) for a in (values, rows))  # [P, threads K]
    order = np.lexsort((rows, -values))[:, : min(total, strongest)]
    return GaussianScores(
        known,
        scores.sigmoid_().T,
        np.take_along_axis(rows, order, 1),
        np.take_along_axis(values, order, 1).astype(float),
        *_moments(sums.reshape(threads, count).sum(0), squares.reshape(threads, count).sum(0), total),
    )


def _groups(texts: np.ndarray) -> np.ndarray:
    """Directions [d + 1, T] in the order of multiplication: [groups, d + 1, 16], padded with zeros."""
    padded = np.pad(texts, ((0, 0), (0, -texts.shape[1] % len(_TEXTS))))
    return np.ascontiguousarray(padded.reshape(len(texts), -1, len(_TEXTS)).transpose(1, 0, 2), np.float32)


def _moments(sums: np.ndarray, squares: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of `count` numbers from their sums and sums of squares."""
    mean = sums / max(count, 1)
    return mean, np.sqrt((squares / max(count, 1) - mean**2).clip(1e-12))


@cached_njit(nogil=True, fastmath=_FAST)
def _score_range(codes, known, texts, temperature, count, start, stop, strongest, logits):
    """Fills logits [P, N] of Gaussians `start` to `stop`.

    With codes (values [N, d], scales [N]) and texts (in groups, offsets), a cosine is
    scale * (values . text + offset). The first P of `count` texts are prompts, the others negatives.
    Returns the best cosines and their rows [P, K], and sums and sums of squares of all cosines [P].
    """
    (values, scales), (groups, offsets), prompts = codes, texts, len(logits)
    rival, counted = np.empty((2, _BLOCK), np.float32)
    products = np.zeros((_BLOCK, len(_TEXTS)), np.float32)
    cosines = np.zeros((len(offsets), _BLOCK), np.float32)  # finite also where the last block does not reach
    block = np.zeros((_BLOCK, values.shape[1]), np.float32)
    best, rows = np.full((prompts, strongest), _UNKNOWN), np.zeros((prompts, strongest), np.int64)
    weakest = np.zeros(prompts, np.int64)  # index of the smallest value in `best`
    sums, squares = np.zeros(prompts), np.zeros(prompts)
    for first in range(start, stop, _BLOCK):
        size = min(_BLOCK, stop - first)
        for j in range(size):
            for k in range(values.shape[1]):
                block[j, k] = values[first + j, k]
        _cosines(block, scales[first : first + size], groups, offsets, products, cosines)
        _strongest_negative(known[first : first + size], cosines[prompts:count], rival, counted)
        for p in range(prompts):
            row, out, least = cosines[p], logits[p, first : first + size], best[p, weakest[p]]
            for j in range(size):
                out[j] = temperature * (row[j] - rival[j])
            total, square, better = np.float32(0), np.float32(0), 0
            for j in range(_BLOCK):
                cosine = row[j] * counted[j]
                total += cosine
                square += cosine * cosine
                better += row[j] > least
            sums[p] += total
            squares[p] += square
            if better:
                for j in range(size):
                    if row[j] > best[p, weakest[p]] and known[first + j]:
                        best[p, weakest[p]], rows[p, weakest[p]] = row[j], first + j
                        weakest[p] = best[p].argmin()
    return best, rows, sums, squares


@cached_njit(nogil=True, fastmath=_FAST)
def _cosines(block, scales, texts, offsets, products, cosines):
    """Fills cosines [T, 64] of texts with a block of codes; columns past the scales are undefined."""
    dims, lanes = block.shape[1], len(_TEXTS)
    for g in range(len(texts)):
        for j in range(0, _BLOCK, len(_ROWS)):
            set_products(products, j * lanes, block, j * dims, texts[g], dims, _TEXTS, _ROWS)
        for j in range(len(scales)):
            for t in range(lanes):
                cosines[g * lanes + t, j] = scales[j] * (products[j, t] + offsets[g * lanes + t])


@cached_njit(nogil=True, fastmath=_FAST)
def _strongest_negative(known, cosines, rival, counted):
    """Fills the largest of cosines [M, 64] and 1 per known Gaussian, `-_UNKNOWN` and 0 for others."""
    rival[:], counted[:] = cosines[0], 0
    for t in range(1, len(cosines)):
        for j in range(_BLOCK):
            rival[j] = max(rival[j], cosines[t, j])
    for j in range(len(known)):
        counted[j] = known[j]
        rival[j] = rival[j] if known[j] else -_UNKNOWN
