"""The answer that the output topics show."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

from ovs3d_ros.query.tracking import ObjectTracker, Track
from ovs3d_ros.types import MapSnapshot, Query, QueryResult


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of a query, the map it was searched in, and the tracks of its objects if they have any."""

    result: QueryResult
    snapshot: MapSnapshot
    tracks: tuple[Track, ...] = ()


class ShownAnswer(NamedTuple):
    """The content of the topics.

    Attributes:
        number: grows with every change.
        answer: None after a reset, and before the first answer.
    """

    number: int
    answer: Answer | None


class AnswerStore:
    """Holds the answer that the topics show; any thread may use it.

    The topics show the answer to the last `~/query`; while there is a vocabulary, only answers to it.

    Attributes:
        tracker: follows the objects of all answers.
    """

    def __init__(self) -> None:
        self.tracker = ObjectTracker()
        self._lock = threading.Lock()
        self._shown = ShownAnswer(0, None)
        self._vocabulary: Query | None = None
        self._discarded_version = 0
        self._num_clears = 0
        self._goals: deque[Answer] = deque(maxlen=1)

    @property
    def shown(self) -> ShownAnswer:
        """The current answer and its number."""
        return self._shown

    @property
    def num_clears(self) -> int:
        """How often the topics were cleared."""
        return self._num_clears

    @property
    def query(self) -> Query | None:
        """The query whose answer the topics show, or will show."""
        answer = self._shown.answer
        return self._vocabulary if self._vocabulary is not None or answer is None else answer.result.query

    def add(self, answer: Answer) -> None:
        """Takes the newest answer of `~/query`. Its goal is due; without a vocabulary it is shown."""
        self._goals.append(answer)
        if self._vocabulary is None:
            self.show(answer)

    def show(self, answer: Answer) -> None:
        """Shows an answer, unless its map was discarded."""
        with self._lock:
            if self.is_current(answer):
                self._shown = ShownAnswer(self._shown.number + 1, answer)

    def take_goal(self) -> Answer | None:
        """The newest answer of `~/query` whose goal is not published yet; each is returned once."""
        try:
            return self._goals.popleft()
        except IndexError:
            return None

    def set_vocabulary(self, query: Query | None) -> None:
        """Clears the topics, then shows only answers to this query; None shows those of `~/query` again."""
        with self._lock:
            self._vocabulary = query
            if self._shown.answer is not None:
                self._clear()

    def update_vocabulary(self, query: Query) -> None:
        """Replaces the query of the vocabulary by one with other settings; its answer stays on the topics."""
        with self._lock:
            self._vocabulary = query

    def discard_map(self, snapshot: MapSnapshot | None) -> None:
        """Clears the topics and refuses answers from this map and from earlier ones, which were replaced."""
        with self._lock:
            if snapshot is not None:
                self._discarded_version = snapshot.version
            self._clear()
            self.tracker.clear()

    def is_current(self, answer: Answer) -> bool:
        """Whether the map of the answer is still in use."""
        return answer.snapshot.version > self._discarded_version

    def _clear(self) -> None:
        self._shown = ShownAnswer(self._shown.number + 1, None)
        self._num_clears += 1
