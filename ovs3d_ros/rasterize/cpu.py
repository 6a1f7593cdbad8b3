"""The CPU rasterizer: Numba kernels on a pool of threads, as one node of torch's autograd graph."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ovs3d_ros.types import UserError

from . import kernels_backward, kernels_forward, kernels_project, kernels_shade, kernels_tiles
from .kernels_forward import MAX_PLANAR_CHANNELS
from .kernels_project import CameraArrays, GaussianArrays, ProjectedArrays
from .kernels_shade import RGB
from .kernels_tiles import DIGIT_BITS, SPLAT_COLUMNS, TILE, Tiles
from .simd import WIDTH
from .thread_pool import ThreadTeam, clear_slab, in_turn
from .validation import check_colors, check_splats, check_targets, check_views
from .values import Splats, Views

_LIGHT = 1 << 17  # numbers that one thread has moved in less time than it takes to wake another
CHANNEL_CHUNK = 32  # channels per pass: more would spill the innermost loops out of registers


@dataclass
class _View:
    """One camera's visible Gaussians, ready to composite. Its splats and colors die with it."""

    camera: CameraArrays
    projected: ProjectedArrays
    visible: np.ndarray  # [M] int64, ascending indices of the Gaussians that are not culled
    splats: np.ndarray  # [M, 8] float32
    colors: np.ndarray  # [M, P] float32, padded
    tiles: Tiles


@dataclass(slots=True)
class _Inputs:
    """What is rendered, or its gradient."""

    gaussians: GaussianArrays
    colors: np.ndarray  # [N, D] float32
    sh: np.ndarray  # [N, K, 3] float32; K = 0: colors are all there is


def _inputs(tensors: Sequence[np.ndarray]) -> _Inputs:
    """From means, quats, scales, opacities, colors and sh."""
    return _Inputs(GaussianArrays(*tensors[:4]), tensors[4], tensors[5])


