"""Rooms that the robot left are parked: nothing of them is lost, and what is near is mapped as ever."""

from __future__ import annotations

import gc
import resource
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import synthetic
from helpers.rooms import BOXES, CAMERA, CAP, FRAMES, drive, drive_on, in_room

from ovs3d_ros.io.row_file import ROWS, RowFile, StoredRows, join_rows
from ovs3d_ros.map_file import load_map
from ovs3d_ros.mapping.cells import cell_numbers, seen_cells
from ovs3d_ros.mapping.gaussians import rotate
from ovs3d_ros.merging.live import merge_into, prepare
from ovs3d_ros.merging.merge import StoredMap
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.rasterize import make_rasterizer
from ovs3d_ros.semantics import publication
from ovs3d_ros.semantics.codec import make_codec

ROOMS = 5


@pytest.fixture(scope="module")
def building() -> Ovs3d:
    return drive(range(ROOMS), steps=36)


def error_in(pipeline: Ovs3d, room: int) -> float:
    """Mean squared error of a view in a room."""
    frame = in_room(FRAMES[1], room)
    rgb = pipeline.render(frame.camera, frame.camtoworld).rgb
    return float((rgb - torch.from_numpy(frame.image) / 255).square().mean())


def iou_in(pipeline: Ovs3d, room: int) -> float:
    """Mean IoU of the boxes in a view in a room."""
    frame, snapshot = in_room(FRAMES[1], room), pipeline.snapshot()
    labels, _ = pipeline.render_labels(pipeline.query(BOXES), frame.camera, frame.camtoworld, snapshot)
    shares = []
    for number in (1, 2, 3):
        found, there = labels == number, frame.labels == number
        shares.append((found & there).sum() / (found | there).sum())
    return float(np.mean(shares))


def test_first_room_is_as_good_as_alone_after_five(building: Ovs3d) -> None:
    alone = drive([0], steps=36)
    stats = building.stats
    assert stats["num_gaussians"] > 1.4 * CAP and stats["evicted"] == 0, "no room is pruned for the next"
    assert len(building.map.mapper.gaussians) <= CAP and stats["parked"] % ROWS == 0 < stats["parked"]
    assert stats["parked_disk_mib"] > 1
    for room in (0, 2, 4):
        assert error_in(building, room) < 1.3 * error_in(alone, 0)
        assert iou_in(building, room) > iou_in(alone, 0) - 0.1
    pruned = drive(range(ROOMS), map__memory_limit_mib=0)
    assert pruned.stats["parked"] == 0 < pruned.stats["evicted"]
    assert error_in(pruned, 0) > 2 * error_in(building, 0)


def test_snapshots_share_what_is_parked_and_stay_as_they_are() -> None:
    pipeline = drive(range(3))
    before = pipeline.snapshot()
    parked = pipeline.stats["parked"]
    kept = {name: t.clone() for name, t in before.gaussians.items()}
    codes, weight = before.codes.clone(), before.weight.clone()
    assert before.num_gaussians == pipeline.stats["num_gaussians"] == len(before.packed_codes)
    for room in (3, 0):  # parks more, and wakes the first room
        for frame in FRAMES:
            shifted = in_room(frame, room).camtoworld.copy()
            shifted[0, 3] += 0.1
            pipeline.add_frame(replace(in_room(frame, room), camtoworld=shifted, stamp=999.0 + room))
        pipeline.optimize(2)
    after = pipeline.snapshot()
    gc.collect()
    assert all(torch.equal(t, before.gaussians[name]) for name, t in kept.items())
    assert torch.equal(codes, before.codes) and torch.equal(weight, before.weight)
    assert after.num_gaussians == pipeline.stats["num_gaussians"] and pipeline.stats["parked"] != parked


