"""Vector operations for Numba kernels, as LLVM vectors instead of loops.

LLVM unrolls loops this short into scalar code before its vectoriser sees them, which is 3 to 5 times slower.
The vectors are portable: LLVM splits them where the machine's registers are narrower.

All functions take C-contiguous float32 arrays with flat indices. The number of elements is the length of the
tuple `lanes`, a multiple of 8: it is part of the tuple's type and so known at compile time.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

WIDTH = 8  # floats in one vector operation
_VECTOR = ir.VectorType(ir.FloatType(), WIDTH)
_FAST = ("fast",)


def _blocks(lanes):
    if len(lanes) % WIDTH:
        raise TypeError(f"{len(lanes)} lanes: expected a multiple of {WIDTH}")
    return range(0, len(lanes), WIDTH)


def _pointer(context, builder, array_type, array, index, offset):
    """Pointer to the vector that starts at element index + offset."""
    data = context.make_array(array_type)(context, builder, array).data
    element = builder.gep(data, [builder.add(index, ir.Constant(index.type, offset))])
    return builder.bitcast(element, _VECTOR.as_pointer())


def _broadcast(builder, value):
    """A vector with one value in all lanes."""
    undefined = ir.Constant(_VECTOR, ir.Undefined)
    one = builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(
        one, undefined, ir.Constant(ir.VectorType(ir.IntType(32), WIDTH), [0] * WIDTH)
    )


@intrinsic
def add_scaled(typing_context, target, target_index, factor, source, source_index, lanes):
    """target[i : i + n] += factor * source[j : j + n]."""
    blocks = _blocks(lanes)

    def generate(context, builder, signature, arguments):
        target_, i, factor_, source_, j, _ = arguments
        target_type, source_type = signature.args[0], signature.args[3]
        factors = _broadcast(builder, factor_)
        for offset in blocks:
            to = _pointer(context, builder, target_type, target_, i, offset)
            values = builder.load(_pointer(context, builder, source_type, source_, j, offset), align=4)
            scaled = builder.fmul(factors, values, flags=_FAST)
            builder.store(builder.fadd(builder.load(to, align=4), scaled, flags=_FAST), to, align=4)
        return context.get_dummy_value()

    signature = types.void(target, types.uintp, types.float32, source, types.uintp, lanes)
    return signature, generate


@intrinsic
def set_products(typing_context, target, target_index, factors, factor_index, source, count, lanes, rows):
    """Small matrix product, with n lanes.

    target[i + r n : i + (r + 1) n] = sum_k factors[j + r count + k] * source[k n : (k + 1) n].

    k runs below `count`, r below the length of the tuple `rows`. The sums of all rows stay in registers, so
    the additions of one row overlap with those of the others.
    """
    blocks = _blocks(lanes)

    def generate(context, builder, signature, arguments):
        target_, i, factors_, j, source_, count_, _, _ = arguments
        target_type, factors_type, source_type = signature.args[0], signature.args[2], signature.args[4]
        sums = [
            [cgutils.alloca_once_value(builder, ir.Constant(_VECTOR, [0.0] * WIDTH)) for _ in blocks]
            for _ in rows
        ]
        data = context.make_array(factors_type)(context, builder, factors_).data
        starts = [builder.add(j, builder.mul(count_, ir.Constant(count_.type, r))) for r in range(len(rows))]
        with cgutils.for_range(builder, count_) as loop:
            row = builder.mul(loop.index, ir.Constant(loop.index.type, len(lanes)))
            values = [
                builder.load(_pointer(context, builder, source_type, source_, row, offset), align=4)
                for offset in blocks
            ]
            for start, totals in zip(starts, sums, strict=True):
                factor = _broadcast(
                    builder, builder.load(builder.gep(data, [builder.add(start, loop.index)]))
                )
                for total, value in zip(totals, values, strict=True):
                    scaled = builder.fmul(factor, value, flags=_FAST)
                    builder.store(builder.fadd(builder.load(total), scaled, flags=_FAST), total)
        for r, totals in enumerate(sums):
            for total, offset in zip(totals, blocks, strict=True):
                to = _pointer(context, builder, target_type, target_, i, r * len(lanes) + offset)
                builder.store(builder.load(total), to, align=4)
        return context.get_dummy_value()

    signature = types.void(target, types.uintp, factors, types.uintp, source, types.uintp, lanes, rows)
    return signature, generate


@intrinsic
def dot(typing_context, left, left_index, right, right_index, lanes):
    """Sum of left[i : i + n] * right[j : j + n]."""
    blocks = _blocks(lanes)

    def generate(context, builder, signature, arguments):
        left_, i, right_, j, _ = arguments
        total = ir.Constant(_VECTOR, [0.0] * WIDTH)
        for offset in blocks:
            a = builder.load(_pointer(context, builder, signature.args[0], left_, i, offset), align=4)
            b = builder.load(_pointer(context, builder, signature.args[2], right_, j, offset), align=4)
            total = builder.fadd(total, builder.fmul(a, b, flags=_FAST), flags=_FAST)
        kind = ir.FunctionType(ir.FloatType(), [ir.FloatType(), _VECTOR])
        reduce = cgutils.get_or_insert_function(builder.module, kind, f"llvm.vector.reduce.fadd.v{WIDTH}f32")
        return builder.call(reduce, [ir.Constant(ir.FloatType(), 0.0), total], fastmath=_FAST)

    signature = types.float32(left, types.uintp, right, types.uintp, lanes)
    return signature, generate
