"""Codes in 8 bits: what they cost in accuracy and in memory."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from ovs3d_ros.semantics import packing
from ovs3d_ros.semantics.codec import CodecFitter, FeatureCodec
from ovs3d_ros.semantics.lift import pack_levels
from ovs3d_ros.semantics.packing import pack_codes, with_unit_length


def blended_codes(count: int = 3000) -> tuple[FeatureCodec, torch.Tensor, torch.Tensor]:
    """A codec, unit codes of blends of features of twelve things, and text features near the things."""
    generator = torch.Generator().manual_seed(0)
    things = F.normalize(torch.randn(12, 256, generator=generator) + 1.5, dim=-1)
    fitter = CodecFitter(256, 40)
    fitter.add(things.repeat(20, 1) + 0.02 * torch.randn(240, 256, generator=generator))
    codec = fitter.fit()
    mix = torch.rand(count, 12, generator=generator).pow(6)
    texts = F.normalize(things + 0.05 * torch.randn(12, 256, generator=generator), dim=-1)
    return codec, codec.normalize(codec.encode(mix @ things)), texts


def test_cosines_survive_eight_bits() -> None:
    codec, codes, texts = blended_codes()
    packed = pack_codes(codes)
    exact, got = (z @ codec.directions(texts) for z in (codes, packed.unpack()))
    error = (got - exact).abs()
    assert error.max() < 0.005 and error.square().mean().sqrt() < 0.02 * exact.std(0).mean()
    folded = packed.fold(codec.directions(texts))
    sums = torch.cat([packed.values.float(), torch.ones(len(packed), 1)], 1) @ folded
    torch.testing.assert_close(packed.scales.float()[:, None] * sums, got, atol=1e-4, rtol=0)
    assert packed.values.dtype == torch.int8 and packed.scales.dtype == torch.float16


def test_packing_twice_changes_nothing() -> None:
    _, codes, _ = blended_codes(100)
    once = pack_codes(codes)
    twice = pack_codes(once.unpack())
    assert torch.equal(once.values, twice.values) and torch.equal(once.scales, twice.scales)


def test_levels_of_a_file_come_back_as_they_were() -> None:
    """What is read from a file is normalised and packed again: each reload would move the labels."""
    codec, codes, _ = blended_codes(500)
    sums = torch.stack([codes * 40.0, codec.normalize(codes + 0.2 * codes.roll(1, 0)) * 3.0], 1)
    sums[7] = 0.0
    selection = torch.randn(500, 2, generator=torch.Generator().manual_seed(1))
    first = pack_levels(sums, selection, codec)
    second = pack_levels(codec.normalize(first["packed_levels"].unpack()), selection, codec)
    for levels in (first["packed_levels"], first["packed_codes"]):
        norms = codec.norm(levels.unpack())[levels.known]
        torch.testing.assert_close(norms, torch.ones_like(norms), atol=6e-4, rtol=0)  # scales are halves
        assert not levels.known[7].any()
    for name in ("values", "scales"):
        assert torch.equal(getattr(first["packed_levels"], name), getattr(second["packed_levels"], name))


def test_unknown_and_broken_codes_are_told_apart() -> None:
    _, codes, _ = blended_codes(6)
    codes[1], codes[2, 0], codes[3] = 0.0, torch.nan, codes[3] * 1e9
    packed = pack_codes(codes)
    assert packed.known.tolist() == [True, False, True, True, True, True]
    assert torch.isnan(packed.scales).tolist() == [False, False, True, False, False, False]
    unpacked = packed.unpack()
    assert not unpacked[1].any() and torch.isfinite(unpacked[3]).all()
    clean = pack_codes(codes[[0, 4, 5]]).unpack()
    torch.testing.assert_close(unpacked[[0, 4, 5]], clean, atol=0.02, rtol=0)  # the others spoil no step


def test_rows_and_slices_are_codes_too() -> None:
    _, codes, _ = blended_codes(10)
    packed = pack_codes(codes)
    assert torch.equal(packed[torch.tensor([7, 2])].unpack(), packed.unpack()[[7, 2]])
    levels = pack_codes(codes[:, None].expand(-1, 2, -1))
    assert levels.unpack().shape == (10, 2, 41) and len(levels) == 10
    single = levels[:, 0]
    assert single.values.data_ptr() == levels.values.data_ptr() and torch.equal(
        single.unpack(), packed.unpack()
    )
    assert pack_codes(torch.zeros(5, 0, 1)).unpack().shape == (5, 0, 1)
    assert pack_codes(torch.zeros(0, 1)).unpack().shape == (0, 1)


def test_codes_of_groups_add_up_as_unpacked_ones_do() -> None:
    _, codes, _ = blended_codes()
    packed, rng = pack_codes(codes), np.random.default_rng(0)
    rows, shares = rng.integers(0, len(codes), (7, 60)), rng.random((7, 60), np.float32)
    expected = (shares[..., None] * packed.unpack()[rows].numpy()).sum(1)
    np.testing.assert_allclose(packed.pool_rows(rows, shares), expected, rtol=0, atol=1e-4)


def test_steps_span_the_largest_number_of_each_channel() -> None:
    for count in (1, 64, 65, 129, 299, 300):  # each row holds the largest number of a channel of its own
        codes = 0.1 * torch.randn(count, count + 1, generator=torch.Generator().manual_seed(count)).clamp(
            -3, 3
        )
        codes[:, :-1] += torch.eye(count)
        codes[:, -1] = 1
        packed = pack_codes(codes)
        torch.testing.assert_close(packed.steps, codes[:, :-1].abs().amax(0) / 127)


def test_kernels_do_what_tensor_operations_do() -> None:
    codec, codes, _ = blended_codes(1000)
    rows = codes * torch.logspace(-9, 3, 1000)[:, None]
    rows[3], rows[-4, 2], rows[-5, 1], rows[-6, -1] = 0.0, torch.nan, torch.inf, -1.0
    largest = packing._largest(rows)
    torch.testing.assert_close(packing._largest_on_cpu(rows), largest)
    for steps in (largest / 127, largest / 300):  # the latter are too small for some numbers
        (got, got_scales), (values, scales) = (
            function(rows, steps) for function in (packing._round_on_cpu, packing._round)
        )
        assert (got.int() - values.int()).abs().max() <= 1 and (got != values).float().mean() < 1e-3
        torch.testing.assert_close(got_scales, scales, equal_nan=True)
        slope = 2 * codec.gram[:-1, -1]
        torch.testing.assert_close(
            packing._measure_on_cpu(got, steps, slope), packing._measure(got, steps, slope)
        )


def test_unit_length_needs_no_more_than_the_mean_of_the_codec() -> None:
    codec, codes, _ = blended_codes(200)
    packed = with_unit_length(pack_codes(7.0 * codes), codec.gram)
    torch.testing.assert_close(codec.norm(packed.unpack()), torch.ones(200), atol=6e-4, rtol=0)
