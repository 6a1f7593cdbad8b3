"""Scale selection prefers the pyramid level with a clear name."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ovs3d_ros.semantics.codec import make_codec
from ovs3d_ros.semantics.lift import fuse_levels
from ovs3d_ros.semantics.scale_selection import TEMPERATURES, select_levels

DIM = 8
NAMES = torch.eye(DIM)[:3]  # mug, table, wall
CODEC = make_codec(
    torch.linalg.qr(torch.randn(DIM, DIM, generator=torch.Generator().manual_seed(0)))[0], torch.zeros(DIM)
)


def levels() -> torch.Tensor:
    """Codes [2, 3, d + 1]: a mug that only the last level shows alone, and a wall that fills every level."""
    mug, table, wall = NAMES
    rows = torch.stack([torch.stack([table + wall, mug + table, mug]), torch.stack([wall, wall, wall])])
    return CODEC.encode(F.normalize(rows, dim=-1))


def weights(mode: str) -> torch.Tensor:
    return torch.softmax(select_levels(levels(), NAMES, CODEC, mode), dim=-1)


def test_sharp_mode_selects_the_level_with_a_clear_name() -> None:
    sharp = weights("sharp")
    assert sharp[0].argmax() == 2 and sharp[0, 2] > 0.99
    torch.testing.assert_close(sharp[1], torch.full((3,), 1 / 3), atol=1e-3, rtol=0)
    fused = fuse_levels(levels(), select_levels(levels(), NAMES, CODEC, "sharp"), CODEC)
    assert CODEC.cosine(fused, NAMES)[0, 0] > 0.99


def test_faithful_mode_blends_and_uniform_mode_averages() -> None:
    """Softmax of three numbers in 0..1, as in 3D-OVS: 0.155 to 0.576."""
    faithful = weights("faithful")
    assert faithful.min() > 0.155 and faithful.max() < 0.576 and faithful[0].argmax() == 2
    assert torch.equal(weights("uniform"), torch.full((2, 3), 1 / 3))


def test_selection_in_chunks_equals_selection_at_once() -> None:
    many = select_levels(levels().repeat(20_000, 1, 1), NAMES, CODEC, "sharp")
    assert many.shape == (40_000, 3)
    torch.testing.assert_close(many[-2:], select_levels(levels(), NAMES, CODEC, "sharp"))


@pytest.mark.parametrize("mode", TEMPERATURES)
def test_gaussians_without_features_have_zero_logits(mode: str) -> None:
    nothing = torch.zeros(1, 3, CODEC.dim)
    assert torch.equal(select_levels(nothing, NAMES, CODEC, mode), torch.zeros(1, 3))
