"""Lifting, compared with explicit weights per pixel and with naive loops over crops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import synthetic

from ovs3d_ros.config import Config, LiftConfig
from ovs3d_ros.mapping.blocks import Blocks
from ovs3d_ros.mapping.gaussians import Gaussians
from ovs3d_ros.rasterize import Splats, Views, make_rasterizer, reference
from ovs3d_ros.semantics.codec import CodecFitter, FeatureCodec
from ovs3d_ros.semantics.lift import Lifter, fuse_levels, pixel_codes
from ovs3d_ros.types import CropTable, Keyframe

DIM, CODE = 20, 8
RASTERIZER = make_rasterizer("cpu", 1)


def random_codec(seed: int = 0) -> FeatureCodec:
    fitter = CodecFitter(DIM, CODE)
    fitter.add(torch.randn(100, DIM, generator=torch.Generator().manual_seed(seed)) + 1)
    return fitter.fit()


def crop_table(boxes, levels=None, num_levels: int = 1, seed: int = 0) -> CropTable:
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    embeddings = torch.randn(len(boxes), DIM, generator=torch.Generator().manual_seed(seed)) + 1
    return CropTable(
        boxes,
        torch.zeros(len(boxes), dtype=torch.int64) if levels is None else levels,
        embeddings,
        num_levels,
    )


def naive_pixel_features(
    table: CropTable, codec: FeatureCodec, width: int, height: int, level: int
) -> torch.Tensor:
    """Unit mean of the unit embeddings of the crops that contain the pixel's centre, one pixel at a time."""
    unit = codec.decode(codec.encode(F.normalize(table.embeddings, dim=-1)))
    features = torch.zeros(height, width, DIM)
    for v in range(height):
        for u in range(width):
            x, y = (u + 0.5) / width, (v + 0.5) / height
            inside = [
                i
                for i, (left, top, right, bottom) in enumerate(table.boxes.tolist())
                if left <= x < right and top <= y < bottom and table.levels[i] == level
            ]
            if inside:
                features[v, u] = F.normalize(unit[inside].mean(0), dim=0)
    return features


def test_pixel_features_average_the_covering_crops() -> None:
    rng = np.random.default_rng(0)
    low, size = rng.uniform(-0.1, 0.9, (60, 2)), rng.uniform(0.02, 0.5, (60, 2))
    boxes = np.concatenate([low, low + size], 1).clip(0, 1)
    special = [[0, 0, 1, 0.3], [0.7, 0, 1, 1], [0.5, 0.5, 0.5, 0.9]]  # two at the borders, one empty
    boxes = np.concatenate([boxes, special])
    levels = torch.from_numpy(rng.integers(0, 3, len(boxes)))
    table, codec = crop_table(boxes, levels, 3), random_codec()
    codes = pixel_codes(table, codec, 17, 13)
    assert codes.shape == (3, 13, 17, codec.dim)
    for level in range(3):
        expected = naive_pixel_features(table, codec, 17, 13, level)
        torch.testing.assert_close(codec.decode(codes[level]), expected, atol=2e-4, rtol=0)


def test_pixels_outside_all_crops_have_no_feature() -> None:
    table, codec = crop_table([[0.25, 0.25, 0.75, 0.75]]), random_codec()
    codes = pixel_codes(table, codec, 8, 8)[0]
    inside = torch.zeros(8, 8, dtype=torch.bool)
    inside[2:6, 2:6] = True
    assert (codes[~inside] == 0).all()
    torch.testing.assert_close(codec.norm(codes[inside]), torch.ones(16), atol=1e-5, rtol=0)


def test_rounding_leaves_no_features_outside_crops() -> None:
    """Difference arrays add and subtract; rounding errors must not leave features outside the crops."""
    table, codec = crop_table(np.tile([[0.0, 0.0, 0.5, 0.5]], (3000, 1)), seed=3), random_codec()
    codes = pixel_codes(table, codec, 40, 40)[0]
    assert (codes[:20, :20, -1] != 0).all()
    assert (codes[20:] == 0).all() and (codes[:, 20:] == 0).all()


