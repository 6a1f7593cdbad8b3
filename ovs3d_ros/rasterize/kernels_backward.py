"""Numba kernels: gradient of alpha compositing, as a second front-to-back pass.

With v = dL/d(image), the gradient of alpha_i at a pixel needs only the scalar S_i = <color composited behind
i, v>: it starts as <image, v> and loses w_i <color_i, v> at every splat passed. So the forward order is
replayed; no per-pixel index of the last splat is stored and no transmittance is recovered by division.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from .kernels_forward import (
    LIVE,
    MAX_ALPHA,
    MAX_PLANAR_CHANNELS,
    MIN_ALPHA,
    PLANE,
    ROW,
    STOP_TRANSMITTANCE,
    exp_negative,
    row_polynomial,
    start_tile,
    tile_window,
)
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
    V,
    ZERO,
    pixel_span,
)

# Planes of the scratch array behind TRANSMITTANCE and LIVE.
WEIGHT = np.uintp(2 * PIXELS)
BEFORE = np.uintp(3 * PIXELS)  # transmittance in front of the splat
FALLOFF = np.uintp(4 * PIXELS)  # exp(-sigma)
HIT = np.uintp(5 * PIXELS)  # 1.0 where the splat contributes
SHADE = np.uintp(6 * PIXELS)  # <color of the splat, v>
BEHIND = np.uintp(7 * PIXELS)  # <color composited behind the splat, v>
V_END = np.uintp(8 * PIXELS)  # final transmittance * its gradient
BACKWARD_PLANES = 9


@njit(**KERNEL)
def _replay_row(scratch, q, dx0, c0, c1, c2, opacity):
    """`blend_row`, keeping what the gradient needs."""
    hits, live = ZERO, ZERO
    for i in range(ROW):
        dx = dx0 - np.float32(np.int32(i))
        sigma = c0 + dx * (c1 + c2 * dx)
        falloff = exp_negative(min(sigma, np.float32(8.0)))
        alpha = min(opacity * falloff, MAX_ALPHA)
        was_live, before = scratch[LIVE + q + i], scratch[q + i]
        hit = was_live * np.float32((sigma >= ZERO) & (alpha >= MIN_ALPHA))
        stop = hit * np.float32(before * (ONE - alpha) <= STOP_TRANSMITTANCE)
        hit = hit - stop
        weight = hit * alpha * before
        scratch[WEIGHT + q + i] = weight
        scratch[BEFORE + q + i] = before
        scratch[FALLOFF + q + i] = falloff
        scratch[HIT + q + i] = hit
        scratch[SHADE + q + i] = ZERO
        scratch[q + i] = before - weight
        scratch[LIVE + q + i] = was_live - stop
        hits += hit
        live += was_live - stop
    return hits, live


@njit(**KERNEL)
def _color_row(scratch, q, color, v_image, channels, v_color):
    """Fills SHADE for one row and adds the row's share to the gradient of the color."""
    depth = np.uintp(len(channels))
    if len(channels) <= MAX_PLANAR_CHANNELS:
        for c in range(depth):
            value, base, total = color[c], c * PLANE + q, ZERO
            for i in range(ROW):
                v = v_image[base + i]
                scratch[SHADE + q + i] += value * v
                total += scratch[WEIGHT + q + i] * v
            v_color[c] += total
    else:
        for i in range(ROW):
            weight = scratch[WEIGHT + q + i]
            if weight != ZERO:
                base, shade = (q + i) * depth, ZERO
                for c in range(depth):
                    shade += color[c] * v_image[base + c]
                for c in range(depth):
                    v_color[c] += weight * v_image[base + c]
                scratch[SHADE + q + i] = shade


@njit(**KERNEL)
def _geometry_row(scratch, q, dx0, dy, conic, opacity):
    """Sums over one row: (v dx, v dx^2, v, v_opacity, |v_u|, |v_v|) with v = dL/dsigma per pixel.

    dL/dalpha = T <color, v> - (S + T_end v_T) / (1 - alpha); the cap at 0.999 passes no gradient on.
    """
    xx, xy, yy = conic
    sum_dx, sum_dx2, sum_v, sum_opacity, abs_u, abs_v = ZERO, ZERO, ZERO, ZERO, ZERO, ZERO
    for i in range(ROW):
        shade, falloff = scratch[SHADE + q + i], scratch[FALLOFF + q + i]
        alpha = opacity * falloff
        passes = scratch[HIT + q + i] * np.float32(alpha <= MAX_ALPHA)
        alpha = min(alpha, MAX_ALPHA)
        behind = scratch[BEHIND + q + i] - scratch[WEIGHT + q + i] * shade
        scratch[BEHIND + q + i] = behind
        v_alpha = (scratch[BEFORE + q + i] * shade - (behind + scratch[V_END + q + i]) / (ONE - alpha)) * passes
        v_sigma = -opacity * falloff * v_alpha
        dx = dx0 - np.float32(np.int32(i))
        sum_opacity += falloff * v_alpha
        sum_v += v_sigma
        sum_dx += v_sigma * dx
        sum_dx2 += v_sigma * dx * dx
        abs_u += abs(v_sigma * (xx * dx + xy * dy))
        abs_v += abs(v_sigma * (xy * dx + yy * dy))
    return sum_dx, sum_dx2, sum_v, sum_opacity, abs_u, abs_v


