"""The passes over one prepared view: compositing, its gradient, and the lift."""

from __future__ import annotations

import numpy as np

from . import kernels_backward, kernels_forward, kernels_labels, kernels_project, kernels_shade
from .cpu_view import PreparedView, SceneArrays, camera_center, channel_passes, padded_channels
from .kernels_tiles import SPLAT_COLUMNS
from .thread_pool import ThreadPool, chain_kernels, clear_partial_sums


def composite_view(
    pool: ThreadPool, view: PreparedView, image: np.ndarray, transmittance: np.ndarray
) -> None:
    """Fills image [H, W, D] and transmittance [H, W]."""
    sources = view.tiles, view.splats, view.colors
    calls = [
        (kernels_forward.composite, *sources, first, channels, image, transmittance)
        for first, channels in channel_passes(image.shape[-1])
    ]
    pool.run(chain_kernels(*calls))


def share_view(
    pool: ThreadPool,
    view: PreparedView,
    labels: np.ndarray,
    scores: np.ndarray,
    best: np.ndarray,
    shares: np.ndarray,
) -> None:
    """Fills best [H, W] and shares [4, H, W] from labels [N] int32 and scores [N], see `LabelShares`."""
    shown, count = labels[view.visible], int(labels.max(initial=0))
    sources = view.tiles, view.splats, shown, scores[view.visible]
    pool.run(kernels_labels.share_tiles, *sources, count, best, shares)


def lift_view(
    pool: ThreadPool,
    view: PreparedView,
    targets: np.ndarray,
    pixel_weights: np.ndarray,
    numerator: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Lifts targets [H, W, D] with pixel_weights [H, W], see `Rasterizer.lift`.

    Adds to numerator [N, D].

    Returns:
        Sum [M] and maximum [M] of the weights of each visible Gaussian.
    """
    count, depth = len(view.visible), targets.shape[-1]
    sources = view.tiles, view.splats, targets, pixel_weights
    with pool.partial_sums(count, padded_channels(depth)) as sums:
        calls = [(clear_partial_sums, sums)]
        for first, channels in channel_passes(depth):
            weights, maxima = np.zeros((2, pool.size, count), np.float32)  # the same in every pass
            calls.append((kernels_forward.lift_tiles, *sources, first, channels, sums, weights, maxima))
        pool.run(chain_kernels(*calls))
        pool.run(kernels_backward.scatter_rows, sums, view.visible, 0, numerator)
    return weights.sum(0), maxima.max(0)


def differentiate_view(
    pool: ThreadPool,
    view: PreparedView,
    scene: SceneArrays,
    images: tuple[np.ndarray, ...],
    gradients: SceneArrays,
    v_means2d_abs: np.ndarray,
    v_viewmat: np.ndarray | None,
) -> None:
    """Adds one camera's share to all gradients.

    Args:
        pool: threads and memory.
        view: the composited view.
        scene: the Gaussians of `view`.
        images: (image [H, W, D], transmittance [H, W], and dL/d of each).
        gradients: gradients of `scene`, added to.
        v_means2d_abs: [N, 2] sums of absolute gradients per pixel, added to.
        v_viewmat: [4, 4] gradient of the view matrix, added to; None where no caller needs it.
    """
    with (
        pool.partial_sums(len(view.visible), SPLAT_COLUMNS) as v_splats,
        pool.partial_sums(*view.colors.shape) as v_colors,
    ):
        _composite_backward(pool, view, images, v_splats, v_colors)
        _splats_backward(pool, view, scene, v_splats, v_colors, gradients, v_means2d_abs, v_viewmat)


def _composite_backward(
    pool: ThreadPool,
    view: PreparedView,
    images: tuple[np.ndarray, ...],
    v_splats: np.ndarray,
    v_colors: np.ndarray,
) -> None:
    """Fills v_splats [threads, M, 8] and v_colors [threads, M, P], each thread its own row."""
    image, transmittance, v_image, v_transmittance = images
    sources = view.tiles, view.splats, view.colors
    calls = [(clear_partial_sums, v_splats), (clear_partial_sums, v_colors)]
    for first, channels in channel_passes(image.shape[-1]):
        # The transmittance is one output, however many passes the channels take.
        v_end = v_transmittance if first == 0 else np.zeros_like(v_transmittance)
        pixels = image, transmittance, v_image, v_end
        calls.append(
            (kernels_backward.composite_backward, *sources, pixels, first, channels, v_splats, v_colors)
        )
    pool.run(chain_kernels(*calls))


def _splats_backward(
    pool: ThreadPool,
    view: PreparedView,
    scene: SceneArrays,
    v_splats: np.ndarray,
    v_colors: np.ndarray,
    gradients: SceneArrays,
    v_means2d_abs: np.ndarray,
    v_viewmat: np.ndarray | None,
) -> None:
    """Carries the gradients of splats and packed colors on to the scene and the view matrix."""
    v_viewmats = np.zeros((0 if v_viewmat is None else pool.size, 4, 4))
    v_centers = np.zeros((pool.size, 3))
    geometry, v_geometry = scene.gaussians, gradients.gaussians
    # In all of these kernels a thread adds to the rows of the same share of the visible Gaussians.
    calls = [
        (kernels_backward.scatter_rows, v_colors, view.visible, scene.rgb_channels, gradients.colors),
        (
            kernels_project.project_backward,
            *(geometry, view.camera, view.visible, v_splats, v_geometry, v_means2d_abs, v_viewmats),
        ),
    ]
    if scene.rgb_channels:
        sources = view.visible, geometry.means, camera_center(view.camera), scene.sh, view.colors, v_colors
        calls.append((kernels_shade.shade_backward, *sources, v_geometry.means, gradients.sh, v_centers))
    pool.run(chain_kernels(*calls))
    if v_viewmat is not None:
        rotation, translation = view.camera.viewmat[:3, :3], view.camera.viewmat[:3, 3]
        v_center = v_centers.sum(0)  # of -R^T t
        v_viewmat[...] += v_viewmats.sum(0)
        v_viewmat[:3, :3] -= np.outer(translation, v_center)
        v_viewmat[:3, 3] -= rotation @ v_center
