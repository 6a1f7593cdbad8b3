"""Recognises the objects of one answer in the next: the same mug as before, moved, gone, or a new one.

The map does not know objects; an answer computes them anew. What is recognised is therefore a guess from the
name, the place and the size.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np

from ovs3d_ros.types import Camera, Query, QueryResult, SemanticObject

APPEARED, MOVED, GONE = "appeared", "moved", "gone"
_SAME_PLACE = 0.15  # metres between centres; large objects may be a quarter of their diagonal apart
_SHARE_OF_DIAGONAL = 0.25
_MAX_STRETCH = 2.0  # of each extent of a box, if it is the same object at another place
_MAX_TRACKS = 10_000  # objects that are remembered; those that went first are forgotten first


@dataclass(slots=True)
class Track:
    """One object over several answers.

    Attributes:
        id: from 1, never used again.
        item: the object as it was found last.
        anchor: [3] metres, its centre when it appeared or moved last.
        first_seen: time of the first answer with it, seconds.
        is_present: it was found when it was last asked for.
        settings: what else decides whether it is found, see `_settings`.
    """

    id: int
    item: SemanticObject
    anchor: np.ndarray
    first_seen: float
    is_present: bool
    settings: Hashable


@dataclass(frozen=True, slots=True)
class Change:
    """A difference to the answer before.

    Attributes:
        kind: APPEARED, MOVED or GONE.
        track: the object; it may change with the next answer.
        item: the object as it was found last.
        previous: the object before it moved; else `item`.
    """

    kind: str
    track: Track
    item: SemanticObject
    previous: SemanticObject


class ObjectTracker:
    """Gives the objects of answers numbers that last; any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tracks: list[Track] = []
        self._next_id = 1

    def clear(self) -> None:
        """Forgets all objects, because the map was replaced; the numbers go on."""
        with self._lock:
            self._tracks.clear()

    def update(self, result: QueryResult, now: float) -> tuple[list[Track], list[Change]]:
        """Takes an answer given at `now` in seconds.

        Returns:
            The track of each of its objects, and what is different from earlier answers.
        """
        with self._lock:
            asked = [t for t in self._tracks if t.item.prompt in result.prompts]
            matches = _match(asked, result.objects)
            tracks, changes = [], []
            for index, item in enumerate(result.objects):
                track, change = self._follow(
                    matches.get(index), item, _settings(result.query, item.prompt), now
                )
                tracks.append(track)
                changes += [change] if change else []
            found = {id(track) for track in tracks}
            for track in asked:
                if id(track) not in found and track.is_present and _is_missed(track, result.query):
                    track.is_present = False
                    changes.append(Change(GONE, track, track.item, track.item))
            return tracks, changes

    def _follow(
        self, track: Track | None, item: SemanticObject, settings: Hashable, now: float
    ) -> tuple[Track, Change | None]:
        """The track of an object, with the object as its newest state, and what has changed."""
        if track is None:
            track = Track(self._next_id, item, item.center, now, True, settings)
            self._next_id += 1
            self._remember(track)
            return track, Change(APPEARED, track, item, item)
        previous, was_present = track.item, track.is_present
        track.item, track.is_present, track.settings = item, True, settings
        has_moved = (
            np.linalg.norm(item.center - track.anchor) > _reaches(item.size[None], previous.size[None]).item()
        )
        if has_moved or not was_present:
            track.anchor = item.center
        if not was_present:
            return track, Change(APPEARED, track, item, item)
        return track, Change(MOVED, track, item, previous) if has_moved else None

    def _remember(self, track: Track) -> None:
        self._tracks.append(track)
        if len(self._tracks) > _MAX_TRACKS:
            gone = (index for index, known in enumerate(self._tracks) if not known.is_present)
            del self._tracks[next(gone, 0)]


def _settings(query: Query, prompt: str) -> Hashable:
    """What decides beside the map whether a prompt is found: an answer to another question proves nothing."""
    rivals = query.prompts if query.mode == "argmax" else (prompt,)
    return query.mode, query.negatives, query.threshold, rivals


