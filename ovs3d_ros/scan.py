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

from ovs3d_ros.query import relevancy
from ovs3d_ros.rasterize.simd import set_product

_BLOCK = 64  # Gaussians
_LANES = (0,) * _BLOCK
_UNKNOWN = np.float32(-1e30)  # relevancy 0, as a logit
_SHARE = 20_000  # Gaussians that are worth a thread


@dataclass(frozen=True, slots=True)
class Scan:
    """What P prompts find among N Gaussians.

    Attributes:
        scores: [N, P] relevancy 0..1 on the device of the codes; 0 where nothing is known.
        strongest: [P, K] Gaussians that fit each prompt best, best first.
        cosines: [P, K] with the prompt, float64.
        mean: [P] cosine of the known Gaussians.
        deviation: [P] its standard deviation.
    """

    scores: torch.Tensor
    strongest: np.ndarray
    cosines: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray


def scan(codes: torch.Tensor, known: torch.Tensor, prompts: torch.Tensor, rivals: torch.Tensor, temperature: float,
         strongest: int) -> Scan:
    """Scores every Gaussian against prompts.

    Args:
        codes: [N, d + 1] unit codes.
        known: [N] bool, the Gaussians that count.
        prompts: [d + 1, P] directions, see `FeatureCodec.directions`.
        rivals: [d + 1, M] directions of what prompts compete against, M > 0.
        temperature: factor on cosines, see `relevancy`.
        strongest: how many Gaussians to list; fewer where fewer are known.
    """
    run = scan_blocks if codes.device.type == "cpu" else scan_tensors
    return run(codes, known, prompts, rivals, temperature, strongest)


def scan_tensors(codes: torch.Tensor, known: torch.Tensor, prompts: torch.Tensor, rivals: torch.Tensor,
                 temperature: float, strongest: int) -> Scan:
    """`scan` on any device, one operation after the other."""
    # One row per text: all that follows runs along rows, several times as fast as across them with a million Gaussians.
    cosines = torch.cat([prompts, rivals], dim=1).T.contiguous() @ codes.T  # [P + M, N]
    positive, negative = cosines[: prompts.shape[1]], cosines[prompts.shape[1]:]
    scores = relevancy(positive.T, negative.T, temperature).mul_(known[:, None])
    count = int(known.sum())
    best = torch.where(known, positive, -torch.inf).topk(min(count, strongest))
    counted = torch.where(known, positive, 0.0)
    sums, squares = counted.sum(1).double(), counted.square().sum(1).double()
    return Scan(scores, best.indices.cpu().numpy(), best.values.double().cpu().numpy(),
                *_moments(sums.cpu().numpy(), squares.cpu().numpy(), count))


def scan_blocks(codes: torch.Tensor, known: torch.Tensor, prompts: torch.Tensor, rivals: torch.Tensor,
                temperature: float, strongest: int) -> Scan:
    """`scan` on the CPU, block by block, on as many threads as torch has and the map is worth."""
    count, threads = prompts.shape[1], max(1, min(torch.get_num_threads(), len(codes) // _SHARE))
    texts = torch.cat([prompts, rivals], dim=1).T.contiguous().numpy()
    scores = torch.empty(count, len(codes))
    bounds = np.linspace(0, len(codes), threads + 1).astype(np.int64)
    arrays = np.ascontiguousarray(codes.numpy()), np.ascontiguousarray(known.numpy()), texts, np.float32(temperature)
    with ThreadPoolExecutor(threads) as pool:
        parts = list(pool.map(lambda start, stop: _scan(*arrays, count, start, stop, strongest, scores.numpy()),
                              bounds[:-1], bounds[1:]))
    values, rows, sums, squares = map(np.concatenate, zip(*((v[None], r[None], s, q) for v, r, s, q in parts)))
    total = int(known.sum())
    values, rows = (np.moveaxis(a, 0, 1).reshape(count, -1) for a in (values, rows))  # [P, threads K]
    order = np.lexsort((rows, -values))[:, : min(total, strongest)]
    return Scan(scores.sigmoid_().T, np.take_along_axis(rows, order, 1),
                np.take_along_axis(values, order, 1).astype(float),
                *_moments(sums.reshape(threads, count).sum(0), squares.reshape(threads, count).sum(0), total))


def _moments(sums: np.ndarray, squares: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of `count` numbers by their sums and those of their squares."""
    mean = sums / max(count, 1)
    return mean, np.sqrt((squares / max(count, 1) - mean**2).clip(1e-12))


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc"})
def _scan(codes, known, texts, temperature, prompts, start, stop, strongest, logits):
    """Fills logits [P, N] of Gaussians start to stop; returns the best cosines and their rows [P, K], sums and sums of
    squares [P]."""
    dims = codes.shape[1]
    block, cosines = np.zeros((dims, _BLOCK), np.float32), np.empty((len(texts), _BLOCK), np.float32)
    rival = np.empty(_BLOCK, np.float32)
    best, rows = np.full((prompts, strongest), _UNKNOWN), np.zeros((prompts, strongest), np.int64)
    weakest = np.zeros(prompts, np.int64)  # place of the smallest in `best`
    sums, squares = np.zeros(prompts), np.zeros(prompts)
    for first in range(start, stop, _BLOCK):
        size = min(_BLOCK, stop - first)
        for j in range(size):
            for k in range(dims):
                block[k, j] = codes[first + j, k]
        for t in range(len(texts)):
            set_product(cosines, t * _BLOCK, texts, t * dims, block, dims, _LANES)
        rival[:] = cosines[prompts]
        for t in range(prompts + 1, len(texts)):
            for j in range(_BLOCK):
                rival[j] = max(rival[j], cosines[t, j])
        for p in range(prompts):
            total = square = np.float32(0)
            for j in range(size):
                cosine = cosines[p, j] if known[first + j] else np.float32(0)
                logits[p, first + j] = temperature * (cosine - rival[j]) if known[first + j] else _UNKNOWN
                total += cosine
                square += cosine * cosine
            sums[p] += total
            squares[p] += square
            for j in range(size):
                if cosines[p, j] > best[p, weakest[p]] and known[first + j]:
                    best[p, weakest[p]], rows[p, weakest[p]] = cosines[p, j], first + j
                    weakest[p] = best[p].argmin()
    return best, rows, sums, squares
