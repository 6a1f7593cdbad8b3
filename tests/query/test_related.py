"""Prompts that say where a thing is, asked of a map of a room that is known exactly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import synthetic
from helpers.synthetic import Box

from ovs3d_ros.query.description import describe

BLUE_LOW = Box((-0.5, 0.0, 0.2), (0.6, 0.5, 0.4), (40, 60, 205), 3)
RED_ON_BLUE = Box((-0.5, 0.0, 0.5), (0.25, 0.25, 0.2), (215, 40, 35), 1)
RED_ON_FLOOR = Box((0.25, 0.0, 0.15), (0.3, 0.3, 0.3), (215, 40, 35), 1)
GREEN_FAR = Box((2.2, 2.2, 0.2), (0.3, 0.3, 0.4), (45, 190, 50), 2)
SCENE = (synthetic.ROOM, BLUE_LOW, RED_ON_BLUE, RED_ON_FLOOR, GREEN_FAR)


@pytest.fixture(scope="module")
def pipeline():
    return synthetic.build_map(synthetic.make_frames(8, scene=SCENE))


def objects(result, p: int) -> list:
    return [item for item in result.objects if item.label == p + 1]


def test_relation_picks_the_things_that_it_holds_for(pipeline):
    result = pipeline.query(["red box on the blue box", "red box", "red box next to the blue box"])
    assert result.found.all() and result.verdicts == ["yes"] * 3
    (upper,), both, (lower,) = (objects(result, p) for p in range(3))
    np.testing.assert_allclose(upper.center, RED_ON_BLUE.center, atol=0.08)
    np.testing.assert_allclose(lower.center, RED_ON_FLOOR.center, atol=0.08)
    assert upper.prompt == "red box on the blue box" and upper.label == 1
    assert {item.instance for item in both} == {upper.instance, lower.instance} == {1, 2}


def test_gaussians_carry_the_label_of_the_relation(pipeline):
    result = pipeline.query(["red box", "red box on the blue box"])
    means = pipeline.snapshot().gaussians["means"]
    for label, box in ((1, RED_ON_FLOOR), (2, RED_ON_BLUE)):
        mine = means[result.labels == label]
        assert len(mine) > 20 and (mine - torch.tensor(box.center)).abs().max() < 0.4
    (item,) = objects(result, 1)
    on_top = result.instances == item.instance
    assert on_top.any() and (result.labels[on_top] == 2).all()


def test_view_shows_the_thing_and_not_its_place(pipeline):
    frame = synthetic.make_frame(synthetic.orbit(3)[1], scene=SCENE)
    result, snapshot = pipeline.query(["red box on the blue box"]), pipeline.snapshot()
    for shown in (snapshot, replace(snapshot, version=snapshot.version + 1)):  # the second has grown since
        labels, _ = pipeline.render_labels(result, frame.camera, frame.camtoworld, shown)
        on_it = (frame.labels == 1) & (np.arange(64) < 32)
        other = (frame.labels > 0) & ~on_it
        assert (labels > 0)[on_it].mean() > 0.6 and (labels > 0)[other].mean() < 0.1


def test_both_are_here_and_the_relation_is_not(pipeline):
    result = pipeline.query(["blue box on the red box", "red box in the blue box", "blue box"])
    assert result.found.tolist() == [False, False, True] and result.verdicts[:2] == ["no", "no"]
    assert result.presence[:2].tolist() == [0, 0] and not objects(result, 0) and not objects(result, 1)
    note = describe(result, pipeline.snapshot(), pipeline.config.query)[0]["note"]
    assert note == "blue box and red box are here, but no blue box is on red box"


def test_relation_needs_thing_and_place(pipeline):
    result = pipeline.query(
        ["yellow box", "red box", "red box on the yellow box", "yellow box on the red box"]
    )
    assert not result.found[2:].any()
    np.testing.assert_array_equal(result.presence[2:], min(result.presence[:2]))


def test_limit_counts_the_things_that_the_relation_holds_for(pipeline):
    everything = pipeline.query(["red box"], max_instances=1).objects
    assert len(everything) == 1
    for prompt, box in (("red box on the blue box", RED_ON_BLUE), ("red box beside blue box", RED_ON_FLOOR)):
        (item,) = pipeline.query([prompt], max_instances=1).objects
        np.testing.assert_allclose(item.center, box.center, atol=0.08)


def test_letter_case_makes_no_difference(pipeline):
    result = pipeline.query(["red box", "Red Box ON the blue box", "red box on the BLUE box", "blue box"])
    assert [len(objects(result, p)) for p in range(3)] == [2, 1, 1]


def test_what_is_remembered_of_a_map_does_not_answer_for_another(pipeline):
    here, moved = pipeline.snapshot(), pipeline.snapshot()
    means = moved.gaussians["means"].clone()
    means[pipeline.query(["red box on the blue box"]).labels > 0] += torch.tensor([0.0, 2.5, 0.0])
    moved = replace(moved, gaussians={**moved.gaussians, "means": means}, weight=moved.weight.clone())
    for snapshot, is_on in ((here, True), (moved, False), (here, True), (here, True)):
        assert pipeline.query(["red box on the blue box"], snapshot=snapshot).found[0] == is_on


def test_refinement_takes_the_plain_names(pipeline):
    result = pipeline.query(["red box on the blue box", "grey floor"], refine=True, mode="argmax")
    assert result.field is not None and result.field.names == ("red box", "blue box", "grey floor")
    np.testing.assert_allclose(objects(result, 0)[0].center, RED_ON_BLUE.center, atol=0.08)
