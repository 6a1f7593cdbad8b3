"""What is remembered of parked rooms changes no answer, and only what changed is looked at again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.rooms import BOXES, FRAMES, STEP, drive, drive_on, in_room

from ovs3d_ros.map_file import load_map
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.query import parked, parked_objects
from ovs3d_ros.semantics.codec import make_codec
from ovs3d_ros.types import MapSnapshot, QueryResult

NAMES = [*BOXES, "grey wall", "purple cow"]
OPTIONS = (
    {},
    {"threshold": 0.6, "max_instances": 2},
    {"negatives": ["grey wall", "white thing"]},
    {"mode": "argmax"},
    {"roi": np.array([[-1.0, -1.0, 0.0], [STEP + 0.2, 0.5, 0.4]])},
)
CAP = 13_000  # active Gaussians, of two rooms


@pytest.fixture
def pipeline() -> Ovs3d:
    return drive([0, 1, 2], steps=1, map__max_gaussians=CAP)


def check(pipeline: Ovs3d, options: dict | None = None) -> QueryResult:
    """Asks a map with and without what is remembered of its parked parts."""
    snapshot, options = pipeline.snapshot(), options or {}
    assert snapshot.parked and sum(part.count for part in snapshot.parked) == pipeline.stats["parked"]
    for _ in range(2):  # what was asked once is not remembered
        # Of a copy: answers are remembered by snapshot.
        ours = pipeline.query(NAMES, snapshot=replace(snapshot), **options)
    exact = pipeline.query(NAMES, snapshot=replace(snapshot, parked=()), **options)
    assert ours.verdicts == exact.verdicts
    assert torch.equal(ours.labels, exact.labels) and torch.equal(ours.instances, exact.instances)
    for name in ("presence", "score", "evidence"):  # others may be listed of equally strong Gaussians
        np.testing.assert_allclose(getattr(ours, name), getattr(exact, name), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(ours.scores, exact.scores, rtol=0, atol=1e-6)
    torch.testing.assert_close(ours.relevancy, exact.relevancy, rtol=0, atol=1e-6)
    assert len(ours.objects) == len(exact.objects)
    for a, b in zip(ours.objects, exact.objects, strict=True):
        assert (a.label, a.instance, a.num_gaussians) == (b.label, b.instance, b.num_gaussians)
        np.testing.assert_allclose(np.r_[a.center, a.size], np.r_[b.center, b.size], rtol=0, atol=1e-6)
    return ours


@pytest.mark.parametrize("spare, questions", [(1000, 16), (-(10**6), 16), (1000, 1)])
def test_answers_of_a_map_that_parks_and_wakes_rooms(
    pipeline: Ovs3d, monkeypatch, spare: int, questions: int
) -> None:
    # By itself, and where objects, or all but the last question, are forgotten at once.
    monkeypatch.setattr(parked_objects, "_SPARE", spare)
    monkeypatch.setattr(parked_objects, "_QUESTIONS", questions)
    for room in (3, 0, 4):  # the second wakes the first room
        before = {*pipeline.map.mapper.blocks.parcels}
        for frame in FRAMES[:2]:
            pose = in_room(frame, room).camtoworld.copy()
            pose[0, 3] += 0.2
            assert pipeline.add_frame(replace(in_room(frame, room), camtoworld=pose))
        after = {*pipeline.map.mapper.blocks.parcels}
        assert after - before and (room or before - after)
        answers = [check(pipeline, options) for options in OPTIONS]
        assert all(answer.objects for answer in answers)


def test_same_names_are_looked_for_where_the_map_changed(pipeline: Ovs3d, monkeypatch) -> None:
    scanned: list[int] = []
    grouped: list[int] = []
    labelled: list[int] = []

    def grouping(means, *rest):
        grouped.append(len(means))
        return group(means, *rest)

    def counted(part, codes, known, *rest):
        scanned.append(len(known))
        return kernel(part, codes, known, *rest)

    kernel, group = parked.scan_part, parked_objects.find_objects
    monkeypatch.setattr(parked, "scan_part", counted)
    monkeypatch.setattr(parked_objects, "find_objects", grouping)

    def rows(snapshot: MapSnapshot, names: list[str]) -> int:
        scanned.clear()
        labelled.append(int((pipeline.query(names, snapshot=replace(snapshot)).labels > 0).sum()))
        return sum(scanned)

    first = pipeline.snapshot()
    assert rows(first, NAMES) == 0, "asked once: all at once, nothing is remembered"
    labelled.clear()
    assert rows(first, NAMES) == first.num_gaussians
    drive_on(pipeline, [3], steps=1)
    second = pipeline.snapshot()
    same = sum(part.count for part in {*first.parked} & {*second.parked})
    assert same > 0 and rows(second, NAMES) == second.num_gaussians - same
    assert grouped[0] == labelled[0] and grouped[1] < labelled[1] - 1000, "objects of rooms that stay parked"
    assert rows(second, NAMES[1:]) == 0, "other names"
    assert rows(second, NAMES[1:]) == second.num_gaussians
    assert rows(second, NAMES) == second.num_gaussians - pipeline.stats["parked"]


def test_answers_follow_a_loop_closure(pipeline: Ovs3d) -> None:
    before = check(pipeline).objects
    shift = np.eye(4)
    shift[:3, 3] = 0.0, 30.0, 0.0
    pipeline.move_keyframes({view.index: shift @ view.camtoworld for view in pipeline.keyframes.views})
    after = check(pipeline).objects
    assert len(before) == len(after) > 0
    for a, b in zip(before, after, strict=True):
        np.testing.assert_allclose(b.center, a.center + shift[:3, 3], rtol=0, atol=1e-3)


def test_answers_of_a_map_that_is_loaded_and_reset(pipeline: Ovs3d, tmp_path) -> None:
    here = check(pipeline)
    pipeline.save(tmp_path / "two.ovs3d")
    pipeline.reset()
    drive_on(pipeline, [5, 6], steps=1)
    there = check(pipeline)
    assert min(o.center[0] for o in there.objects) > 4 * STEP > max(o.center[0] for o in here.objects)
    pipeline.restore(*load_map(tmp_path / "two.ovs3d"), "two")
    again = pipeline.query(NAMES)
    assert max(o.center[0] for o in again.objects) < 4 * STEP


def test_answers_after_a_new_lift_and_a_new_codec(pipeline: Ovs3d) -> None:
    check(pipeline)
    for _ in pipeline.relift():
        pass
    check(pipeline)
    old = pipeline.snapshot().codec
    new = pipeline.map.lifter.codec = make_codec(old.basis.flip(1).contiguous(), old.mean)
    stats = pipeline.map.mapper.gaussians.stats
    stats["numerators"] = stats["numerators"] @ old.translation_to(new).T
    for _ in range(1 + len(pipeline.map.mapper.blocks.parcels)):
        check(pipeline)
    assert pipeline.snapshot().codec is new


def test_refined_names_agree_with_and_without_memory(pipeline: Ovs3d) -> None:
    for _ in pipeline.refine(NAMES[:4]):
        pass
    assert pipeline.snapshot().refined is not None and check(pipeline).field is not None