def test_dense_map_is_interpolated_between_cell_centres() -> None:
    rows, columns, width, height = 3, 4, 16, 12
    left, top = np.meshgrid(np.arange(columns) / columns, np.arange(rows) / rows)
    boxes = np.stack([left, top, left + 1 / columns, top + 1 / rows], -1).reshape(-1, 4)
    table, codec = crop_table(boxes), random_codec()
    table.grid = (rows, columns)
    codes = pixel_codes(table, codec, width, height)
    assert codes.shape == (1, height, width, codec.dim)
    unit = codec.decode(codec.encode(F.normalize(table.embeddings, dim=-1))).view(rows, columns, DIM).numpy()
    for v in range(height):
        for u in range(width):
            x = np.clip((u + 0.5) / width * columns - 0.5, 0, columns - 1)
            y = np.clip((v + 0.5) / height * rows - 0.5, 0, rows - 1)
            c, r = min(int(x), columns - 2), min(int(y), rows - 2)
            fx, fy = x - c, y - r
            feature = (1 - fy) * ((1 - fx) * unit[r, c] + fx * unit[r, c + 1]) + fy * (
                (1 - fx) * unit[r + 1, c] + fx * unit[r + 1, c + 1]
            )
            feature /= np.linalg.norm(feature)
            np.testing.assert_allclose(codec.decode(codes[0, v, u]).numpy(), feature, atol=1e-5)


def scene_gaussians(count: int = 40, seed: int = 0) -> Gaussians:
    """Random Gaussians in front of the test camera at the origin, which looks along +z."""
    generator = torch.Generator().manual_seed(seed)
    g = Gaussians(Config().train, 0, "cpu")
    means = torch.rand(count, 3, generator=generator) * torch.tensor([2.0, 1.5, 1.0]) + torch.tensor(
        [-1.0, -0.75, 2.0]
    )
    g.insert(means, torch.rand(count, 3, generator=generator), torch.full((count,), 0.12), 0.7)
    return g


def keyframe(index: int, table: CropTable, x: float = 0.0, size: tuple[int, int] = (24, 18)) -> Keyframe:
    pose = np.eye(4)
    pose[0, 3] = x
    camera = synthetic.make_camera(*size)
    return Keyframe(
        index,
        float(index),
        f"k{index}",
        torch.zeros(size[1], size[0], 3, dtype=torch.uint8),
        camera,
        pose,
        None,
        table,
    )


def crops_of_two_kinds(rank: int) -> tuple[CropTable, CropTable]:
    """Two tables whose embeddings vary in `rank` directions each; the two sets are orthogonal."""
    basis = torch.linalg.qr(torch.randn(DIM, DIM, generator=torch.Generator().manual_seed(0)))[0]
    tables = random_crops(0), random_crops(1)
    for table, first in zip(tables, (0, 5), strict=True):
        table.embeddings = table.embeddings[:, :rank] @ basis[first : first + rank] + basis[4]
    return tables


def random_crops(seed: int, num_levels: int = 2) -> CropTable:
    rng = np.random.default_rng(seed)
    low = rng.uniform(-0.2, 0.8, (50, 2))
    boxes = np.concatenate([low, low + rng.uniform(0.2, 0.6, (50, 2))], 1).clip(0, 1)
    boxes[:num_levels] = [0, 0, 1, 1]
    levels = torch.arange(50) % num_levels
    return crop_table(boxes, levels, num_levels, seed)


def weights_by_one_hot_colors(g: Gaussians, frame: Keyframe) -> torch.Tensor:
    """w_i(p) of every Gaussian and pixel [H, W, N]: each Gaussian is rendered in a colour of its own."""
    splats = Splats.from_dict({name: t.detach().double() for name, t in g.activated().items()})
    views = Views.from_camera(frame.camera, frame.camtoworld, "cpu")
    image, _ = reference.rasterize(splats, torch.eye(len(g)).double(), views)
    return image[0]


