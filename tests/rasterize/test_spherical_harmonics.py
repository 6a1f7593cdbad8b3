"""Spherical harmonics against their definition, and in the rasterizer against the float64 reference."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
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


def associated_legendre_sh(degree: int, directions: np.ndarray) -> np.ndarray:
    """Real spherical harmonics from their definition: [M, (degree + 1)^2].

    The convention is that of quantum mechanics, as in 3DGS.
    """
    from math import factorial, pi, sqrt

    x, y, z = directions.T
    phi = np.arctan2(y, x)

    def legendre(band: int, order: int) -> np.ndarray:
        value = np.ones_like(z)
        for i in range(order):  # P_m^m with the Condon-Shortley phase
            value = value * -(2 * i + 1) * np.sqrt(1 - z * z)
        below, result = np.zeros_like(z), value
        for n in range(order + 1, band + 1):
            below, result = result, ((2 * n - 1) * z * result - (n + order - 1) * below) / (n - order)
        return result

    columns = []
    for band in range(degree + 1):
        for m in range(-band, band + 1):
            k = abs(m)
            factor = sqrt((2 * band + 1) / (4 * pi) * factorial(band - k) / factorial(band + k)) * (
                sqrt(2) if m else 1
            )
            columns.append(factor * legendre(band, k) * (np.cos(k * phi) if m >= 0 else np.sin(k * phi)))
    return np.stack(columns, 1)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_colours_are_real_spherical_harmonics(degree: int) -> None:
    generator = torch.Generator().manual_seed(degree)
    means, center = torch.randn(50, 3, generator=generator) * 3, torch.tensor([0.3, -0.2, 0.5])
    sh = 0.1 * torch.randn(50, (degree + 1) ** 2, 3, generator=generator)
    directions = F.normalize(means - center, dim=-1).double().numpy()
    basis = associated_legendre_sh(degree, directions)
    expected = np.einsum("nk,nkc->nc", basis, sh.double().numpy()) + 0.5
    assert (expected > 0).all()
    np.testing.assert_allclose(sh_to_colors(sh, means, center).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("degree", [1, 3])
def test_colours_agree_with_gsplat(degree: int) -> None:
    reference = pytest.importorskip("gsplat.cuda._torch_impl")
    means, sh = torch.randn(30, 3), 0.1 * torch.randn(30, (degree + 1) ** 2, 3)
    expected = reference._spherical_harmonics(degree, means, sh) + 0.5
    torch.testing.assert_close(
        sh_to_colors(sh, means, torch.zeros(3)), expected.clamp_min(0), atol=1e-5, rtol=0
    )


def test_colours_are_never_negative() -> None:
    assert sh_to_colors(3 * torch.randn(30, 4, 3), torch.randn(30, 3), torch.zeros(3)).min() == 0
