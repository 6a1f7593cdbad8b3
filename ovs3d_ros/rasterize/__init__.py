"""Rendering of N-channel 3D Gaussians behind one protocol: Numba kernels on a CPU, gsplat on a GPU.

Both follow gsplat 1.5.3: eps2d 0.3, near plane 0.01, alpha in [1/255, 0.999], transmittance stop at 1e-4.
Importing the package loads no torch, and `cpu_picture` does without.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from ovs3d_ros.types import UserError

from .labels import LabelShares
from .values import Splats, Views

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["LabelShares", "Rasterizer", "Splats", "Views", "make_rasterizer"]


class Rasterizer(Protocol):
    """Renders N Gaussians from C cameras, and gathers images into them.

    All tensors are float32 on the rasterizer's device; only `Views` may hold other float types.
    """

    def __call__(
        self, splats: Splats, colors: Tensor, views: Views, sh: Tensor | None = None
    ) -> tuple[Tensor, Tensor, dict[str, Any]]:
        """Renders Gaussians over black.

        Gradients reach all tensors of `splats`, colors, sh and viewmats, but not Ks. A view matrix counts as
        twelve free numbers, its upper three rows; the camera centre is -R^T t.

        Args:
            splats: N Gaussians.
            colors: [N, D], any D >= 1.
            views: C cameras.
            sh: [N, K, 3] spherical harmonics, K = 1, 4, 9 or 16 (degrees 0 to 3, see `spherical_harmonics`).
                The RGB that each camera sees becomes the first three of D channels, `colors` the others;
                `colors` may then have no columns.

        Returns:
            colors [C, H, W, D], alphas [C, H, W, 1], and a dictionary with `radii` [C, N, 2] int32 pixels (0:
            culled), `means2d` [C, N, 2] pixels, `depths` [C, N] metres, and `means2d_absgrad` [C, N, 2]: the
            sum over pixels of |dL/d(means2d)| (AbsGS, Ye et al. 2024), in loss per pixel. It is zero until a
            backward pass reaches the geometry.

        Raises:
            UserError: a wrong shape, type or device, non-finite values on the CPU, or Ks that requires grad.
        """
        ...

    def lift(
        self, splats: Splats, targets: Tensor, views: Views, pixel_weights: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gathers images into Gaussians with the compositing weights w_i(p) = alpha_i(p) T_i(p).

        Args:
            splats: N Gaussians.
            targets: [C, H, W, D] images phi.
            views: C cameras.
            pixel_weights: [C, H, W] factors m(p) >= 0; None for 1. A pixel with factor 0 does not count, but
                its phi must be finite.

        Returns:
            numerator [N, D] = sum over cameras and pixels of m w_i phi, weight [N] = sum of m w_i, and
            max_weight [N] = maximum of m w_i. No gradients.

        Raises:
            UserError: as for rendering.
        """
        ...

    def share_labels(self, splats: Splats, labels: Tensor, scores: Tensor, views: Views) -> LabelShares:
        """Says which labels of Gaussians fill the pixels. No gradients.

        Args:
            splats: N Gaussians.
            labels: [N] whole numbers, 0 = none.
            scores: [N] float32; those of Gaussians without a label do not count.
            views: C cameras.

        Raises:
            UserError: as for rendering; or a label is negative.
        """
        ...


def make_rasterizer(name: str, threads: int = 0) -> Rasterizer:
    """Makes a rasterizer.

    Args:
        name: "cpu" (Numba) or "gsplat" (CUDA).
        threads: worker threads of the CPU rasterizer; 0 for one per available core.

    Raises:
        UserError: the name is unknown, or that rasterizer lacks a package, a compiler or a GPU.
    """
    if name == "cpu":
        try:
            from .cpu import CpuRasterizer
        except ImportError as error:
            raise UserError(f"the CPU rasterizer needs Numba ({error}): pip install numba") from error
        return CpuRasterizer(threads)
    if name == "gsplat":
        from .gsplat import GsplatRasterizer

        return GsplatRasterizer()
    raise UserError(f"unknown rasterizer {name!r}: choose 'cpu' or 'gsplat'")
