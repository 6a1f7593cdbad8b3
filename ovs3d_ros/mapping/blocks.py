"""Parks Gaussians far from recent keyframes, so that the cost of mapping depends on what is near.

The world is divided into cubic cells. A map that reaches its cap parks the cells that were in no view for
the longest time: their Gaussians leave the trained set, and lie in a temporary file until a keyframe sees one
of their cells again. Keyframes that see a parked cell are not trained on meanwhile, as the rest of the map
would be bent to explain them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch

from ovs3d_ros.io.row_file import ROWS, RowFile, StoredRows
from ovs3d_ros.mapping.cells import cell_numbers
from ovs3d_ros.mapping.gaussians import PARAMETERS, Gaussians, move_params
from ovs3d_ros.mapping.sight import Sight
from ovs3d_ros.types import KeyframeView

_PARCEL = 1 / 16  # of the cap: is parked and woken together, at most
_LARGEST_PARCEL = 4 * ROWS
_SPARE = 0.2  # of the cap: is made free at once
_RECENT = 2  # looks whose cells are never parked
_EVIDENCE = "numerators"
_PASSING = ("gradient",)  # beginnings of the names of statistics that begin anew
LIFTING = "relift"  # of those that belong to one lift of all keyframes
_IN_MEMORY = ("refined",)  # of those that are kept beside the file, as they may be set for parked ones

Rows = dict[str, torch.Tensor]


class Translator(Protocol):
    """The part of a codec that parked features need."""

    def translation_to(self, new: Translator) -> torch.Tensor:
        """Matrix that converts codes to another codec."""
        ...


@dataclass(eq=False)
class Parcel:
    """Parked Gaussians.

    Attributes:
        rows: their parameters, squared gradients and lasting statistics.
        cells: [C] distinct cells they lie in.
        codec: of their features.
        side: statistics in memory, [count, ...] by name.
        shown: what snapshots show of them, see `semantics.publication`; None: to be computed.
        coming: what they will show of them when the codec changes.
    """

    rows: StoredRows
    cells: np.ndarray
    codec: Translator | None
    side: Rows = field(default_factory=dict)
    shown: StoredRows | None = None
    coming: StoredRows | None = None

    def __len__(self) -> int:
        return self.rows.count

    def read(self, codec: Translator | None) -> Rows:
        """Their rows, with features in `codec`."""
        rows = self.rows.read()
        if self.codec is not None and codec is not None and codec is not self.codec and _EVIDENCE in rows:
            rows[_EVIDENCE] = rows[_EVIDENCE] @ self.codec.translation_to(codec).T.to(rows[_EVIDENCE])
        return rows


class Blocks:
    """The parked part of a map.

    Args:
        gaussians: the active part.

    Attributes:
        parcels: what is parked; in snapshots and files it comes before the active part.
        codec: of the features of the active part.
        file: of what is parked.
        sight: what the keyframes see.
    """

    def __init__(self, gaussians: Gaussians) -> None:
        self._gaussians = gaussians
        self.parcels: list[Parcel] = []
        self.codec: Translator | None = None
        self.file = RowFile()
        self.sight: Sight[Parcel] = Sight()

    @property
    def num_parked(self) -> int:
        return sum(len(parcel) for parcel in self.parcels)

    @property
    def figures(self) -> dict[str, float]:
        """Parked Gaussians, and parked_disk_mib in the temporary file."""
        return dict(parked=self.num_parked, parked_disk_mib=round(self.file.size / (1 << 20), 3))

    @property
    def trainable(self) -> np.ndarray | None:
        """Indices of the keyframes that see nothing parked; None: all."""
        return self.sight.trainable if self.parcels else None

    def enter(self, view: KeyframeView, reach: float, cap: int) -> None:
        """Notes a new keyframe, and wakes what it may see.

        Args:
            view: of the keyframe, whose index is one above that of the last.
            reach: how far it sees, metres; 0: unknown.
            cap: largest number of active Gaussians.
        """
        self.sight.add(view, reach)
        self.visit(len(self.sight) - 1, cap)

    def visit(self, index: int, cap: int) -> None:
        """Wakes what a keyframe may see, as far as `cap` active Gaussians allow."""
        if not self.parcels:
            return
        cells = self.sight.look(index)
        hits = self.sight.hidden_in(cells)
        if hits:
            self.make_room(sum(len(parcel) for parcel in hits), cap)
            room = cap - len(self._gaussians)
            for parcel in hits:
                if len(parcel) <= room:
                    self._wake(parcel)
                    room -= len(parcel)

    def wake_all(self) -> None:
        """Wakes everything, however much it is; `make_room` parks it again."""
        for parcel in list(self.parcels):
            self._wake(parcel)

    def make_room(self, wanted: int, cap: int) -> None:
        """Parks what was out of view for the longest time, if `wanted` more Gaussians would exceed `cap`."""
        g, sight = self._gaussians, self.sight
        missing = wanted + len(g) - cap
        if missing <= 0 or len(g) < ROWS or not len(sight):
            return
        sight.begin()
        numbers = cell_numbers(g.params["means"].detach(), sight.side)
        ids, place, counts = np.unique(numbers, return_inverse=True, return_counts=True)
        seen = sight.last_seen(ids)
        order = np.argsort(seen, kind="stable")
        order = order[seen[order] <= max(sight.clock - _RECENT, 0)]
        target = -(-(missing + int(_SPARE * cap)) // ROWS) * ROWS
        order = order[: np.searchsorted(counts[order].cumsum(), target) + 1]
        rank = np.full(len(ids), len(ids))
        rank[order] = np.arange(len(order))
        rows = np.argsort(rank[place], kind="stable")[: int(counts[order].sum()) // ROWS * ROWS]
        if len(rows):
            size = int(min(_PARCEL * cap, _LARGEST_PARCEL)) // ROWS * ROWS or ROWS
            self._park(torch.from_numpy(rows).to(g.device), numbers[rows], size)

    def move(self, motions: dict[int, np.ndarray], owner: str) -> int:
        """Moves parked Gaussians with their keyframes; returns how many.

        Args:
            motions: rigid transforms [4, 4] by number of the owner.
            owner: name of the statistic that holds the owners.
        """
        moved = 0
        for parcel in list(self.parcels):
            rows = parcel.rows.read()
            owners = rows[owner] if owner in rows else torch.zeros(len(parcel))
            names = [number for number in owners.unique().tolist() if number in motions]
            for number in names:
                own = (owners == number).nonzero()[:, 0]
                new = move_params({name: rows[name][own] for name in PARAMETERS}, motions[number])
                for name in ("means", "quats", "sh_rest"):
                    rows[name][own] = new[name]
                moved += len(own)
            if names:
                cells = np.unique(cell_numbers(rows["means"], self.sight.side))
                self._replace(parcel, rows, cells=cells)
        return moved

    def gather(self, *names: str) -> Rows:
        """Parameters and statistics [N, ...] of all Gaussians, parked ones first; zero where one lacks it."""
        g = self._gaussians
        last = {name: g.params[name] if name in g.params else g.stats[name] for name in names}
        if not self.parcels:
            return last
        parts: dict[str, list[torch.Tensor]] = {name: [] for name in names}
        for parcel in self.parcels:
            rows = parcel.side if parcel.side.keys() >= set(names) else parcel.rows.read() | parcel.side
            for name, t in last.items():
                parts[name].append(rows[name] if name in rows else t.new_zeros(len(parcel), *t.shape[1:]))
        return {name: torch.cat([*parts[name], t.detach()]) for name, t in last.items()}

    def spread(self, name: str, values: torch.Tensor) -> None:
        """Sets a statistic of all Gaussians to [N, ...], parked ones first."""
        first = 0
        for parcel in self.parcels:
            parcel.side[name] = values[first : first + len(parcel)].to(self._gaussians.device)
            first += len(parcel)
        self._gaussians.stats[name] = values[first:].to(self._gaussians.device)

    def adopt(self, prefix: str, names: Sequence[str], codec: Translator) -> None:
        """Replaces statistics of parked Gaussians by those of the same name behind a prefix.

        What was not woken since there are statistics with that prefix keeps its own, in the new codec.
        """
        for parcel in list(self.parcels):
            rows = parcel.read(codec)
            rows |= {name: rows[prefix + name] for name in names if prefix + name in rows}
            kept = {name: t for name, t in rows.items() if not name.startswith(LIFTING)}
            self._replace(parcel, kept, codec=codec)

    def forget(self, name: str) -> None:
        """Removes a statistic of `spread` everywhere."""
        for holder in (self._gaussians.stats, *(parcel.side for parcel in self.parcels)):
            holder.pop(name, None)

    def _park(self, rows: torch.Tensor, numbers: np.ndarray, size: int) -> None:
        """Moves rows [M] of the active part, in cells [M], to the file, in parcels of `size`."""
        taken = self._gaussians.take(rows)
        for start in range(0, len(rows), size):
            part = slice(start, start + size)
            pieces = {name: t[part] for name, t in taken.items() if not name.startswith(_PASSING)}
            lasting = {name: t for name, t in pieces.items() if not name.startswith(_IN_MEMORY)}
            side = {name: t.clone() for name, t in pieces.items() if name.startswith(_IN_MEMORY)}
            parcel = Parcel(self.file.store(lasting), np.unique(numbers[part]), self.codec, side)
            self.parcels.append(parcel)
            self.sight.hide(parcel, parcel.cells)

    def _wake(self, parcel: Parcel) -> None:
        """Moves a parcel back to the active part."""
        rows, stats = parcel.read(self.codec) | parcel.side, self._gaussians.stats
        self._gaussians.put({n: t for n, t in rows.items() if n in stats or not n.startswith(LIFTING)})
        self.sight.reveal(parcel, parcel.cells)
        self.parcels.remove(parcel)

    def _replace(self, parcel: Parcel, rows: Rows, **changes: Any) -> None:
        """Puts a parcel with other rows, and other changes, in the place of one."""
        place = self.parcels.index(parcel)
        new = replace(parcel, rows=self.file.store(rows), shown=None, coming=None, **changes)
        self.parcels[place] = new
        self.sight.reveal(parcel, parcel.cells)
        self.sight.hide(new, new.cells)
