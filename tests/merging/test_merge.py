"""Merged maps show and find what either map did, and their evidence adds up."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import synthetic
from helpers.stored_maps import in_unit, move, random_motion

from ovs3d_ros.map_file import load_map, save_map
from ovs3d_ros.mapping.gaussians import activate
from ovs3d_ros.mapping.rendering import render_view
from ovs3d_ros.merging.merge import StoredMap, check_mergeable, merge_maps, move_map, same_frame_motion
from ovs3d_ros.merging.settle import settle_map
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.rasterize import make_rasterizer
from ovs3d_ros.semantics.codec import FeatureCodec, make_codec
from ovs3d_ros.semantics.lift import no_codes, pack_levels
from ovs3d_ros.semantics.packing import pack_codes
from ovs3d_ros.types import MapFrame, RefinedField, UserError

RASTERIZER = make_rasterizer("cpu", 1)
UTM = np.array([4.5e5, 5.3e6, 0.0])


def quality(params, frames) -> float:
    errors = [
        (render_view(activate(params), f.camera, f.camtoworld, RASTERIZER).rgb.numpy() - f.image / 255) ** 2
        for f in frames
    ]
    return float(-10 * np.log10(np.mean(errors)))


def test_merged_map_shows_and_finds_what_both_did(halves, tmp_path):
    first, second = halves
    merged = merge_maps(first, second)
    merged = settle_map(merged, halves, RASTERIZER, 160)
    total = sum(len(half.params["means"]) for half in halves)
    assert merged.figures["fused"] > 0.2 * total
    assert merged.figures["gaussians"] + merged.figures["fused"] == total
    frames = synthetic.make_frames(16)
    for half, seen, unseen in ((first, frames[1:7], frames[11:]), (second, frames[9:15], frames[:5])):
        assert quality(merged.params, seen) > quality(half.params, seen) - 0.5
        assert quality(merged.params, unseen) > quality(half.params, unseen) + 10
    save_map(tmp_path / "both.ovs3d", merged.params, merged.snapshot)
    room = Ovs3d.load(tmp_path / "both.ovs3d")
    answer = room.query(["red", "green", "blue"])
    assert answer.found.all() and len(room.snapshot().names) == 16
    for item in answer.objects:
        box = dict(red=synthetic.RED, green=synthetic.GREEN, blue=synthetic.BLUE)[item.prompt]
        assert np.linalg.norm(item.center - box.center) < 0.15
    assert room.add_frame(synthetic.make_frame(synthetic.orbit(40)[20], 50.0)), "it grows"


def test_evidence_adds_up(halves):
    merged = merge_maps(*halves).snapshot
    sums = [(half.snapshot.weight.sum(), half.snapshot.views.max()) for half in halves]
    torch.testing.assert_close(merged.weight.sum(), sums[0][0] + sums[1][0], rtol=1e-4, atol=0)
    assert max(sums[0][1], sums[1][1]) < merged.views.max() <= sums[0][1] + sums[1][1] + 1e-3
    totals = [
        (s.codec.decode(s.packed_levels.unpack()) * s.weight[:, None, None]).sum((0, 1))
        for s in (*(half.snapshot for half in halves), merged)
    ]
    # The sums are kept as directions and weights, so views that disagree lose a little.
    torch.testing.assert_close(
        totals[2], totals[0] + totals[1], rtol=0.02, atol=0.01 * float(totals[2].norm())
    )


def turned_codec(codec: FeatureCodec, seed: int) -> tuple[FeatureCodec, torch.Tensor]:
    """Another codec of the same features, and the matrix that translates codes."""
    torch.manual_seed(seed)
    rotation = torch.linalg.qr(torch.randn(codec.basis.shape[1], codec.basis.shape[1]))[0]
    other = make_codec(codec.basis @ rotation, codec.mean)
    return other, codec.translation_to(other)


def test_maps_with_different_codecs_keep_their_features(halves):
    first, second = halves
    codec, translation = turned_codec(second.snapshot.codec, 0)
    s = second.snapshot
    codes = pack_levels(s.packed_levels.unpack() @ translation.T, s.selection, codec)
    second = replace(second, snapshot=replace(s, codec=codec, **codes))
    same, other = (merge_maps(first, half).snapshot for half in (halves[1], second))
    texts = torch.nn.functional.normalize(torch.randn(5, len(codec.mean)), dim=-1)
    cosines = [s.codes @ s.directions(texts) for s in (same, other)]
    torch.testing.assert_close(*cosines, atol=0.01, rtol=0)  # both are rounded to 8 bits, in their own axes
    assert cosines[0].std() > 0.05
    # Most Gaussians of the first map that stay point where they did.
    alone = first.snapshot.codes @ first.snapshot.directions(texts)
    kept = torch.cdist(first.params["means"], merge_maps(first, second).params["means"])
    near = kept.min(1)
    exact = near.values == 0
    assert exact.float().mean() > 0.3
    difference = (alone[exact] - cosines[1][near.indices[exact]]).abs()
    assert difference.median() < 0.02


@pytest.mark.parametrize("seed", range(2))
def test_given_transform_brings_the_other_map_home(halves, seed):
    first, second = halves
    motion = random_motion(seed)
    expected, found = (
        merge_maps(first, second),
        merge_maps(first, move_map(move(second, motion), MapFrame(), motion)),
    )
    np.testing.assert_allclose(found.snapshot.camtoworlds, expected.snapshot.camtoworlds, atol=1e-9)
    frames = synthetic.make_frames(16)[::3]
    assert abs(quality(found.params, frames) - quality(expected.params, frames)) < 0.2
    assert abs(found.figures["gaussians"] - expected.figures["gaussians"]) < 0.01 * found.figures["gaussians"]


def test_units_and_origins_are_respected(halves):
    """The first map in UTM metres, the other one in centimetres of a world of its own."""
    first, second = halves
    expected = merge_maps(first, second)
    far = in_unit(first, 1.0, UTM)
    centimetres = in_unit(second, 0.01, np.array([-300.0, 200.0, 0.0]))
    motion = np.eye(4)
    motion[:3, 3] = UTM - [-3.0, 2.0, 0.0]
    found = merge_maps(far, move_map(centimetres, far.snapshot.frame, motion))
    np.testing.assert_allclose(
        found.snapshot.camtoworlds[:, :3, 3] - UTM, expected.snapshot.camtoworlds[:, :3, 3], atol=1e-6
    )
    torch.testing.assert_close(found.params["means"], expected.params["means"], atol=1e-5, rtol=0)
    np.testing.assert_array_equal(found.snapshot.frame.origin, UTM)
    with pytest.raises(UserError, match=r"1 m in one and 0\.01 m in the other"):
        same_frame_motion(far, centimetres)


def test_refined_field_is_left_out_and_said(halves):
    first, second = halves
    count, dim = len(first.params["means"]), len(first.snapshot.codec.mean)
    field = RefinedField(("a",), ("b",), torch.zeros(2, dim), 0.1, torch.ones(count, 2) / 2)
    refined = replace(first, snapshot=replace(first.snapshot, refined=field))
    merged = merge_maps(refined, second)
    assert merged.snapshot.refined is None and merged.figures["refined_dropped"]
    assert not merge_maps(first, second).figures["refined_dropped"]


def test_maps_that_do_not_fit_are_refused(halves):
    first, second = halves
    s = second.snapshot
    plain = replace(s, codec=None, **no_codes(len(s.weight), "cpu"))
    twice = pack_codes(s.packed_levels.unpack().repeat(1, 2, 1))
    for other, words in (
        (replace(second, snapshot=replace(s, meta=s.meta | dict(clip="other/clip"))), "different encoders"),
        (replace(second, snapshot=plain), "second.ovs3d holds colours only"),
        (replace(second, snapshot=replace(s, packed_levels=twice)), "1 and 2 levels"),
        (
            replace(second, params=second.params | dict(sh_rest=torch.zeros(len(s.weight), 3, 3))),
            "map.sh_degree",
        ),
    ):
        with pytest.raises(UserError, match=words):
            check_mergeable(first, other)


def test_maps_of_colours_merge(halves, tmp_path):
    plain = []
    for half in halves:
        s = half.snapshot
        bare = no_codes(len(s.weight), "cpu") | dict(selection=torch.zeros(len(s.weight), 0))
        plain.append(replace(half, snapshot=replace(s, codec=None, weight=s.weight * 0, **bare)))
    merged = merge_maps(*plain)
    save_map(tmp_path / "plain.ovs3d", merged.params, merged.snapshot)
    assert load_map(tmp_path / "plain.ovs3d")[1].codec is None


def test_merged_map_has_room_for_all_its_gaussians(halves):
    first, second = halves
    merged = merge_maps(first, second)
    small = replace(
        first,
        snapshot=replace(
            first.snapshot,
            meta=first.snapshot.meta | dict(config=first.snapshot.meta["config"] | {"map.max_gaussians": 10}),
        ),
    )
    assert merge_maps(small, small).snapshot.meta["config"]["map.max_gaussians"] >= len(first.params["means"])
    assert merged.snapshot.meta["frames"] == 16


def test_kept_keyframes_of_both_maps_go_on_being_trained(tmp_path):
    frames = synthetic.make_frames(8)
    motion, parts = random_motion(3), []
    for name, part in (("a", frames[:4]), ("b", frames[4:])):
        synthetic.build_map(part, steps=20, map__keep_keyframes=True).save(tmp_path / name)
        parts.append(StoredMap(*load_map(tmp_path / name, training=True), name))
    there = move(parts[1], motion)
    moved = [
        replace(k, camtoworld=np.linalg.inv(motion) @ k.camtoworld)
        for k in parts[1].snapshot.training.keyframes
    ]
    training = replace(parts[1].snapshot.training, keyframes=moved)
    there = replace(there, snapshot=replace(there.snapshot, training=training))
    merged = merge_maps(parts[0], move_map(there, MapFrame(), motion))
    assert not merged.figures["images_dropped"]
    save_map(tmp_path / "both.ovs3d", merged.params, merged.snapshot)
    room = Ovs3d.load(tmp_path / "both.ovs3d", training=True)
    assert [k.index for k in room.keyframes] == list(range(8))
    before = quality(room.map.params(), frames)
    room.optimize(60)
    assert quality(room.map.params(), frames) > before + 1
    for _ in room.relift():
        pass
    assert room.query(["red", "green", "blue"]).found.all()
    half = replace(parts[1], snapshot=replace(parts[1].snapshot, training=None))
    bare = merge_maps(parts[0], half)
    assert bare.figures["images_dropped"] and bare.snapshot.training is None
