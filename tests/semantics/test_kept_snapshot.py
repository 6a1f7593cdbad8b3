"""A map that does not change keeps its snapshot; whatever changes it gives it a new one."""

from __future__ import annotations

import dataclasses
import gc
import weakref
from collections.abc import Callable

import numpy as np
import pytest
import torch
from helpers import synthetic
from helpers.rooms import drive, drive_on

from ovs3d_ros.config import override
from ovs3d_ros.map_file import load_map
from ovs3d_ros.merging.live import merge_into, prepare
from ovs3d_ros.merging.merge import StoredMap
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.rasterize import make_rasterizer

NAMES = ["red box", "green box"]
FRAMES = synthetic.make_frames(7)


@pytest.fixture
def pipeline() -> Ovs3d:
    return synthetic.build_map(FRAMES[:4], steps=5)


def unchanged(pipeline: Ovs3d) -> bool:
    return pipeline.snapshot() is pipeline.snapshot()


def test_queries_of_a_map_that_does_not_change_read_one_snapshot(pipeline: Ovs3d) -> None:
    answers = [pipeline.query(NAMES) for _ in range(3)]
    snapshot = pipeline.snapshot()
    assert {answer.map_version for answer in answers} == {snapshot.version}
    assert torch.equal(answers[0].labels, answers[2].labels) and answers[0].found.all()
    pipeline.render(FRAMES[0].camera, FRAMES[0].camtoworld)
    assert pipeline.freeze()[1].weight is snapshot.weight and pipeline.snapshot() is snapshot


def test_loaded_map_keeps_its_snapshot_too(pipeline: Ovs3d, tmp_path) -> None:
    pipeline.save(tmp_path / "room.ovs3d")
    loaded = Ovs3d.load(tmp_path / "room.ovs3d")
    assert unchanged(loaded) and loaded.query(NAMES).map_version == loaded.snapshot().version


def insert_frame(pipeline: Ovs3d) -> None:
    assert pipeline.add_frame(FRAMES[5])


def insert_frame_that_shows_nothing_new(pipeline: Ovs3d) -> None:
    assert not pipeline.add_frame(dataclasses.replace(FRAMES[3], stamp=99.0))


def train(pipeline: Ovs3d) -> None:
    pipeline.optimize(1)


def lift_again(pipeline: Ovs3d) -> None:
    for _ in pipeline.relift():
        pass


def add_a_point(pipeline: Ovs3d) -> None:
    pipeline.add_points(np.array([[0.3, 0.1, 0.2]]), np.array([[200, 10, 10]], np.uint8))


def move_one_keyframe(pipeline: Ovs3d) -> None:
    pose = pipeline.keyframes.views[1].camtoworld.copy()
    pose[0, 3] += 0.05
    pipeline.move_keyframes({1: pose})


def move_a_keyframe_alone(pipeline: Ovs3d) -> None:
    pipeline.map.mapper.keyframes.move(1, np.eye(4))


def replace_evidence(pipeline: Ovs3d) -> None:
    stats = pipeline.map.mapper.gaussians.stats
    stats["weight"] = stats["weight"] * 2


def take_up_figures(pipeline: Ovs3d) -> None:
    pipeline.map.mapper.resume(99, 20.0)


def refine(pipeline: Ovs3d) -> None:
    for _ in pipeline.refine(NAMES):
        pass


def other_levels(pipeline: Ovs3d) -> None:
    pipeline.configure(override(pipeline.config, {"lift.selection": "sharp"}))


def other_names_to_select_levels_by(pipeline: Ovs3d) -> None:
    pipeline.recalibrate(distractors=("red", "grey"))


def change_in_place(pipeline: Ovs3d) -> None:
    with torch.no_grad():
        pipeline.map.mapper.gaussians.params["means"][0] += 1.0


def merge(pipeline: Ovs3d) -> None:
    other = StoredMap(*synthetic.build_map(FRAMES[4:], steps=2).freeze(), "other")
    live = StoredMap(*pipeline.freeze(), "the live map")
    rasterizer = make_rasterizer("cpu", 1)
    prepared = prepare(live, other, np.eye(4), rasterizer, pipeline.map.lacks_images)
    merge_into(pipeline.map, prepared, pipeline.config)


CHANGES = (
    insert_frame,
    insert_frame_that_shows_nothing_new,
    train,
    lift_again,
    add_a_point,
    move_one_keyframe,
    move_a_keyframe_alone,
    replace_evidence,
    take_up_figures,
    refine,
    other_levels,
    other_names_to_select_levels_by,
    change_in_place,
    merge,
    Ovs3d.reset,
)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_whatever_changes_a_map_gives_it_a_new_snapshot(
    pipeline: Ovs3d, change: Callable[[Ovs3d], object]
) -> None:
    before = pipeline.snapshot()
    assert unchanged(pipeline)
    change(pipeline)
    after = pipeline.snapshot()
    assert after is not before and after.version > before.version
    assert unchanged(pipeline), "and keeps that one"


def test_restored_map_has_a_new_snapshot(pipeline: Ovs3d, tmp_path) -> None:
    pipeline.save(tmp_path / "room.ovs3d")
    before = pipeline.snapshot()
    pipeline.restore(*load_map(tmp_path / "room.ovs3d"), "room")
    assert pipeline.snapshot().version > before.version and unchanged(pipeline)


def test_snapshot_of_a_map_that_went_on_is_not_kept_alive(pipeline: Ovs3d) -> None:
    gone = weakref.ref(pipeline.snapshot().packed_codes.values)
    assert gone() is not None
    pipeline.optimize(1)
    pipeline.snapshot()
    gc.collect()
    assert gone() is None


def test_parked_map_is_shown_anew_until_all_parcels_are_packed() -> None:
    pipeline = drive([0, 1, 2], steps=1, map__max_gaussians=13_000)
    before = pipeline.snapshot()
    assert before.parked
    settled = [pipeline.snapshot() for _ in range(20)][-1]
    assert pipeline.snapshot() is settled
    drive_on(pipeline, [3], steps=1)
    parked = pipeline.snapshot()
    assert parked is not settled and len(parked.parked) > len(settled.parked)
    pipeline.map.mapper.blocks.wake_all()
    assert not pipeline.snapshot().parked
