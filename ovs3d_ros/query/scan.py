"""Kernels that score packed codes against texts, block by block: a block stays in the cache.

Codes are values [N, d] int8 and scales [N]; texts are those of `products.round_texts`; known [N] is bool. The
first P of the texts are prompts, the others are the negatives that they compete against. The logit of a
prompt's relevancy is slope * cosine - offset - temperature * (largest cosine of a negative).
"""

from __future__ import annotations

import numpy as np

from ovs3d_ros.query.products import LANES, set_products
from ovs3d_ros.rasterize.kernel_cache import cached_njit

UNKNOWN = np.float32(-1e30)  # logit of relevancy 0
_BLOCK = 64  # Gaussians
_FAST = {"contract", "reassoc", "nnan", "nsz"}  # lets the compiler vectorise sums and maxima


@cached_njit(nogil=True, fastmath=_FAST)
def scan_part(part, codes, known, texts, rule, strongest, logits, columns):
    """Scores one part of the Gaussians against all prompts.

    Args:
        part: number of the part, and of parts.
        codes, known, texts: see the module.
        rule: slopes [P], offsets [P], the temperature, and how many texts there are.
        strongest: K.
        logits, columns: [N] filled with the best prompt's logit, and which prompt that is.

    Returns:
        The best cosines and their rows [P, K], and sums and sums of squares of all cosines [P].
    """
    (slopes, offsets, temperature, count), scales = rule, codes[1]
    cosines, block, rival, counted = _buffers(codes, texts)
    prompts = len(slopes)
    best, rows = np.full((prompts, strongest), UNKNOWN), np.zeros((prompts, strongest), np.int64)
    sums, squares = np.zeros(prompts), np.zeros(prompts)
    most, which = np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.int32)
    start, stop = len(scales) * part[0] // part[1], len(scales) * (part[0] + 1) // part[1]
    for first in range(start, stop, _BLOCK):
        size = min(_BLOCK, stop - first)
        _cosines(first, size, codes, texts, block, cosines)
        _set_rivals(known, first, size, temperature, cosines, prompts, count, rival, counted)
        most[:], which[:] = UNKNOWN, 0
        for p in range(prompts):
            row, least, slope, offset = (
                cosines[p],
                best[p, 0],
                slopes[p],
                offsets[p],
            )  # of a heap, the smallest
            total, square, better = np.float32(0), np.float32(0), 0
            for j in range(_BLOCK):
                cosine = row[j] * counted[j]
                total += cosine
                square += cosine * cosine
                better += row[j] > least
            for j in range(_BLOCK):
                logit = slope * row[j] - offset
                which[j] = p if logit > most[j] else which[j]
                most[j] = max(logit, most[j])
            sums[p] += total
            squares[p] += square
            if better:
                for j in range(size):
                    if row[j] > best[p, 0] and known[first + j]:
                        _replace_smallest(best[p], rows[p], row[j], first + j)
        for j in range(size):
            logits[first + j] = most[j] - rival[j]
            columns[first + j] = which[j]
    return best, rows, sums, squares


@cached_njit(nogil=True)
def _replace_smallest(heap, rows, value, row):
    """Puts a value and its row in the place of the smallest, which is the first of a binary heap."""
    place = 0
    while True:
        child = 2 * place + 1
        if child >= len(heap):
            break
        if child + 1 < len(heap) and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= value:
            break
        heap[place], rows[place] = heap[child], rows[child]
        place = child
    heap[place], rows[place] = value, row


@cached_njit(nogil=True, fastmath=_FAST)
def fill_logits(part, codes, known, texts, rule, logits):
    """Fills the logits [P, N] of one part of the Gaussians."""
    (slopes, offsets, temperature, count), scales = rule, codes[1]
    cosines, block, rival, counted = _buffers(codes, texts)
    start, stop = len(scales) * part[0] // part[1], len(scales) * (part[0] + 1) // part[1]
    for first in range(start, stop, _BLOCK):
        size = min(_BLOCK, stop - first)
        _cosines(first, size, codes, texts, block, cosines)
        _set_rivals(known, first, size, temperature, cosines, len(slopes), count, rival, counted)
        for p in range(len(slopes)):
            row, out = cosines[p], logits[p, first : first + size]
            for j in range(size):
                out[j] = slopes[p] * row[j] - offsets[p] - rival[j]


