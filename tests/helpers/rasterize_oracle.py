"""Scenes for the rasterizer tests, and the float64 reference they are compared with."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ovs3d_ros.rasterize import Splats, Views, reference

NAMES = ("means", "quats", "scales", "opacities", "colors")
EYES = ((0.0, 0.0, 0.0), (0.8, -0.2, 0.3))


@dataclass
class Scene:
    """Arguments of a rasterizer call, and a loss L = <image, v_image> + <alphas, v_alphas>."""

    splats: Splats  # float32
    colors: Tensor  # [N, D] float32
    views: Views  # float64
    v_image: Tensor  # [C, H, W, D]
    v_alphas: Tensor  # [C, H, W, 1]

    def leaves(self, dtype: torch.dtype = torch.float32) -> list[Tensor]:
        """Copies of the tensors called `NAMES`, with gradients."""
        return [
            tensor.to(dtype, copy=True).requires_grad_() for tensor in (*self.splats.tensors, self.colors)
        ]


def convert_splats(splats: Splats, target: torch.dtype | str) -> Splats:
    """The same Gaussians in another float type or on another device."""
    return Splats(*(tensor.to(target) for tensor in splats.tensors))


def look_at(eye: list[float], target: list[float]) -> Tensor:
    """World-to-camera [4, 4] float64, OpenCV axes, up = -y of the world."""
    position = torch.tensor(eye, dtype=torch.float64)
    forward = torch.nn.functional.normalize(torch.tensor(target, dtype=torch.float64) - position, dim=0)
    down = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    right = torch.nn.functional.normalize(torch.linalg.cross(down, forward), dim=0)
    rotation = torch.stack([right, torch.linalg.cross(forward, right), forward])
    viewmat = torch.eye(4, dtype=torch.float64)
    viewmat[:3, :3], viewmat[:3, 3] = rotation, -rotation @ position
    return viewmat


def make_scene(
    count: int = 300,
    channels: int = 3,
    size: tuple[int, int] = (64, 48),
    eyes: tuple[tuple[float, float, float], ...] = ((0.0, 0.0, 0.0),),
    seed: int = 0,
    opacity_range: tuple[float, float] = (0.1, 0.9),
    extent: float = 1.0,
) -> Scene:
    """Random Gaussians in a box around (0, 0, 3), `extent` metres to each side, seen from `eyes`."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    means = (uniform(count, 3) * 2 - 1) * torch.tensor([1.0, 0.75, 1.0]) * extent + torch.tensor(
        [0.0, 0.0, 3.0]
    )
    quats = torch.randn(count, 4, generator=generator)  # not normalised, on purpose
    size_of = 0.3 / max(count, 1) ** (1 / 3)
    scales = torch.exp(torch.randn(count, 3, generator=generator) * 0.4) * size_of
    low, high = opacity_range
    opacities = uniform(count) * (high - low) + low
    colors = uniform(count, channels)
    width, height = size
    # An off-centre principal point and unequal focal lengths reveal swapped axes.
    K = torch.tensor([[0.9 * width, 0, 0.48 * width], [0, 0.95 * width, 0.53 * height], [0, 0, 1]]).double()
    cameras = len(eyes)
    viewmats = torch.stack([look_at(list(eye), [0.0, 0.0, 3.0]) for eye in eyes])
    return Scene(
        Splats(means, quats, scales, opacities),
        colors,
        Views(viewmats, K.expand(cameras, 3, 3).contiguous(), width, height),
        uniform(cameras, height, width, channels),
        3.0 * uniform(cameras, height, width, 1),
    )


def on_an_edge(scene: Scene, tolerance: float = 1e-4) -> Tensor:
    """[C, H, W, 1] true where rounding could flip a threshold decision (alpha at 1/255, T at 1e-4)."""
    splats, masks = convert_splats(scene.splats, torch.float64), []
    for view in scene.views:
        projection = reference.project(splats, view)
        alphas = reference.splat_alphas(projection, splats.opacities, view.width, view.height)
        edge = ((alphas * 255 - 1).abs() < tolerance).any(1)
        alphas = torch.where(alphas * 255 >= 1, alphas.clamp_max(0.999), torch.zeros_like(alphas))
        alphas = alphas * (projection.radii > 0).all(-1)
        after = torch.cumprod(1 - alphas[:, torch.argsort(projection.depths, stable=True)], dim=1)
        edge |= ((after / 1e-4 - 1).abs() < 10 * tolerance).any(1)
        masks.append(edge.view(view.height, view.width, 1))
    return torch.stack(masks)


def render_with_gradients(rasterizer, scene: Scene, dtype: torch.dtype):
    """(image, alphas, gradients of the scene's loss by name)."""
    leaves = scene.leaves(dtype)
    image, alphas = rasterizer(Splats(*leaves[:4]), leaves[4], scene.views)[:2]
    loss = (image * scene.v_image.to(dtype)).sum() + (alphas * scene.v_alphas.to(dtype)).sum()
    gradients = torch.autograd.grad(loss, leaves)
    return image.detach(), alphas.detach(), dict(zip(NAMES, gradients, strict=True))


def relative_error(value: Tensor, truth: Tensor) -> float:
    """|value - truth| / |truth| in the Euclidean norm."""
    return float((value.double() - truth).norm() / truth.norm().clamp_min(1e-30))