def test_room_wakes_when_it_is_seen_again() -> None:
    pipeline = drive(range(3))
    first = pipeline.map.mapper.blocks.parcels[0]
    total, rows = pipeline.stats["num_gaussians"], first.read(None)
    assert 0 not in pipeline.map.mapper.blocks.trainable and 11 in pipeline.map.mapper.blocks.trainable
    pose = FRAMES[0].camtoworld.copy()
    pose[0, 3] += 0.2
    assert pipeline.add_frame(synthetic.make_frame(pose, 900.0, camera=CAMERA))
    g, blocks = pipeline.map.mapper.gaussians, pipeline.map.mapper.blocks
    assert first not in blocks.parcels and 0 in blocks.trainable
    place = (g.params["means"].detach()[:, None] == rows["means"][None, :40]).all(-1).nonzero()
    assert len(place) >= 40, "they are active again"
    rows_of = place[:, 0]
    assert torch.equal(g.params["sh_dc"].detach()[rows_of], rows["sh_dc"][place[:, 1]])
    assert (g.stats["views"][rows_of] >= rows["views"][place[:, 1]]).all()
    assert (g.stats["weight"][rows_of] >= rows["weight"][place[:, 1]] - 1e-4).all(), "with their evidence"
    sums = pipeline.map.lifter.codec.norm(g.stats["numerators"][rows_of])
    parked = first.codec.norm(rows["numerators"][place[:, 1]])
    assert (sums > 0.9 * parked - 1e-3).all() and (parked > 1).any(), "and features"
    assert pipeline.stats["num_gaussians"] < total + 2500, "what is there already is not seeded again"
    pipeline.optimize(3)


def test_loop_closure_moves_parked_rooms() -> None:
    pipeline = drive(range(3))
    before, parked = pipeline.snapshot(), pipeline.stats["parked"]
    shift = np.eye(4)
    shift[:3] = [0.6, -0.8, 0.0, 40.3], [0.8, 0.6, 0.0, 0.1], [0.0, 0.0, 1.0, 0.0]
    moves = {view.index: shift @ view.camtoworld for view in pipeline.keyframes.views}
    trainable = set(pipeline.map.mapper.blocks.trainable)
    assert pipeline.move_keyframes(moves) == before.num_gaussians and parked
    assert trainable == set(pipeline.map.mapper.blocks.trainable), "they see what they saw"
    after = pipeline.snapshot()
    rotation, motion = (torch.from_numpy(shift[:3, part]).float() for part in (slice(3), 3))
    expected = before.gaussians["means"] @ rotation.T + motion
    torch.testing.assert_close(after.gaussians["means"], expected, atol=2e-5, rtol=0)
    axes = [
        rotate(m.gaussians["quats"], torch.eye(3)[:1].expand(before.num_gaussians, 3))
        for m in (before, after)
    ]
    torch.testing.assert_close(axes[1], axes[0] @ rotation.T, atol=1e-5, rtol=0)
    near = np.eye(4)
    near[0, 3] = 0.3
    frame = replace(in_room(FRAMES[1], 0), camtoworld=shift @ in_room(FRAMES[1], 0).camtoworld)
    rgb = pipeline.render(frame.camera, frame.camtoworld).rgb
    assert float((rgb - torch.from_numpy(frame.image) / 255).square().mean()) < 0.01
    assert pipeline.add_frame(replace(frame, camtoworld=frame.camtoworld @ near, stamp=999.0))
    assert 0 in pipeline.map.mapper.blocks.trainable, "the room wakes at its new place"


def test_file_and_its_reload_hold_all_rooms(tmp_path) -> None:
    pipeline = drive(range(3), map__keep_keyframes=True)
    assert pipeline.stats["parked"]
    pipeline.save(tmp_path / "building.ovs3d")
    params, loaded = load_map(tmp_path / "building.ovs3d", training=True)
    assert len(params["means"]) == pipeline.stats["num_gaussians"] == len(loaded.training.owners)
    assert (loaded.training.owners > 0).all(), "in all three rooms"
    again = Ovs3d.load(tmp_path / "building.ovs3d", training=True)
    torch.testing.assert_close(again.snapshot().gaussians["means"], pipeline.snapshot().gaussians["means"])
    assert abs(error_in(again, 0) - error_in(pipeline, 0)) < 1e-4
    for frame in FRAMES:  # the loaded map goes on, and parks in its turn
        assert again.add_frame(in_room(frame, 3))
        again.optimize(2)
    assert again.stats["parked"] and len(again.map.mapper.gaussians) <= CAP
    assert error_in(again, 0) < 1.3 * error_in(pipeline, 0)


