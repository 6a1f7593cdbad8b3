"""The .splat file of a map, read back as antimatter15/splat's viewer does."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import torch

from ovs3d_ros.io.splat import write_splat
from ovs3d_ros.types import UserError


def make_params() -> dict[str, torch.Tensor]:
    """A small opaque red Gaussian, and a large half-transparent grey one that is turned by 90° about x."""
    return dict(
        means=torch.tensor([[1.0, 2.0, 3.0], [-4.0, 5.0, -6.0]]),
        log_scales=torch.tensor([[0.01, 0.02, 0.03], [0.5, 0.25, 0.125]]).log(),
        sh_dc=(torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.5, 0.5]]) - 0.5) / 0.28209479177387814,
        sh_rest=torch.zeros(2, 0, 3),
        opacity_logits=torch.tensor([20.0, 0.0]),
        quats=torch.tensor([[2.0, 0.0, 0.0, 0.0], [0.5**0.5, 0.5**0.5, 0.0, 0.0]]),
    )


def test_splat_rows_hold_32_bytes_large_ones_first(tmp_path):
    write_splat(tmp_path / "x.splat", make_params())
    data = (tmp_path / "x.splat").read_bytes()
    assert len(data) == 64
    large, small = (struct.unpack("<6f8B", data[i : i + 32]) for i in (0, 32))
    np.testing.assert_allclose(large[:6], [-4, 5, -6, 0.5, 0.25, 0.125], rtol=1e-6)
    assert large[6:10] == (128, 128, 128, 128) and large[10:] == (219, 219, 128, 128)
    np.testing.assert_allclose(small[:6], [1, 2, 3, 0.01, 0.02, 0.03], rtol=1e-6)
    assert small[6:10] == (255, 0, 0, 255), "colours out of range are clipped"
    assert small[10:] == (255, 128, 128, 128)


def test_unwritable_splat_is_refused(tmp_path):
    with pytest.raises(UserError, match="cannot write the splats"):
        write_splat(tmp_path / "no" / "x.splat", make_params())
