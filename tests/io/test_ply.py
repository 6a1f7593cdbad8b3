"""The standard 3DGS PLY."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.ply import gaussian_columns, read_ply

from ovs3d_ros.config import Config
from ovs3d_ros.io.ply import write_ply
from ovs3d_ros.io.splat import write_splat
from ovs3d_ros.mapping.gaussians import SH_C0, Gaussians, num_sh_rest
from ovs3d_ros.types import UserError


def random_gaussians(count: int, sh_degree: int) -> Gaussians:
    """Gaussians with a random value in every parameter."""
    g = Gaussians(Config().train, sh_degree, "cpu")
    g.insert(torch.randn(count, 3), torch.rand(count, 3), torch.rand(count) * 0.05 + 0.01, 0.6)
    with torch.no_grad():
        for p in g.params.values():
            p.add_(0.1 * torch.randn(p.shape))
    return g


@pytest.mark.parametrize("degree", [0, 1, 3])
def test_ply_has_the_standard_3dgs_layout(tmp_path, degree: int) -> None:
    g = random_gaussians(7, degree)
    with torch.no_grad():
        g.params["quats"].mul_(3.0)
    write_ply(tmp_path / "s.ply", g.params)
    table = read_ply(tmp_path / "s.ply")
    rest = num_sh_rest(degree)
    assert list(table.dtype.names) == gaussian_columns(rest)

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
    write_ply(tmp_path / "s.ply", Gaussians(Config().train, 1, "cpu").params)
    assert len(read_ply(tmp_path / "s.ply")) == 0


def test_ply_into_missing_folder_is_refused(tmp_path) -> None:
    with pytest.raises(UserError, match="cannot write"):
        write_ply(tmp_path / "none" / "s.ply", random_gaussians(3, 0).params)


def test_gaussians_that_are_not_finite_are_left_out(tmp_path, caplog) -> None:
    """A poisoned map: splat viewers show nothing of a file with NaN, or fail."""
    g = random_gaussians(9, 1)
    with torch.no_grad():
        g.params["sh_rest"][2, 0, 1] = torch.nan
        g.params["means"][5, 0] = torch.inf
    for name, write in (("s.ply", write_ply), ("s.splat", write_splat)):
        caplog.clear()
        write(tmp_path / name, g.params)
        assert "2 of 9 Gaussians" in caplog.text
    table = read_ply(tmp_path / "s.ply")
    assert all(np.isfinite(table[column]).all() for column in table.dtype.names)
    expected = g.params["means"].detach()[[0, 1, 3, 4, 6, 7, 8], 0]
    np.testing.assert_array_equal(table["x"], expected)
    assert (tmp_path / "s.splat").stat().st_size == 7 * 32
