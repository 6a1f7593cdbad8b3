"""One pass over the codes of a map: how well prompts fit each Gaussian, and where they fit best.

A million codes are read in a few milliseconds, but every tensor of their size that is made on the way costs as much as
the arithmetic. On a CPU one kernel therefore goes through the codes in blocks that stay in the cache.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numba import njit

from ovs3d_ros.query.relevancy import relevancy
from ovs3d_ros.rasterize.simd import set_products

_BLOCK = 64  # Gaussians
_TEXTS, _ROWS, _ONE = (0,) * 16, (0,) * 4, (0,)  # texts multiplied together, and codes
_FAST = {"contract", "reassoc", "nnan", "nsz"}  # what sums and largest values need to be vectorised
_UNKNOWN = np.float32(-1e30)  # relevancy 0, as a logit
_SHARE = 20_000  # Gaussians that are worth a thread


@dataclass(frozen=True, slots=True)
class Scan:
    """What P prompts find among N Gaussians.

    Attributes:
        known: [N] bool on the device of the codes: which count, and have a code.
        scores: [N, P] relevancy 0..1 likewise; 0 where nothing is known.
        strongest: [P, K] Gaussians that fit each prompt best, best first.
        cosines: [P, K] with the prompt, float64.
        mean: [P] cosine of the known Gaussians.
        deviation: [P] its standard deviation.
    """

    known: torch.Tensor
    scores: torch.Tensor
    strongest: np.ndarray
    cosines: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray


def scan(
    codes: torch.Tensor,
    counts: torch.Tensor,
    prompts: torch.Tensor,
    rivals: torch.Tensor,
    temperature: float,
    strongest: int,
) -> Scan:
    """Scores every Gaussian against prompts.

    Args:
        codes: [N, d + 1] unit codes; those that end in 0 are of Gaussians nothing is known of.
        counts: [N] bool, the Gaussians that may count.
        prompts: [d + 1, P] directions, see `FeatureCodec.directions`.
        rivals: [d + 1, M] directions of what prompts compete against, M > 0.
        temperature: factor on cosines, see `relevancy`.
        strongest: how many Gaussians to list; fewer where fewer are known.
    """
    run = scan_blocks if codes.device.type == "cpu" else scan_tensors
    return run(codes, counts, prompts, rivals, temperature, strongest)


def scan_tensors(
    codes: torch.Tensor,
    counts: torch.Tensor,
    prompts: torch.Tensor,
    rivals: torch.Tensor,
    temperature: float,
    strongest: int,
) -> Scan:
    """`scan` on any device, one operation after the other."""
    # One row per text: all that follows runs along rows, several times as fast as across them with a million Gaussians.
    cosines = torch.cat([prompts, rivals], dim=1).T.contiguous() @ codes.T  # [P + M, N]
    positive, negative = cosines[: prompts.shape[1]], cosines[prompts.shape[1] :]
    known = counts & (codes[:, -1] != 0)
    scores = relevancy(positive.T, negative.T, temperature).mul_(known[:, None])
    count = int(known.sum())
    best = torch.where(known, positive, -torch.inf).topk(min(count, strongest))
    counted = torch.where(known, positive, 0.0)
    sums, squares = counted.sum(1).double(), counted.square().sum(1).double()
    return Scan(
        known,
        scores,
        best.indices.cpu().numpy(),
        best.values.double().cpu().numpy(),
        *_moments(sums.cpu().numpy(), squares.cpu().numpy(), count),
    )


def scan_blocks(
    codes: torch.Tensor,
    counts: torch.Tensor,
    prompts: torch.Tensor,
    rivals: torch.Tensor,
    temperature: float,
    strongest: int,
) -> Scan:
    """`scan` on the CPU, block by block, on as many threads as torch has and the map is worth."""
    count, threads = prompts.shape[1], max(1, min(torch.get_num_threads(), len(codes) // _SHARE))
    known, scores = counts.clone(), torch.empty(count, len(codes))
    bounds = np.linspace(0, len(codes), threads + 1).astype(np.int64)
    arrays = (
        np.ascontiguousarray(codes.numpy()),
        known.numpy(),
        _groups(torch.cat([prompts, rivals], dim=1).numpy()),
    )
    sizes = np.float32(temperature), count + rivals.shape[1]
    with ThreadPoolExecutor(threads) as pool:
        parts = list(
            pool.map(
                lambda start, stop: _scan(*arrays, *sizes, start, stop, strongest, scores.numpy()),
                bounds[:-1],
                bounds[1:],
            )
        )
    values, rows, sums, squares = map(
        np.concatenate, zip(*((v[None], r[None], s, q) for v, r, s, q in parts), strict=True)
    )
    total = int(known.sum())
    values, rows = (np.moveaxis(a, 0, 1).reshape(count, -1) for a in (values, rows))  # [P, threads K]
    order = np.lexsort((rows, -values))[:, : min(total, strongest)]
    return Scan(
        known,
        scores.sigmoid_().T,
        np.take_along_axis(rows, order, 1),
        np.take_along_axis(values, order, 1).astype(float),
        *_moments(sums.reshape(threads, count).sum(0), squares.reshape(threads, count).sum(0), total),
    )


def _groups(texts: np.ndarray) -> np.ndarray:
    """Directions [d + 1, T] as they are multiplied: [groups, d + 1, 16], the last group filled up with zeros."""
    padded = np.pad(texts, ((0, 0), (0, -texts.shape[1] % len(_TEXTS))))
    return np.ascontiguousarray(padded.reshape(len(texts), -1, len(_TEXTS)).transpose(1, 0, 2), np.float32)


def _moments(sums: np.ndarray, squares: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of `count` numbers by their sums and those of their squares."""
    mean = sums / max(count, 1)
    return mean, np.sqrt((squares / max(count, 1) - mean**2).clip(1e-12))