def view_agreement(g: Gaussians, lifter: Lifter) -> torch.Tensor:
    """Agreement |N| / D of the views of each Gaussian, mean over levels: [N] in 0..1."""
    return lifter.codec.norm(g.stats["numerators"]).mean(-1) / g.stats["weight"].clamp_min(1e-6)


def test_lift_equals_the_explicit_weighted_sum() -> None:
    g = scene_gaussians()
    lifter = Lifter(LiftConfig(image_size=64, residual=1.0), CODE)  # residual 1: the codec is never refitted
    frames = [keyframe(0, random_crops(0)), keyframe(1, random_crops(1), x=0.3)]
    for frame in frames:
        lifter.lift(frame, g, RASTERIZER)
    numerators, weight = torch.zeros(len(g), 2, DIM).double(), torch.zeros(len(g)).double()
    peak, views = torch.zeros(len(g)).double(), torch.zeros(len(g))
    for frame in frames:
        w = weights_by_one_hot_colors(g, frame)
        for level in range(2):
            phi = lifter.codec.decode(pixel_codes(frame.crops, lifter.codec, 24, 18)[level]).double()
            numerators[:, level] += torch.einsum("vun,vud->nd", w, phi)
        weight += w.sum((0, 1))
        peak = torch.maximum(peak, w.amax((0, 1)))
        views += w.sum((0, 1)) > 1e-3
    stats = g.stats
    assert weight.max() > 5 and (weight > 0).sum() > 30
    torch.testing.assert_close(
        lifter.codec.decode(stats["numerators"]).double(), numerators, atol=2e-3, rtol=1e-3
    )
    torch.testing.assert_close(stats["weight"].double(), weight, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(stats["max_weight"].double(), peak, atol=1e-4, rtol=1e-3)
    assert torch.equal(stats["views"], views)


def test_masked_pixels_add_no_evidence() -> None:
    table, mask = random_crops(0), torch.rand(18, 24) > 0.4
    evidence = []
    for pixels in (mask, ~mask, None):
        g, lifter = scene_gaussians(), Lifter(LiftConfig(image_size=64, residual=1.0), CODE)
        frame = keyframe(0, table)
        frame.mask = pixels
        lifter.lift(frame, g, RASTERIZER)
        evidence.append((g.stats["numerators"], g.stats["weight"]))
    for shown, hidden, both in zip(*evidence, strict=True):
        assert not torch.allclose(shown, both, atol=0.5)
        torch.testing.assert_close(shown + hidden, both, atol=2e-3, rtol=1e-3)


def test_constant_features_are_recovered_and_agree() -> None:
    g, lifter = scene_gaussians(), Lifter(LiftConfig(image_size=64), CODE)
    boxes = np.array([[0, 0, 1, 1], [0, 0, 1, 0.5]])
    table = crop_table(boxes)
    table.embeddings[1] = 3 * table.embeddings[0]  # one direction, two lengths
    for index in range(3):
        lifter.lift(keyframe(index, table, x=0.2 * index), g, RASTERIZER)
    seen = g.stats["weight"] > 0.01
    fused = fuse_levels(g.stats["numerators"], torch.zeros(len(g), 1), lifter.codec)
    expected = F.normalize(table.embeddings[:1], dim=-1)
    torch.testing.assert_close(
        lifter.codec.decode(fused[seen]), expected.expand(int(seen.sum()), -1), atol=1e-3, rtol=0
    )
    agreed = view_agreement(g, lifter)
    torch.testing.assert_close(agreed[seen], torch.ones(int(seen.sum())), atol=2e-3, rtol=0)
    assert (fused[g.stats["weight"] == 0] == 0).all()


def test_disagreeing_views_lower_the_agreement() -> None:
    g, lifter = scene_gaussians(), Lifter(LiftConfig(image_size=64), CODE)
    a, b = (crop_table([[0, 0, 1, 1], [0, 0, 1, 1]]) for _ in range(2))
    a.embeddings[:], b.embeddings[:] = (
        F.one_hot(torch.tensor(0), DIM).float(),
        F.one_hot(torch.tensor(1), DIM).float(),
    )
    b.embeddings[1] = F.one_hot(torch.tensor(2), DIM).float()
    lifter.lift(keyframe(0, a), g, RASTERIZER)
    seen = g.stats["weight"] > 0.01
    assert view_agreement(g, lifter)[seen].min() > 0.99
    lifter.lift(keyframe(1, b), g, RASTERIZER)
    # Two equal shares of (1, 0, 0) and (0, 1, 1) / sqrt(2) blend to length 1 / sqrt(2).
    agreed = view_agreement(g, lifter)[seen]
    torch.testing.assert_close(agreed, torch.full_like(agreed, 0.5**0.5), atol=5e-3, rtol=0)


def test_fused_levels_are_a_softmax_blend_of_unit_features() -> None:
    codec = random_codec()
    numerators = codec.encode(torch.randn(6, 3, DIM) + 1) * torch.tensor([1.0, 20.0, 0.3])[:, None]
    selection = torch.randn(6, 3)
    unit = F.normalize(codec.decode(numerators), dim=-1)
    expected = F.normalize((torch.softmax(selection, -1)[..., None] * unit).sum(1), dim=-1)
    torch.testing.assert_close(
        codec.decode(fuse_levels(numerators, selection, codec)), expected, atol=1e-5, rtol=0
    )
    sharp = fuse_levels(numerators, torch.tensor([0.0, 50.0, 0.0]).expand(6, 3), codec)
    torch.testing.assert_close(codec.decode(sharp), unit[:, 1], atol=1e-5, rtol=0)


def test_decay_applies_only_to_gaussians_seen_again() -> None:
    g = scene_gaussians()
    with torch.no_grad():
        g.params["means"][0] = torch.tensor([0.0, 0.0, -5.0])  # behind every camera
    lifter = Lifter(LiftConfig(image_size=64, decay=0.5), CODE)
    lifter.lift(keyframe(0, random_crops(0)), g, RASTERIZER)
    first = g.stats["weight"].clone()
    g.stats["weight"][0], first[0] = 7.0, 7.0
    numerators = g.stats["numerators"].clone()
    lifter.lift(keyframe(1, random_crops(0)), g, RASTERIZER)
    seen = first > 1e-2
    seen[0] = False
    torch.testing.assert_close(g.stats["weight"][seen], 1.5 * first[seen], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(g.stats["numerators"][seen], 1.5 * numerators[seen], rtol=1e-3, atol=1e-3)
    assert g.stats["weight"][0] == 7.0


def test_codec_refit_keeps_lifted_features() -> None:
    g, lifter = scene_gaussians(), Lifter(LiftConfig(image_size=64, residual=0.1), 12)
    first, second = crops_of_two_kinds(4)
    lifter.lift(keyframe(0, first), g, RASTERIZER)
    before, codec = lifter.codec.decode(g.stats["numerators"]), lifter.codec
    far = keyframe(1, second, x=50.0)  # sees no Gaussian, but its embeddings are new
    lifter.lift(far, g, RASTERIZER)
    assert lifter.codec is not codec
    assert lifter.codec.residual(second.embeddings) < 1e-3 < codec.residual(second.embeddings)
    torch.testing.assert_close(lifter.codec.decode(g.stats["numerators"]), before, atol=2e-3, rtol=1e-3)


def test_refit_of_a_loaded_codec_keeps_its_features() -> None:
    """The embeddings of a loaded map are gone; its Gaussians stand in for them in the refit."""
    g, lifter = scene_gaussians(), Lifter(LiftConfig(image_size=64), 12)
    first, second = crops_of_two_kinds(4)
    lifter.lift(keyframe(0, first), g, RASTERIZER)
    before = lifter.codec.decode(g.stats["numerators"])
    loaded = Lifter(LiftConfig(image_size=64, residual=0.1), 12)
    loaded.codec = lifter.codec
    loaded.lift(keyframe(0, second, x=50.0), g, RASTERIZER)  # sees no Gaussian, but its embeddings are new
    assert loaded.codec.residual(second.embeddings) < 1e-3
    torch.testing.assert_close(loaded.codec.decode(g.stats["numerators"]), before, atol=5e-3, rtol=1e-3)


def test_known_embeddings_do_not_refit_the_codec() -> None:
    g, lifter = scene_gaussians(), Lifter(LiftConfig(image_size=64), CODE)
    table = random_crops(0)
    table.embeddings = table.embeddings[:, :3] @ torch.randn(3, DIM) + 1  # well inside the code's rank
    lifter.lift(keyframe(0, table), g, RASTERIZER)
    codec = lifter.codec
    for index in range(1, 4):
        lifter.lift(keyframe(index, table), g, RASTERIZER)
    assert lifter.codec is codec


def test_relift_replaces_evidence_only_at_the_end() -> None:
    g, lifter = scene_gaussians(), Lifter(LiftConfig(image_size=64), CODE)
    frames = [keyframe(i, random_crops(i), x=0.2 * i) for i in range(3)]
    for frame in frames:
        lifter.lift(frame, g, RASTERIZER)
    old = {name: g.stats[name].clone() for name in ("numerators", "weight", "views")}
    with torch.no_grad():
        g.params["means"][:, 0] += 0.4  # training moved them
    lifting = lifter.relift(frames, g, RASTERIZER, Blocks(g), len(g))
    next(lifting)
    assert all(torch.equal(g.stats[name], old[name]) for name in old)
    g.keep(torch.arange(len(g)) != 3)  # Gaussians may be removed in between
    for _ in lifting:
        pass
    fresh = Lifter(LiftConfig(image_size=64), CODE)
    fresh.codec, fresh._fitted_on = lifter.codec, {0, 1, 2}
    expected = {name: g.stats[name].clone() for name in old}
    for name in list(g.stats):
        del g.stats[name]
    for frame in frames:
        fresh.lift(frame, g, RASTERIZER)
    # All keyframes but the first, which was lifted before Gaussian 3 was removed, see the same scene.
    assert (expected["weight"] - g.stats["weight"]).abs().max() < 0.2 * g.stats["weight"].max()
    assert not torch.allclose(
        expected["weight"], old["weight"][torch.arange(len(old["weight"])) != 3], atol=0.5
    )


def test_abandoned_relift_keeps_no_second_evidence() -> None:
    g, lifter = scene_gaussians(), Lifter(LiftConfig(image_size=64), CODE)
    frames = [keyframe(i, random_crops(i), x=0.2 * i) for i in range(2)]
    for frame in frames:
        lifter.lift(frame, g, RASTERIZER)
    names, codec = set(g.stats), lifter.codec
    lifting = lifter.relift(frames, g, RASTERIZER, Blocks(g), len(g))
    next(lifting)
    assert set(g.stats) > names
    del lifting  # as the mapping thread does it when a new keyframe arrives
    assert set(g.stats) == names and lifter.codec is codec


def test_relift_fits_the_codec_on_all_keyframes() -> None:
    """The first keyframes determined the codec; without a refit, later features would stay truncated."""
    g, lifter = scene_gaussians(), Lifter(LiftConfig(image_size=64, residual=1.0), 6)
    first, second = crops_of_two_kinds(2)
    frames = [keyframe(0, first), keyframe(1, second)]
    for frame in frames:
        lifter.lift(frame, g, RASTERIZER)
    early = lifter.codec
    for _ in lifter.relift(frames, g, RASTERIZER, Blocks(g), len(g)):
        assert lifter.codec is early  # queries still read the old sums
    assert lifter.codec.residual(second.embeddings) < 1e-3 < early.residual(second.embeddings)
    assert g.stats["numerators"].shape[-1] == lifter.codec.dim


@pytest.mark.parametrize("image_size", [12, 24])
def test_weight_counts_pixels_of_the_lifted_view(image_size: int) -> None:
    g, lifter = scene_gaussians(), Lifter(LiftConfig(image_size=image_size), CODE)
    lifter.lift(keyframe(0, random_crops(0)), g, RASTERIZER)
    total = float(g.stats["weight"].sum())
    assert 0.3 * image_size**2 * 0.75 < total <= image_size**2 * 0.75  # the sum over pixels of alpha
