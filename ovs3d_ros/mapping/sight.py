"""Which cells of the world each keyframe may see, and when each cell was seen last."""

from __future__ import annotations

from typing import Generic, TypeVar

import numpy as np

from ovs3d_ros.mapping.cells import seen_cells
from ovs3d_ros.mapping.sorted_values import SortedValues
from ovs3d_ros.types import KeyframeView

_NEAR = 1.5  # reaches of a typical keyframe
_SMALLEST_SIDE = 1e-3  # metres
Thing = TypeVar("Thing")  # what is hidden; hashable


class Sight(Generic[Thing]):
    """What the keyframes of a map see, and what is hidden from them.

    Attributes:
        side: of a cell, metres; 0 until `begin`.
        clock: counts looks.
    """

    def __init__(self) -> None:
        self.side, self.clock = 0.0, 0
        self._views: list[KeyframeView] = []
        self._reaches: list[float] = []
        self._known_reaches = SortedValues()
        self._seen_by: dict[int, list[int]] = {}  # keyframes, by cell
        self._last_seen: dict[int, int] = {}  # by cell
        self._hidden: dict[int, list[Thing]] = {}  # what is hidden, by cell
        self._unseen = np.zeros(64, np.int64)  # times cells of it that each keyframe sees; rows to spare

    def __len__(self) -> int:
        return len(self._views)

    @property
    def trainable(self) -> np.ndarray:
        """Indices of the keyframes that see no hidden cell."""
        return np.flatnonzero(self._unseen[: len(self)] == 0)

    @property
    def typical_reach(self) -> float:
        """How far a typical keyframe sees, metres; 0: unknown."""
        return self._known_reaches.median

    def add(self, view: KeyframeView, reach: float) -> None:
        """Adds a keyframe that sees `reach` metres far; 0: as far as a typical one."""
        self._views.append(view)
        self._reaches.append(reach)
        self._known_reaches.add(reach)
        if self.side:
            self._note(len(self) - 1)

    def begin(self) -> None:
        """Chooses the side of the cells, half of how far a typical keyframe sees, unless it is chosen."""
        if not self.side:
            self.side = max(0.5 * (self.typical_reach or 1.0), _SMALLEST_SIDE)
            for index in range(len(self)):
                self._note(index)

    def look(self, index: int) -> np.ndarray:
        """The cells [C] that a keyframe may see, which count as seen now."""
        view = self._views[index]
        reach = self._reaches[index] or self.typical_reach
        cells = seen_cells(view.camera, view.camtoworld, reach, self.side)
        self.clock += 1
        self._last_seen.update(dict.fromkeys(cells.tolist(), self.clock))
        return cells

    def last_seen(self, cells: np.ndarray) -> np.ndarray:
        """When each cell [C] was seen last, by the clock; 0: never."""
        return np.array([self._last_seen.get(cell, 0) for cell in cells.tolist()], np.int64)

    def hide(self, thing: Thing, cells: np.ndarray) -> None:
        """Notes that a thing, and with it some of the cells [C] it lies in, is hidden from all keyframes."""
        for cell in cells.tolist():
            self._hidden.setdefault(cell, []).append(thing)
            self._unseen[self._seen_by.get(cell, [])] += 1

    def reveal(self, thing: Thing, cells: np.ndarray) -> None:
        """Undoes `hide`."""
        for cell in cells.tolist():
            self._hidden[cell].remove(thing)
            if not self._hidden[cell]:
                del self._hidden[cell]
            self._unseen[self._seen_by.get(cell, [])] -= 1

    def hidden_in(self, cells: np.ndarray) -> list[Thing]:
        """What is hidden in cells [C], each once."""
        return list(dict.fromkeys(thing for cell in cells.tolist() for thing in self._hidden.get(cell, ())))

    def refresh(self, camtoworlds: np.ndarray) -> None:
        """Finds anew what all keyframes see, after their poses became [F, 4, 4]."""
        for view, pose in zip(self._views, camtoworlds, strict=True):
            view.camtoworld = pose.copy()
        if self.side:
            self._seen_by, self._last_seen = {}, {}
            for index in range(len(self)):
                self._note(index)

    def near(self, centers: np.ndarray) -> np.ndarray:
        """Those of the cameras' positions [F, 3] near the newest one, whatever that one happens to face."""
        distances, reach = np.linalg.norm(centers - centers[-1], axis=1), self.typical_reach
        return centers[distances <= _NEAR * reach] if reach else centers

    def _note(self, index: int) -> None:
        """Notes the cells that a keyframe sees."""
        cells = self.look(index).tolist()
        if index >= len(self._unseen):
            self._unseen = np.concatenate([self._unseen, np.zeros_like(self._unseen)])
        for cell in cells:
            self._seen_by.setdefault(cell, []).append(index)
        self._unseen[index] = sum(len(self._hidden.get(cell, ())) for cell in cells)
