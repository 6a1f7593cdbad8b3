"""Numba kernels: alpha compositing, and the lift that uses the same weights.

What makes them fast, each measured: one 16-pixel row of a tile per call, without branches (masks are float
arithmetic) and in a function of its own, so that LLVM vectorises it; all per-pixel state of a tile in one flat
array, indexed by unsigned integers; the number of channels D known at compile time.

D is passed as `channels`, a tuple of D integers of which only the length matters: the length is part of its
type, so Numba compiles one variant per D and caches each on disk.

Semantics are those of gsplat 1.5.3: alpha = min(0.999, opacity * exp(-sigma)), ignored below 1/255; a Gaussian
that would bring the transmittance to 1e-4 or below is dropped together with all behind it.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from .kernels_project import KERNEL
from .kernels_tiles import (
    CONIC_XX,
    CONIC_XY,
    CONIC_YY,
    EXTENT_V,
    HALF,
    ONE,
    OPACITY,
    PIXELS,
    TILE,
    U,
    V,
    ZERO,
    pixel_span,
)

MIN_ALPHA = np.float32(1.0 / 255.0)
MAX_ALPHA = np.float32(0.999)
STOP_TRANSMITTANCE = np.float32(1e-4)

# Up to here channels are stored one plane after the other and vectorised over pixels, beyond it they are
# stored together per pixel and vectorised over channels.
MAX_PLANAR_CHANNELS = 4

# Planes of a tile's scratch array, PIXELS apart.
TRANSMITTANCE = np.uintp(0)
LIVE = np.uintp(PIXELS)  # 1.0 until the pixel is saturated
WEIGHT = np.uintp(2 * PIXELS)  # alpha * transmittance of the current splat
FORWARD_PLANES = 3
ROW = np.uintp(TILE)
PLANE = np.uintp(PIXELS)


@njit(**KERNEL)
def exp_negative(sigma):
    """exp(-sigma) for sigma in [0, 8], to float32 precision: a degree-5 Taylor series of sigma / 32, ^32.

    Libm's exp is a call per lane; this is a handful of multiplications on the whole vector.
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


