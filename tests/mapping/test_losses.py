"""The losses: what they are zero for, what they order, and what they ignore."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from helpers import synthetic

from ovs3d_ros.evaluation.metrics import ssim
from ovs3d_ros.mapping.losses import box_ssim, depth_l1, fda, pairwise_js, pairwise_kl, photometric, rda


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    rgb, _ = synthetic.textured_plane(synthetic.make_camera(96, 72), synthetic.look_at([0, -1, 1.5], [0, 0, 0]))
    return torch.from_numpy(rgb).float() / 255


def distorted(image: torch.Tensor) -> dict[str, list[torch.Tensor]]:
    """Kinds of distortion, each in growing strength."""
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    blur = [torch.nn.functional.avg_pool2d(image.permute(2, 0, 1)[None], k, 1, k // 2)[0].permute(1, 2, 0)
            for k in (3, 5, 9)]
    return dict(noise=[(image + s * noise).clamp(0, 1) for s in (0.02, 0.06, 0.2)], blur=blur,
                contrast=[0.5 + (image - 0.5) * s for s in (0.9, 0.6, 0.2)])


def test_equal_images_cost_nothing(image: torch.Tensor) -> None:
    assert float(photometric(image, image, 0.2)) == pytest.approx(0, abs=1e-6)
    assert float(box_ssim(image, image)) == pytest.approx(1, abs=1e-5)


def test_photometric_is_the_stated_mixture(image: torch.Tensor) -> None:
    other = distorted(image)["noise"][1]
    l1 = float((image - other).abs().mean())
    assert float(photometric(other, image, 0.0)) == pytest.approx(l1, rel=1e-5)
    for weight in (0.2, 1.0):
        expected = (1 - weight) * l1 + weight * (1 - float(box_ssim(other, image)))
        assert float(photometric(other, image, weight)) == pytest.approx(expected, rel=1e-5)


def test_ssim_orders_distortions_as_the_reported_ssim_does(image: torch.Tensor) -> None:
    ours, reported = [], []
    for strengths in distorted(image).values():
        values = [float(box_ssim(other, image)) for other in strengths]
        assert values == sorted(values, reverse=True) and values[-1] < 0.9
        ours += values
        reported += [ssim(other, image) for other in strengths]
    assert np.corrcoef(ours, reported)[0, 1] > 0.95
    assert np.abs(np.array(ours) - reported).max() < 0.15


def test_ssim_sees_structure_where_l1_does_not() -> None:
    rows = torch.arange(48) % 8 < 4
    stripes = rows[:, None, None].float().expand(48, 48, 3)
    shifted, grey = 1 - stripes, torch.full_like(stripes, 0.5)
    assert box_ssim(shifted, stripes) < box_ssim(grey, stripes) < 0.2


def test_every_pixel_reaches_the_loss(image: torch.Tensor) -> None:
    render = (image * 0.9).clone().requires_grad_()
    (1 - box_ssim(render, image)).backward()
    inner = render.grad[:69, :93].abs().sum(-1)  # windows of 7 at every third pixel end within 3 pixels of the border
    assert (inner > 0).float().mean() > 0.999 and torch.isfinite(render.grad).all()


def test_tiny_images_fall_back_to_l1() -> None:
    a, b = torch.rand(8, 30, 3), torch.rand(8, 30, 3)
    assert float(photometric(a, b, 0.2)) == pytest.approx(0.8 * float((a - b).abs().mean()), rel=1e-6)


@pytest.mark.parametrize("weight", [0.0, 0.2, 1.0])
def test_descending_the_loss_restores_the_image(image: torch.Tensor, weight: float) -> None:
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


def test_depth_loss_does_not_pull_the_opacity_where_depth_is_right() -> None:
    alpha = torch.full((4, 4), 0.6, requires_grad=True)
    loss = depth_l1(alpha * 3.0, alpha, torch.full((4, 4), 3.0))
    loss.backward()
    assert float(loss.detach()) < 1e-6 and alpha.grad.abs().max() < 1e-6


def _distributions(count: int, classes: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).mul(2)


def test_rda_is_the_jensen_shannon_divergence() -> None:
    p, q = _distributions(20, 5).softmax(-1), _distributions(20, 5, seed=1).softmax(-1)
    m = (p + q) / 2
    expected = 0.5 * ((p * (p / m).log()).sum(-1) + (q * (q / m).log()).sum(-1)).mean()
    assert float(rda(p.log(), q.log())) == pytest.approx(float(expected), rel=1e-10)
    assert float(rda(q.log(), p.log())) == pytest.approx(float(expected), rel=1e-10)
    assert abs(float(rda(p.log(), p.log()))) < 1e-12
    apart = torch.tensor([[60.0, -60.0]], dtype=torch.float64).log_softmax(-1)
    assert float(rda(apart, apart.flip(-1))) == pytest.approx(math.log(2), rel=1e-6)


def test_pairwise_divergences_are_those_of_every_pair() -> None:
    log_p = _distributions(7, 4).log_softmax(-1)
    p = log_p.exp()
    for i in range(7):
        for j in range(7):
            m = ((p[i] + p[j]) / 2).log()
            kl = (p[i] * (log_p[i] - log_p[j])).sum()
            js = 0.5 * ((p[i] * (log_p[i] - m)).sum() + (p[j] * (log_p[j] - m)).sum())
            assert float(pairwise_kl(log_p)[i, j]) == pytest.approx(float(kl), abs=1e-10)
            assert float(pairwise_js(log_p)[i, j]) == pytest.approx(float(js), abs=1e-10)


def test_js_is_bounded_where_kl_is_not() -> None:
    log_p = torch.tensor([[200.0, 0.0], [0.0, 200.0]]).log_softmax(-1)
    assert float(pairwise_kl(log_p)[0, 1]) > 100
    assert float(pairwise_js(log_p)[0, 1]) == pytest.approx(math.log(2), rel=1e-5)


@pytest.mark.parametrize("divergence", [pairwise_kl, pairwise_js])
def test_gradients_of_the_alignment_losses(divergence) -> None:
    correlation = torch.randn(6, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    other = _distributions(6, 3, seed=4).log_softmax(-1)

    def total(logits: torch.Tensor) -> torch.Tensor:
        log_p = logits.log_softmax(-1)
        attract, repel = fda(divergence(log_p), correlation)
        return rda(log_p, other) + attract + 0.3 * repel

    assert torch.autograd.gradcheck(total, (_distributions(6, 3).requires_grad_(),))


def test_fda_balances_the_few_and_the_many_and_survives_none() -> None:
    divergence = torch.ones(4, 4)
    correlation = torch.full((4, 4), -0.2)
    correlation[0, 1] = 0.5
    attract, repel = fda(divergence, correlation)
    assert float(attract) == pytest.approx(0.5) and float(repel) == pytest.approx(-0.2)
    attract, repel = fda(divergence, torch.full((4, 4), 0.3))
    assert float(attract) == pytest.approx(0.3) and float(repel) == 0


def test_fda_groups_patches_by_what_they_look_like() -> None:
    """Two objects, one of whose patches is wrong about itself: its own kind wins it over."""
    logits = torch.tensor([[2.0, 0]] * 3 + [[0, 1.0]] + [[0, 2.0]] * 4, requires_grad=True)
    same = torch.zeros(8, 8, dtype=torch.bool)
    same[:4, :4] = same[4:, 4:] = True
    correlation = torch.where(same, 0.25, -0.3)
    optimizer = torch.optim.Adam([logits], lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        attract, repel = fda(pairwise_js(logits.log_softmax(-1)), correlation)
        (attract + 0.2 * repel).backward()
        optimizer.step()
    assert logits.argmax(-1).tolist() == [0] * 4 + [1] * 4
