"""Lifting images into Gaussians: the kernel against brute force."""

from __future__ import annotations

import pytest
import torch
from helpers.rasterize_oracle import EYES, convert_splats, make_scene, on_an_edge, relative_error

from ovs3d_ros.rasterize import make_rasterizer, reference
from ovs3d_ros.types import UserError

CPU = make_rasterizer("cpu", threads=2)


@pytest.mark.parametrize("channels", [1, 3, 16, 40])
def test_lift_matches_brute_force(channels: int) -> None:
    scene = make_scene(channels=channels, eyes=EYES, size=(45, 35))
    targets = scene.v_image - 0.5
    factors = (~on_an_edge(scene)[..., 0]).float() * scene.v_alphas[..., 0]
    factors[:, :5] = 0.0  # invalid pixels
    lifted = CPU.lift(scene.splats, targets, scene.views, factors)
    splats = convert_splats(scene.splats, torch.float64)
    expected = reference.lift(splats, targets.double(), scene.views, factors.double())
    assert [tuple(tensor.shape) for tensor in lifted] == [(300, channels), (300,), (300,)]
    for value, truth in zip(lifted, expected, strict=True):
        assert relative_error(value, truth) < 1e-5


def test_lift_without_pixel_weights_equals_weights_of_one() -> None:
    scene = make_scene(eyes=EYES)
    ones = torch.ones(2, scene.views.height, scene.views.width)
    plain = CPU.lift(scene.splats, scene.v_image, scene.views)
    weighted = CPU.lift(scene.splats, scene.v_image, scene.views, pixel_weights=ones)
    assert all(torch.equal(a, b) for a, b in zip(plain, weighted, strict=True))


def test_lift_of_constant_image_is_weight_times_constant() -> None:
    scene = make_scene(channels=1)
    numerator, weight, max_weight = CPU.lift(scene.splats, torch.full_like(scene.v_image, 3.0), scene.views)
    torch.testing.assert_close(numerator[:, 0], 3.0 * weight)
    assert ((max_weight <= weight) & (max_weight >= 0)).all() and weight.max() > 0


def test_lift_rejects_targets_of_another_size() -> None:
    scene = make_scene()
    with pytest.raises(UserError, match="targets has shape"):
        CPU.lift(scene.splats, scene.v_image[:, 1:], scene.views)