def _is_missed(track: Track, query: Query) -> bool:
    """Whether an answer without the object means that it is gone."""
    complete = query.roi is None and not query.max_instances and not query.refine
    return complete and track.settings == _settings(query, track.item.prompt)


def _match(tracks: list[Track], items: list[SemanticObject]) -> dict[int, Track]:
    """The track of each item that was seen before, by the index of the item.

    Objects at their old place come first, then those of a similar size elsewhere; there, objects that were
    found last time go before those that were gone. The nearest ones are paired first.
    """
    matches: dict[int, Track] = {}
    for prompt in {item.prompt for item in items}:
        indices = [index for index, item in enumerate(items) if item.prompt == prompt]
        known = [track for track in tracks if track.item.prompt == prompt]
        if known:
            pairs = _match_one_name(known, [items[i] for i in indices])
            matches |= {indices[column]: known[row] for column, row in pairs.items()}
    return matches


def _match_one_name(tracks: list[Track], items: list[SemanticObject]) -> dict[int, int]:
    """As `_match` for the objects of one prompt: the index of the track by that of the item."""
    before, now = (
        np.array([np.stack([item.center, item.size]) for item in group])
        for group in ([track.item for track in tracks], items)
    )  # [T, 2, 3] and [M, 2, 3]
    distances = np.linalg.norm(before[:, None, 0] - now[:, 0], axis=-1)
    is_present = np.array([track.is_present for track in tracks])[:, None]
    reaches, have_one_size = _reaches(before[:, 1], now[:, 1]), _have_one_size(before[:, 1], now[:, 1])
    free = np.ones(distances.shape, bool)
    matches: dict[int, int] = {}
    for rule in (distances <= reaches, have_one_size & is_present, have_one_size):
        rows, columns = np.nonzero(rule & free)
        numbers = [tracks[row].id for row in rows]
        for pair in np.lexsort((numbers, columns, distances[rows, columns])):
            row, column = int(rows[pair]), int(columns[pair])
            if free[row, column]:
                matches[column] = row
                free[row], free[:, column] = False, False
    return matches


def _reaches(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The distances [N, M] of centres, metres, up to which boxes [N, 3] and [M, 3] are at one place."""
    diagonals = np.maximum(np.linalg.norm(a, axis=-1)[:, None], np.linalg.norm(b, axis=-1))
    return np.maximum(_SAME_PLACE, _SHARE_OF_DIAGONAL * diagonals)


def _have_one_size(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Whether boxes of sizes [N, 3] and [M, 3] may be those of one object, [N, M]."""
    a, b = np.sort(a)[:, None], np.sort(b)
    return np.max(np.maximum(a, b) / np.minimum(a, b).clip(1e-9), axis=-1) <= _MAX_STRETCH


def last_views(
    centers: np.ndarray, cameras: list[Camera], camtoworlds: np.ndarray, stamps: np.ndarray
) -> np.ndarray:
    """The newest stamp [M], seconds, of an image whose view contains each centre; 0 if none does.

    What stands between camera and centre is not considered.

    Args:
        centers: [M, 3] metres.
        cameras: of the F images.
        camtoworlds: [F, 4, 4] their poses.
        stamps: [F] seconds.
    """
    if not len(cameras) or not len(centers):
        return np.zeros(len(centers))
    widths, heights = np.array([(camera.width, camera.height) for camera in cameras]).T[..., None]
    projections = np.stack([camera.K for camera in cameras]) @ camtoworlds[:, :3, :3].transpose(0, 2, 1)
    offsets = projections @ camtoworlds[:, :3, 3:]
    u, v, depth = (projections @ centers.T - offsets).transpose(1, 0, 2)  # pixels times depth, each [F, M]
    inside = (depth > 0) & (u >= 0) & (u < widths * depth) & (v >= 0) & (v < heights * depth)
    return np.where(inside, stamps[:, None], 0.0).max(0)