@njit(**KERNEL)
def _load_gradients(window, gradients, first_channel, channels, scratch, v_tile):
    """Copies a tile of dL/d(image), and starts BEHIND and V_END from it."""
    image, transmittance, v_image, v_transmittance = gradients
    left, top, rows, columns = window
    depth = len(channels)
    for r in range(TILE):
        for i in range(TILE):
            q, inside, behind = r * TILE + i, r < rows and i < columns, ZERO
            for c in range(depth):
                planar = len(channels) <= MAX_PLANAR_CHANNELS
                v = v_image[top + r, left + i, first_channel + c] if inside else ZERO
                v_tile[c * PIXELS + q if planar else q * depth + c] = v
                if inside:
                    behind += v * image[top + r, left + i, first_channel + c]
            scratch[BEHIND + q] = behind
            end = transmittance[top + r, left + i] * v_transmittance[top + r, left + i] if inside else ZERO
            scratch[V_END + q] = end


@njit(**KERNEL)
def _splat_backward(scratch, splats, splat, window, live_rows, color, v_tile, channels, v_color, v_splat):
    """One splat in one tile: adds to `v_color` [D] and `v_splat` [8], returns the number of rows that died."""
    left, top, rows, columns = window
    opacity = splats[splat, OPACITY]
    conic = splats[splat, CONIC_XX], splats[splat, CONIC_XY], splats[splat, CONIC_YY]
    xx, xy, yy = conic
    g_u, g_v, g_abs_u, g_abs_v, g_xx, g_xy, g_yy, g_opacity = ZERO, ZERO, ZERO, ZERO, ZERO, ZERO, ZERO, ZERO
    died = 0
    first, last = pixel_span(splats[splat, V], splats[splat, EXTENT_V], top, rows)
    for r in range(first, last + 1):
        if not live_rows[r]:
            continue
        dx, c0, c1, c2 = row_polynomial(splats, splat, left, top + r)
        q = np.uintp(r * TILE)
        hits, live = _replay_row(scratch, q, dx, c0, c1, c2, opacity)
        if live == ZERO:
            live_rows[r] = False
            died += 1
        if hits == ZERO:
            continue
        _color_row(scratch, q, color, v_tile, channels, v_color)
        dy = splats[splat, V] - (np.float32(top + r) + HALF)
        sum_dx, sum_dx2, sum_v, sum_opacity, abs_u, abs_v = _geometry_row(scratch, q, dx, dy, conic, opacity)
        g_opacity += sum_opacity
        g_u += xx * sum_dx + xy * dy * sum_v
        g_v += xy * sum_dx + yy * dy * sum_v
        g_xx += HALF * sum_dx2
        g_xy += dy * sum_dx
        g_yy += HALF * dy * dy * sum_v
        g_abs_u += abs_u
        g_abs_v += abs_v
    v_splat[0] += g_u
    v_splat[1] += g_v
    v_splat[2] += g_abs_u
    v_splat[3] += g_abs_v
    v_splat[4] += g_xx
    v_splat[5] += g_xy
    v_splat[6] += g_yy
    v_splat[7] += g_opacity
    return died


@njit(**KERNEL)
def composite_backward(
    thread, num_threads, tiles, splats, colors, gradients, first_channel, channels, v_splats, v_colors
):
    """Gradient of `composite` over every num_threads-th tile.

    Args:
        thread, num_threads: which tiles.
        tiles, splats, colors: as in `composite`.
        gradients: (image [H, W, Dtotal], transmittance [H, W], and dL/d of each), all float32.
        first_channel, channels: which channels this pass covers.
        v_splats: [M, 8] float32, this thread's own, added to; columns as in `project_backward`.
        v_colors: [M, Dtotal] float32, this thread's own, added to.
    """
    depth = len(channels)
    scratch = np.empty(BACKWARD_PLANES * PIXELS, np.float32)
    v_tile = np.empty(PIXELS * depth, np.float32)
    color, v_color = np.empty(depth, np.float32), np.empty(depth, np.float32)
    live_rows = np.empty(TILE, np.bool_)
    for tile in range(thread, tiles.offsets.shape[0] - 1, num_threads):
        window = tile_window(tiles, tile)
        start_tile(scratch, window[2], window[3], live_rows)
        _load_gradients(window, gradients, first_channel, channels, scratch, v_tile)
        remaining = window[2]
        for k in range(tiles.offsets[tile], tiles.offsets[tile + 1]):
            if remaining == 0:
                break
            splat = tiles.ids[k]
            for c in range(depth):
                color[c] = colors[splat, first_channel + c]
                v_color[c] = ZERO
            remaining -= _splat_backward(
                scratch, splats, splat, window, live_rows, color, v_tile, channels, v_color, v_splats[splat]
            )
            for c in range(depth):
                v_colors[splat, first_channel + c] += v_color[c]


@njit(**KERNEL)
def scatter_rows(thread, num_threads, slabs, visible, out):
    """Adds the sum of the threads' slabs [threads, M, D] to rows `visible` of out [N, D].

    The slabs are summed in a fixed order: the result is the same on every run with as many threads.
    """
    count = visible.shape[0]
    for splat in range(thread * count // num_threads, (thread + 1) * count // num_threads):
        n = visible[splat]
        for c in range(out.shape[1]):
            total = slabs[0, splat, c]
            for slab in range(1, slabs.shape[0]):
                total += slabs[slab, splat, c]
            out[n, c] += total
