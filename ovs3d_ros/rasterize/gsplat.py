"""The gsplat rasterizer (CUDA) behind the `Rasterizer` protocol."""

from __future__ import annotations

import contextlib
import logging
import sys
import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ovs3d_ros.types import UserError

from .labels import LabelShares, blend_shares
from .spherical_harmonics import camera_centers, sh_to_colors
from .validation import check_colors, check_labels, check_splats, check_targets, check_views
from .values import Splats, Views

log = logging.getLogger(__name__)

MAX_ALPHA = 0.999  # as in gsplat


class GsplatRasterizer:
    """gsplat 1.5.3. Tensors live on a CUDA device.

    Beyond 32 channels `means2d_absgrad` covers only one pass of 32, since gsplat overwrites it in each pass.

    Raises:
        UserError: there is no CUDA device, gsplat is not installed, or its kernels are not compiled and
            cannot be. There is no fallback.
    """

    def __init__(self) -> None:
        if not torch.cuda.is_available():
            raise UserError(
                "the gsplat rasterizer needs an NVIDIA GPU, and torch finds none: choose the rasterizer 'cpu'"
            )
        log.info(
            "loading gsplat's kernels; the first start on a machine compiles them, which takes some minutes"
        )
        try:
            # gsplat prints compiler messages; standard output is for the results of commands.
            with contextlib.redirect_stdout(sys.stderr):
                import gsplat
                from gsplat.cuda._backend import _C
        except ImportError as error:
            raise UserError(f"gsplat cannot be imported ({error}): pip install gsplat==1.5.3") from error
        except Exception as error:  # compilers and drivers raise errors of any kind
            raise UserError(f"gsplat cannot compile its kernels: {error}") from error
        if _C is None:
            raise UserError(
                "gsplat has no compiled kernels and no CUDA toolkit to compile them: install nvcc "
                f"{torch.version.cuda}, or gsplat from a compiled wheel, or choose the rasterizer 'cpu'"
            )
        self._gsplat = gsplat

    def __call__(
        self, splats: Splats, colors: Tensor, views: Views, sh: Tensor | None = None
    ) -> tuple[Tensor, Tensor, dict[str, Any]]:
        """See `Rasterizer.__call__`."""
        check_splats(splats)
        check_colors(colors, sh, len(splats))
        check_views(views)
        means, viewmats = splats.means, views.viewmats.to(splats.means)
        if not means.is_cuda:
            raise UserError(f"the gsplat rasterizer got tensors on {means.device}: move them to the GPU")
        if not len(splats):
            inputs = (*splats.tensors, colors, viewmats, *(() if sh is None else (sh,)))
            depth = colors.shape[1] + (0 if sh is None else sh.shape[2])
            return _render_empty_map(inputs, (len(views), views.height, views.width, depth))
        if sh is not None:  # [C, N, D]: gsplat cannot mix its own harmonics with other channels
            rgb = (sh_to_colors(sh, means, center) for center in camera_centers(viewmats))
            colors = torch.stack([torch.cat([rgb_of_camera, colors], dim=-1) for rgb_of_camera in rgb])
        image, alphas, meta = self._gsplat.rasterization(
            *splats.tensors,
            colors,
            viewmats,
            views.Ks.to(means),
            views.width,
            views.height,
            packed=False,
            absgrad=True,
        )
        meta["means2d_absgrad"] = _absolute_gradient(meta["means2d"])
        return image, alphas, meta

    def lift(
        self, splats: Splats, targets: Tensor, views: Views, pixel_weights: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `Rasterizer.lift`. The gradient of <image, targets> with respect to the colors is the lift."""
        check_views(views)
        check_targets(targets, pixel_weights, views)
        constants = Splats(*(tensor.detach() for tensor in splats.tensors))
        factors = torch.ones_like(targets[..., 0]) if pixel_weights is None else pixel_weights
        phi = torch.cat([targets, torch.ones_like(targets[..., :1])], dim=-1) * factors[..., None]
        sums = targets.new_zeros(len(splats), phi.shape[-1])
        max_weight = targets.new_zeros(len(splats))
        for c, view in enumerate(views if len(splats) else ()):
            with torch.enable_grad():
                colors = torch.zeros_like(sums, requires_grad=True)
                image, _, meta = self(constants, colors, view)
                (gradient,) = torch.autograd.grad(image, colors, phi[c : c + 1])
            sums += gradient
            gaussians, pixels, weights = self._weights(meta, view.width, view.height)
            max_weight.scatter_reduce_(0, gaussians, weights * factors[c].flatten()[pixels], "amax")
        return sums[:, :-1], sums[:, -1], max_weight

    @torch.no_grad()
    def share_labels(self, splats: Splats, labels: Tensor, scores: Tensor, views: Views) -> LabelShares:
        """See `Rasterizer.share_labels`."""
        check_labels(labels, scores, len(splats))
        return blend_shares(self, splats, labels, scores, views)

    @torch.no_grad()
    def _weights(self, meta: dict[str, Any], width: int, height: int) -> tuple[Tensor, Tensor, Tensor]:
        """Gaussian, pixel and weight of every pair that one camera composites: three tensors of equal length.

        gsplat orders the pairs by pixel and, within a pixel, front to back.
        """
        means2d, conics, opacities = meta["means2d"], meta["conics"], meta["opacities"]
        gaussians, pixels, _ = self._gsplat.rasterize_to_indices_in_range(
            0,
            1 + len(meta["flatten_ids"]),
            means2d.new_ones(1, height, width),
            means2d,
            conics,
            opacities,
            width,
            height,
            meta["tile_size"],
            meta["isect_offsets"],
            meta["flatten_ids"],
        )
        centres = torch.stack([pixels % width, pixels // width], dim=-1) + 0.5
        dx, dy = (means2d[0, gaussians] - centres).unbind(-1)
        xx, xy, yy = conics[0, gaussians].unbind(-1)
        sigma = 0.5 * (xx * dx * dx + yy * dy * dy) + xy * dx * dy
        alphas = (opacities[0, gaussians] * torch.exp(-sigma)).clamp_max(MAX_ALPHA).double()
        passed = torch.log1p(-alphas)
        before = passed.cumsum(0) - passed  # log transmittance over all pixels so far
        starts = torch.ones_like(pixels, dtype=torch.bool)
        starts[1:] = pixels[1:] != pixels[:-1]
        before -= before[starts][starts.cumsum(0) - 1]
        return gaussians, pixels, (alphas * before.exp()).to(means2d.dtype)


def _absolute_gradient(means2d: Tensor) -> Tensor:
    """[C, N, 2], zero until a backward pass copies gsplat's attribute `means2d.absgrad` into it."""
    absgrad = torch.zeros_like(means2d, requires_grad=False)
    absgrad.source = means2d  # a reference to one keeps both alive
    # A hook with a strong reference to its own tensor would keep it, and the graph behind it, forever.
    weak_absgrad = weakref.ref(absgrad)

    def copy_absgrad(_: Tensor) -> None:
        if (target := weak_absgrad()) is not None:
            target.copy_(target.source.absgrad)

    if means2d.requires_grad:
        # gsplat sets the attribute in its backward, just before the gradient of means2d is known.
        means2d.register_hook(copy_absgrad)
    return absgrad


def _render_empty_map(
    inputs: Sequence[Tensor], shape: tuple[int, ...]
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Renders black [C, H, W, D] with gradients for all inputs; on an empty map gsplat divides by zero."""
    image = inputs[0].new_zeros(shape) + 0.0 * sum(tensor.sum() for tensor in inputs)
    meta = {name: image.new_zeros(shape[0], 0, 2) for name in ("means2d", "means2d_absgrad")}
    meta["radii"] = meta["means2d"].to(torch.int32)
    return image, image.new_zeros(*shape[:3], 1), meta | {"depths": image.new_zeros(shape[0], 0)}
