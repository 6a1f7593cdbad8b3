"""The Gaussians: rows stay consistent under insertion and removal; colours; PLY files."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ovs3d_ros.config import Config, TrainConfig
from ovs3d_ros.io.ply import write_ply
from ovs3d_ros.mapping.gaussians import PARAMETERS, SH_C0, Gaussians, num_sh_rest, rotate
from ovs3d_ros.rasterize.spherical_harmonics import sh_to_colors
from ovs3d_ros.types import UserError

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
        g.step()


def moments(g: Gaussians) -> dict[str, torch.Tensor]:
    return {name: g._optimizer.state[p]["exp_avg"].clone() for name, p in g.params.items()}


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
    g.step(means_decay=0.5)
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
    rows, old = {n: p.detach().clone() for n, p in g.params.items()}, moments(g)
    mask = torch.tensor([True, False, True, True, False, True])
    g.keep(mask)
    assert len(g) == 4 and g.stats["tag"][:, 0].tolist() == [0, 2, 3, 5]
    for name in PARAMETERS:
        assert torch.equal(g.params[name], rows[name][mask]) and torch.equal(
            moments(g)[name], old[name][mask]
        )
    g.insert(torch.zeros(3, 3), torch.rand(3, 3), torch.ones(3), 0.5)
    assert g.stats["tag"].shape == (7, 2) and (g.stats["tag"][4:] == 0).all()
    for name in PARAMETERS:
        assert torch.equal(moments(g)[name][:4], old[name][mask]) and (moments(g)[name][4:] == 0).all()
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


def test_optimizer_keeps_no_state_of_removed_tensors() -> None:
    g = make()
    for _ in range(5):
        train(g, 1)
        g.keep(torch.ones(len(g), dtype=torch.bool))
    assert len(g._optimizer.state) == len(PARAMETERS)
    assert {id(p) for p in g._optimizer.state} == {id(p) for p in g.params.values()}


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
    assert (moments(g)["means"][4:] == 0).all() and (moments(g)["means"][:4] != 0).any()
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


def associated_legendre_sh(degree: int, directions: np.ndarray) -> np.ndarray:
    """Real spherical harmonics from their definition (quantum-mechanics convention of 3DGS): [M, (degree + 1)^2]."""
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


PLY_TYPES = {"float": "<f4", "double": "<f8", "uchar": "u1", "int": "<i4"}


def read_ply(path) -> np.ndarray:
    """A binary little-endian PLY with one element, as a structured array; written from the PLY standard."""
    data = path.read_bytes()
    header, body = data.split(b"end_header\n", 1)
    lines = header.decode("ascii").splitlines()
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    (element,) = [line.split() for line in lines if line.startswith("element")]
    fields = [(line.split()[2], PLY_TYPES[line.split()[1]]) for line in lines if line.startswith("property")]
    table = np.frombuffer(body, np.dtype(fields))
    assert element[1] == "vertex" and int(element[2]) == len(table)
    return table


@pytest.mark.parametrize("degree", [0, 1, 3])
def test_ply_has_the_standard_3dgs_layout(tmp_path, degree: int) -> None:
    g = make(7, degree)
    train(g)
    with torch.no_grad():
        g.params["quats"].mul_(3.0)
    write_ply(tmp_path / "s.ply", g.params)
    table = read_ply(tmp_path / "s.ply")
    rest = num_sh_rest(degree)
    assert list(table.dtype.names) == [
        "x",
        "y",
        "z",
        "nx",
        "ny",
        "nz",
        "f_dc_0",
        "f_dc_1",
        "f_dc_2",
        *(f"f_rest_{i}" for i in range(3 * rest)),
        "opacity",
        "scale_0",
        "scale_1",
        "scale_2",
        "rot_0",
        "rot_1",
        "rot_2",
        "rot_3",
    ]

    def columns(*names: str) -> np.ndarray:
        return np.stack([table[name] for name in names], 1)

    a = g.activated()
    np.testing.assert_array_equal(columns("x", "y", "z"), a["means"].detach())
    np.testing.assert_allclose(1 / (1 + np.exp(-table["opacity"])), a["opacities"].detach(), rtol=1e-5)
    np.testing.assert_allclose(
        np.exp(columns("scale_0", "scale_1", "scale_2")), a["scales"].detach(), rtol=1e-5
    )
    np.testing.assert_allclose(
        np.linalg.norm(columns("rot_0", "rot_1", "rot_2", "rot_3"), axis=1), 1, rtol=1e-5
    )
    np.testing.assert_array_equal(
        0.5 + SH_C0 * columns("f_dc_0", "f_dc_1", "f_dc_2"), 0.5 + SH_C0 * g.params["sh_dc"].detach().numpy()
    )
    for channel in range(3):  # all coefficients of red, then green, then blue
        for k in range(rest):
            np.testing.assert_array_equal(
                table[f"f_rest_{channel * rest + k}"], g.params["sh_rest"][:, k, channel].detach()
            )


def test_ply_of_an_empty_map_is_a_valid_ply(tmp_path) -> None:
    write_ply(tmp_path / "s.ply", Gaussians(TrainConfig(), 1, "cpu").params)
    assert len(read_ply(tmp_path / "s.ply")) == 0


def test_ply_into_missing_folder_is_refused(tmp_path) -> None:
    with pytest.raises(UserError, match="cannot write"):
        write_ply(tmp_path / "none" / "s.ply", make().params)