def test_refinement_covers_parked_rooms() -> None:
    pipeline = drive(range(3))
    for _ in pipeline.refine([*BOXES, "grey wall"]):
        pass
    field = pipeline.snapshot().refined
    assert field is not None and len(field.probabilities) == pipeline.stats["num_gaussians"]
    other = replace(field, probabilities=field.probabilities.flip(1))
    pipeline.map.refinement.set_field(other, pipeline.map.mapper.blocks)
    assert torch.equal(pipeline.snapshot().refined.probabilities, other.probabilities)
    pipeline.map.refinement.set_field(field, pipeline.map.mapper.blocks)
    for frame in FRAMES:
        pipeline.add_frame(in_room(frame, 3))
    later = pipeline.snapshot().refined
    assert len(later.probabilities) == pipeline.stats["num_gaussians"]
    assert (later.probabilities.sum(-1) > 0.9).all() and pipeline.query(BOXES).found.all()


def test_features_survive_a_new_codec_and_a_new_lift() -> None:
    pipeline = drive(range(3), lift__residual=0.0)  # every keyframe fits the codec anew
    before = iou_in(pipeline, 0)
    for _ in pipeline.relift():
        pass
    assert pipeline.stats["parked"]
    for room in range(3):
        assert iou_in(pipeline, room) > 0.6 and abs(iou_in(pipeline, 0) - before) < 0.1


def test_new_lift_mends_the_features_of_parked_rooms() -> None:
    pipeline = drive([0])
    pipeline.map.mapper.gaussians.stats["numerators"].zero_()
    drive_on(pipeline, range(1, 4), steps=3)
    assert 0 not in pipeline.map.mapper.blocks.trainable and iou_in(pipeline, 0) < 0.3
    for _ in pipeline.relift():
        pass
    assert pipeline.stats["parked"] and iou_in(pipeline, 0) > 0.6


def test_new_codec_reaches_parked_rooms_bit_by_bit(monkeypatch) -> None:
    """No snapshot waits for all of a large map: until its turn, a snapshot keeps to the codec before."""
    monkeypatch.setattr(publication, "_AT_ONCE", 1)
    pipeline = drive(range(ROOMS))
    old, texts = pipeline.snapshot(), pipeline.encode_text(BOXES)
    lifter = pipeline.map.lifter
    new = lifter.codec = make_codec(old.codec.basis.flip(1).contiguous(), old.codec.mean)
    g = pipeline.map.mapper.gaussians
    g.stats["numerators"] = g.stats["numerators"] @ old.codec.translation_to(new).T
    parcels = len(pipeline.map.mapper.blocks.parcels)
    assert parcels > 2
    for count in range(parcels + 1):
        snapshot = pipeline.snapshot()
        assert (snapshot.codec is new) == (count >= parcels - 1), "in one go"
        cosines = [s.codes @ s.directions(texts) for s in (old, snapshot)]
        torch.testing.assert_close(*cosines, atol=0.03, rtol=0)


def test_run_after_the_last_frame_trains_and_lifts_all_rooms() -> None:
    """As `ovs3d map` does: rooms that are parked before any step must be trained, too."""
    pipeline = drive(range(ROOMS), steps=0)
    before = [error_in(pipeline, room) for room in range(ROOMS)]
    pipeline.optimize(400, horizon=400)
    for _ in pipeline.relift():
        pass
    assert pipeline.stats["parked"] and len(pipeline.map.mapper.gaussians) <= CAP
    after = [error_in(pipeline, room) for room in range(ROOMS)]
    assert all(new < 0.6 * old for new, old in zip(after, before, strict=True)), (before, after)
    assert min(iou_in(pipeline, room) for room in range(ROOMS)) > 0.7


def test_trouble_with_the_file_parks_in_memory(monkeypatch, caplog, tmp_path) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "missing"))
    pipeline = drive(range(3))
    assert caplog.text.count("cannot be parked in a file") == 1
    assert pipeline.stats["parked"] and pipeline.stats["parked_disk_mib"] == 0
    assert error_in(pipeline, 0) < 0.01 and pipeline.query(BOXES).found.all()


