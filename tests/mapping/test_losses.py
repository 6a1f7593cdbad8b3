"""Losses of the RGB map."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import synthetic

from ovs3d_ros.evaluation.metrics import ssim
from ovs3d_ros.mapping.losses import box_ssim, depth_l1, photometric


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    rgb, _ = synthetic.textured_plane(
        synthetic.make_camera(96, 72), synthetic.look_at([0, -1, 1.5], [0, 0, 0])
    )
    return torch.from_numpy(rgb).float() / 255


def distorted(image: torch.Tensor) -> dict[str, list[torch.Tensor]]:
    """Distortions of three kinds, each with growing strength."""
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    blur = [
        torch.nn.functional.avg_pool2d(image.permute(2, 0, 1)[None], k, 1, k // 2)[0].permute(1, 2, 0)
        for k in (3, 5, 9)
    ]
    return dict(
        noise=[(image + s * noise).clamp(0, 1) for s in (0.02, 0.06, 0.2)],
        blur=blur,
        contrast=[0.5 + (image - 0.5) * s for s in (0.9, 0.6, 0.2)],
    )


def test_equal_images_cost_nothing(image: torch.Tensor) -> None:
    assert float(photometric(image, image, 0.2)) == pytest.approx(0, abs=1e-6)
    assert float(box_ssim(image, image)) == pytest.approx(1, abs=1e-5)


def test_photometric_mixes_l1_and_ssim(image: torch.Tensor) -> None:
    other = distorted(image)["noise"][1]
    l1 = float((image - other).abs().mean())
    assert float(photometric(other, image, 0.0)) == pytest.approx(l1, rel=1e-5)
    for weight in (0.2, 1.0):
        expected = (1 - weight) * l1 + weight * (1 - float(box_ssim(other, image)))
        assert float(photometric(other, image, weight)) == pytest.approx(expected, rel=1e-5)


def test_box_ssim_ranks_distortions_like_standard_ssim(image: torch.Tensor) -> None:
    ours, reported = [], []
    for strengths in distorted(image).values():
        values = [float(box_ssim(other, image)) for other in strengths]
        assert values == sorted(values, reverse=True) and values[-1] < 0.9
        ours += values
        reported += [ssim(other, image) for other in strengths]
    assert np.corrcoef(ours, reported)[0, 1] > 0.95
    assert np.abs(np.array(ours) - reported).max() < 0.15


def test_box_ssim_is_sensitive_to_structure() -> None:
    rows = torch.arange(48) % 8 < 4
    stripes = rows[:, None, None].float().expand(48, 48, 3)
    shifted, grey = 1 - stripes, torch.full_like(stripes, 0.5)
    assert box_ssim(shifted, stripes) < box_ssim(grey, stripes) < 0.2


def test_every_pixel_reaches_the_loss(image: torch.Tensor) -> None:
    render = (image * 0.9).clone().requires_grad_()
    (1 - box_ssim(render, image)).backward()
    # Windows of 7 at every third pixel end within 3 pixels of the border.
    inner = render.grad[:69, :93].abs().sum(-1)
    assert (inner > 0).float().mean() > 0.999 and torch.isfinite(render.grad).all()


def test_tiny_images_fall_back_to_l1() -> None:
    a, b = torch.rand(8, 30, 3), torch.rand(8, 30, 3)
    assert float(photometric(a, b, 0.2)) == pytest.approx(0.8 * float((a - b).abs().mean()), rel=1e-6)


@pytest.mark.parametrize("weight", [0.0, 0.2, 1.0])
def test_gradient_descent_restores_the_image(image: torch.Tensor, weight: float) -> None:
    target = image[:34, :34]  # windows of 7 at every third pixel cover exactly this
    render = torch.full_like(target, 0.5).requires_grad_()
    optimizer = torch.optim.Adam([render], lr=0.03)
    first = float((0.5 - target).square().mean())
    for _ in range(60):
        optimizer.zero_grad()
        photometric(render, target, weight).backward()
        optimizer.step()
    assert float((render.detach() - target).square().mean()) < 0.1 * first


def test_depth_loss_is_relative_and_ignores_missing_depth() -> None:
    measured = torch.tensor([[2.0, 4.0], [0.0, 1.0]])
    alpha = torch.tensor([[1.0, 0.5], [1.0, 0.0]])
    depth = torch.tensor([[2.2, 1.0], [7.0, 0.0]])
    # 0.2 / 2, |1 - 0.5 * 4| / 4, missing, and nothing rendered.
    assert float(depth_l1(depth, alpha, measured)) == pytest.approx((0.1 + 0.25 + 0.0) / 3)
    assert float(depth_l1(depth, alpha, torch.zeros(2, 2))) == 0
    leaf = depth.clone().requires_grad_()
    depth_l1(leaf, alpha, measured).backward()
    assert leaf.grad[1, 0] == 0 and leaf.grad[0, 0] > 0 > leaf.grad[0, 1]


def test_correct_depth_has_no_gradient_on_opacity() -> None:
    alpha = torch.full((4, 4), 0.6, requires_grad=True)
    loss = depth_l1(alpha * 3.0, alpha, torch.full((4, 4), 3.0))
    loss.backward()
    assert float(loss.detach()) < 1e-6 and alpha.grad.abs().max() < 1e-6
