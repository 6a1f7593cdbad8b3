"""Numba kernel: how labels share the pixels of a view.

A Gaussian has one label, so each adds to one plane of a tile and to that of the scores, however many labels
there are; Gaussians without one only hide what is behind them. Blending one channel per label takes twice as
long with eight channels. See `kernels_forward` for how the kernels are made.
"""

from __future__ import annotations

import numpy as np

from .kernel_cache import cached_njit
from .kernels_forward import (
    FIRST_FREE_PLANE,
    LANES,
    PLANE,
    ROW,
    TRANSMITTANCE,
    WEIGHT,
    blend_rows,
    clear,
    splat_blocks,
    start_tile,
    tile_window,
)
from .kernels_project import KERNEL
from .kernels_tiles import ONE, PIXELS, TILE, ZERO
from .simd import WIDTH, add_scaled


@cached_njit(**KERNEL)
def share_tiles(thread, num_threads, tiles, splats, labels, scores, count, best, shares):
    """Shares the pixels of every num_threads-th tile.

    Args:
        thread, num_threads: select the tiles.
        tiles: Tiles.
        splats: [M, 8] float32 packed splats.
        labels: [M] int32, 0 = none.
        scores: [M] float32.
        count: the largest label.
        best: [H, W] int32, filled with the label that fills most, 0 = none.
        shares: [4, H, W] float32, filled as `LabelShares` has them: most, labelled, score, alpha. Where no
            Gaussian of a tile has a label, all are 0.
    """
    scratch = np.empty(FIRST_FREE_PLANE * PIXELS, np.float32)
    buffer = np.empty(PIXELS * (count + 1), np.float32)  # the scores, then label after label
    for tile in range(thread, tiles.offsets.shape[0] - 1, num_threads):
        window = tile_window(tiles, tile)
        start_tile(scratch, window[2], window[3])
        clear(buffer)
        has_labels = False
        for k in range(tiles.offsets[tile], tiles.offsets[tile + 1]):
            has_labels |= labels[tiles.ids[k]] > 0
        live = np.float32(window[2] * window[3]) if has_labels else ZERO
        for k in range(tiles.offsets[tile], tiles.offsets[tile + 1]):
            if live == ZERO:
                break
            splat = tiles.ids[k]
            plane, score = np.uintp(labels[splat]) * PLANE, scores[splat]
            first, last, column, end = splat_blocks(splats, splat, window)
            while column <= end:
                live -= blend_rows(scratch, splats, splat, window, first, last, column)
                if plane:
                    for r in range(np.uintp(first), np.uintp(last + 1)):
                        q = r * ROW + np.uintp(column)
                        add_scaled(buffer, plane + q, ONE, scratch, WEIGHT + q, LANES)
                        add_scaled(buffer, q, score, scratch, WEIGHT + q, LANES)
                column += WIDTH
        left, top, rows, columns = window
        for r in range(rows):
            for i in range(columns):
                q, most, label, labelled = np.uintp(r * TILE + i), ZERO, 0, ZERO
                for k in range(1, count + 1):
                    share = buffer[np.uintp(k) * PLANE + q]
                    labelled += share
                    if share > most:
                        most, label = share, k
                best[top + r, left + i] = label
                shares[0, top + r, left + i] = most
                shares[1, top + r, left + i] = labelled
                shares[2, top + r, left + i] = buffer[q]
                shares[3, top + r, left + i] = ONE - scratch[TRANSMITTANCE + q]
