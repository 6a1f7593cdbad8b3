"""Numba kernels: packing the visible Gaussians, and listing for each tile the splats that touch it.

Bounds here only skip what cannot reach alpha 1/255, so they change the speed and never the image.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from .kernels_project import KERNEL, share

TILE = 16  # pixels; one row of a tile is one or two vector registers
PIXELS = TILE * TILE

# Columns of a packed splat: one half cache line holds all that the tile kernels read.
U, V, CONIC_XX, CONIC_XY, CONIC_YY, OPACITY, EXTENT_U, EXTENT_V = range(8)
SPLAT_COLUMNS = 8

# Slack on ln(255 opacity), so that float32 rounding never rejects a pixel that reaches 1/255.
THRESHOLD_FACTOR = np.float32(1.0001)
THRESHOLD_SLACK = np.float32(1e-4)

ZERO = np.float32(0.0)
HALF = np.float32(0.5)
ONE = np.float32(1.0)


class Tiles(NamedTuple):
    """Which splats touch which tile, front to back."""

    offsets: np.ndarray  # [tiles + 1] int64, into ids
    ids: np.ndarray  # [intersections] int32, row of the splat
    width: int
    height: int


@njit(**KERNEL)
def sigma_threshold(opacity):
    """The largest sigma at which opacity * exp(-sigma) can still reach 1/255."""
    return np.float32(math.log(opacity * np.float32(255.0))) * THRESHOLD_FACTOR + THRESHOLD_SLACK


@njit(**KERNEL)
def pack_splats(thread, num_threads, visible, projected, opacities, colors, splats, packed_colors):
    """Gathers one thread's share of the visible Gaussians.

    They keep their order, since neighbours in a map tend to be neighbours on screen.

    Args:
        thread, num_threads: which share.
        visible: [M] int64, ascending indices of the Gaussians that are not culled.
        projected: ProjectedArrays.
        opacities: [N] float32.
        colors: [N, D] float32.
        splats: [M, 8] float32, filled.
        packed_colors: [M, D] float32, filled.
    """
    first, last = share(thread, num_threads, visible.shape[0])
    for i in range(first, last):
        n = visible[i]
        xx, xy, yy = projected.conics[n, 0], projected.conics[n, 1], projected.conics[n, 2]
        threshold = max(sigma_threshold(opacities[n]), ZERO)
        # Half-axes of the bounding box of {sigma <= threshold}: sqrt(2 threshold * covariance).
        scale = np.float32(2.0) * threshold / max(xx * yy - xy * xy, np.float32(1e-20))
        splats[i, U] = projected.means2d[n, 0]
        splats[i, V] = projected.means2d[n, 1]
        splats[i, CONIC_XX] = xx
        splats[i, CONIC_XY] = xy
        splats[i, CONIC_YY] = yy
        splats[i, OPACITY] = opacities[n]
        splats[i, EXTENT_U] = math.sqrt(scale * yy)
        splats[i, EXTENT_V] = math.sqrt(scale * xx)
        for c in range(colors.shape[1]):
            packed_colors[i, c] = colors[n, c]


@njit(**KERNEL)
def pixel_span(centre, extent, start, size):
    """First and last of the `size` pixels from `start` whose centres lie within `extent` of `centre`."""
    first = max(0, int(math.ceil(centre - extent - HALF - np.float32(start))))
    last = min(size - 1, int(math.floor(centre + extent - HALF - np.float32(start))))
    return first, last


@njit(**KERNEL)
def _smallest_sigma(splat, left, top):
    """The smallest sigma of a splat over the pixel centres' square of a tile with corner (left, top).

    Outside its centre's tile the minimum of a convex quadratic lies on an edge that faces the centre.
    """
    xx, xy, yy = splat[CONIC_XX], splat[CONIC_XY], splat[CONIC_YY]
    low_x = left + HALF - splat[U]
    low_y = top + HALF - splat[V]
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


@njit(**KERNEL)
def _grown(array, used, needed):
    """`array` with room for `needed` entries, the first `used` kept."""
    if needed <= array.shape[0]:
        return array
    larger = np.empty(max(2 * array.shape[0], needed), array.dtype)
    larger[:used] = array[:used]
    return larger


@njit(**KERNEL)
def bin_tiles(splats, order, width, height):
    """Lists, for every tile, the splats that touch it, front to back.

    They are visited in depth order, so a stable bucket fill by tile needs no further sort.

    Returns:
        (offsets [tiles + 1] int64, ids [intersections] int32)
    """
    tiles_x, tiles_y = (width + TILE - 1) // TILE, (height + TILE - 1) // TILE
    offsets = np.zeros(tiles_x * tiles_y + 1, np.int64)
    tile_of = np.empty(4 * splats.shape[0] + 16, np.int32)
    splat_of = np.empty(4 * splats.shape[0] + 16, np.int32)
    used = 0
    for i in order:
        splat = splats[i]
        left, right = pixel_span(splat[U], splat[EXTENT_U], 0, width)
        top, bottom = pixel_span(splat[V], splat[EXTENT_V], 0, height)
        if right < left or bottom < top:
            continue
        left, right, top, bottom = left // TILE, right // TILE, top // TILE, bottom // TILE
        needed = used + (right - left + 1) * (bottom - top + 1)
        tile_of, splat_of = _grown(tile_of, used, needed), _grown(splat_of, used, needed)
        corners = right > left and bottom > top  # else the bounding box already decides
        threshold = sigma_threshold(splat[OPACITY])
        for y in range(top, bottom + 1):
            for x in range(left, right + 1):
                if corners and _smallest_sigma(splat, np.float32(x * TILE), np.float32(y * TILE)) > threshold:
                    continue
                tile_of[used] = y * tiles_x + x
                splat_of[used] = i
                offsets[y * tiles_x + x + 1] += 1
                used += 1
    for tile in range(tiles_x * tiles_y):
        offsets[tile + 1] += offsets[tile]
    cursor = offsets[:-1].copy()
    ids = np.empty(used, np.int32)
    for i in range(used):
        ids[cursor[tile_of[i]]] = splat_of[i]
        cursor[tile_of[i]] += 1
    return offsets, ids
