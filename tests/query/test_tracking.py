"""Objects keep their numbers from answer to answer; what moved, went or came is told."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from ovs3d_ros.query.tracking import ObjectTracker, last_views
from ovs3d_ros.types import Camera, Query, SemanticObject


def mug(x: float, size: float = 0.1, prompt: str = "mug") -> SemanticObject:
    center = np.array([x, 0.0, 0.5])
    return SemanticObject(prompt, 1, 1, 0.9, center, np.array([1.0, 0, 0, 0]), np.full(3, size), 99, 3)


def answer(*items: SemanticObject, prompts: tuple[str, ...] = ("mug",), **options):
    defaults = dict(negatives=("thing",), own_negatives=False, mode="relevancy", threshold=0.5)
    query = Query(prompts, **{**defaults, "max_instances": 0, "roi": None, "refine": False, **options})
    return SimpleNamespace(query=query, prompts=prompts, objects=list(items))


class Story:
    """Answers one after the other."""

    def __init__(self) -> None:
        self.tracker, self.time = ObjectTracker(), 100.0

    def __call__(self, *items: SemanticObject, **options) -> tuple[list[int], list[tuple[str, int]]]:
        self.time += 1.0
        tracks, changes = self.tracker.update(answer(*items, **options), self.time)
        return [track.id for track in tracks], [(change.kind, change.track.id) for change in changes]


def test_objects_keep_their_numbers_in_any_order():
    tell = Story()
    assert tell(mug(0.0), mug(1.0)) == ([1, 2], [("appeared", 1), ("appeared", 2)])
    assert tell(mug(1.02), mug(0.01)) == ([2, 1], [])
    assert tell(mug(0.0), mug(1.0), mug(2.0)) == ([1, 2, 3], [("appeared", 3)])


def test_object_at_another_place_has_moved():
    tell = Story()
    tell(mug(0.0), mug(1.0))
    assert tell(mug(0.0), mug(3.0)) == ([1, 2], [("moved", 2)])
    (_, track), changes = tell.tracker.update(answer(mug(0.0), mug(6.0)), 200.0)
    assert (changes[0].previous.center[0], changes[0].item.center[0], track.first_seen) == (3.0, 6.0, 101.0)


def test_slow_motion_is_told_in_the_end():
    tell, kinds = Story(), []
    for x in np.arange(0.0, 0.5, 0.06):
        kinds += [kind for kind, _ in tell(mug(float(x)))[1]]
    assert kinds == ["appeared", "moved", "moved"]


def test_object_of_another_size_is_another_one():
    tell = Story()
    tell(mug(0.0, size=0.1))
    assert tell(mug(3.0, size=0.5)) == ([2], [("appeared", 2), ("gone", 1)])


def test_object_that_returns_is_the_same():
    tell = Story()
    tell(mug(0.0))
    assert tell() == ([], [("gone", 1)])
    assert tell() == ([], [])
    assert tell(mug(0.05)) == ([1], [("appeared", 1)])


@pytest.mark.parametrize(
    "options",
    [
        dict(roi=np.zeros((2, 3))),
        dict(max_instances=1),
        dict(threshold=0.9),
        dict(negatives=("table",)),
        dict(mode="argmax"),
        dict(prompts=("sofa",)),
        dict(refine=True),
    ],
)
def test_another_question_does_not_prove_that_an_object_went(options):
    tell = Story()
    tell(mug(0.0))
    assert tell(**options) == ([], [])
    assert tell(mug(0.0)) == ([1], [])


def test_names_are_told_apart_and_cleared_maps_start_anew():
    tell = Story()
    tell(mug(0.0))
    assert tell(mug(0.0, prompt="cup"), prompts=("cup",))[0] == [2]
    tell.tracker.clear()
    assert tell(mug(0.0)) == ([3], [("appeared", 3)])


def test_newest_view_that_contains_a_place():
    camera = Camera(np.array([[100.0, 0, 50], [0, 100.0, 50], [0, 0, 1]]), 100, 100)
    turned = np.diag([-1.0, 1.0, -1.0, 1.0])  # looks to -z
    poses = np.stack([np.eye(4), np.eye(4), turned])
    centers = np.array([[0.0, 0, 2], [0, 0, -2], [1.5, 0, 2], [0.9, 0, 2]])
    stamps = last_views(centers, [camera] * 3, poses, np.array([10.0, 11.0, 12.0]))
    assert stamps.tolist() == [11.0, 12.0, 0.0, 11.0]
    assert last_views(centers[:0], [], poses[:0], stamps[:0]).shape == (0,)
