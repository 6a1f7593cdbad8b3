"""The same question to the same snapshot is answered once, and never with what is out of date."""

from __future__ import annotations

import dataclasses
import gc
import threading
import weakref
from collections.abc import Callable

import numpy as np
import pytest
import torch
from helpers import synthetic

from ovs3d_ros.config import override
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.query import engine
from ovs3d_ros.query.answers import AnswerMemo, Asked
from ovs3d_ros.types import QueryResult

NAMES = ["red box", "green box", "purple cow"]
OPTIONS = (
    {},
    {"mode": "argmax"},
    {"threshold": 0.6, "max_instances": 1},
    {"negatives": ["grey wall"]},
    {"roi": np.array([[-1.0, -1.0, 0.0], [0.6, 0.5, 0.4]])},
)


@pytest.fixture
def pipeline() -> Ovs3d:
    return synthetic.build_map(synthetic.make_frames(6), steps=30)


@pytest.fixture
def answered(monkeypatch) -> list[tuple[str, ...]]:
    """The prompts of the questions that were not remembered."""
    asked: list[tuple[str, ...]] = []

    def answer_query(query, *rest):
        asked.append(query.prompts)
        return plain(query, *rest)

    plain = engine.answer_query
    monkeypatch.setattr(engine, "answer_query", answer_query)
    return asked


def assert_same(one: QueryResult, other: QueryResult) -> None:
    for name in (field.name for field in dataclasses.fields(QueryResult)):
        a, b = getattr(one, name), getattr(other, name)
        if isinstance(a, torch.Tensor):
            assert a.dtype == b.dtype and torch.equal(a, b), name
        elif isinstance(a, np.ndarray):
            assert a.dtype == b.dtype and np.array_equal(a, b), name
        elif name not in ("objects", "query", "score_all", "latency_ms"):
            assert a == b, name
    assert torch.equal(one.relevancy, other.relevancy)
    assert len(one.objects) == len(other.objects)
    for a, b in zip(one.objects, other.objects, strict=True):
        for field in dataclasses.fields(a):
            np.testing.assert_array_equal(getattr(a, field.name), getattr(b, field.name))


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: next(iter(options), "plain"))
def test_question_that_is_repeated_is_answered_once_and_the_same(pipeline, answered, options) -> None:
    first, again = (pipeline.query(NAMES, **options) for _ in range(2))
    assert len(answered) == 1 and len(first.objects) >= 1
    assert_same(again, first)


def test_relations_are_remembered_too(pipeline, answered) -> None:
    first, again = (pipeline.query(["red box", "red box beside the green box"]) for _ in range(2))
    assert len(answered) == 1
    assert_same(again, first)


@pytest.mark.parametrize("options", OPTIONS[1:], ids=lambda options: next(iter(options)))
def test_other_questions_have_answers_of_their_own(pipeline, answered, options) -> None:
    pipeline.query(NAMES)
    pipeline.query(NAMES, **options)
    pipeline.query(NAMES[::-1], **options)
    assert len(answered) == 3
    if "roi" in options:
        pipeline.query(NAMES, roi=options["roi"] + 0.1)
        assert len(answered) == 4


def raise_presence(pipeline: Ovs3d) -> None:
    pipeline.configure(override(pipeline.config, {"query.presence": 0.9999999}))


def calibrate(pipeline: Ovs3d) -> None:
    pipeline.recalibrate(presence_bias=-1000.0)


@pytest.mark.parametrize("change", [raise_presence, calibrate], ids=["configure", "calibrate"])
def test_answer_follows_what_decides_about_the_same_snapshot(
    pipeline: Ovs3d, change: Callable[[Ovs3d], None]
) -> None:
    snapshot = pipeline.snapshot()
    assert pipeline.query(NAMES, snapshot=snapshot).found.any()
    change(pipeline)
    for _ in range(2):
        assert not pipeline.query(NAMES, snapshot=snapshot).found.any()


def test_refined_field_is_told_from_none_and_from_another(pipeline, answered) -> None:
    snapshot = pipeline.snapshot()
    lifted = pipeline.query(NAMES, snapshot=snapshot)
    for _ in pipeline.refine(NAMES):
        pass
    refined = [pipeline.query(NAMES) for _ in range(2)]
    own = [pipeline.query(NAMES, snapshot=snapshot, refine=True).field for _ in range(2)]
    assert lifted.field is None and refined[0].field is not None
    assert own[0] is not own[1] and len(answered) == 4
    plain = pipeline.queries.answer(pipeline.make_query(NAMES), pipeline.snapshot(), None)
    assert plain.field is None and len(answered) == 5
    assert_same(refined[1], refined[0])


def test_map_that_changed_is_asked_anew(pipeline, answered) -> None:
    before = pipeline.query(NAMES)
    pipeline.optimize(1)
    after = pipeline.query(NAMES)
    assert after.map_version > before.map_version and len(answered) == 2
    copy = dataclasses.replace(pipeline.snapshot())
    pipeline.query(NAMES, snapshot=copy)
    assert len(answered) == 3, "another snapshot, if of the same tensors"


def test_whoever_changes_an_answer_changes_nobody_elses(pipeline) -> None:
    expected = pipeline.query(NAMES)
    kept = expected.labels.clone(), expected.presence.copy(), expected.objects[0].center.copy()
    for answer in (expected, pipeline.query(NAMES)):
        answer.labels.zero_()
        answer.scores.numpy()[:] = 0
        answer.instances.add_(7)
        answer.presence[:] = 2
        answer.objects[0].center[:] = 99
        answer.objects.clear()
        answer.verdicts.clear()
    again = pipeline.query(NAMES)
    assert torch.equal(again.labels, kept[0]) and np.array_equal(again.presence, kept[1])
    assert np.array_equal(again.objects[0].center, kept[2]) and len(again.verdicts) == len(NAMES)
    assert again.scores.any() and int(again.instances.max()) == len(again.objects)


def fill(memo: AnswerMemo, pipeline: Ovs3d, most: int) -> None:
    """Keeps an answer of the map under a hundred questions."""
    query, snapshot, answer = pipeline.make_query(NAMES), pipeline.snapshot(), pipeline.query(NAMES)
    for number in range(100):
        other = dataclasses.replace(query, threshold=0.9 + 1e-4 * number)
        memo.answer(Asked(other, snapshot, None, lambda: answer))
        assert memo.nbytes <= most


def test_answers_keep_to_their_size_and_no_map_alive(pipeline) -> None:
    memo = AnswerMemo(most=200_000)
    fill(memo, pipeline, most=200_000)
    assert memo.nbytes > 100_000
    gone = weakref.ref(pipeline.snapshot()), weakref.ref(pipeline.snapshot().packed_codes.values)
    assert gone[0]() is pipeline.snapshot()
    pipeline.optimize(1)
    pipeline.snapshot()
    gc.collect()
    assert gone[0]() is None and gone[1]() is None and memo.nbytes == 0


def test_threads_that_ask_the_same_have_the_same_answer(pipeline) -> None:
    snapshot, answers = pipeline.snapshot(), []

    def ask() -> None:
        for _ in range(5):
            answers.append(pipeline.query(NAMES, snapshot=snapshot))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 20
    assert all(torch.equal(answer.instances, answers[0].instances) for answer in answers)