@njit(**KERNEL)
def tile_window(tiles, tile):
    """(left, top, rows, columns) of a tile; fewer than 16 rows or columns at the image's border."""
    tiles_x = (tiles.width + TILE - 1) // TILE
    left, top = (tile % tiles_x) * TILE, (tile // tiles_x) * TILE
    return left, top, min(TILE, tiles.height - top), min(TILE, tiles.width - left)


@njit(**KERNEL)
def start_tile(scratch, rows, columns, live_rows):
    """Full transmittance everywhere; pixels outside the image are dead from the start."""
    for r in range(TILE):
        live_rows[r] = r < rows
        for i in range(TILE):
            scratch[r * TILE + i] = ONE
            scratch[PIXELS + r * TILE + i] = ONE if r < rows and i < columns else ZERO


@njit(**KERNEL)
def row_polynomial(splats, splat, left, y):
    """sigma along pixel row y as sigma(dx) = c0 + dx (c1 + c2 dx), and dx of the tile's first pixel."""
    dy = splats[splat, V] - (np.float32(y) + HALF)
    dx = splats[splat, U] - np.float32(left) - HALF
    return dx, HALF * splats[splat, CONIC_YY] * dy * dy, splats[splat, CONIC_XY] * dy, HALF * splats[splat, CONIC_XX]


@njit(**KERNEL)
def blend_row(scratch, q, dx0, c0, c1, c2, opacity):
    """Weights of one splat in one row, and the transmittance behind it.

    Returns:
        (number of pixels it contributes to, number of pixels still live)
    """
    hits, live = ZERO, ZERO
    for i in range(ROW):
        dx = dx0 - np.float32(np.int32(i))
        sigma = c0 + dx * (c1 + c2 * dx)
        alpha = min(opacity * exp_negative(min(sigma, np.float32(8.0))), MAX_ALPHA)
        was_live, before = scratch[LIVE + q + i], scratch[q + i]
        hit = was_live * np.float32((sigma >= ZERO) & (alpha >= MIN_ALPHA))
        stop = hit * np.float32(before * (ONE - alpha) <= STOP_TRANSMITTANCE)
        hit = hit - stop
        weight = hit * alpha * before
        scratch[WEIGHT + q + i] = weight
        scratch[q + i] = before - weight
        scratch[LIVE + q + i] = was_live - stop
        hits += hit
        live += was_live - stop
    return hits, live


@njit(**KERNEL)
def _add_row(scratch, q, color, buffer, channels):
    """Adds weight * color to one row of the tile's image."""
    depth = np.uintp(len(channels))
    if len(channels) <= MAX_PLANAR_CHANNELS:
        for c in range(depth):
            value, base = color[c], c * PLANE + q
            for i in range(ROW):
                buffer[base + i] += scratch[WEIGHT + q + i] * value
    else:
        for i in range(ROW):
            weight = scratch[WEIGHT + q + i]
            if weight != ZERO:
                base = (q + i) * depth
                for c in range(depth):
                    buffer[base + c] += weight * color[c]


@njit(**KERNEL)
def _store_tile(window, scratch, buffer, first_channel, channels, image, transmittance):
    """Writes a finished tile to the image."""
    left, top, rows, columns = window
    depth = len(channels)
    for r in range(rows):
        for i in range(columns):
            q = r * TILE + i
            transmittance[top + r, left + i] = scratch[q]
            for c in range(depth):
                planar = len(channels) <= MAX_PLANAR_CHANNELS
                image[top + r, left + i, first_channel + c] = buffer[c * PIXELS + q if planar else q * depth + c]


@njit(**KERNEL)
def composite(thread, num_threads, tiles, splats, colors, first_channel, channels, image, transmittance):
    """Renders every num_threads-th tile.

    Args:
        thread, num_threads: which tiles.
        tiles: Tiles.
        splats: [M, 8] float32 packed splats.
        colors: [M, Dtotal] float32 in the same order.
        first_channel: first of the D channels rendered in this pass.
        channels: tuple of length D.
        image: [H, W, Dtotal] float32, filled in those channels.
        transmittance: [H, W] float32, filled.
    """
    scratch = np.empty(FORWARD_PLANES * PIXELS, np.float32)
    buffer = np.empty(PIXELS * len(channels), np.float32)
    color = np.empty(len(channels), np.float32)
    live_rows = np.empty(TILE, np.bool_)
    for tile in range(thread, tiles.offsets.shape[0] - 1, num_threads):
        window = tile_window(tiles, tile)
        left, top, rows, columns = window
        start_tile(scratch, rows, columns, live_rows)
        buffer[:] = ZERO
        remaining = rows
        for k in range(tiles.offsets[tile], tiles.offsets[tile + 1]):
            if remaining == 0:
                break
            splat = tiles.ids[k]
            for c in range(len(channels)):
                color[c] = colors[splat, first_channel + c]
            first, last = pixel_span(splats[splat, V], splats[splat, EXTENT_V], top, rows)
            for r in range(first, last + 1):
                if not live_rows[r]:
                    continue
                dx, c0, c1, c2 = row_polynomial(splats, splat, left, top + r)
                q = np.uintp(r * TILE)
                hits, live = blend_row(scratch, q, dx, c0, c1, c2, splats[splat, OPACITY])
                if live == ZERO:
                    live_rows[r] = False
                    remaining -= 1
                if hits != ZERO:
                    _add_row(scratch, q, color, buffer, channels)
        _store_tile(window, scratch, buffer, first_channel, channels, image, transmittance)


@njit(**KERNEL)
def _load_targets(window, targets, pixel_weights, first_channel, channels, buffer, target_weights):
    """Copies a tile of the target image next to the scratch array; pixels outside the image weigh nothing."""
    left, top, rows, columns = window
    depth = len(channels)
    for r in range(TILE):
        for i in range(TILE):
            q, inside = r * TILE + i, r < rows and i < columns
            target_weights[q] = pixel_weights[top + r, left + i] if inside else ZERO
            for c in range(depth):
                planar = len(channels) <= MAX_PLANAR_CHANNELS
                value = targets[top + r, left + i, first_channel + c] if inside else ZERO
                buffer[c * PIXELS + q if planar else q * depth + c] = value


@njit(**KERNEL)
def _weigh_row(scratch, q, target_weights):
    """Multiplies a row of weights by the pixels' own; returns their sum and maximum."""
    total, largest = ZERO, ZERO
    for i in range(ROW):
        weight = scratch[WEIGHT + q + i] * target_weights[q + i]
        scratch[WEIGHT + q + i] = weight
        total += weight
        largest = max(largest, weight)
    return total, largest


@njit(**KERNEL)
def _gather_row(scratch, q, buffer, channels, gathered):
    """Adds weight * target over one row to the splat's sums."""
    depth = np.uintp(len(channels))
    if len(channels) <= MAX_PLANAR_CHANNELS:
        for c in range(depth):
            base, total = c * PLANE + q, ZERO
            for i in range(ROW):
                total += scratch[WEIGHT + q + i] * buffer[base + i]
            gathered[c] += total
    else:
        for i in range(ROW):
            weight = scratch[WEIGHT + q + i]
            if weight != ZERO:
                base = (q + i) * depth
                for c in range(depth):
                    gathered[c] += weight * buffer[base + c]


@njit(**KERNEL)
def lift_tiles(
    thread, num_threads, tiles, splats, targets, pixel_weights, first_channel, channels, sums, weights, maxima
):
    """Gathers sum w*target, sum w and max w for every splat over every num_threads-th tile.

    This is also the gradient of the image with respect to the colors, for targets = dL/d(image).

    Args:
        thread, num_threads: which tiles.
        tiles, splats: as in `composite`.
        targets: [H, W, Dtotal] float32.
        pixel_weights: [H, W] float32, factor on w.
        first_channel, channels: which channels of targets.
        sums: [M, Dtotal] float32, this thread's own, added to.
        weights, maxima: [M] float32, this thread's own, added to and raised.
    """
    scratch = np.empty(FORWARD_PLANES * PIXELS, np.float32)
    buffer = np.empty(PIXELS * len(channels), np.float32)
    target_weights = np.empty(PIXELS, np.float32)
    gathered = np.empty(len(channels), np.float32)
    live_rows = np.empty(TILE, np.bool_)
    for tile in range(thread, tiles.offsets.shape[0] - 1, num_threads):
        window = tile_window(tiles, tile)
        left, top, rows, columns = window
        start_tile(scratch, rows, columns, live_rows)
        _load_targets(window, targets, pixel_weights, first_channel, channels, buffer, target_weights)
        remaining = rows
        for k in range(tiles.offsets[tile], tiles.offsets[tile + 1]):
            if remaining == 0:
                break
            splat = tiles.ids[k]
            gathered[:] = ZERO
            total, largest = ZERO, ZERO
            first, last = pixel_span(splats[splat, V], splats[splat, EXTENT_V], top, rows)
            for r in range(first, last + 1):
                if not live_rows[r]:
                    continue
                dx, c0, c1, c2 = row_polynomial(splats, splat, left, top + r)
                q = np.uintp(r * TILE)
                hits, live = blend_row(scratch, q, dx, c0, c1, c2, splats[splat, OPACITY])
                if live == ZERO:
                    live_rows[r] = False
                    remaining -= 1
                if hits != ZERO:
                    row_total, row_largest = _weigh_row(scratch, q, target_weights)
                    total += row_total
                    largest = max(largest, row_largest)
                    _gather_row(scratch, q, buffer, channels, gathered)
            if total != ZERO:
                weights[splat] += total
                maxima[splat] = max(maxima[splat], largest)
                for c in range(len(channels)):
                    sums[splat, first_channel + c] += gathered[c]
