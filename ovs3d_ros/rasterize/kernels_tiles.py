"""Numba kernels: packing the visible Gaussians, and listing the splats that touch each tile.

Bounds here only skip pixels that cannot reach alpha 1/255: they change the speed and never the image.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from .kernel_cache import cached_njit
from .kernels_project import HELPER, KERNEL, sigma_threshold, thread_range

TILE = 16  # pixels; one row of a tile is one or two vector registers
PIXELS = TILE * TILE

# Columns of a packed splat: half a cache line holds everything that the tile kernels read.
U, V, CONIC_XX, CONIC_XY, CONIC_YY, OPACITY, HALF_WIDTH, HALF_HEIGHT = range(8)
SPLAT_COLUMNS = 8

DIGIT_BITS = 13  # of a radix sort: its counters fit the level-2 cache
_DIGITS = 1 << DIGIT_BITS
_DIGIT_MASK = np.uint32(_DIGITS - 1)

ZERO = np.float32(0.0)
HALF = np.float32(0.5)
ONE = np.float32(1.0)


class Tiles(NamedTuple):
    """The splats that touch each tile, front to back."""

    offsets: np.ndarray  # [tiles + 1] int64, into ids
    ids: np.ndarray  # [intersections] int32, row of the splat
    width: int
    height: int


@cached_njit(**KERNEL)
def pack_splats(thread, num_threads, visible, projected, opacities, colors, column, splats, packed_colors):
    """Gathers one thread's range of the visible Gaussians.

    They keep their order, since neighbours in a map tend to be neighbours on screen.

    Args:
        thread, num_threads: select the range.
        visible: [M] int64, ascending indices of the Gaussians that are not culled.
        projected: ProjectedArrays.
        opacities: [N] float32.
        colors: [N, D] float32.
        column: column of the packed colors for channel 0; columns before it stay as they are.
        splats: [M, 8] float32, filled.
        packed_colors: [M, >= column + D] float32, filled; columns beyond column + D become 0.
    """
    first, last = thread_range(thread, num_threads, visible.shape[0])
    for i in range(first, last):
        n = visible[i]
        splats[i, U] = projected.means2d[n, 0]
        splats[i, V] = projected.means2d[n, 1]
        splats[i, CONIC_XX] = projected.conics[n, 0]
        splats[i, CONIC_XY] = projected.conics[n, 1]
        splats[i, CONIC_YY] = projected.conics[n, 2]
        splats[i, OPACITY] = opacities[n]
        splats[i, HALF_WIDTH] = projected.half_sizes[n, 0]
        splats[i, HALF_HEIGHT] = projected.half_sizes[n, 1]
        for c in range(colors.shape[1]):
            packed_colors[i, column + c] = colors[n, c]
        for c in range(column + colors.shape[1], packed_colors.shape[1]):
            packed_colors[i, c] = ZERO


@njit(**HELPER)
def pixel_span(centre, half_size, start, size):
    """First and last pixel, out of `size` from `start` on, whose centre lies within half_size of `centre`."""
    first = max(0, math.ceil(centre - half_size - HALF - np.float32(start)))
    last = min(size - 1, math.floor(centre + half_size - HALF - np.float32(start)))
    return first, last


@njit(**HELPER)
def _smallest_sigma(splats, i, left, top):
    """A lower bound of sigma of splat i over the pixel centres of a tile with corner (left, top).

    It is the minimum over the square that the pixel centres span. If the splat's centre lies outside, this
    minimum of a convex quadratic lies on an edge that faces the centre.
    """
    xx, xy, yy = splats[i, CONIC_XX], splats[i, CONIC_XY], splats[i, CONIC_YY]
    low_x = np.float32(left) + HALF - splats[i, U]
    low_y = np.float32(top) + HALF - splats[i, V]
    high_x, high_y = low_x + np.float32(TILE - 1), low_y + np.float32(TILE - 1)
    inside_x, inside_y = low_x <= ZERO <= high_x, low_y <= ZERO <= high_y
    if inside_x and inside_y:
        return ZERO
    best = np.float32(1e30)  # fastmath promises there are no infinities
    if not inside_x:
        dx = low_x if low_x > ZERO else high_x
        dy = min(high_y, max(low_y, -xy * dx / yy))
        best = HALF * (xx * dx * dx + yy * dy * dy) + xy * dx * dy
    if not inside_y:
        dy = low_y if low_y > ZERO else high_y
        dx = min(high_x, max(low_x, -xy * dy / xx))
        best = min(best, HALF * (xx * dx * dx + yy * dy * dy) + xy * dx * dy)
    return best


@njit(**HELPER)
def _grow(array, used, needed):
    """Returns an array with room for `needed` entries that keeps the first `used`."""
    if needed <= array.shape[0]:
        return array
    larger = np.empty(max(2 * array.shape[0], needed), np.int32)
    for i in range(used):  # a slice assignment takes Numba a second longer to compile
        larger[i] = array[i]
    return larger


@cached_njit(**KERNEL)
def sort_by_digit(keys, shift, order, sorted_order):
    """One stable pass of a radix sort.

    Args:
        keys: [M] uint32.
        shift: first of the `DIGIT_BITS` bits of a key that this pass sorts by.
        order: [M] int32, indices into `keys`, sorted by all lower bits.
        sorted_order: [M] int32, filled.
    """
    starts = np.zeros(_DIGITS + 1, np.int64)
    for k in range(keys.shape[0]):
        starts[1 + ((keys[k] >> shift) & _DIGIT_MASK)] += 1
    for digit in range(_DIGITS):
        starts[digit + 1] += starts[digit]
    for k in range(keys.shape[0]):
        digit = (keys[order[k]] >> shift) & _DIGIT_MASK
        sorted_order[starts[digit]] = order[k]
        starts[digit] += 1


@cached_njit(**KERNEL)
def list_intersections(thread, num_threads, splats, order, width, height, counts):
    """Lists every (tile, splat) pair that may hold a visible alpha, for one thread's range of the order.

    Args:
        thread, num_threads: select the range.
        splats: [M, 8] float32.
        order: [M] int32, splats front to back.
        width, height: of the image, in pixels.
        counts: [tiles, threads] int64; the thread adds the number of pairs of each tile to its own column.

    Returns:
        (tile [I] int32, splat [I] int32, number of pairs I), front to back; the arrays may be longer than I.
    """
    tiles_x = (width + TILE - 1) // TILE
    first, last = thread_range(thread, num_threads, order.shape[0])
    tile_of = np.empty(4 * (last - first) + 16, np.int32)
    splat_of = np.empty(4 * (last - first) + 16, np.int32)
    used = 0
    for k in range(first, last):
        i = order[k]
        left, right = pixel_span(splats[i, U], splats[i, HALF_WIDTH], 0, width)
        top, bottom = pixel_span(splats[i, V], splats[i, HALF_HEIGHT], 0, height)
        if right < left or bottom < top:
            continue
        left, right, top, bottom = left // TILE, right // TILE, top // TILE, bottom // TILE
        needed = used + (right - left + 1) * (bottom - top + 1)
        tile_of, splat_of = _grow(tile_of, used, needed), _grow(splat_of, used, needed)
        corners = right > left and bottom > top  # else the bounding box already touches the tile
        threshold = sigma_threshold(splats[i, OPACITY])
        for y in range(top, bottom + 1):
            for x in range(left, right + 1):
                if corners and _smallest_sigma(splats, i, x * TILE, y * TILE) > threshold:
                    continue
                tile_of[used] = y * tiles_x + x
                splat_of[used] = i
                counts[y * tiles_x + x, thread] += 1
                used += 1
    return tile_of, splat_of, used


@cached_njit(**KERNEL)
def fill_bins(tile_of, splat_of, used, cursor, ids):
    """Stable bucket sort of the first `used` pairs by tile; `cursor` is each tile's next place in `ids`."""
    for k in range(used):
        tile = tile_of[k]
        ids[cursor[tile]] = splat_of[k]
        cursor[tile] += 1
