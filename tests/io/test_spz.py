"""The .spz file of a map, decoded number by number as Niantic's `PackedGaussian::unpack` does."""

from __future__ import annotations

import gzip
import math
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from ovs3d_ros.io.spz import write_spz
from ovs3d_ros.types import UserError


def unpack_rotation(word: int) -> list[float]:
    """The quaternion wxyz of `unpackQuaternionSmallestThree`."""
    largest, xyzw, left = word >> 30, [0.0] * 4, 1.0
    for axis in (3, 2, 1, 0):
        if axis != largest:
            size = math.sqrt(0.5) * (word & 511) / 511
            xyzw[axis] = -size if word >> 9 & 1 else size
            left -= size * size
            word >>= 10
    xyzw[largest] = math.sqrt(left)
    return [xyzw[3], *xyzw[:3]]


def decode(path: Path) -> dict[str, np.ndarray]:
    data = gzip.decompress(path.read_bytes())
    magic, version, count, degree, bits, flags, reserved = struct.unpack_from("<4sIIBBBB", data)
    assert (magic, version, flags, reserved) == (b"NGSP", 3, 0, 0)
    offset, coefficients = 16, (degree + 1) ** 2 - 1

    def take(size: int) -> bytes:
        nonlocal offset
        offset += size
        return data[offset - size : offset]

    positions = take(9 * count)
    fixed = [int.from_bytes(positions[i : i + 3], "little", signed=True) for i in range(0, 9 * count, 3)]
    alphas, colors, scales = (np.frombuffer(take(n * count), np.uint8).reshape(count, n) for n in (1, 3, 3))
    words = struct.unpack(f"<{count}I", take(4 * count))
    harmonics = np.frombuffer(take(3 * coefficients * count), np.uint8).reshape(count, coefficients, 3)
    assert offset == len(data)
    return dict(
        means=np.reshape(fixed, (count, 3)) / 2.0**bits,
        opacities=alphas[:, 0] / 255,
        sh_dc=(colors / 255 - 0.5) / 0.15,
        log_scales=scales / 16 - 10,
        quats=np.array([unpack_rotation(word) for word in words]),
        sh_rest=(harmonics.astype(float) - 128) / 128,
    )


def make_params(degree: int = 3, count: int = 500, reach: float = 6.0) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return dict(
        means=(torch.rand(count, 3) * 2 - 1) * reach,
        log_scales=torch.rand(count, 3) * 5 - 6,
        sh_dc=torch.rand(count, 3) * 3 - 1.5,
        sh_rest=torch.rand(count, (degree + 1) ** 2 - 1, 3) - 0.5,
        opacity_logits=torch.randn(count) * 3,
        quats=torch.randn(count, 4) * 3,
    )


@pytest.mark.parametrize("degree", [0, 1, 3])
def test_decoded_gaussians_are_those_of_the_map(tmp_path, degree):
    params = make_params(degree)
    write_spz(tmp_path / "x.spz", params)
    out = decode(tmp_path / "x.spz")
    assert (out["means"] < -5).any() and (out["means"] > 5).any()
    np.testing.assert_allclose(out["means"], params["means"].numpy(), atol=1e-5)
    np.testing.assert_allclose(out["log_scales"], params["log_scales"].numpy(), atol=1 / 32 + 1e-6)
    np.testing.assert_allclose(out["opacities"], params["opacity_logits"].sigmoid().numpy(), atol=0.0021)
    np.testing.assert_allclose(out["sh_dc"], params["sh_dc"].numpy(), atol=0.0135)
    if degree:
        np.testing.assert_allclose(out["sh_rest"][:, :3], params["sh_rest"][:, :3].numpy(), atol=4.6 / 128)
        np.testing.assert_allclose(out["sh_rest"], params["sh_rest"].numpy(), atol=8.6 / 128)
    quats = torch.nn.functional.normalize(params["quats"], dim=-1).numpy()
    assert np.abs((out["quats"] * quats).sum(1)).min() > math.cos(math.radians(0.15))


def test_colors_without_view_dependence_stay_so(tmp_path):
    params = make_params() | dict(sh_rest=torch.zeros(500, 15, 3))
    write_spz(tmp_path / "x.spz", params)
    assert not decode(tmp_path / "x.spz")["sh_rest"].any()


@pytest.mark.parametrize("reach", [8191.0, 100_000.0])
def test_large_maps_keep_24_bits(tmp_path, reach):
    params = make_params(0, 50, reach)
    params["means"][0] = torch.tensor([reach, -reach, 0.0])
    write_spz(tmp_path / "x.spz", params)
    np.testing.assert_allclose(decode(tmp_path / "x.spz")["means"], params["means"], atol=reach / 2**22)


def test_what_the_format_cannot_hold_is_refused(tmp_path):
    params = make_params(0, 5)
    with pytest.raises(UserError, match="too far for this format"):
        write_spz(tmp_path / "x.spz", params | dict(means=params["means"] * 1e7))
    with pytest.raises(UserError, match="--local"):
        write_spz(tmp_path / "x.spz", params | dict(means=params["means"].double()))
    with pytest.raises(UserError, match="cannot write the splats"):
        write_spz(tmp_path / "no" / "x.spz", params)
