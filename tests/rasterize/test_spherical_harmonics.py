"""Spherical harmonics in the rasterizer against the float64 reference."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers.rasterize_oracle import NAMES, make_scene, on_an_edge, relative_error

from ovs3d_ros.rasterize import Splats, make_rasterizer, reference
from ovs3d_ros.rasterize.spherical_harmonics import camera_centers, sh_to_colors
from ovs3d_ros.types import UserError

CPU = make_rasterizer("cpu", threads=2)
EYES = ((0.0, 0.0, 0.0), (1.5, -0.5, 0.5))


def render(rasterizer, scene, sh: torch.Tensor, dtype: torch.dtype, extra: bool = True):
    """Image, and gradients of <image, v_image> by name, view matrices and harmonics included."""
    leaves = [*scene.leaves(dtype), sh.to(dtype, copy=True).requires_grad_()]
    viewmats = scene.views.viewmats.clone().requires_grad_()
    colors = leaves[4] if extra else leaves[4][:, :0]
    image = rasterizer(Splats(*leaves[:4]), colors, replace(scene.views, viewmats=viewmats), sh=leaves[5])[0]
    loss = (image * scene.v_image[..., : image.shape[-1]].to(dtype)).sum()
    gradients = torch.autograd.grad(loss, [*leaves, viewmats], allow_unused=not extra)
    return image.detach(), dict(zip((*NAMES, "sh", "viewmats"), gradients, strict=True))


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_image_and_gradients_match_the_reference(degree: int) -> None:
    scene = make_scene(count=150, channels=5, size=(40, 30), eyes=EYES)
    generator = torch.Generator().manual_seed(1)
    # Large enough that some colours fall below 0, where they are clamped and pass no gradient.
    sh = torch.randn(150, (degree + 1) ** 2, 3, generator=generator)
    scene.colors = scene.colors[:, 3:]
    scene.v_image = scene.v_image * ~on_an_edge(scene)
    image, gradients = render(CPU, scene, sh, torch.float32)
    truth, true_gradients = render(reference.rasterize, scene, sh, torch.float64)
    assert image.shape == truth.shape == (2, 30, 40, 5)
    assert ((image - truth) * ~on_an_edge(scene)).abs().max() < 2e-5
    errors = {name: relative_error(gradients[name], true_gradients[name]) for name in gradients}
    assert max(errors.values()) < 2e-5, errors


def test_harmonics_without_colors_render_rgb() -> None:
    scene = make_scene(count=60, size=(24, 20))
    sh = torch.randn(60, 4, 3, generator=torch.Generator().manual_seed(2))
    image, gradients = render(CPU, scene, sh, torch.float32, extra=False)
    (center,) = camera_centers(scene.views.viewmats.float())
    expected = CPU(scene.splats, sh_to_colors(sh, scene.splats.means, center), scene.views)[0]
    torch.testing.assert_close(image, expected, atol=1e-5, rtol=0)
    assert gradients["sh"].any() and gradients["means"].any()


def test_wrong_number_of_coefficients_is_named() -> None:
    scene = make_scene(count=20)
    with pytest.raises(UserError, match=r"sh has shape \[20, 5, 3\]"):
        CPU(scene.splats, scene.colors, scene.views, sh=torch.zeros(20, 5, 3))
