"""Numba kernels: gradient of alpha compositing, as a second front-to-back pass.

With v = dL/d(image), the gradient of alpha_i at a pixel needs only the scalar S_i = <color composited behind
splat i, v>. S starts as <image, v> and loses w_i <color_i, v> at every splat. So the kernel replays the
forward order: it needs no per-pixel index of the last splat and recovers no transmittance by division.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from .kernel_cache import cached_njit
from .kernels_forward import (
    BLOCK,
    FALLOFF,
    FIRST_FREE_PLANE,
    LANES,
    MAX_ALPHA,
    MAX_PLANAR_CHANNELS,
    PLANE,
    ROW,
    TRANSMITTANCE,
    WEIGHT,
    blend_rows,
    buffer_strides,
    clear,
    splat_blocks,
    start_tile,
    tile_window,
)
from .kernels_project import HELPER, KERNEL, thread_range
from .kernels_tiles import CONIC_XX, CONIC_XY, CONIC_YY, HALF, ONE, OPACITY, PIXELS, TILE, ZERO, U, V
from .simd import WIDTH, add_scaled, dot

# Planes of the scratch array, after those of the forward pass.
COLOR_DOT_V = np.uintp(FIRST_FREE_PLANE * PIXELS)  # <color of the splat, v>
BEHIND = np.uintp((FIRST_FREE_PLANE + 1) * PIXELS)  # <color composited behind the splat, v>
V_END = np.uintp((FIRST_FREE_PLANE + 2) * PIXELS)  # final transmittance * its gradient


@njit(**HELPER)
def _color_rows(scratch, first, last, column, colors, v_image, channels, v_colors, splat_index):
    """Fills COLOR_DOT_V where the splat contributes, and adds to the gradient of its color."""
    depth = np.uintp(len(channels))
    for r in range(np.uintp(first), np.uintp(last + 1)):
        q = r * ROW + np.uintp(column)
        if len(channels) <= MAX_PLANAR_CHANNELS:
            for i in range(BLOCK):
                scratch[COLOR_DOT_V + q + i] = ZERO
            for c in range(depth):
                add_scaled(scratch, COLOR_DOT_V + q, colors[splat_index + c], v_image, c * PLANE + q, LANES)
                v_colors[splat_index + c] += dot(scratch, WEIGHT + q, v_image, c * PLANE + q, LANES)
        else:
            for i in range(BLOCK):
                weight = scratch[WEIGHT + q + i]
                if weight != ZERO:
                    scratch[COLOR_DOT_V + q + i] = dot(
                        colors, splat_index, v_image, (q + i) * depth, channels
                    )
                    add_scaled(v_colors, splat_index, weight, v_image, (q + i) * depth, channels)


@njit(**HELPER)
def _geometry_rows(scratch, splats, splat, window, first, last, column, v_splats):
    """Adds to the gradient of the splat's position, conic and opacity.

    dL/dalpha = T <color, v> - (S + T_end v_T) / (1 - alpha); an alpha capped at 0.999 passes no gradient.
    The loops sum v dx, v dx^2 and so on, with v = dL/dsigma per pixel.
    """
    opacity = splats[splat, OPACITY]
    xx, xy, yy = splats[splat, CONIC_XX], splats[splat, CONIC_XY], splats[splat, CONIC_YY]
    u = splats[splat, U] - np.float32(window[0] + column) - HALF
    v = splats[splat, V] - np.float32(window[1]) - HALF
    v_dx, v_dy, v_dx2, v_dxdy, v_dy2 = ZERO, ZERO, ZERO, ZERO, ZERO
    v_opacity, abs_u, abs_v = ZERO, ZERO, ZERO
    for r in range(np.uintp(first), np.uintp(last + 1)):
        dy = v - np.float32(np.int32(r))
        q = r * ROW + np.uintp(column)
        row, row_dx, row_dx2 = ZERO, ZERO, ZERO
        for i in range(BLOCK):
            weight, color_dot_v, falloff = (
                scratch[WEIGHT + q + i],
                scratch[COLOR_DOT_V + q + i],
                scratch[FALLOFF + q + i],
            )
            alpha = opacity * falloff
            has_gradient = np.float32((weight > ZERO) & (alpha <= MAX_ALPHA))
            behind = scratch[BEHIND + q + i] - weight * color_dot_v
            scratch[BEHIND + q + i] = behind
            before = scratch[TRANSMITTANCE + q + i] + weight
            end = behind + scratch[V_END + q + i]
            v_falloff = falloff * has_gradient * (before * color_dot_v - end / (ONE - min(alpha, MAX_ALPHA)))
            v_sigma = -opacity * v_falloff
            dx = u - np.float32(np.int32(i))
            v_opacity += v_falloff
            row += v_sigma
            row_dx += v_sigma * dx
            row_dx2 += v_sigma * dx * dx
            abs_u += abs(v_sigma * (xx * dx + xy * dy))
            abs_v += abs(v_sigma * (xy * dx + yy * dy))
        v_dx += row_dx
        v_dy += dy * row
        v_dx2 += row_dx2
        v_dxdy += dy * row_dx
        v_dy2 += dy * dy * row
    v_splats[splat, 0] += xx * v_dx + xy * v_dy
    v_splats[splat, 1] += xy * v_dx + yy * v_dy
    v_splats[splat, 2] += abs_u
    v_splats[splat, 3] += abs_v
    v_splats[splat, 4] += HALF * v_dx2
    v_splats[splat, 5] += v_dxdy
    v_splats[splat, 6] += HALF * v_dy2
    v_splats[splat, 7] += v_opacity


@njit(**HELPER)
def _load_gradients(window, gradients, first_channel, depth, scratch, v_tile):
    """Copies a tile of dL/d(image), and initialises BEHIND and V_END."""
    image, transmittance, v_image, v_transmittance = gradients
    left, top, rows, columns = window
    loaded = min(depth, image.shape[2] - first_channel)
    per_pixel, per_channel = buffer_strides(depth)
    clear(v_tile)
    for r in range(rows):
        for i in range(columns):
            q, y, x, behind = np.uintp(r * TILE + i), top + r, left + i, ZERO
            for c in range(loaded):
                v = v_image[y, x, first_channel + c]
                v_tile[(r * TILE + i) * per_pixel + c * per_channel] = v
                behind += v * image[y, x, first_channel + c]
            scratch[BEHIND + q] = behind
            scratch[V_END + q] = transmittance[y, x] * v_transmittance[y, x]


@cached_njit(**KERNEL)
def composite_backward(
    thread, num_threads, tiles, splats, colors, gradients, first_channel, channels, v_splats, v_colors
):
    """Computes the gradient of `composite` over every num_threads-th tile.

    Args:
        thread, num_threads: select the tiles.
        tiles, splats, colors, first_channel, channels: as in `composite`.
        gradients: (image [H, W, D], transmittance [H, W], and dL/d of each), all float32.
        v_splats: [threads, M, 8] float32, each thread adds to its own; columns as in `project_backward`.
        v_colors: [threads, M, P] float32, each thread adds to its own.
    """
    own_v_splats, own_v_colors = v_splats[thread], v_colors[thread].reshape(-1)
    flat_colors = colors.reshape(-1)
    scratch = np.empty((FIRST_FREE_PLANE + 3) * PIXELS, np.float32)
    v_tile = np.empty(PIXELS * len(channels), np.float32)
    for tile in range(thread, tiles.offsets.shape[0] - 1, num_threads):
        window = tile_window(tiles, tile)
        start_tile(scratch, window[2], window[3])
        _load_gradients(window, gradients, first_channel, np.intp(len(channels)), scratch, v_tile)
        live = np.float32(window[2] * window[3])
        for k in range(tiles.offsets[tile], tiles.offsets[tile + 1]):
            if live == ZERO:
                break
            splat = tiles.ids[k]
            index = np.uintp(splat * colors.shape[1] + first_channel)
            first, last, column, end = splat_blocks(splats, splat, window)
            while column <= end:
                live -= blend_rows(scratch, splats, splat, window, first, last, column)
                _color_rows(scratch, first, last, column, flat_colors, v_tile, channels, own_v_colors, index)
                _geometry_rows(scratch, splats, splat, window, first, last, column, own_v_splats)
                column += WIDTH


@cached_njit(**KERNEL)
def scatter_rows(thread, num_threads, partial_sums, visible, column, out):
    """Adds partial sums [threads, M, P], summed over the threads, to the rows `visible` of out [N, D].

    Column `column` of the sums goes to column 0 of `out`. The order of the sum is fixed, so every run with
    the same number of threads gives the same result.
    """
    first, last = thread_range(thread, num_threads, visible.shape[0])
    for splat in range(first, last):
        n = visible[splat]
        for c in range(out.shape[1]):
            total = partial_sums[0, splat, column + c]
            for part in range(1, partial_sums.shape[0]):
                total += partial_sums[part, splat, column + c]
            out[n, c] += total
