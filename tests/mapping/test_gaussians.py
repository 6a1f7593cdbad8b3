"""The Gaussians: parameters, moments and statistics stay consistent under insertion and removal."""

from __future__ import annotations

import numpy as np
import torch

from ovs3d_ros.config import Config
from ovs3d_ros.mapping.gaussians import PARAMETERS, Gaussians, rotate
from ovs3d_ros.rasterize.spherical_harmonics import sh_to_colors

TRAIN = Config().train


def make(count: int = 6, sh_degree: int = 1) -> Gaussians:
    g = Gaussians(TRAIN, sh_degree, "cpu")
    generator = torch.Generator().manual_seed(0)
    g.insert(
        torch.randn(count, 3, generator=generator),
        torch.rand(count, 3, generator=generator),
        torch.rand(count, generator=generator) * 0.05 + 0.01,
        0.6,
    )
    return g


def loss_of(g: Gaussians) -> torch.Tensor:
    """A loss with a different gradient for every row of every parameter."""
    return sum(
        ((i + 1) * torch.arange(1, len(g) + 1).view(-1, *[1] * (p.dim() - 1)) * p.sin()).sum()
        for i, p in enumerate(g.params.values())
    )


def train(g: Gaussians, steps: int = 3) -> None:
    for _ in range(steps):
        loss_of(g).backward()
        g.step(everywhere(g))


def everywhere(g: Gaussians) -> torch.Tensor:
    return torch.ones(len(g), dtype=torch.bool)


def test_insert_sets_all_parameters() -> None:
    g = Gaussians(TRAIN, 2, "cpu")
    means, colors, scales = torch.randn(4, 3), torch.rand(4, 3), torch.tensor([0.01, 0.1, 1.0, 0.0])
    g.insert(means, colors, scales, 0.37)
    a = g.activated()
    torch.testing.assert_close(a["means"], means)
    torch.testing.assert_close(a["opacities"], torch.full((4,), 0.37))
    torch.testing.assert_close(a["scales"][:3], scales[:3, None].expand(3, 3))
    assert (a["scales"][3] > 0).all() and torch.isfinite(g.params["log_scales"]).all()
    assert a["sh"].shape == (4, 9, 3)
    torch.testing.assert_close(sh_to_colors(a["sh"], a["means"], torch.zeros(3)), colors)
    assert all(p.is_leaf and p.requires_grad for p in g.params.values())


def test_step_uses_the_learning_rate_of_each_parameter() -> None:
    g = make()
    g.extent = 2.5
    before = {name: p.detach().clone() for name, p in g.params.items()}
    loss_of(g).backward()
    signs = {name: p.grad.sign() for name, p in g.params.items()}
    g.step(everywhere(g), means_decay=0.5)
    rates = dict(
        means=TRAIN.lr_means * 2.5 * 0.5,
        log_scales=TRAIN.lr_scales,
        quats=TRAIN.lr_quats,
        opacity_logits=TRAIN.lr_opacities,
        sh_dc=TRAIN.lr_colors,
        sh_rest=TRAIN.lr_colors / 20,
    )
    for name, p in g.params.items():  # the first step of Adam is the learning rate times the sign
        torch.testing.assert_close(
            p.detach() - before[name], -rates[name] * signs[name], atol=1e-6, rtol=1e-3
        )
        assert p.grad is None


def test_moments_and_statistics_follow_insertion_and_removal() -> None:
    g = make(6)
    g.stats["tag"] = torch.arange(6.0)[:, None].expand(6, 2).clone()
    train(g)
    rows, old = {n: p.detach().clone() for n, p in g.params.items()}, dict(g.adam.means)
    mask = torch.tensor([True, False, True, True, False, True])
    g.keep(mask)
    assert len(g) == 4 and g.stats["tag"][:, 0].tolist() == [0, 2, 3, 5]
    for name in PARAMETERS:
        assert torch.equal(g.params[name], rows[name][mask]) and torch.equal(
            g.adam.means[name], old[name][mask]
        )
    g.insert(torch.zeros(3, 3), torch.rand(3, 3), torch.ones(3), 0.5)
    assert g.stats["tag"].shape == (7, 2) and (g.stats["tag"][4:] == 0).all()
    for name in PARAMETERS:
        assert torch.equal(g.adam.means[name][:4], old[name][mask]) and (g.adam.means[name][4:] == 0).all()
        assert torch.equal(g.params[name][:4], rows[name][mask])


def test_kept_rows_train_on_unchanged() -> None:
    g, twin = make(6), make(6)
    train(g)
    train(twin)
    g.insert(torch.zeros(2, 3), torch.rand(2, 3), torch.ones(2), 0.5)
    g.keep(torch.tensor([True] * 6 + [False, True]))
    train(g)
    train(twin)
    for name in PARAMETERS:
        torch.testing.assert_close(g.params[name][:6], twin.params[name], atol=1e-7, rtol=0)


