"""A map file goes into a map that grows, which then shows, finds and learns as one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import synthetic
from helpers.stored_maps import move, random_motion

from ovs3d_ros import Ovs3d
from ovs3d_ros.map_file import load_map
from ovs3d_ros.mapping.gaussians import activate
from ovs3d_ros.mapping.rendering import render_view
from ovs3d_ros.merging.live import merge_into, prepare
from ovs3d_ros.merging.merge import StoredMap
from ovs3d_ros.rasterize import make_rasterizer
from ovs3d_ros.types import MapSnapshot, RefinedField, UserError

RASTERIZER = make_rasterizer("cpu", 1)
FRAMES = synthetic.make_frames(16)
HALVES = FRAMES[1:7], FRAMES[9:15]
NAMES = ["red", "green", "blue"]


def quality(params, frames) -> float:
    errors = [
        (render_view(activate(params), f.camera, f.camtoworld, RASTERIZER).rgb.numpy() - f.image / 255) ** 2
        for f in frames
    ]
    return float(-10 * np.log10(np.mean(errors)))


@pytest.fixture(scope="module", params=[False, True], ids=["views only", "with keyframes"])
def other(request, tmp_path_factory) -> StoredMap:
    """The second half of the orbit, as a file."""
    path = tmp_path_factory.mktemp("map") / "second.ovs3d"
    synthetic.build_map(FRAMES[8:], steps=30, map__keep_keyframes=request.param).save(path)
    return StoredMap(*load_map(path, training=True), path.name)


def live_map(**settings) -> Ovs3d:
    return synthetic.build_map(FRAMES[:8], steps=30, map__keep_keyframes=True, **settings)


def put(room: Ovs3d, other: StoredMap, motion: np.ndarray | None = None) -> dict:
    live = StoredMap(*room.freeze(), "the live map")
    motion = np.eye(4) if motion is None else motion
    prepared = prepare(live, other, motion, RASTERIZER, room.map.lacks_images)
    return merge_into(room.map, prepared, room.config)


def total_evidence(s: MapSnapshot) -> torch.Tensor:
    return (s.codec.decode(s.packed_levels.unpack()) * s.weight[:, None, None]).sum((0, 1))


def test_both_halves_are_shown_and_found_and_stay_so_while_training_goes_on(other):
    room = live_map()
    before = [quality(room.map.params(), half) for half in HALVES]
    alone = quality(other.params, HALVES[1])
    total = room.stats["num_gaussians"] + len(other.params["means"])
    figures = put(room, other)
    assert figures["fused"] > 0.2 * total and room.stats["num_gaussians"] == total - figures["fused"]
    after = [quality(room.map.params(), half) for half in HALVES]
    assert after[0] > before[0] - 4 and after[1] > before[1] + 10
    room.optimize(160)
    trained = [quality(room.map.params(), half) for half in HALVES]
    assert trained[0] > before[0] and trained[1] > alone - 0.5, "it does not forget what only the file saw"
    assert len(room.snapshot().names) == 16 and room.stats["frames"] == 16
    for _ in room.relift():
        pass
    answer = room.query(NAMES)
    assert answer.found.all()
    for item in answer.objects:
        box = dict(red=synthetic.RED, green=synthetic.GREEN, blue=synthetic.BLUE)[item.prompt]
        assert np.linalg.norm(item.center - box.center) < 0.15


def test_evidence_adds_up(other):
    room = live_map()
    first, second = room.snapshot(), other.snapshot
    put(room, other)
    merged = room.snapshot()
    torch.testing.assert_close(
        merged.weight.sum(), first.weight.sum() + second.weight.sum(), rtol=1e-4, atol=0
    )
    sums = total_evidence(first) + total_evidence(second)
    # A snapshot keeps the sums as directions and weights, so views that disagree lose a little.
    torch.testing.assert_close(total_evidence(merged), sums, rtol=0.02, atol=0.02 * float(sums.norm()))
    assert merged.version > first.version


def test_another_frame_is_moved_by_its_transform(other):
    motion = random_motion(1)
    there = move(other, motion)
    if there.snapshot.training is not None:
        inverse = np.linalg.inv(motion)
        keyframes = [replace(k, camtoworld=inverse @ k.camtoworld) for k in there.snapshot.training.keyframes]
        training = replace(there.snapshot.training, keyframes=keyframes)
        there = replace(there, snapshot=replace(there.snapshot, training=training))
    rooms = live_map(), live_map()
    figures = put(rooms[0], other), put(rooms[1], there, motion)
    assert figures[0]["fused"] == pytest.approx(figures[1]["fused"], rel=0.02)
    here, moved = (room.snapshot() for room in rooms)
    np.testing.assert_allclose(moved.camtoworlds, here.camtoworlds, atol=1e-9)
    qualities = [quality(room.map.params(), FRAMES[::3]) for room in rooms]
    assert abs(qualities[0] - qualities[1]) < 0.2


def test_it_goes_on_growing_and_the_newest_keyframe_is_its_own(other):
    room = live_map()
    put(room, other)
    assert not room.add_frame(replace(FRAMES[7], stamp=20.0)), "the robot has not moved"
    new = synthetic.make_frame(synthetic.orbit(40)[20], 50.0)
    assert room.add_frame(new)
    room.optimize(20)
    snapshot = room.snapshot()
    assert len(snapshot.names) == 17 and snapshot.names[-1] == new.name
    assert [view.index for view in room.keyframes.views] == list(range(len(room.keyframes)))


def test_loop_closure_moves_what_its_keyframes_saw(other):
    room = live_map()
    put(room, other)
    stamps = [view.stamp for view in room.keyframes.views]
    own = stamps.index(FRAMES[3].stamp)
    means = room.map.params()["means"].detach().clone()
    shift = np.eye(4)
    shift[:3, 3] = 0.1, 0.0, 0.0
    moved = room.move_keyframes({own: shift @ room.keyframes[own].camtoworld})
    difference = room.map.params()["means"].detach() - means
    changed = difference.norm(dim=1) > 0.05
    assert moved == int(changed.sum()) > 0
    torch.testing.assert_close(
        difference[changed], torch.tensor([[0.1, 0.0, 0.0]]).expand(moved, 3), atol=1e-5, rtol=0
    )
    if other.snapshot.training is not None:
        assert stamps.index(FRAMES[12].stamp) == 4, "those of the file come first"
        assert room.move_keyframes({4: shift @ room.keyframes[4].camtoworld}) > 0
    assert room.query(NAMES).found.all()


def test_file_keeps_its_images_or_says_that_they_are_left_out(other, tmp_path):
    room = live_map()
    has_images = other.snapshot.training is not None
    assert not put(room, other)["images_dropped"]
    room.save(tmp_path / "both.ovs3d")
    again = Ovs3d.load(tmp_path / "both.ovs3d", training=True)
    assert len(again.snapshot().names) == 16 and len(again.keyframes) == (16 if has_images else 0)
    bare = Ovs3d.load(tmp_path / "both.ovs3d", {"map.keep_keyframes": True})
    known = bare.snapshot()
    assert put(bare, other)["images_dropped"] == has_images
    merged = bare.snapshot()
    assert list(merged.names) == [*other.snapshot.names, *known.names], "those of the file come first"
    for name in ("stamps", "camtoworlds"):
        parts = [getattr(snapshot, name) for snapshot in (other.snapshot, known)]
        np.testing.assert_allclose(getattr(merged, name), np.concatenate(parts), atol=1e-9)
    assert bare.query(NAMES).found.all()


def test_exposures_stay_relative_to_their_own_map(other):
    if other.snapshot.training is None:
        pytest.skip("there are none")
    room = live_map(train__exposure=True)
    training = other.snapshot.training
    training = replace(training, exposures=training.exposures + 0.3)
    own = [room.map.mapper.log.exposure.log_gain_and_offset(i).detach().clone() for i in range(8)]
    put(room, replace(other, snapshot=replace(other.snapshot, training=training)))
    for index, row in enumerate(own):
        torch.testing.assert_close(room.map.mapper.log.exposure.log_gain_and_offset(8 + index), row)


def test_refined_field_stays_and_covers_what_came(other):
    room = live_map()
    for _ in room.refine(NAMES):
        pass
    before = room.snapshot()
    put(room, other)
    merged = room.snapshot()
    field = merged.refined
    assert set(NAMES) <= set(field.names) and len(field.probabilities) == len(room.map.params()["means"])
    rows = {tuple(mean): row for row, mean in enumerate(before.gaussians["means"].tolist())}
    stayed = [(rows[m], n) for n, m in enumerate(map(tuple, merged.gaussians["means"].tolist())) if m in rows]
    old, new = torch.tensor(stayed).T
    assert len(stayed) > 0.2 * len(rows)
    torch.testing.assert_close(field.probabilities[new], before.refined.probabilities[old])
    assert (field.probabilities.sum(1)[room.snapshot().weight > 0.5] > 0.9).all()
    assert room.query(NAMES).found.all()


def test_refined_field_of_the_file_is_left_out_and_said(other):
    count, dim = len(other.params["means"]), len(other.snapshot.codec.mean)
    field = RefinedField(("a",), ("b",), torch.zeros(2, dim), 0.1, torch.ones(count, 2) / 2)
    refined = replace(other, snapshot=replace(other.snapshot, refined=field))
    assert put(live_map(), refined)["refined_dropped"] and not put(live_map(), other)["refined_dropped"]


def test_too_many_gaussians_are_refused_and_change_nothing(other):
    room = live_map(map__memory_limit_mib=0, map__max_gaussians=3000)
    before = {name: p.detach().clone() for name, p in room.map.params().items()}
    with pytest.raises(UserError, match=r"map\.max_gaussians is 3000: raise it"):
        put(room, other)
    for name, values in room.map.params().items():
        torch.testing.assert_close(values.detach(), before[name], atol=0, rtol=0)
    assert len(room.snapshot().names) == 8 and not room.map.lacks_images


def test_maps_of_colours_merge_and_others_are_refused(other, tmp_path: Path):
    rooms = []
    for part in (FRAMES[:8], FRAMES[8:]):
        rooms.append(Ovs3d(synthetic.make_config(), encode=False))
        for frame in part:
            rooms[-1].add_frame(frame)
    rooms[1].save(tmp_path / "plain.ovs3d")
    plain = StoredMap(*load_map(tmp_path / "plain.ovs3d", training=True), "plain.ovs3d")
    put(rooms[0], plain)
    assert len(rooms[0].snapshot().names) == 16
    with pytest.raises(UserError, match="holds colours only"):
        put(live_map(), plain)