@njit(cache=True, nogil=True, fastmath=_FAST)
def _scan(codes, known, texts, temperature, count, start, stop, strongest, logits):
    """Fills logits [P, N] of Gaussians start to stop and clears `known` [N] where there is no code; `count` texts are prompts,
    then rivals. Returns the best cosines and their rows [P, K], sums and sums of squares [P]."""
    prompts = len(logits)
    rival, counted = np.empty((2, _BLOCK), np.float32)
    products, cosines = (
        np.zeros((_BLOCK, len(_TEXTS)), np.float32),
        np.empty((len(texts) * len(_TEXTS), _BLOCK), np.float32),
    )
    best, rows = np.full((prompts, strongest), _UNKNOWN), np.zeros((prompts, strongest), np.int64)
    weakest = np.zeros(prompts, np.int64)  # place of the smallest in `best`
    sums, squares = np.zeros(prompts), np.zeros(prompts)
    for first in range(start, stop, _BLOCK):
        size = min(_BLOCK, stop - first)
        _cosines(codes, first, size, texts, products, cosines)
        _rivals(codes, known, first, size, cosines[prompts:count], rival, counted)
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


@njit(cache=True, nogil=True, fastmath=_FAST)
def _cosines(codes, first, size, texts, products, cosines):
    """Cosines [T, 64] of the codes from `first` on with the texts; those past `size` are of other codes."""
    dims, lanes = codes.shape[1], len(_TEXTS)
    for g in range(len(texts)):
        full = size - size % len(_ROWS)
        for j in range(0, full, len(_ROWS)):
            set_products(products, j * lanes, codes, (first + j) * dims, texts[g], dims, _TEXTS, _ROWS)
        for j in range(full, size):
            set_products(products, j * lanes, codes, (first + j) * dims, texts[g], dims, _TEXTS, _ONE)
        for j in range(_BLOCK):
            for t in range(lanes):
                cosines[g * lanes + t, j] = products[j, t]


@njit(cache=True, nogil=True, fastmath=_FAST)
def _rivals(codes, known, first, size, cosines, rival, counted):
    """The strongest of cosines [M, 64] and 1 for each Gaussian from `first` on that is known; -`_UNKNOWN` and 0 for others."""
    rival[:], counted[:] = cosines[0], 0
    for t in range(1, len(cosines)):
        for j in range(_BLOCK):
            rival[j] = max(rival[j], cosines[t, j])
    for j in range(size):
        known[first + j] &= codes[first + j, -1] != 0
        counted[j] = known[first + j]
        rival[j] = rival[j] if known[first + j] else -_UNKNOWN
