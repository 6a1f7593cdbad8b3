"""Products of 8-bit codes with texts in 16 bits, as LLVM vectors: sums of whole numbers, without rounding.

Processors multiply pairs of 16-bit numbers and add them in one instruction (x86: `vpmaddwd`, with VNNI
`vpdpwssd`), twice as many as numbers in single precision. The vectors are portable: LLVM recognises the
pattern where there is such an instruction, and splits the vectors where registers are narrower.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.codegen import get_host_cpu_features
from numba.extending import intrinsic

LANES = 16  # texts that are multiplied at once, and codes whose products are turned
# Codes whose sums stay in registers: a row takes one of 32 registers with AVX-512, two of 16 with AVX2.
_ROWS = 8 if "+avx512f" in get_host_cpu_features() else 4
_LARGEST_SUM = 2**31 - 1
_INT = ir.IntType(32)
_SUMS, _FLOATS = ir.VectorType(_INT, LANES), ir.VectorType(ir.FloatType(), LANES)
_PAIRS, _WIDE_PAIRS = (ir.VectorType(ir.IntType(bits), 2 * LANES) for bits in (16, 32))


def round_texts(folded: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Texts in 16 bits, ordered for `set_products`.

    Args:
        folded: [d + 1, T] directions of `PackedCodes.fold`.

    Returns:
        groups [G, pairs * 32] int16, 16 texts each; factors and offsets [16 G] float32, so that a cosine is
        scale * (factor * product + offset).
    """
    dims, count = len(folded) - 1, folded.shape[1]
    groups, pairs = -(-count // LANES), (dims + 1) // 2
    largest = min(2**15 - 1, _LARGEST_SUM // (127 * max(dims, 1)))
    padded, factors, offsets = (
        np.zeros((groups * LANES, 2 * pairs)),
        *np.zeros((2, groups * LANES), np.float32),
    )
    factors[:count] = np.abs(folded[:-1]).max(axis=0, initial=1e-30) / largest
    offsets[:count] = folded[-1]
    padded[:count, :dims] = np.rint(folded[:-1].T / factors[:count, None])
    ordered = padded.reshape(groups, LANES, pairs, 2).transpose(0, 2, 1, 3).astype(np.int16)
    return np.ascontiguousarray(ordered.reshape(groups, -1)), factors, offsets


@intrinsic
def set_products(typing_context, target, first, stride, codes, start, dims, texts, pairs):
    """Products of 16 codes with 16 texts.

    target[first + stride t + j] = sum_k codes[start + j dims + k] * text t[k], t and j from 0 to 15.

    Args:
        target: float32, contiguous.
        codes: int16, contiguous, with one element behind the last code; row j has `dims` numbers.
        texts: int16 [pairs * 32] of `round_texts`.
    """

    def generate(context, builder, signature, arguments):
        target_, first_, stride_, codes_, start_, dims_, texts_, pairs_ = arguments
        to, codes_, texts_ = (
            context.make_array(signature.args[i])(context, builder, array).data
            for i, array in ((0, target_), (3, codes_), (6, texts_))
        )
        rows = [
            builder.gep(codes_, [builder.add(start_, builder.mul(dims_, ir.Constant(dims_.type, j)))])
            for j in range(LANES)
        ]
        sums = []
        for part in range(0, LANES, _ROWS):
            sums += _add_pairs(builder, rows[part : part + _ROWS], texts_, pairs_)
        for t, column in enumerate(_transpose(builder, sums)):
            place = builder.add(first_, builder.mul(stride_, ir.Constant(stride_.type, t)))
            pointer = builder.bitcast(builder.gep(to, [place]), _FLOATS.as_pointer())
            builder.store(builder.sitofp(column, _FLOATS), pointer, align=4)
        return context.get_dummy_value()

    index = types.uintp
    return types.void(target, index, index, codes, index, index, texts, index), generate


def _add_pairs(builder, rows, texts, pairs):
    """The products [rows][16 texts] of codes, whose sums stay in registers."""
    zero = ir.Constant(_SUMS, [0] * LANES)
    totals = [cgutils.alloca_once_value(builder, zero) for _ in rows]
    for total in totals:
        builder.store(zero, total)
    with cgutils.for_range(builder, pairs) as loop:
        text = builder.gep(texts, [builder.mul(loop.index, ir.Constant(loop.index.type, 2 * LANES))])
        text = builder.load(builder.bitcast(text, _PAIRS.as_pointer()), align=2)
        for row, total in zip(rows, totals, strict=True):
            pair = builder.gep(row, [builder.mul(loop.index, ir.Constant(loop.index.type, 2))])
            pair = builder.load(builder.bitcast(pair, _INT.as_pointer()), align=2)
            one = builder.insert_element(ir.Constant(_SUMS, ir.Undefined), pair, ir.Constant(_INT, 0))
            code = builder.bitcast(_shuffle(builder, one, one, [0] * LANES), _PAIRS)
            products = builder.mul(builder.sext(code, _WIDE_PAIRS), builder.sext(text, _WIDE_PAIRS))
            even, odd = (_shuffle(builder, products, products, range(k, 2 * LANES, 2)) for k in (0, 1))
            builder.store(builder.add(builder.load(total), builder.add(even, odd)), total)
    return [builder.load(total) for total in totals]


def _transpose(builder, rows):
    """16 vectors of 16 numbers, rows and columns exchanged in four rounds of swapped halves."""
    for step in (8, 4, 2, 1):
        for i in (i for i in range(LANES) if not i & step):
            low = [j + LANES - step if j & step else j for j in range(LANES)]
            high = [j + LANES if j & step else j + step for j in range(LANES)]
            rows[i], rows[i | step] = (_shuffle(builder, rows[i], rows[i | step], m) for m in (low, high))
    return rows


def _shuffle(builder, left, right, lanes):
    """A vector of chosen lanes of two vectors."""
    lanes = list(lanes)
    return builder.shuffle_vector(left, right, ir.Constant(ir.VectorType(_INT, len(lanes)), lanes))