@cached_njit(nogil=True, fastmath=_FAST)
def label_part(part, codes, known, texts, rule, prompts, threshold, best, filled):
    """Labels one part of the Gaussians with the best found prompt, if its relevancy reaches the threshold.

    Where the best of all prompts is not found, the found ones, which are the prompts of `texts` and `rule`,
    are compared again.

    Args:
        part, codes, known: as of `scan_part`.
        texts, rule: of the found prompts and the negatives.
        prompts: [P] label of each prompt of the scan, 0: not found; and [F] label of each found one.
        threshold: relevancy from which a label is given.
        best: [N] relevancy of the best prompt, and which that is.
        filled: [N] relevancy of the label, or of the best prompt where there is none; the label, 0 = none.
    """
    (slopes, offsets, temperature, count), scales = rule, codes[1]
    cosines, block, rival, counted = _buffers(codes, texts)
    (label_of, found), (highest, columns), (scores, labels) = prompts, best, filled
    start, stop = len(scales) * part[0] // part[1], len(scales) * (part[0] + 1) // part[1]
    for first in range(start, stop, _BLOCK):
        size = min(_BLOCK, stop - first)
        again = False
        for i in range(first, first + size):
            scores[i], labels[i] = highest[i], 0
            if highest[i] >= threshold and known[i] and len(found):
                labels[i] = label_of[columns[i]]
                if labels[i] == 0:
                    labels[i], again = -1, True
        if again:
            _cosines(first, size, codes, texts, block, cosines)
            _set_rivals(known, first, size, temperature, cosines, len(slopes), count, rival, counted)
        for i in range(first, first + size):
            if labels[i] < 0:
                labels[i] = 0
                most, which = UNKNOWN, 0
                for p in range(len(found)):
                    logit = slopes[p] * cosines[p, i - first] - offsets[p]
                    if logit > most:
                        most, which = logit, p
                score = np.float32(1) / (np.float32(1) + np.exp(rival[i - first] - most))
                if score >= threshold:
                    labels[i], scores[i] = found[which], score


@cached_njit(nogil=True)
def _buffers(codes, texts):
    """Memory for a block: cosines [T, 64], its codes in 16 bits, the strongest negative, and what counts."""
    (groups, _, _), dims = texts, codes[0].shape[1]
    cosines = np.zeros((len(groups) * LANES, _BLOCK), np.float32)
    return (
        cosines,
        np.zeros(_BLOCK * dims + 1, np.int16),
        np.zeros(_BLOCK, np.float32),
        np.zeros(_BLOCK, np.float32),
    )


@cached_njit(nogil=True, fastmath=_FAST)
def _cosines(first, size, codes, texts, block, cosines):
    """Fills cosines [T, 64] of texts with the codes from `first` on; those past `size` are arbitrary."""
    (values, scales), (groups, factors, offsets) = codes, texts
    dims = values.shape[1]
    flat = values[first : first + size].reshape(-1)
    for k in range(len(flat)):
        block[k] = flat[k]
    for g in range(len(groups)):
        target, text = cosines[g * LANES : (g + 1) * LANES].reshape(-1), groups[g]
        for j in range(0, size, LANES):
            set_products(target, j, _BLOCK, block, j * dims, dims, text, len(text) // (2 * LANES))
    own = scales[first : first + size]
    for t in range(len(cosines)):
        row, factor, offset = cosines[t], factors[t], offsets[t]
        for j in range(size):
            row[j] = own[j] * (factor * row[j] + offset)


@cached_njit(nogil=True, fastmath=_FAST)
def _set_rivals(known, first, size, temperature, cosines, prompts, count, rival, counted):
    """Fills what negatives take from each logit, and 1 per known Gaussian; -UNKNOWN and 0 for others."""
    for j in range(_BLOCK):  # assigning the row takes Numba two seconds to compile
        rival[j], counted[j] = cosines[prompts, j], 0
    for t in range(prompts + 1, count):
        for j in range(_BLOCK):
            rival[j] = max(rival[j], cosines[t, j])
    for j in range(size):
        counted[j] = known[first + j]
        rival[j] = temperature * rival[j] if known[first + j] else -UNKNOWN