def _passes(channels: int) -> list[tuple[int, tuple[int, ...]]]:
    """(first channel, tuple as long as the pass is wide) of every pass over the image.

    Few widths exist, so that few kernels are compiled: 1 to 4 exactly, then multiples of 8.
    """
    passes = []
    for first in range(0, channels, CHANNEL_CHUNK):
        width = min(CHANNEL_CHUNK, channels - first)
        if width > MAX_PLANAR_CHANNELS:
            width = -(-width // WIDTH) * WIDTH
        passes.append((first, (0,) * width))
    return passes


def _padded(channels: int) -> int:
    """Width of packed colors: the last pass may be wider than the channels it holds."""
    return sum(len(width) for _, width in _passes(channels))


def _prepare(
    team: ThreadTeam, gaussians: GaussianArrays, sh: np.ndarray, colors: np.ndarray, camera: CameraArrays
) -> _View:
    """Projects, culls, sorts by depth, packs, shades and bins."""
    count = len(gaussians.means)
    projected = ProjectedArrays(
        np.empty((count, 2), np.float32),
        np.empty((count, 3), np.float32),
        np.empty(count, np.float32),
        np.empty((count, 2), np.int32),
        np.empty((count, 2), np.float32),
    )
    team.run(kernels_project.project_forward, gaussians, camera, projected)
    visible = np.flatnonzero(projected.radii[:, 0] > 0)  # of bools it is twice as fast as of numbers
    splats = team.workspace.take(len(visible), SPLAT_COLUMNS)
    shaded = RGB if sh.shape[1] else 0
    packed = team.workspace.take(len(visible), _padded(shaded + colors.shape[1]))
    inputs = visible, projected, gaussians.opacities, colors, shaded
    calls = [(kernels_tiles.pack_splats, *inputs, splats, packed)]
    if shaded:
        calls.append((kernels_shade.shade_forward, visible, gaussians.means, _center(camera), sh, packed))
    run = team.run_here if splats.size + packed.size < _LIGHT and not shaded else team.run
    run(in_turn(*calls))
    order = _front_to_back(projected.depths[visible])
    tiles = _bin_tiles(team, splats, order, camera.width, camera.height)
    view = _View(camera, projected, visible, splats, packed, tiles)
    weakref.finalize(view, team.workspace.give, splats, packed)
    return view


def _center(camera: CameraArrays) -> np.ndarray:
    """Where the camera stands [3], for a rigid view matrix."""
    return -(camera.viewmat[:3, :3].T @ camera.viewmat[:3, 3])


def _front_to_back(depths: np.ndarray) -> np.ndarray:
    """Stable order of positive depths [M], int32. Positive floats sort like their bits, `DIGIT_BITS` at a time."""
    keys, order = depths.view(np.uint32), np.arange(len(depths), dtype=np.int32)
    if len(keys):
        keys = keys - keys.min()  # within eight octaves of depth two digits are left
        for shift in range(0, int(keys.max()).bit_length(), DIGIT_BITS):
            kernels_tiles.sort_by_digit(keys, np.uint32(shift), order, sorted_order := np.empty_like(order))
            order = sorted_order
    return order


def _bin_tiles(team: ThreadTeam, splats: np.ndarray, order: np.ndarray, width: int, height: int) -> Tiles:
    """Lists, for every tile, the splats that touch it, front to back.

    Each thread lists the pairs of its share of the splats, which are in depth order, and puts them behind those of the
    threads before it: no further sort.
    """
    tiles = -(-width // TILE) * -(-height // TILE)
    counts = np.zeros((tiles, team.size), np.int64)
    pairs = team.run(kernels_tiles.list_intersections, splats, order, width, height, counts)
    offsets = np.zeros(counts.size + 1, np.int64)
    np.cumsum(counts, out=offsets[1:])
    ids, cursors = np.empty(offsets[-1], np.int32), offsets[:-1].reshape(counts.shape).T.copy()
    run = team.run_here if 2 * len(ids) < _LIGHT else team.run
    run(lambda thread, _: kernels_tiles.fill_bins(*pairs[thread], cursors[thread], ids))
    return Tiles(offsets[:: team.size].copy(), ids, width, height)


def _composite(team: ThreadTeam, view: _View, image: np.ndarray, transmittance: np.ndarray) -> None:
    splats, images = (view.tiles, view.splats, view.colors), (image, transmittance)
    calls = ((kernels_forward.composite, *splats, *channels, *images) for channels in _passes(image.shape[-1]))
    team.run(in_turn(*calls))


def _lift(
    team: ThreadTeam, view: _View, targets: np.ndarray, pixel_weights: np.ndarray, numerator: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Adds to numerator [N, D]; returns sum w and max w of every splat."""
    visible, depth = len(view.visible), targets.shape[-1]
    inputs = view.tiles, view.splats, targets, pixel_weights
    with team.slabs(visible, _padded(depth)) as sums:
        calls = [(clear_slab, sums)]
        for channels in _passes(depth):
            weights, maxima = np.zeros((2, team.size, visible), np.float32)  # the same in every pass
            calls.append((kernels_forward.lift_tiles, *inputs, *channels, sums, weights, maxima))
        team.run(in_turn(*calls))
        team.run(kernels_backward.scatter_rows, sums, view.visible, 0, numerator)
    return weights.sum(0), maxima.max(0)


def _backward(
    team: ThreadTeam,
    view: _View,
    inputs: _Inputs,
    image_gradients: tuple[np.ndarray, ...],
    gradients: _Inputs,
    v_means2d_abs: np.ndarray,
    v_viewmat: np.ndarray | None,
) -> None:
    """Adds one camera's share to the gradients, to that of its view matrix [4, 4] if there is one."""
    image, transmittance, v_image, v_transmittance = image_gradients
    view_slabs, v_centers = np.zeros((0 if v_viewmat is None else team.size, 4, 4)), np.zeros((team.size, 3))
    shaded = image.shape[-1] - gradients.colors.shape[1]
    with team.slabs(len(view.visible), SPLAT_COLUMNS) as splat_slabs, team.slabs(*view.colors.shape) as color_slabs:
        calls = [(clear_slab, splat_slabs), (clear_slab, color_slabs)]
        splats, slabs = (view.tiles, view.splats, view.colors), (splat_slabs, color_slabs)
        for first, channels in _passes(image.shape[-1]):
            # The transmittance is one output however many passes the channels take.
            v_end = v_transmittance if first == 0 else np.zeros_like(v_transmittance)
            images = image, transmittance, v_image, v_end
            calls.append((kernels_backward.composite_backward, *splats, images, first, channels, *slabs))
        team.run(in_turn(*calls))
        # All of these add to rows of the same share of the visible Gaussians.
        outputs = gradients.gaussians, v_means2d_abs, view_slabs
        calls = [(kernels_backward.scatter_rows, color_slabs, view.visible, shaded, gradients.colors),
                 (kernels_project.project_backward, inputs.gaussians, view.camera, view.visible, splat_slabs, *outputs)]
        if shaded:
            arrays = view.visible, inputs.gaussians.means, _center(view.camera), inputs.sh, view.colors, color_slabs
            outputs = gradients.gaussians.means, gradients.sh, v_centers
            calls.append((kernels_shade.shade_backward, *arrays, *outputs))
        team.run(in_turn(*calls))
    if v_viewmat is not None:
        v_center = v_centers.sum(0)
        v_viewmat += view_slabs.sum(0)
        v_viewmat[:3, :3] -= np.outer(view.camera.viewmat[:3, 3], v_center)
        v_viewmat[:3, 3] -= view.camera.viewmat[:3, :3] @ v_center


def _array(tensor: Tensor) -> np.ndarray:
    if not tensor.is_cpu:
        raise UserError(f"the CPU rasterizer got tensors on {tensor.device}: move them to the CPU")
    return tensor.detach().contiguous().numpy()


def _camera_arrays(views: Views) -> list[CameraArrays]:
    viewmats, Ks = (_array(tensor).astype(np.float64) for tensor in (views.viewmats, views.Ks))
    return [CameraArrays(*matrices, views.width, views.height) for matrices in zip(viewmats, Ks, strict=True)]


class _Rasterize(torch.autograd.Function):
    """(means, quats, scales, opacities, colors, sh, viewmats) -> (colors [C, H, W, D], alphas [C, H, W, 1])."""

    @staticmethod
    def forward(ctx, team, cameras, meta, *tensors):
        inputs = _inputs([_array(tensor) for tensor in tensors[:6]])
        count = len(inputs.colors)
        depth = inputs.colors.shape[1] + (RGB if inputs.sh.shape[1] else 0)
        width, height = cameras[0].width, cameras[0].height
        image, alphas = (torch.empty(len(cameras), height, width, channels) for channels in (depth, 1))
        transmittance = torch.empty(len(cameras), height, width)
        views = [_prepare(team, inputs.gaussians, inputs.sh, inputs.colors, camera) for camera in cameras]
        for view, image_, transmittance_ in zip(views, image.numpy(), transmittance.numpy(), strict=True):
            _composite(team, view, image_, transmittance_)
        for name in ("radii", "means2d", "depths"):
            arrays = [getattr(view.projected, name) for view in views]
            meta[name] = torch.from_numpy(arrays[0][None] if len(arrays) == 1 else np.stack(arrays))
        meta["means2d_absgrad"] = torch.zeros(len(cameras), count, 2)
        ctx.team, ctx.views, ctx.absgrad = team, views, meta["means2d_absgrad"]
        np.subtract(1.0, transmittance.numpy(), out=alphas.numpy()[..., 0])
        ctx.save_for_backward(*tensors, image, transmittance)
        return image, alphas

    @staticmethod
    @once_differentiable
    def backward(ctx, v_image, v_alphas):
        *tensors, image, transmittance = ctx.saved_tensors
        v_image, v_transmittance = _array(v_image), _array(-v_alphas.squeeze(-1))
        needed = ctx.needs_input_grad[3:]
        # np.zeros costs nothing where it is not touched, torch.zeros writes at once.
        gradients = [np.zeros(t.shape, _array(t).dtype) for t in tensors]
        outputs = _inputs(gradients)
        if any(needed[:4]) or any(needed[5:]) or tensors[5].shape[1]:
            inputs, absgrad = _inputs([_array(tensor) for tensor in tensors[:6]]), ctx.absgrad.zero_().numpy()
            v_cameras = gradients[6] if needed[6] else [None] * len(ctx.views)
            images = zip(_array(image), _array(transmittance), v_image, v_transmittance, strict=True)
            for view, view_images, *v_view in zip(ctx.views, images, absgrad, v_cameras, strict=True):
                _backward(ctx.team, view, inputs, view_images, outputs, *v_view)
        else:  # the gradient with respect to colors alone is the lift of the image's gradient
            pixel_weights = np.ones(v_transmittance.shape[1:], np.float32)
            for view, v_image_ in zip(ctx.views, v_image, strict=True):
                _lift(ctx.team, view, v_image_, pixel_weights, outputs.colors)
        results = (torch.from_numpy(g) if need else None for g, need in zip(gradients, needed, strict=True))
        return None, None, None, *results


class CpuRasterizer:
    """The `Rasterizer` protocol on a CPU. Safe to call from several threads at once.

    Args:
        threads: number of threads, 0 for one per available core.
    """

    def __init__(self, threads: int = 0):
        self._team = ThreadTeam(threads)

    def __call__(
        self, splats: Splats, colors: Tensor, views: Views, sh: Tensor | None = None
    ) -> tuple[Tensor, Tensor, dict[str, Any]]:
        """See `Rasterizer.__call__`."""
        check_splats(splats)
        check_colors(colors, sh, len(splats))
        check_views(views)
        meta: dict[str, Any] = {}
        harmonics = torch.empty(len(splats), 0, 3) if sh is None else sh
        image, alphas = _Rasterize.apply(
            self._team, _camera_arrays(views), meta, *splats.tensors, colors, harmonics, views.viewmats
        )
        return image, alphas, meta

    @torch.no_grad()
    def lift(
        self, splats: Splats, targets: Tensor, views: Views, pixel_weights: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `Rasterizer.lift`. One dedicated front-to-back pass per camera, without autograd."""
        check_splats(splats)
        check_views(views)
        check_targets(targets, pixel_weights, views)
        gaussians = GaussianArrays(*map(_array, splats.tensors))
        if pixel_weights is None:
            pixel_weights = torch.ones(targets.shape[:3])
        numerator = torch.zeros(len(splats), targets.shape[-1])
        weight, max_weight = np.zeros((2, len(splats)), np.float32)
        no_sh, no_colors = np.empty((len(splats), 0, 3), np.float32), np.empty((len(splats), 0), np.float32)
        for camera, image, pixel_weights_ in zip(
            _camera_arrays(views), _array(targets), _array(pixel_weights), strict=True
        ):
            view = _prepare(self._team, gaussians, no_sh, no_colors, camera)
            sums, maxima = _lift(self._team, view, image, pixel_weights_, numerator.numpy())
            weight[view.visible] += sums
            max_weight[view.visible] = np.maximum(max_weight[view.visible], maxima)
        return numerator, torch.from_numpy(weight), torch.from_numpy(max_weight)
