"""Numba kernels: alpha compositing, and the lift that uses the same weights.

Three choices make them fast; each was measured. One call works on all rows of a splat, eight pixels of a
row at a time and without branches (masks are float arithmetic), so LLVM vectorises the loop and the processor
overlaps the rows. One flat array with unsigned indices holds all per-pixel state of a tile. The number of
channels is known at compile time.

The argument `channels` passes that number as the length of a tuple; the values do not matter. The length is
part of the tuple's type, so Numba compiles one variant per length and caches each on disk.

Numba does not see changes across files: after editing a helper, delete the cached kernels that call it.

Semantics are those of gsplat 1.5.3: alpha = min(0.999, opacity * exp(-sigma)), ignored below 1/255. A
Gaussian that would bring the transmittance to 1e-4 or below is dropped, together with all behind it.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from .kernel_cache import cached_njit
from .kernels_project import HELPER, KERNEL
from .kernels_tiles import (
    CONIC_XX,
    CONIC_XY,
    CONIC_YY,
    HALF,
    HALF_HEIGHT,
    HALF_WIDTH,
    ONE,
    OPACITY,
    PIXELS,
    TILE,
    ZERO,
    U,
    V,
    pixel_span,
)
from .simd import WIDTH, add_scaled, dot

MIN_ALPHA = np.float32(1.0 / 255.0)
MAX_ALPHA = np.float32(0.999)
STOP_TRANSMITTANCE = np.float32(1e-4)

# Up to this number, channels are stored one plane after the other and loops are vectorised over pixels. More
# channels are stored together per pixel, padded to a multiple of 8, and loops are vectorised over channels.
MAX_PLANAR_CHANNELS = 4

# Planes of a tile's scratch array, PIXELS apart. The planes from FIRST_FREE_PLANE on differ between kernels.
TRANSMITTANCE = np.uintp(0)
LIVE = np.uintp(PIXELS)  # 1.0 until the pixel is saturated
WEIGHT = np.uintp(2 * PIXELS)  # alpha * transmittance of the current splat
FALLOFF = np.uintp(3 * PIXELS)  # exp(-sigma) of the current splat
FIRST_FREE_PLANE = 4
PIXEL_WEIGHT = np.uintp(4 * PIXELS)  # lift: the caller's factor on the weight

PLANE = np.uintp(PIXELS)
ROW = np.uintp(TILE)
BLOCK = np.uintp(WIDTH)  # columns per step; most splats are narrower
LANES = (0,) * WIDTH


@njit(**HELPER)
def exp_negative(sigma):
    """exp(-sigma) for sigma in [0, 8], to float32 precision.

    It is the 32nd power of a degree-5 Taylor series of exp(-sigma / 32). Libm's exp takes one call per lane;
    this takes a handful of multiplications on the whole vector.
    """
    x = sigma * np.float32(-1.0 / 32.0)
    p = ONE + x * (
        ONE + x * (HALF + x * (np.float32(1 / 6) + x * (np.float32(1 / 24) + x * np.float32(1 / 120))))
    )
    p = p * p
    p = p * p
    p = p * p
    p = p * p
    return p * p


@njit(**HELPER)
def tile_window(tiles, tile):
    """(left, top, rows, columns) of a tile; fewer than 16 rows or columns at the image's border."""
    tiles_x = (tiles.width + TILE - 1) // TILE
    left, top = (tile % tiles_x) * TILE, (tile // tiles_x) * TILE
    return left, top, min(TILE, tiles.height - top), min(TILE, tiles.width - left)


@njit(**HELPER)
def clear(array):
    """Fills a flat array with zeros (a slice assignment takes Numba far longer to compile)."""
    for i in range(array.shape[0]):
        array[i] = ZERO


@njit(**HELPER)
def start_tile(scratch, rows, columns):
    """Sets full transmittance everywhere, and LIVE only inside the image."""
    clear(scratch)
    for r in range(TILE):
        for i in range(TILE):
            scratch[TRANSMITTANCE + np.uintp(r * TILE + i)] = ONE
            scratch[LIVE + np.uintp(r * TILE + i)] = ONE if r < rows and i < columns else ZERO


@njit(**HELPER)
def buffer_strides(depth):
    """Distance between pixels and between channels in a tile's image of `depth` channels."""
    return (1, PIXELS) if depth <= MAX_PLANAR_CHANNELS else (depth, 1)


@njit(**HELPER)
def splat_blocks(splats, splat, window):
    """(first row, last row, first column, last column) of a splat in a tile; it touches none if last < first.

    One block of 8 columns, at any column, covers most splats. A wider splat takes the two halves of the tile.
    """
    left, top, rows, columns = window
    first, last = pixel_span(splats[splat, V], splats[splat, HALF_HEIGHT], top, rows)
    start, stop = pixel_span(splats[splat, U], splats[splat, HALF_WIDTH], left, columns)
    if last < first:
        return 0, 0, 0, -1
    if 0 <= stop - start < WIDTH:
        start = min(start, TILE - WIDTH)
    elif stop >= start:
        start = 0
    return first, last, start, stop


@njit(**HELPER)
def blend_rows(scratch, splats, splat, window, first, last, column):
    """Composites one splat into rows first..last and 8 columns of a tile.

    Fills WEIGHT and FALLOFF for this splat, and updates TRANSMITTANCE and LIVE.

    Returns:
        The number of pixels that the splat saturates, as a float.
    """
    opacity = splats[splat, OPACITY]
    u = splats[splat, U] - np.float32(window[0] + column) - HALF
    v = splats[splat, V] - np.float32(window[1]) - HALF
    c2, saturated = HALF * splats[splat, CONIC_XX], ZERO
    for r in range(np.uintp(first), np.uintp(last + 1)):
        dy = v - np.float32(np.int32(r))
        c0, c1 = HALF * splats[splat, CONIC_YY] * dy * dy, splats[splat, CONIC_XY] * dy
        q = r * ROW + np.uintp(column)
        for i in range(BLOCK):
            dx = u - np.float32(np.int32(i))
            sigma = c0 + dx * (c1 + c2 * dx)
            falloff = exp_negative(min(sigma, np.float32(8.0)))
            alpha = min(opacity * falloff, MAX_ALPHA)
            live, before = scratch[LIVE + q + i], scratch[TRANSMITTANCE + q + i]
            hit = live * np.float32((sigma >= ZERO) & (alpha >= MIN_ALPHA))
            stop = hit * np.float32(before * (ONE - alpha) <= STOP_TRANSMITTANCE)
            weight = (hit - stop) * alpha * before
            scratch[WEIGHT + q + i] = weight
            scratch[FALLOFF + q + i] = falloff
            scratch[TRANSMITTANCE + q + i] = before - weight
            scratch[LIVE + q + i] = live - stop
            saturated += stop
    return saturated


@njit(**HELPER)
def _add_rows(scratch, first, last, column, colors, splat_index, buffer, channels):
    """Adds weight * color to the tile's image."""
    depth = np.uintp(len(channels))
    for r in range(np.uintp(first), np.uintp(last + 1)):
        q = r * ROW + np.uintp(column)
        if len(channels) <= MAX_PLANAR_CHANNELS:
            for c in range(depth):
                add_scaled(buffer, c * PLANE + q, colors[splat_index + c], scratch, WEIGHT + q, LANES)
        else:
            for i in range(BLOCK):
                weight = scratch[WEIGHT + q + i]
                if weight != ZERO:
                    add_scaled(buffer, (q + i) * depth, weight, colors, splat_index, channels)


@njit(**HELPER)
def _store_tile(window, scratch, buffer, first_channel, depth, image, transmittance):
    """Writes a finished tile. `depth` is a plain number, so one compiled variant serves all pass widths."""
    left, top, rows, columns = window
    stored = min(depth, image.shape[2] - first_channel)
    per_pixel, per_channel = buffer_strides(depth)
    for r in range(rows):
        for i in range(columns):
            transmittance[top + r, left + i] = scratch[TRANSMITTANCE + np.uintp(r * TILE + i)]
            for c in range(stored):
                image[top + r, left + i, first_channel + c] = buffer[
                    (r * TILE + i) * per_pixel + c * per_channel
                ]


@cached_njit(**KERNEL)
def composite(thread, num_threads, tiles, splats, colors, first_channel, channels, image, transmittance):
    """Renders every num_threads-th tile.

    Args:
        thread, num_threads: select the tiles.
        tiles: Tiles.
        splats: [M, 8] float32 packed splats.
        colors: [M, P] float32 packed colors.
        first_channel: first channel of this pass.
        channels: tuple with one entry per channel of this pass, padding included.
        image: [H, W, D] float32, the pass fills its channels.
        transmittance: [H, W] float32, filled.
    """
    scratch = np.empty(FIRST_FREE_PLANE * PIXELS, np.float32)
    buffer = np.empty(PIXELS * len(channels), np.float32)
    flat_colors = colors.reshape(-1)  # outside the loop, since a reshape counts references
    for tile in range(thread, tiles.offsets.shape[0] - 1, num_threads):
        window = tile_window(tiles, tile)
        start_tile(scratch, window[2], window[3])
        clear(buffer)
        live = np.float32(window[2] * window[3])
        for k in range(tiles.offsets[tile], tiles.offsets[tile + 1]):
            if live == ZERO:
                break
            splat = tiles.ids[k]
            index = np.uintp(splat * colors.shape[1] + first_channel)
            first, last, column, end = splat_blocks(splats, splat, window)
            while column <= end:
                live -= blend_rows(scratch, splats, splat, window, first, last, column)
                _add_rows(scratch, first, last, column, flat_colors, index, buffer, channels)
                column += WIDTH
        _store_tile(window, scratch, buffer, first_channel, np.intp(len(channels)), image, transmittance)


@njit(**HELPER)
def _load_targets(window, targets, pixel_weights, first_channel, depth, scratch, buffer):
    """Copies a tile of the target image and its pixel weights; pixels outside the image keep weight 0."""
    left, top, rows, columns = window
    loaded = min(depth, targets.shape[2] - first_channel)
    per_pixel, per_channel = buffer_strides(depth)
    clear(buffer)
    for r in range(rows):
        for i in range(columns):
            scratch[PIXEL_WEIGHT + np.uintp(r * TILE + i)] = pixel_weights[top + r, left + i]
            for c in range(loaded):
                buffer[(r * TILE + i) * per_pixel + c * per_channel] = targets[
                    top + r, left + i, first_channel + c
                ]


@njit(**HELPER)
def _weigh_rows(scratch, first, last, column):
    """Multiplies the weights by the pixel weights; returns their sum and maximum."""
    total, largest = ZERO, ZERO
    for r in range(np.uintp(first), np.uintp(last + 1)):
        q = r * ROW + np.uintp(column)
        for i in range(BLOCK):
            weight = scratch[WEIGHT + q + i] * scratch[PIXEL_WEIGHT + q + i]
            scratch[WEIGHT + q + i] = weight
            total += weight
            largest = max(largest, weight)
    return total, largest


@njit(**HELPER)
def _gather_rows(scratch, first, last, column, buffer, channels, sums, splat_index):
    """Adds weight * target to the splat's sums."""
    depth = np.uintp(len(channels))
    for r in range(np.uintp(first), np.uintp(last + 1)):
        q = r * ROW + np.uintp(column)
        if len(channels) <= MAX_PLANAR_CHANNELS:
            for c in range(depth):
                sums[splat_index + c] += dot(scratch, WEIGHT + q, buffer, c * PLANE + q, LANES)
        else:
            for i in range(BLOCK):
                weight = scratch[WEIGHT + q + i]
                if weight != ZERO:
                    add_scaled(sums, splat_index, weight, buffer, (q + i) * depth, channels)


@cached_njit(**KERNEL)
def lift_tiles(
    thread, num_threads, tiles, splats, targets, pixel_weights, first_channel, channels, sums, weights, maxima
):
    """Gathers sum w*target, sum w and max w for every splat over every num_threads-th tile.

    With targets = dL/d(image) and pixel weights 1, the sums are the gradient of the colors.

    Args:
        thread, num_threads: select the tiles.
        tiles, splats: as in `composite`.
        targets: [H, W, D] float32.
        pixel_weights: [H, W] float32, factor on w.
        first_channel, channels: select the channels of targets, as in `composite`.
        sums: [threads, M, P] float32, each thread adds to its own.
        weights, maxima: [threads, M] float32, each thread adds to and raises its own.
    """
    own_sums, own_weights, own_maxima = sums[thread].reshape(-1), weights[thread], maxima[thread]
    scratch = np.empty((FIRST_FREE_PLANE + 1) * PIXELS, np.float32)
    buffer = np.empty(PIXELS * len(channels), np.float32)
    for tile in range(thread, tiles.offsets.shape[0] - 1, num_threads):
        window = tile_window(tiles, tile)
        start_tile(scratch, window[2], window[3])
        _load_targets(window, targets, pixel_weights, first_channel, np.intp(len(channels)), scratch, buffer)
        live = np.float32(window[2] * window[3])
        for k in range(tiles.offsets[tile], tiles.offsets[tile + 1]):
            if live == ZERO:
                break
            splat = tiles.ids[k]
            index = np.uintp(splat * sums.shape[2] + first_channel)
            first, last, column, end = splat_blocks(splats, splat, window)
            while column <= end:
                live -= blend_rows(scratch, splats, splat, window, first, last, column)
                total, largest = _weigh_rows(scratch, first, last, column)
                own_weights[splat] += total
                own_maxima[splat] = max(own_maxima[splat], largest)
                _gather_rows(scratch, first, last, column, buffer, channels, own_sums, index)
                column += WIDTH
