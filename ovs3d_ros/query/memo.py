"""Remembers what was computed from a map, as a map is asked many times."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, Protocol, TypeVar

import torch

from ovs3d_ros.types import MapSnapshot

Value = TypeVar("Value")
_ASKED = 1000  # questions of which is known that they were asked


class Sized(Protocol):
    """What a `PartMemo` keeps."""

    @property
    def nbytes(self) -> int:
        """Of memory."""
        ...


SizedValue = TypeVar("SizedValue", bound=Sized)


class SnapshotMemo(Generic[Value]):
    """Keeps the value of one function for the latest snapshot; it does not keep the snapshot alive.

    Any thread may use it. Two threads may both compute a value at first; the results are the same.

    Args:
        compute: the function, of a snapshot and settings.
    """

    def __init__(self, compute: Callable[..., Value]) -> None:
        self._compute = compute
        self._latest: tuple[weakref.ref[torch.Tensor], tuple[Hashable, ...], Value] | None = None
        self._asked: tuple[weakref.ref[torch.Tensor], tuple[Hashable, ...]] | None = None

    def __call__(self, snapshot: MapSnapshot, *settings: Hashable) -> Value:
        """The value for this snapshot and these settings."""
        latest = self._latest
        if latest is not None and latest[0]() is snapshot.weight and latest[1] == settings:
            return latest[2]
        value = self._compute(snapshot, *settings)
        self._latest = weakref.ref(snapshot.weight), settings, value
        return value

    def if_repeated(self, snapshot: MapSnapshot, *settings: Hashable) -> Value | None:
        """The value, but None when it is asked for the first time: it may not be worth its time."""
        asked = self._asked
        if asked is not None and asked[0]() is snapshot.weight and asked[1] == settings:
            return self(snapshot, *settings)
        self._asked = weakref.ref(snapshot.weight), settings
        return None


class PartMemo:
    """Keeps values of parts of maps, some for each question, within a number of bytes.

    A value lives no longer than its part. The questions that were asked least recently are forgotten first.
    Any thread may use it. Two threads may both compute a value; the results are the same.

    Args:
        most: bytes that all values take at most.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._size = 0  # of what was kept; values of parts that are gone count until the next tidying
        self._tables: OrderedDict[Hashable, weakref.WeakKeyDictionary[object, Sized]] = OrderedDict()
        self._asked: OrderedDict[int, None] = OrderedDict()
        self._lock = threading.Lock()

    def is_repeated(self, question: Hashable) -> bool:
        """Whether this was asked before: what is asked once may not be worth its time and memory."""
        key = hash(question)  # questions hold all their texts
        with self._lock:
            known = key in self._asked
            self._asked[key] = None
            self._asked.move_to_end(key)
            if len(self._asked) > _ASKED:
                self._asked.popitem(last=False)
        return known

    def gather(
        self,
        question: Hashable,
        parts: Sequence[object | None],
        compute: Callable[[list[int]], list[SizedValue]],
    ) -> list[SizedValue]:
        """The value of each part.

        Args:
            question: what is asked of the parts.
            parts: objects that stand for them; None: the value is not kept.
            compute: the values of some of the parts, by their places in `parts`.
        """
        with self._lock:
            table = self._tables.setdefault(question, weakref.WeakKeyDictionary())
            self._tables.move_to_end(question)
            known: list = [None if part is None else table.get(part) for part in parts]
        missing = [place for place, value in enumerate(known) if value is None]
        for place, value in zip(missing, compute(missing), strict=True):
            known[place] = value
        with self._lock:
            for place in missing:
                part = parts[place]
                if part is not None and part not in table:
                    table[part] = known[place]
                    self._size += known[place].nbytes
            if self._size > self._most:
                self._tidy()
        return known

    @property
    def nbytes(self) -> int:
        """Of all values."""
        with self._lock:
            return sum(self._sizes().values())

    def _sizes(self) -> dict[Hashable, int]:
        return {key: sum(value.nbytes for value in table.values()) for key, table in self._tables.items()}

    def _tidy(self) -> None:
        """Forgets questions until the values fit, and of the last one some parts."""
        sizes = self._sizes()
        self._size = sum(sizes.values())
        for question in [question for question, size in list(sizes.items())[:-1] if not size]:
            del self._tables[question], sizes[question]  # their parts are gone
        for question in list(sizes)[:-1]:
            if self._size <= self._most:
                return
            self._size -= sizes[question]
            del self._tables[question]
        for table in self._tables.values():
            for part, value in list(table.items()):
                if self._size <= self._most:
                    return
                self._size -= value.nbytes
                table.pop(part, None)
