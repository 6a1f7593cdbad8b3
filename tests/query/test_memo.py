"""What is computed from a map once is not computed again, and never taken for another map."""

from __future__ import annotations

import dataclasses
import gc
import weakref

import numpy as np
from helpers import synthetic

from ovs3d_ros.query.memo import PartMemo, SnapshotMemo
from ovs3d_ros.types import MapSnapshot


def test_value_is_kept_for_one_snapshot_and_its_settings() -> None:
    seen = []

    def describe(snapshot: MapSnapshot, weight: float) -> tuple[int, float]:
        seen.append(snapshot.version)
        return snapshot.version, weight

    memo, pipeline = SnapshotMemo(describe), synthetic.build_map(synthetic.make_frames(2), steps=1)
    first = pipeline.snapshot()
    assert memo(first, 1.0) == memo(first, 1.0) == (first.version, 1.0) and len(seen) == 1
    assert memo(first, 2.0) == (first.version, 2.0) and len(seen) == 2
    pipeline.optimize(1)
    second = pipeline.snapshot()
    assert memo(second, 2.0) == (second.version, 2.0)
    assert (
        memo(dataclasses.replace(second, stamps=second.stamps), 2.0)[0] == second.version and len(seen) == 3
    )
    codes = weakref.ref(second.weight)
    del second, pipeline
    gc.collect()
    assert codes() is None, "the memo keeps no map alive"


def test_what_does_not_pay_at_first_is_computed_when_asked_for_again() -> None:
    seen: list[int] = []
    memo, pipeline = (
        SnapshotMemo(lambda s, weight: seen.append(s.version) or weight),
        synthetic.build_map(synthetic.make_frames(2), steps=1),
    )
    first = pipeline.snapshot()
    pipeline.optimize(1)
    second = pipeline.snapshot()
    assert memo.if_repeated(first, 1.0) is None and not seen
    assert memo.if_repeated(first, 1.0) == memo.if_repeated(first, 1.0) == 1.0 and seen == [first.version]
    assert memo.if_repeated(first, 2.0) is None
    assert memo.if_repeated(second, 1.0) is None
    assert memo.if_repeated(second, 1.0) == 1.0 and seen == [first.version, second.version]


def test_first_and_second_query_to_a_map_have_the_same_answer() -> None:
    pipeline = synthetic.build_map(synthetic.make_frames(6), steps=60)
    snapshot = pipeline.snapshot()
    answers = [
        pipeline.query(["red box", "green box"], snapshot=dataclasses.replace(snapshot)) for _ in range(3)
    ]
    assert len(answers[0].objects) >= 2
    for answer in answers[1:]:
        assert bool((answer.instances == answers[0].instances).all())
        for one, other in zip(answer.objects, answers[0].objects, strict=True):
            assert one.prompt == other.prompt and one.num_gaussians == other.num_gaussians
            np.testing.assert_allclose(one.center, other.center, atol=1e-6)
            np.testing.assert_allclose(one.size, other.size, atol=1e-6)


class Place:
    """A part of a map."""


def ask(memo: PartMemo, question: str, parts: list, size: int = 1000) -> list[int]:
    """Asks for arrays of `size` bytes; returns the places of the parts whose value was computed."""
    computed: list[int] = []

    def compute(places: list[int]) -> list[np.ndarray]:
        computed.extend(places)
        return [np.full(size, place, np.uint8) for place in places]

    values = memo.gather(question, parts, compute)
    assert [int(value[0]) for value in values] == list(range(len(parts)))
    return computed


def test_parts_are_asked_once_for_each_question() -> None:
    memo, parts = PartMemo(100_000), [Place(), None, Place()]
    assert ask(memo, "cup", parts) == [0, 1, 2]
    assert ask(memo, "cup", parts) == [1], "what is of one map alone is not kept"
    assert ask(memo, "cup", [*parts, Place()]) == [1, 3]
    assert ask(memo, "box", parts) == [0, 1, 2]


def test_part_memo_keeps_to_its_size_and_forgets_what_was_asked_longest_ago() -> None:
    memo, parts = PartMemo(10_000), [Place() for _ in range(4)]
    for question in ("cup", "box", "cup", "ball"):
        ask(memo, question, parts)
        assert memo.nbytes <= 10_000
    assert ask(memo, "cup", parts) == [] and ask(memo, "ball", parts) == []
    assert ask(memo, "box", parts) == [0, 1, 2, 3]
    large = [Place() for _ in range(15)]
    ask(memo, "cup", large)
    assert 8_000 <= memo.nbytes <= 10_000 and len(ask(memo, "cup", large)) <= 7


def test_part_memo_keeps_no_part_alive() -> None:
    memo, part = PartMemo(10_000), Place()
    ask(memo, "cup", [part])
    gone = weakref.ref(part)
    del part
    gc.collect()
    assert gone() is None and memo.nbytes == 0
