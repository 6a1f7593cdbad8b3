"""The feature codec: what it keeps exactly, and what it may lose."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ovs3d_ros.semantics.codec import CodecFitter, make_codec

DIM = 96


def cone(count: int, rank: int, seed: int = 0, dim: int = DIM) -> torch.Tensor:
    """Unit features of a given rank about a common mean, like CLIP's: [count, dim]."""
    generator = torch.Generator().manual_seed(seed)
    mean = 4 * F.normalize(torch.randn(dim, generator=generator), dim=0)
    directions = torch.linalg.qr(torch.randn(dim, rank, generator=generator))[0]
    # Points of an affine plane of that rank; normalising would leave it.
    return mean + torch.randn(count, rank, generator=generator) @ directions.T


def fit(features: torch.Tensor, code_dim: int):
    fitter = CodecFitter(features.shape[1], code_dim)
    fitter.add(features)
    return fitter.fit()


def random_texts(count: int, dim: int = DIM, seed: int = 9) -> torch.Tensor:
    return F.normalize(torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_basis_is_orthonormal_and_gram_matches_it() -> None:
    codec = fit(cone(300, 20), 12)
    torch.testing.assert_close(codec.basis.T @ codec.basis, torch.eye(12), atol=1e-5, rtol=0)
    torch.testing.assert_close(codec.gram, codec.extended.T @ codec.extended)
    assert codec.dim == 13


def test_features_within_the_rank_are_exact() -> None:
    features = cone(400, 7)
    codec = fit(features, 12)  # unit features span at most rank 7 + mean
    decoded = codec.decode(codec.encode(features))
    assert (decoded - features).norm(dim=-1).max() < 1e-4 * features.norm(dim=-1).max()
    assert codec.residual(features) < 1e-6


@pytest.mark.parametrize("code_dim", [3, 12])
def test_gram_cosine_equals_cosine_of_decoded_features(code_dim: int) -> None:
    codec, texts = fit(cone(400, 30), code_dim), random_texts(9)
    z = codec.encode(cone(200, 30, seed=1)) * torch.rand(200, 1)
    decoded = F.normalize(codec.decode(z).double(), dim=-1)
    torch.testing.assert_close(codec.cosine(z, texts).double(), decoded @ texts.double().T, atol=2e-6, rtol=0)
    torch.testing.assert_close(codec.norm(z), codec.decode(z).norm(dim=-1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("count", [1, 10, 256, 257])
def test_directions_do_not_depend_on_how_many_texts_there_are(count) -> None:
    codec, texts = fit(cone(400, 30), 12), random_texts(300)
    directions = codec.directions(texts[:count])
    assert directions.shape == (13, count) and directions.dtype == torch.float32
    exact = torch.cat([codec.basis, codec.mean[:, None]], dim=1).double().T @ texts[:count].double().T
    torch.testing.assert_close(directions.double(), exact, atol=2e-6, rtol=1e-6)


def test_cosines_within_the_rank_are_exact() -> None:
    features, texts = cone(400, 7), random_texts(9)
    codec = fit(features, 12)
    exact = F.normalize(features.double(), dim=-1) @ texts.double().T
    torch.testing.assert_close(codec.cosine(codec.encode(features), texts).double(), exact, atol=5e-6, rtol=0)


def test_blends_of_codes_are_blends_of_features() -> None:
    features, texts = cone(60, 7), random_texts(5)
    codec = fit(features, 12)
    weights = torch.rand(10, 60)  # blending weights need not sum to one
    blended = codec.cosine(weights @ codec.encode(features), texts)
    exact = F.normalize(weights.double() @ features.double(), dim=-1) @ texts.double().T
    torch.testing.assert_close(blended.double(), exact, atol=5e-6, rtol=0)


def test_norm_is_kept_and_zero_stays_zero() -> None:
    codec = fit(cone(400, 7), 12)
    features = cone(5, 7) * torch.tensor([1e-3, 0.1, 1.0, 10.0, 1e3])[:, None]
    torch.testing.assert_close(codec.norm(codec.encode(features)), features.norm(dim=-1), rtol=1e-4, atol=0)
    zero = torch.zeros(3, codec.dim)
    assert (codec.normalize(zero) == 0).all() and (codec.cosine(zero, random_texts(2)) == 0).all()
    torch.testing.assert_close(
        codec.norm(codec.normalize(codec.encode(features))), torch.ones(5), atol=1e-4, rtol=0
    )


def test_residual_falls_with_dimension_and_flags_new_features() -> None:
    features = cone(500, 30)
    residuals = [fit(features, d).residual(features) for d in (2, 8, 20, 30)]
    assert all(a > b for a, b in itertools.pairwise(residuals)) and residuals[-1] < 0.01
    assert fit(features, 8).residual(cone(100, 30, seed=7)) > 0.5


def test_fit_keeps_directions_of_largest_variance() -> None:
    features = cone(2000, 30)
    unit = F.normalize(features, dim=-1)
    centred = unit - unit.mean(0)
    best = torch.linalg.svd(centred, full_matrices=False).S
    optimum = float(1 - best[:8].square().sum() / best.square().sum())
    assert fit(features, 8).residual(features) == pytest.approx(optimum, abs=1e-3)


def test_fit_in_batches_equals_fit_at_once() -> None:
    features = cone(300, 30)
    fitter = CodecFitter(DIM, 8)
    for part in features.split(70):
        fitter.add(part * 3.0)  # lengths do not matter
    one, many = fit(features, 8), fitter.fit()
    torch.testing.assert_close(one.basis @ one.basis.T, many.basis @ many.basis.T, atol=1e-4, rtol=0)
    torch.testing.assert_close(one.mean, many.mean, atol=1e-6, rtol=0)


def test_fit_on_codes_equals_fit_on_decoded_features() -> None:
    codec, by_codes, by_features = fit(cone(300, 30), 8), CodecFitter(DIM, 8), CodecFitter(DIM, 8)
    z = torch.cat([7.0 * codec.encode(cone(200, 30, seed=1)), torch.zeros(5, codec.dim)])
    by_codes.add_codes(z, codec)
    by_features.add(codec.decode(z[:200]))
    one, other = by_codes.fit(), by_features.fit()
    torch.testing.assert_close(one.mean, other.mean, atol=1e-6, rtol=0)
    torch.testing.assert_close(one.basis @ one.basis.T, other.basis @ other.basis.T, atol=1e-4, rtol=0)
    assert by_codes.count == 200


def test_translated_sums_keep_their_meaning() -> None:
    old_features, new_features = cone(200, 5, seed=0), cone(200, 5, seed=3)
    fitter = CodecFitter(DIM, 16)
    fitter.add(old_features)
    old = fitter.fit()
    fitter.add(new_features)
    new = fitter.fit()
    sums = torch.rand(12, 200) @ old.encode(old_features)
    carried = sums @ old.translation_to(new).T
    expected = F.normalize(old.decode(sums), dim=-1)
    # Both sets and both means fit into 16 dimensions, so nothing may be lost.
    torch.testing.assert_close(F.normalize(new.decode(carried), dim=-1), expected, atol=1e-4, rtol=0)
    texts = random_texts(4)
    torch.testing.assert_close(new.cosine(carried, texts), old.cosine(sums, texts), atol=1e-4, rtol=0)
    assert torch.equal(carried[:, -1], sums[:, -1])  # accumulated alpha is unchanged


def test_translation_between_codes_of_different_length() -> None:
    features = cone(300, 5)
    short, long = fit(features, 8), fit(torch.cat([features, cone(300, 5, seed=2)]), 20)
    z = short.encode(features)
    torch.testing.assert_close(
        long.decode(z @ short.translation_to(long).T), short.decode(z), atol=2e-3, rtol=1e-4
    )


def test_code_dimension_is_limited_by_the_features() -> None:
    codec = fit(cone(50, 5, dim=10), 29)
    assert codec.dim == 11


def test_real_text_vectors_fit_the_default_dimension(repository) -> None:
    path = repository.parent / "shared" / "data" / "clip_text_vitb32" / "lvis1203_a_cname_f16.npy"
    if not path.exists():
        pytest.skip("the CLIP text vectors are not on this machine")
    vectors = F.normalize(torch.from_numpy(np.load(path)).float(), dim=-1)
    few, many = vectors[::41], vectors[::12]  # 30 and 101 nouns in alphabetical order: a room, a large flat
    room = fit(few, 29)
    torch.testing.assert_close(room.cosine(room.encode(few), vectors), few @ vectors.T, atol=1e-5, rtol=0)
    flat = fit(many, 29)
    nearest = flat.cosine(flat.encode(many), many).argmax(-1)
    assert (nearest == torch.arange(len(many))).float().mean() > 0.95
    # All 1203 nouns together need the 61 dimensions of the default.
    longer = fit(vectors, 61)
    own = longer.cosine(longer.encode(vectors), vectors).argmax(-1) == torch.arange(len(vectors))
    assert own.float().mean() > 0.9


def test_make_codec_from_its_parts() -> None:
    codec = fit(cone(300, 20), 12)
    again = make_codec(codec.basis.clone(), codec.mean.clone())
    assert torch.equal(again.gram, codec.gram)