def test_joined_rows_are_those_of_all_parts() -> None:
    file, generator = RowFile(), torch.Generator().manual_seed(0)

    def rows(count: int) -> dict[str, torch.Tensor]:
        return dict(
            a=torch.rand(count, 3, generator=generator),
            b=torch.randint(-9, 9, (count, 2, 61), generator=generator, dtype=torch.int8),
            c=torch.rand(count, generator=generator).half(),
            d=torch.zeros(count, 0),
        )

    given, other = [rows(ROWS), rows(2 * ROWS), rows(77)], rows(ROWS)
    stored = [file.store(part) for part in given[:2]]
    joined = join_rows(stored, given[2])
    for name, tensor in joined.items():
        assert torch.equal(tensor, torch.cat([part[name] for part in given]))
    turned = join_rows(stored[::-1], given[2])  # they do not lie in the file in this order
    for name, tensor in turned.items():
        assert torch.equal(tensor, torch.cat([given[1][name], given[0][name], given[2][name]]))
    mixed = [*stored, StoredRows(ROWS, {}, given[0]), RowFile().store(other), stored[0]]
    for name, tensor in join_rows(mixed, given[1]).items():  # files, memory, another file, the first again
        parts = [*given[:2], given[0], other, *given[:2]]
        assert torch.equal(tensor, torch.cat([part[name] for part in parts]))
    mixed.clear()
    joined["a"][:5] = 7.0  # private: others do not see it
    assert torch.equal(join_rows(stored, given[2])["a"], torch.cat([part["a"] for part in given]))
    size = file.size
    first = stored.pop(0)
    del first, joined, turned, tensor
    gc.collect()
    assert file.size < 0.7 * size, "its place on the disk is free again"


def test_rows_that_do_not_fit_on_the_disk_leave_nothing_there(caplog) -> None:
    rows = dict(small=torch.ones(ROWS), large=torch.rand(ROWS, 9))
    file, limits = RowFile(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, limits[1]))  # the first tensor fits
    try:
        stored = file.store(rows)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "cannot be parked in a file" in caplog.text and file.size == 0
    assert all(torch.equal(tensor, rows[name]) for name, tensor in stored.read().items())


def test_camera_sees_the_cells_of_all_its_points() -> None:
    rng = np.random.default_rng(0)
    for pose in synthetic.orbit(3):
        pixels = rng.uniform([0, 0], [CAMERA.width, CAMERA.height], (500, 2))
        depth = rng.uniform(0.05, 3.0, 500)
        rays = np.linalg.inv(CAMERA.K) @ np.concatenate([pixels, np.ones((500, 1))], 1).T
        points = (pose[:3, :3] @ (rays * depth) + pose[:3, 3:]).T
        cells = seen_cells(CAMERA, pose, 3.0, 0.7)
        assert np.isin(cell_numbers(torch.from_numpy(points), 0.7), cells).all()
        behind = pose[:3, 3] - 2.0 * pose[:3, 2]
        assert not np.isin(cell_numbers(torch.from_numpy(behind[None]), 0.7), cells).any()


def test_map_file_is_merged_with_what_is_parked(tmp_path) -> None:
    pipeline = drive(range(4), map__max_gaussians=14_000)
    assert pipeline.stats["parked"] > 0
    drive([0, 5], map__max_gaussians=100_000, map__keep_keyframes=True).save(tmp_path / "other.ovs3d")
    rasterizer = make_rasterizer("cpu", 1)
    live = StoredMap(*pipeline.freeze(), "the live map")
    other = StoredMap(*load_map(tmp_path / "other.ovs3d", training=True), "other.ovs3d")
    before = [error_in(pipeline, room) for room in range(4)]
    prepared = prepare(live, other, np.eye(4), rasterizer, pipeline.map.lacks_images)
    figures = merge_into(pipeline.map, prepared, pipeline.config)
    stats = pipeline.stats
    assert stats["num_gaussians"] == len(live.params["means"]) + len(other.params["means"]) - figures["fused"]
    assert stats["parked"] > 0 and len(pipeline.map.mapper.gaussians) <= 14_000 and stats["evicted"] == 0
    for room in range(4):
        assert error_in(pipeline, room) < 2 * before[room]
    assert error_in(pipeline, 5) < 2 * max(before)
    assert pipeline.query(BOXES).found.all()
    assert pipeline.add_frame(in_room(FRAMES[0], 6)), "it goes on"
    pipeline.optimize(3)
    assert pipeline.stats["keyframes"] == len(pipeline.map.mapper.blocks.sight) == 4 * 4 + 2 * 4 + 1
