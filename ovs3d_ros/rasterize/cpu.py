"""The CPU rasterizer: Numba kernels on a pool of threads, as one node of torch's autograd graph."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ovs3d_ros.types import UserError

from .cpu_passes import composite_view, differentiate_view, lift_view, share_view
from .cpu_view import PreparedView, SceneArrays, prepare_view
from .kernels_project import CameraArrays
from .labels import LabelShares
from .thread_pool import ThreadPool
from .validation import check_colors, check_labels, check_splats, check_targets, check_views
from .values import Splats, Views


class CpuRasterizer:
    """The `Rasterizer` protocol on a CPU. Several threads may call it at once.

    Args:
        threads: number of threads, 0 for one per available core.
    """

    def __init__(self, threads: int = 0):
        self._pool = ThreadPool(threads)

    def __call__(
        self, splats: Splats, colors: Tensor, views: Views, sh: Tensor | None = None
    ) -> tuple[Tensor, Tensor, dict[str, Any]]:
        """See `Rasterizer.__call__`."""
        check_splats(splats)
        check_colors(colors, sh, len(splats))
        check_views(views)
        meta: dict[str, Any] = {}
        sh = torch.empty(len(splats), 0, 3) if sh is None else sh
        image, alphas = _Rasterize.apply(
            self._pool, _camera_arrays(views), meta, *splats.tensors, colors, sh, views.viewmats
        )
        return image, alphas, meta

    @torch.no_grad()
    def lift(
        self, splats: Splats, targets: Tensor, views: Views, pixel_weights: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `Rasterizer.lift`. Each camera takes one front-to-back pass, without autograd."""
        check_splats(splats)
        check_views(views)
        check_targets(targets, pixel_weights, views)
        count, scene = len(splats), _colorless(splats)
        if pixel_weights is None:
            pixel_weights = torch.ones(targets.shape[:3])
        numerator = np.zeros((count, targets.shape[-1]), np.float32)
        weight, max_weight = np.zeros((2, count), np.float32)
        images = zip(_camera_arrays(views), _array(targets), _array(pixel_weights), strict=True)
        for camera, target, factors in images:
            view = prepare_view(self._pool, scene, camera)
            sums, maxima = lift_view(self._pool, view, target, factors, numerator)
            weight[view.visible] += sums
            max_weight[view.visible] = np.maximum(max_weight[view.visible], maxima)
        return torch.from_numpy(numerator), torch.from_numpy(weight), torch.from_numpy(max_weight)

    @torch.no_grad()
    def share_labels(self, splats: Splats, labels: Tensor, scores: Tensor, views: Views) -> LabelShares:
        """See `Rasterizer.share_labels`."""
        check_splats(splats)
        check_views(views)
        check_labels(labels, scores, len(splats))
        scene, columns = _colorless(splats), (_array(labels).astype(np.int32), _array(scores))
        best = np.empty((len(views), views.height, views.width), np.int32)
        shares = np.empty((len(best), 4, *best.shape[1:]), np.float32)
        for camera, *outputs in zip(_camera_arrays(views), best, shares, strict=True):
            share_view(self._pool, prepare_view(self._pool, scene, camera), *columns, *outputs)
        return LabelShares(torch.from_numpy(best), *torch.from_numpy(shares).unbind(1))


class _Rasterize(torch.autograd.Function):
    """(means, quats, scales, opacities, colors, sh, viewmats) -> image [C, H, W, D], alphas [C, H, W, 1]."""

    @staticmethod
    def forward(ctx, pool, cameras, meta, *tensors):
        scene = _scene_arrays(tensors[:6])
        views = [prepare_view(pool, scene, camera) for camera in cameras]
        size = len(cameras), cameras[0].height, cameras[0].width
        image = torch.empty(*size, scene.rgb_channels + scene.colors.shape[1])
        alphas, transmittance = torch.empty(*size, 1), torch.empty(size)
        for view, *outputs in zip(views, image.numpy(), transmittance.numpy(), strict=True):
            composite_view(pool, view, *outputs)
        np.subtract(1.0, transmittance.numpy(), out=alphas.numpy()[..., 0])
        _fill_meta(meta, views)
        ctx.pool, ctx.views, ctx.absgrad = pool, views, meta["means2d_absgrad"]
        ctx.save_for_backward(*tensors, image, transmittance)
        return image, alphas

    @staticmethod
    @once_differentiable
    def backward(ctx, v_image, v_alphas):
        *tensors, image, transmittance = ctx.saved_tensors
        v_image, v_transmittance = _array(v_image), _array(-v_alphas.squeeze(-1))
        # np.zeros touches no memory until it is used, torch.zeros writes at once.
        arrays = [np.zeros(tensor.shape, _array(tensor).dtype) for tensor in tensors]
        gradients, v_viewmats = SceneArrays.from_arrays(arrays[:6]), arrays[6]
        needed = ctx.needs_input_grad[3:]
        has_sh = tensors[5].shape[1] > 0
        if any(needed[:4]) or any(needed[5:]) or has_sh:
            scene, absgrad = _scene_arrays(tensors[:6]), ctx.absgrad.zero_().numpy()
            v_cameras = v_viewmats if needed[6] else [None] * len(ctx.views)
            images = zip(_array(image), _array(transmittance), v_image, v_transmittance, strict=True)
            for view, view_images, *outputs in zip(ctx.views, images, absgrad, v_cameras, strict=True):
                differentiate_view(ctx.pool, view, scene, view_images, gradients, *outputs)
        else:  # the gradient of the colors alone is the lift of the image's gradient
            pixel_weights = np.ones(v_transmittance.shape[1:], np.float32)
            for view, v_view_image in zip(ctx.views, v_image, strict=True):
                lift_view(ctx.pool, view, v_view_image, pixel_weights, gradients.colors)
        results = (torch.from_numpy(a) if need else None for a, need in zip(arrays, needed, strict=True))
        return None, None, None, *results


def _fill_meta(meta: dict[str, Any], views: list[PreparedView]) -> None:
    """Stacks the projections of all cameras, and adds a place for the absolute gradients."""
    for name in ("radii", "means2d", "depths"):
        arrays = [getattr(view.projected, name) for view in views]
        meta[name] = torch.from_numpy(arrays[0][None] if len(arrays) == 1 else np.stack(arrays))
    meta["means2d_absgrad"] = torch.zeros(meta["means2d"].shape)


def _colorless(splats: Splats) -> SceneArrays:
    count = len(splats)
    return _scene_arrays((*splats.tensors, torch.empty(count, 0), torch.empty(count, 0, 3)))


def _scene_arrays(tensors: Iterable[Tensor]) -> SceneArrays:
    """Takes means, quats, scales, opacities, colors and sh."""
    return SceneArrays.from_arrays([_array(tensor) for tensor in tensors])


def _camera_arrays(views: Views) -> list[CameraArrays]:
    viewmats, Ks = (_array(tensor).astype(np.float64) for tensor in (views.viewmats, views.Ks))
    return [CameraArrays(*matrices, views.width, views.height) for matrices in zip(viewmats, Ks, strict=True)]


def _array(tensor: Tensor) -> np.ndarray:
    if not tensor.is_cpu:
        raise UserError(f"the CPU rasterizer got tensors on {tensor.device}: move them to the CPU")
    return tensor.detach().contiguous().numpy()
