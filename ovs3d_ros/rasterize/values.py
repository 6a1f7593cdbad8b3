"""The two values that every rasterizer takes: the Gaussians, and the cameras that look at them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ovs3d_ros.geometry import invert_rigid
from ovs3d_ros.types import Camera

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Splats:
    """The geometry of N Gaussians, float32 on the rasterizer's device.

    Attributes:
        means: [N, 3] metres, world axes.
        quats: [N, 4] wxyz, any non-zero norm.
        scales: [N, 3] standard deviations in metres, positive.
        opacities: [N] in (0, 1).
    """

    means: Tensor
    quats: Tensor
    scales: Tensor
    opacities: Tensor

    @classmethod
    def from_dict(cls, gaussians: Mapping[str, Tensor]) -> Splats:
        """Takes the four tensors out of activated Gaussians, see `Gaussians.activated`."""
        return cls(gaussians["means"], gaussians["quats"], gaussians["scales"], gaussians["opacities"])

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(means, quats, scales, opacities)."""
        return self.means, self.quats, self.scales, self.opacities

    def __len__(self) -> int:
        return self.means.shape[0]


@dataclass(frozen=True, slots=True, eq=False)
class Views:
    """C pinhole cameras with images of one size. Iteration yields each camera as `Views` of one.

    Attributes:
        viewmats: [C, 4, 4] world to camera, OpenCV axes; any float type.
        Ks: [C, 3, 3] pixels, pixel centres at +0.5; any float type.
        width: image width in pixels.
        height: image height in pixels.
    """

    viewmats: Tensor
    Ks: Tensor
    width: int
    height: int

    @classmethod
    def from_camera(cls, camera: Camera, camtoworld: np.ndarray, device: str | torch.device) -> Views:
        """Makes the float32 view of one camera with pose `camtoworld` [4, 4]."""
        import torch

        viewmat = torch.as_tensor(invert_rigid(camtoworld), dtype=torch.float32, device=device)
        K = torch.as_tensor(camera.K, dtype=torch.float32, device=device)
        return cls(viewmat[None], K[None], camera.width, camera.height)

    def __len__(self) -> int:
        return self.viewmats.shape[0]

    def __iter__(self) -> Iterator[Views]:
        for c in range(len(self)):
            yield Views(self.viewmats[c : c + 1], self.Ks[c : c + 1], self.width, self.height)
