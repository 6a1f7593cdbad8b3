"""One camera's visible Gaussians: projected, sorted by depth, packed, coloured and listed by tile."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from . import kernels_project, kernels_shade, kernels_tiles
from .kernels_forward import MAX_PLANAR_CHANNELS
from .kernels_project import CameraArrays, GaussianArrays, ProjectedArrays
from .kernels_shade import RGB
from .kernels_tiles import DIGIT_BITS, SPLAT_COLUMNS, TILE, Tiles
from .simd import WIDTH
from .thread_pool import ThreadPool, chain_kernels

CHANNELS_PER_PASS = 32  # more would spill the innermost loops out of registers
# A thread moves fewer numbers than this in less time than it takes to wake another thread.
MIN_PARALLEL_SIZE = 1 << 17


@dataclass(frozen=True, slots=True)
class SceneArrays:
    """The Gaussians to render, or the gradients of their arrays.

    Attributes:
        gaussians: means, quats, scales and opacities.
        colors: [N, D] float32.
        sh: [N, K, 3] float32; without spherical harmonics K is 0.
    """

    gaussians: GaussianArrays
    colors: np.ndarray
    sh: np.ndarray

    @classmethod
    def from_arrays(cls, arrays: Sequence[np.ndarray]) -> SceneArrays:
        """Takes means, quats, scales, opacities, colors and sh."""
        return cls(GaussianArrays(*arrays[:4]), arrays[4], arrays[5])

    @property
    def rgb_channels(self) -> int:
        """Number of image channels that the harmonics fill; `colors` fill those behind them."""
        return RGB if self.sh.shape[1] else 0


@dataclass
class PreparedView:
    """One camera's M visible Gaussians, ready to composite. Its splats and colors return to the pool with it.

    Attributes:
        camera: the camera.
        projected: all N Gaussians on the image plane.
        visible: [M] int64, ascending indices of the Gaussians that are not culled.
        splats: [M, 8] float32, packed.
        colors: [M, P] float32, padded to P = `padded_channels(D)`.
        tiles: which splats touch which tile.
    """

    camera: CameraArrays
    projected: ProjectedArrays
    visible: np.ndarray
    splats: np.ndarray
    colors: np.ndarray
    tiles: Tiles


def channel_passes(channels: int) -> list[tuple[int, tuple[int, ...]]]:
    """(first channel, tuple as long as the pass is wide) of every pass over the image.

    Passes have few widths, so Numba compiles few kernels: 1 to 4 exactly, then multiples of 8.
    """
    passes = []
    for first in range(0, channels, CHANNELS_PER_PASS):
        width = min(CHANNELS_PER_PASS, channels - first)
        if width > MAX_PLANAR_CHANNELS:
            width = -(-width // WIDTH) * WIDTH
        passes.append((first, (0,) * width))
    return passes


def padded_channels(channels: int) -> int:
    """Width of packed colors: the last pass may be wider than the channels it holds."""
    return sum(len(width) for _, width in channel_passes(channels))


def camera_center(camera: CameraArrays) -> np.ndarray:
    """Position of a camera with a rigid view matrix, [3]."""
    return -(camera.viewmat[:3, :3].T @ camera.viewmat[:3, 3])


def prepare_view(pool: ThreadPool, scene: SceneArrays, camera: CameraArrays) -> PreparedView:
    """Projects, culls, packs, shades, sorts and bins the Gaussians."""
    projected = _project(pool, scene.gaussians, camera)
    visible = np.flatnonzero(projected.radii[:, 0] > 0)  # twice as fast on bools as on numbers
    splats, colors = _pack(pool, scene, camera, projected, visible)
    order = sort_front_to_back(projected.depths[visible])
    tiles = _bin_tiles(pool, splats, order, camera.width, camera.height)
    view = PreparedView(camera, projected, visible, splats, colors, tiles)
    weakref.finalize(view, pool.buffers.release, splats, colors)
    return view


def _project(pool: ThreadPool, gaussians: GaussianArrays, camera: CameraArrays) -> ProjectedArrays:
    count = len(gaussians.means)
    projected = ProjectedArrays(
        means2d=np.empty((count, 2), np.float32),
        conics=np.empty((count, 3), np.float32),
        depths=np.empty(count, np.float32),
        radii=np.empty((count, 2), np.int32),
        half_sizes=np.empty((count, 2), np.float32),
    )
    pool.run(kernels_project.project_forward, gaussians, camera, projected)
    return projected


def _pack(
    pool: ThreadPool,
    scene: SceneArrays,
    camera: CameraArrays,
    projected: ProjectedArrays,
    visible: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Splats [M, 8] and colors [M, P] of the visible Gaussians, in arrays of the buffer pool."""
    rgb_channels = scene.rgb_channels
    splats = pool.buffers.acquire(len(visible), SPLAT_COLUMNS)
    colors = pool.buffers.acquire(len(visible), padded_channels(rgb_channels + scene.colors.shape[1]))
    sources = visible, projected, scene.gaussians.opacities, scene.colors, rgb_channels
    calls = [(kernels_tiles.pack_splats, *sources, splats, colors)]
    if rgb_channels:
        center = camera_center(camera)
        calls.append((kernels_shade.shade_forward, visible, scene.gaussians.means, center, scene.sh, colors))
    is_small = splats.size + colors.size < MIN_PARALLEL_SIZE and not rgb_channels
    run = pool.run_inline if is_small else pool.run
    run(chain_kernels(*calls))
    return splats, colors


def sort_front_to_back(depths: np.ndarray) -> np.ndarray:
    """Stable order of positive depths [M], int32.

    Positive floats sort like their bits; a radix sort takes `DIGIT_BITS` of them at a time.
    """
    keys, order = depths.view(np.uint32), np.arange(len(depths), dtype=np.int32)
    if len(keys):
        keys = keys - keys.min()  # within eight octaves of depth two digits are left
        for shift in range(0, int(keys.max()).bit_length(), DIGIT_BITS):
            kernels_tiles.sort_by_digit(keys, np.uint32(shift), order, sorted_order := np.empty_like(order))
            order = sorted_order
    return order


def _bin_tiles(pool: ThreadPool, splats: np.ndarray, order: np.ndarray, width: int, height: int) -> Tiles:
    """Lists the splats that touch each tile, front to back.

    Each thread lists the pairs of its share of the splats in depth order. Its pairs go behind those of the
    threads before it, so no further sort is needed.
    """
    tiles = -(-width // TILE) * -(-height // TILE)
    counts = np.zeros((tiles, pool.size), np.int64)
    pairs = pool.run(kernels_tiles.list_intersections, splats, order, width, height, counts)
    offsets = np.zeros(counts.size + 1, np.int64)
    np.cumsum(counts, out=offsets[1:])
    ids, cursors = np.empty(offsets[-1], np.int32), offsets[:-1].reshape(counts.shape).T.copy()
    run = pool.run_inline if 2 * len(ids) < MIN_PARALLEL_SIZE else pool.run
    run(lambda thread, _: kernels_tiles.fill_bins(*pairs[thread], cursors[thread], ids))
    return Tiles(offsets[:: pool.size].copy(), ids, width, height)
