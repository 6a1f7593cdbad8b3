"""The answer store shows one answer at a time, and none of a map that was replaced."""

from __future__ import annotations

from types import SimpleNamespace

from ovs3d_ros.ros.outputs.answers import Answer, AnswerStore


def make_answer(version: int, query: str = "mug") -> Answer:
    return Answer(SimpleNamespace(query=query), SimpleNamespace(version=version))


def test_store_shows_the_last_answer_and_returns_each_goal_once() -> None:
    store, first, second = AnswerStore(), make_answer(1), make_answer(2, "sofa")
    assert store.shown == (0, None) and store.query is None
    store.add(first)
    store.add(second)
    assert store.shown == (2, second) and store.query == "sofa"
    assert store.take_goal() is second and store.take_goal() is None


def test_vocabulary_hides_answers_of_queries() -> None:
    store, asked, vocabulary = AnswerStore(), make_answer(1), make_answer(1, "names")
    store.add(asked)
    store.set_vocabulary("names")
    assert store.shown.answer is None and store.query == "names" and store.num_clears == 1
    store.add(asked)
    assert store.shown.answer is None and store.take_goal() is asked
    store.show(vocabulary)
    store.update_vocabulary("names with settings")
    assert store.shown.answer is vocabulary and store.query == "names with settings"
    store.set_vocabulary(None)
    assert store.shown.answer is None and store.query is None
    store.add(asked)
    assert store.shown.answer is asked


def test_answers_of_a_discarded_map_are_refused() -> None:
    store = AnswerStore()
    store.add(make_answer(3))
    number = store.shown.number
    store.discard_map(SimpleNamespace(version=3))
    assert store.shown.answer is None and store.shown.number > number
    late, current = make_answer(3), make_answer(4)
    store.add(late)
    assert store.shown.answer is None and not store.is_current(late)
    store.add(current)
    assert store.shown.answer is current
    store.discard_map(None)  # the map was empty: the version of the last discarded map still counts
    assert store.shown.answer is None and not store.is_current(late)
