"""The keyframes of a map within a limit of memory: those that are not in use lie in a temporary file."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import overload

import numpy as np
import torch

from ovs3d_ros.io.tensor_file import StoredTensor, TensorFile, empty_tensors, temporary_folder
from ovs3d_ros.types import Camera, CropTable, Keyframe, KeyframeView

logger = logging.getLogger(__name__)

_MIB = 1 << 20
_STAYS = (
    "keyframes cannot be moved to a file in %s (%s): they stay in memory, beyond map.memory_limit_mib. "
    "Nothing is lost; free space there, or start with TMPDIR set to a folder on another disk"
)


class Keyframes(Sequence[Keyframe]):
    """Keyframes that are read when they are asked for; `views` tells where they were taken."""

    def __init__(self, read: Callable[[int], Keyframe], views: Sequence[KeyframeView]) -> None:
        self._read, self.views = read, views

    def __len__(self) -> int:
        return len(self.views)

    @overload
    def __getitem__(self, index: int) -> Keyframe: ...

    @overload
    def __getitem__(self, index: slice) -> list[Keyframe]: ...

    def __getitem__(self, index: int | slice) -> Keyframe | list[Keyframe]:
        numbers = range(len(self))[index]
        return self._read(numbers) if isinstance(numbers, int) else [self._read(n) for n in numbers]

    def __iter__(self) -> Iterator[Keyframe]:
        return (self._read(index) for index in range(len(self)))


@dataclass(slots=True)
class _Entry:
    """A keyframe: in memory, in the file, or in both.

    Attributes:
        keyframe: in memory; None: only in the file.
        stored: image, depth, mask, and the tensors of the crop table, in the file; None: only in memory.
        crops: the crop table without its tensors.
        size: bytes of the tensors.
        device: of the tensors.
        encoded: whether it has features.
    """

    keyframe: Keyframe | None
    stored: list[StoredTensor | None] | None
    crops: CropTable | None
    size: int
    device: torch.device
    encoded: bool


class KeyframeStore(Keyframes):
    """Keyframes in the order in which they came.

    One thread adds and moves keyframes, any thread may read them. A keyframe that comes from the file is as
    it was, bit for bit.

    Args:
        limit: bytes of keyframes in memory, at least the one that was used last; 0: all.

    Attributes:
        in_memory: bytes of keyframes in memory.
        changes: keyframes that were added or moved so far.
        cameras, names: of all keyframes.
    """

    views: list[KeyframeView]

    def __init__(self, limit: int) -> None:
        super().__init__(self._load, [])
        self._limit = limit
        self._entries: list[_Entry] = []
        self._used: OrderedDict[int, None] = OrderedDict()  # indices in memory, the last used last
        self.in_memory = 0  # bytes
        self.changes = 0
        self._poses, self._stamps = np.zeros((64, 4, 4)), np.zeros(64)  # with rows to spare
        self.cameras: list[Camera] = []
        self.names: list[str] = []
        self._file = TensorFile()
        self._file_fails = self._warned = False
        self._lock = threading.Lock()

    @property
    def figures(self) -> dict[str, float]:
        """keyframes_mib in memory, and keyframes_disk_mib in the file."""
        in_memory, on_disk = round(self.in_memory / _MIB, 3), round(self._file.size / _MIB, 3)
        return dict(keyframes_mib=in_memory, keyframes_disk_mib=on_disk)

    @property
    def poses(self) -> np.ndarray:
        """All camtoworlds [F, 4, 4]; do not change them."""
        return self._poses[: len(self)]

    @property
    def stamps(self) -> np.ndarray:
        """All stamps [F], seconds; do not change them."""
        return self._stamps[: len(self)]

    def append(self, keyframe: Keyframe) -> None:
        """Adds a keyframe; its tensors never change from now on, see also `set_crops`."""
        if self._limit:
            _take_memory(keyframe)
        index = len(self)
        if index == len(self._poses):
            self._poses = np.concatenate([self._poses, np.zeros_like(self._poses)])
            self._stamps = np.concatenate([self._stamps, np.zeros_like(self._stamps)])
        self._poses[index], self._stamps[index] = keyframe.camtoworld, keyframe.stamp
        self.changes += 1
        self.cameras.append(keyframe.camera)
        self.names.append(keyframe.name)
        with self._lock:
            self._entries.append(_make_entry(keyframe))
            self._used[index] = None
            self.in_memory += self._entries[index].size
            self.views.append(view_of(keyframe))
            self._file_fails = False  # the disk may have room again
            self._make_room()

    def set_crops(self, index: int, crops: CropTable) -> None:
        """Gives a keyframe that has none its features."""
        keyframe = replace(self._load(index), crops=crops)
        if self._limit:
            _take_memory(keyframe)
        with self._lock:
            # A new entry: the file lacks the features, and another thread may be reading the old one there.
            self.in_memory += _size(keyframe) - self._entries[index].size
            self._entries[index] = _make_entry(keyframe)
            self._make_room()

    def move(self, index: int, camtoworld: np.ndarray) -> None:
        """Gives a keyframe another pose [4, 4]."""
        self.changes += 1
        with self._lock:
            keyframe = self._entries[index].keyframe
            self._poses[index] = self.views[index].camtoworld = camtoworld.copy()
            if keyframe is not None:
                keyframe.camtoworld = camtoworld.copy()

    def frozen(self) -> Keyframes:
        """The keyframes as they are now, for another thread: poses stay, and reading does not count."""
        views = [replace(view) for view in self.views]
        return Keyframes(lambda index: self._read_for(index, views[index]), views)

    def encoded(self) -> Keyframes:
        """Those with features."""
        chosen = [index for index, entry in enumerate(self._entries) if entry.encoded]
        return Keyframes(lambda number: self._load(chosen[number]), [self.views[index] for index in chosen])

    def _load(self, index: int) -> Keyframe:
        """Reads a keyframe and keeps it in memory as the one that was used last."""
        with self._lock:
            entry = self._entries[index]
            if entry.keyframe is None:
                entry.keyframe = self._rebuild(entry, self.views[index])
                self.in_memory += entry.size
            self._used[index] = None
            self._used.move_to_end(index)
            self._make_room()
            return entry.keyframe

    def _read_for(self, index: int, view: KeyframeView) -> Keyframe:
        """A keyframe with the pose of a view; it does not count as used."""
        with self._lock:
            entry = self._entries[index]
            if entry.keyframe is not None:
                return replace(entry.keyframe, camtoworld=view.camtoworld)
        return self._rebuild(entry, view)  # in the file for good

    def _rebuild(self, entry: _Entry, view: KeyframeView) -> Keyframe:
        """A keyframe from the file."""
        assert entry.stored is not None, "a keyframe is in memory or in the file"
        found = iter(self._file.read([s for s in entry.stored if s is not None]))
        tensors = [None if s is None else next(found).to(entry.device) for s in entry.stored]
        image, depth, mask, boxes, levels, embeddings = tensors
        crops = entry.crops and replace(entry.crops, boxes=boxes, levels=levels, embeddings=embeddings)
        return Keyframe(
            view.index,
            view.stamp,
            view.name,
            image,
            view.camera,
            view.camtoworld.copy(),
            depth,
            crops,
            view.sensor,
            mask,
        )

    def _make_room(self) -> None:
        """Takes the keyframes that were used longest ago out of memory until the others fit the limit."""
        passed: list[int] = []  # that cannot be written
        while self._limit and self.in_memory > self._limit and len(self._used) > 1:
            index = next(iter(self._used))
            del self._used[index]
            entry = self._entries[index]
            if entry.stored is None and not self._write(entry):
                passed.append(index)
                continue
            entry.keyframe = None
            self.in_memory -= entry.size
        for index in reversed(passed):
            self._used[index] = None
            self._used.move_to_end(index, last=False)

    def _write(self, entry: _Entry) -> bool:
        """Writes a keyframe to the file; False if that fails, which is logged once."""
        if self._file_fails:
            return False
        assert entry.keyframe is not None, "what is not in memory was written before"
        tensors = _tensors(entry.keyframe)
        try:
            stored = iter(self._file.write([t for t in tensors if t is not None]))
        except OSError as error:
            if not self._warned:
                logger.error(_STAYS, temporary_folder(), error.strerror or error)
            self._warned = self._file_fails = True
            return False
        entry.stored = [None if t is None else next(stored) for t in tensors]
        none = torch.zeros(0)
        entry.crops = entry.keyframe.crops and replace(
            entry.keyframe.crops, boxes=none, levels=none, embeddings=none
        )
        return True


def _tensors(keyframe: Keyframe) -> list[torch.Tensor | None]:
    """All that `_Entry.stored` names."""
    crops = keyframe.crops
    features = [None] * 3 if crops is None else [crops.boxes, crops.levels, crops.embeddings]
    return [keyframe.image, keyframe.depth, keyframe.mask, *features]


def _make_entry(keyframe: Keyframe) -> _Entry:
    """A keyframe in memory alone."""
    return _Entry(
        keyframe, None, None, _size(keyframe), keyframe.image.device, encoded=keyframe.crops is not None
    )


def _size(keyframe: Keyframe) -> int:
    """Bytes of the tensors of a keyframe."""
    return sum(t.numel() * t.element_size() for t in _tensors(keyframe) if t is not None)


def _take_memory(keyframe: Keyframe) -> None:
    """Copies the tensors of a keyframe on the CPU to memory that goes back to the system with them."""
    if keyframe.image.device.type != "cpu":
        return
    old = _tensors(keyframe)
    kinds = [(tuple(t.shape), t.dtype) for t in old if t is not None]
    copies = iter(empty_tensors(kinds))
    new = [None if t is None else next(copies).copy_(t) for t in old]
    keyframe.image, keyframe.depth, keyframe.mask, boxes, levels, embeddings = new
    keyframe.crops = keyframe.crops and replace(
        keyframe.crops, boxes=boxes, levels=levels, embeddings=embeddings
    )


def view_of(keyframe: Keyframe) -> KeyframeView:
    """Where and when a keyframe was taken."""
    return KeyframeView(
        keyframe.index,
        keyframe.stamp,
        keyframe.name,
        keyframe.camera,
        keyframe.camtoworld.copy(),
        keyframe.sensor,
    )
