"""Lifting images into Gaussians: the kernel against brute force, and gsplat against the kernel."""

from __future__ import annotations

import pytest
import torch
from rasterize_oracle import NAMES, Scene, make_scene, on_an_edge, relative_error, render_with_gradients

from ovs3d_ros.rasterize import make_rasterizer, reference
from ovs3d_ros.types import UserError

CPU = make_rasterizer("cpu", threads=2)
EYES = ((0.0, 0.0, 0.0), (0.8, -0.2, 0.3))


def arguments(scene: Scene, dtype: torch.dtype, targets: torch.Tensor) -> tuple:
    geometry = [tensor.to(dtype) for tensor in scene.gaussians[:4]]
    return (*geometry, targets.to(dtype), scene.viewmats, scene.Ks, scene.width, scene.height)


@pytest.mark.parametrize("channels", [1, 3, 16, 40])
def test_lift_matches_brute_force(channels: int) -> None:
    scene = make_scene(channels=channels, eyes=EYES, size=(45, 35))
    targets = scene.v_image - 0.5
    factors = (~on_an_edge(scene)[..., 0]).float() * scene.v_alphas[..., 0]
    factors[:, :5] = 0.0  # invalid pixels
    lifted = CPU.lift(*arguments(scene, torch.float32, targets), pixel_weights=factors)
    expected = reference.lift(*arguments(scene, torch.float64, targets), pixel_weights=factors.double())
    assert [tuple(tensor.shape) for tensor in lifted] == [(300, channels), (300,), (300,)]
    for value, truth in zip(lifted, expected, strict=True):
        assert relative_error(value, truth) < 1e-5


def test_lift_without_pixel_weights_weighs_every_pixel_alike() -> None:
    scene = make_scene(eyes=EYES)
    ones = torch.ones(2, scene.height, scene.width)
    plain = CPU.lift(*arguments(scene, torch.float32, scene.v_image))
    weighted = CPU.lift(*arguments(scene, torch.float32, scene.v_image), pixel_weights=ones)
    assert all(torch.equal(a, b) for a, b in zip(plain, weighted, strict=True))


def test_lift_of_a_constant_image_is_the_weight_times_it() -> None:
    scene = make_scene(channels=1)
    numerator, weight, max_weight = CPU.lift(
        *arguments(scene, torch.float32, torch.full_like(scene.v_image, 3.0))
    )
    torch.testing.assert_close(numerator[:, 0], 3.0 * weight)
    assert ((max_weight <= weight) & (max_weight >= 0)).all() and weight.max() > 0


def test_lift_refuses_targets_of_another_size() -> None:
    scene = make_scene()
    with pytest.raises(UserError, match="targets has shape"):
        CPU.lift(*arguments(scene, torch.float32, scene.v_image[:, 1:]))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_gsplat_without_a_gpu_is_refused_and_nothing_takes_its_place() -> None:
    with pytest.raises(UserError, match=r"needs an NVIDIA GPU .* choose the rasterizer 'cpu'"):
        make_rasterizer("gsplat")


@pytest.mark.gpu
def test_gsplat_agrees_with_the_cpu() -> None:
    gsplat = make_rasterizer("gsplat")
    scene = make_scene(channels=16, eyes=EYES)
    keep = ~on_an_edge(scene)
    scene.v_image, scene.v_alphas = scene.v_image * keep, scene.v_alphas * keep
    image, alphas, gradients = render_with_gradients(CPU, scene, torch.float32)
    lifted = CPU.lift(*arguments(scene, torch.float32, scene.v_image), pixel_weights=keep[..., 0].float())

    on_gpu = Scene(
        [tensor.cuda() for tensor in scene.gaussians],
        scene.viewmats.cuda(),
        scene.Ks.cuda(),
        scene.width,
        scene.height,
        scene.v_image.cuda(),
        scene.v_alphas.cuda(),
    )
    other_image, other_alphas, other_gradients = render_with_gradients(gsplat, on_gpu, torch.float32)
    assert ((image - other_image.cpu()) * keep).abs().max() < 1e-4
    assert ((alphas - other_alphas.cpu()) * keep).abs().max() < 1e-4
    for name in NAMES:
        assert relative_error(other_gradients[name].cpu(), gradients[name].double()) < 1e-3, name
    other_lifted = gsplat.lift(
        *arguments(on_gpu, torch.float32, on_gpu.v_image), pixel_weights=keep[..., 0].float().cuda()
    )
    for value, truth in zip(other_lifted, lifted, strict=True):
        assert relative_error(value.cpu(), truth.double()) < 1e-3