def test_moments_follow_the_parameters() -> None:
    g = make()
    for _ in range(5):
        train(g, 1)
        g.keep(torch.ones(len(g), dtype=torch.bool))
    for moments in (g.adam.means, g.adam.squares):
        assert {name: t.shape for name, t in moments.items()} == {n: p.shape for n, p in g.params.items()}


def test_densify_clones_small_and_splits_large_gaussians() -> None:
    torch.manual_seed(0)
    g = make(5)
    with torch.no_grad():
        g.params["log_scales"].copy_(torch.tensor([0.01, 0.5, 0.01, 0.5, 0.02])[:, None].log().expand(5, 3))
    g.stats["tag"] = torch.arange(5.0)
    train(g, 1)
    before = {n: p.detach().clone() for n, p in g.params.items()}
    g.densify(torch.tensor([True, True, False, False, False]), split_above=0.1)
    assert len(g) == 7  # one clone added, one Gaussian replaced by two halves
    assert g.stats["tag"].tolist() == [0, 2, 3, 4, 0, 1, 1]
    assert torch.equal(g.params["means"][0], before["means"][0])
    assert torch.equal(g.params["means"][4], before["means"][0])
    halves = slice(5, 7)
    torch.testing.assert_close(g.params["log_scales"][halves].exp(), before["log_scales"][[1, 1]].exp() / 1.6)
    offset = (g.params["means"][halves] - before["means"][1]).norm(dim=-1)
    assert (offset > 0).all() and (offset < 5 * 0.5 * 3**0.5).all()
    assert (g.adam.means["means"][4:] == 0).all() and (g.adam.means["means"][:4] != 0).any()
    train(g, 1)  # the optimizer still works


def test_split_does_not_depend_on_global_random_state() -> None:
    halves = []
    for draws in (0, 7):
        g = Gaussians(TRAIN, 0, "cpu", seed=3)
        g.insert(torch.zeros(20, 3), torch.rand(20, 3), torch.ones(20), 0.5)
        torch.rand(draws)
        g.densify(torch.ones(20, dtype=torch.bool), split_above=0.1)
        halves.append(g.params["means"].detach())
    assert torch.equal(*halves) and halves[0].std() > 0.5


def test_split_samples_the_original_gaussian() -> None:
    torch.manual_seed(0)
    g = Gaussians(TRAIN, 0, "cpu")
    g.insert(torch.zeros(4000, 3), torch.rand(4000, 3), torch.ones(4000), 0.5)
    quat, scales = torch.tensor([0.9, 0.1, -0.4, 0.2]), torch.tensor([1.0, 0.3, 0.1])
    with torch.no_grad():
        g.params["quats"].copy_(quat.expand(4000, 4))
        g.params["log_scales"].copy_(scales.log().expand(4000, 3))
    g.densify(torch.ones(4000, dtype=torch.bool), split_above=0.5)
    assert len(g) == 8000
    R = rotate(quat.expand(3, 4), torch.eye(3)).T
    expected = R @ torch.diag(scales**2) @ R.T
    torch.testing.assert_close(torch.cov(g.params["means"].detach().T), expected, atol=0.05, rtol=0)


def test_rotate_agrees_with_the_geometry_module() -> None:
    from ovs3d_ros.geometry import quat_to_matrix

    quats, vectors = torch.randn(20, 4).double(), torch.randn(20, 3).double()
    expected = np.stack([quat_to_matrix(q.numpy()) @ v.numpy() for q, v in zip(quats, vectors, strict=True)])
    np.testing.assert_allclose(rotate(quats, vectors).numpy(), expected, atol=1e-12)


def test_empty_map_accepts_new_gaussians() -> None:
    g = make()
    train(g)
    g.keep(torch.zeros(6, dtype=torch.bool))
    assert len(g) == 0
    g.insert(torch.zeros(2, 3), torch.rand(2, 3), torch.ones(2), 0.5)
    train(g)
    assert len(g) == 2 and torch.isfinite(g.params["means"]).all()


def test_load_params_replaces_everything() -> None:
    g, other = make(6), make(3)
    train(other)
    g.stats["tag"] = torch.arange(6.0)
    g.load_params({n: p.detach() for n, p in other.params.items()})
    assert len(g) == 3 and (g.stats["tag"] == 0).all()
    assert all(torch.equal(g.params[n], other.params[n]) for n in PARAMETERS)


def test_rows_come_back_with_their_squared_gradients_and_statistics() -> None:
    g = make(6)
    g.stats["tag"] = torch.arange(6.0)
    train(g)
    rows = {n: p.detach().clone() for n, p in g.params.items()}
    squares = {n: t.clone() for n, t in g.adam.squares.items()}
    taken = g.take(torch.tensor([4, 1]))
    assert g.stats["tag"].tolist() == [0, 2, 3, 5]
    g.put(taken)
    order = torch.tensor([0, 2, 3, 5, 4, 1])
    assert torch.equal(g.stats["tag"], order.float())
    for name in PARAMETERS:
        assert torch.equal(g.params[name], rows[name][order])
        assert torch.equal(g.adam.squares[name], squares[name][order])
        assert (g.adam.means[name][4:] == 0).all(), "gradients of another time say nothing"
