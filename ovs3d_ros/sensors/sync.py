"""Matches images with depth and poses by stamp, without ROS.

No call blocks. Images without depth or pose stay in a bounded buffer until timeout; lost images are counted.
"""

from __future__ import annotations

import bisect
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

from ovs3d_ros.geometry import matrix_to_quat, quat_to_matrix, slerp

SAME_STAMP = 1e-6  # seconds; float64 stamps are exact to about 2e-7
_MIN_BUFFERED = 30  # images, and depth images, that stay buffered beyond the timeout: one second of a camera
_MARGIN = 1.0  # seconds beyond the timeout: polls have intervals, and depth may arrive before its image


def interpolate_pose(before: np.ndarray, after: np.ndarray, fraction: float) -> np.ndarray:
    """Interpolates between two poses [4, 4]: the position linearly, the rotation by `slerp`.

    Args:
        before: pose at fraction 0.
        after: pose at fraction 1.
        fraction: 0..1.
    """
    pose = np.eye(4)
    quats = matrix_to_quat(before[:3, :3]), matrix_to_quat(after[:3, :3])
    pose[:3, :3] = quat_to_matrix(slerp(*quats, fraction))
    pose[:3, 3] = (1 - fraction) * before[:3, 3] + fraction * after[:3, 3]
    return pose


class StampBuffer:
    """Keeps the newest `capacity` items, sorted by stamp."""

    def __init__(self, capacity: int):
        self.capacity = capacity
        self.stamps: list[float] = []
        self.items: list[Any] = []

    def add(self, stamp: float, item: Any) -> None:
        """Inserts an item. It replaces an item of the same stamp; a full buffer drops its oldest item."""
        i = bisect.bisect_left(self.stamps, stamp)
        if i < len(self.stamps) and self.stamps[i] == stamp:
            self.items[i] = item
            return
        self.stamps.insert(i, stamp)
        self.items.insert(i, item)
        if len(self.stamps) > self.capacity:
            del self.stamps[0], self.items[0]

    def trim(self, oldest: float, keep: int) -> None:
        """Drops the items older than `oldest`, but never the newest `keep` items."""
        num_dropped = min(bisect.bisect_left(self.stamps, oldest), len(self.stamps) - keep)
        if num_dropped > 0:
            del self.stamps[:num_dropped], self.items[:num_dropped]

    def nearest(self, stamp: float, slop: float) -> Any | None:
        """The item nearest to `stamp`, or None if it is more than `slop` seconds away."""
        i = bisect.bisect_left(self.stamps, stamp)
        best = min(
            range(max(0, i - 1), min(len(self.stamps), i + 1)),
            key=lambda k: abs(self.stamps[k] - stamp),
            default=None,
        )
        if best is None or abs(self.stamps[best] - stamp) > max(slop, SAME_STAMP):
            return None
        return self.items[best]

    def clear(self) -> None:
        """Drops everything."""
        self.stamps.clear()
        self.items.clear()


class PoseSource(Protocol):
    """Gives the camera pose at a time, without blocking."""

    def at(self, stamp: float, accept_nearest: bool) -> np.ndarray | None:
        """The pose camtoworld [4, 4] at `stamp`, or None if it is not known.

        Args:
            stamp: seconds.
            accept_nearest: accept the nearest pose within the tolerance; used when the timeout is over.
        """

    def clear(self) -> None:
        """Drops everything after a clock jump."""


class PoseBuffer:
    """Buffers received poses and interpolates between them."""

    def __init__(self, slop: float, max_gap: float, capacity: int = 4000):
        """Takes the tolerances.

        Args:
            slop: greatest time difference of a pose that is used without interpolation, seconds.
            max_gap: longest time between two poses to interpolate over, seconds.
            capacity: number of poses to keep.
        """
        self.slop = slop
        self.max_gap = max_gap
        self.poses = StampBuffer(capacity)

    def add(self, stamp: float, camtoworld: np.ndarray) -> None:
        """Stores the pose [4, 4] of `stamp`."""
        self.poses.add(stamp, camtoworld)

    def at(self, stamp: float, accept_nearest: bool) -> np.ndarray | None:
        """See `PoseSource.at`."""
        exact = self.poses.nearest(stamp, SAME_STAMP)
        if exact is not None:
            return exact
        stamps, items = self.poses.stamps, self.poses.items
        after = bisect.bisect_left(stamps, stamp)
        if 0 < after < len(stamps):
            gap = stamps[after] - stamps[after - 1]
            if gap <= self.max_gap:
                return interpolate_pose(items[after - 1], items[after], (stamp - stamps[after - 1]) / gap)
            return self.poses.nearest(stamp, self.slop)
        return self.poses.nearest(stamp, self.slop) if accept_nearest else None

    def clear(self) -> None:
        """Drops everything."""
        self.poses.clear()


@dataclass(frozen=True, slots=True)
class Match:
    """An image matched with its depth and pose; `image` and `depth` are the objects that were added."""

    stamp: float
    image: Any
    depth: Any | None
    camtoworld: np.ndarray


@dataclass(slots=True)
class SyncCounts:
    """Counts of matched and lost images.

    Without clock jumps, matched + lost_* + waiting = images received.
    """

    matched: int = 0
    lost_pose: int = 0
    lost_depth: int = 0
    lost_overflow: int = 0
    clock_jumps: int = 0

    def as_dict(self) -> dict[str, int]:
        """The counts by name."""
        return asdict(self)


@dataclass(slots=True)
class _Waiting:
    stamp: float
    arrival: float
    image: Any


class FrameSynchronizer:
    """Buffers images until their depth and pose are known.

    Not thread-safe: call it from one callback group.
    """

    def __init__(
        self,
        poses: PoseSource,
        slop: float,
        timeout: float,
        clock_jump: float,
        use_depth: bool,
        capacity: int = 300,
    ):
        """Takes the pose source and the tolerances.

        Args:
            poses: gives the camera pose at a time.
            slop: greatest time difference between an image and its depth, seconds.
            timeout: an image that is incomplete for this long is dropped and counted, seconds.
            clock_jump: a stamp older than the newest of its stream by more than this means that the clock was
                set back, seconds.
            use_depth: whether an image needs depth.
            capacity: most images, and most depth images, to buffer, whatever the timeout; 300 are ten seconds
                at 30 Hz, and half a gigabyte at 640 x 480.
        """
        self.poses = poses
        self.slop = slop
        self.timeout = timeout
        self.clock_jump = clock_jump
        self.use_depth = use_depth
        self.capacity = capacity
        self.counts = SyncCounts()
        self._waiting: list[_Waiting] = []
        self._depths = StampBuffer(capacity)
        self._newest: dict[str, float] = {}

    @property
    def waiting(self) -> int:
        """Number of images that wait for depth or pose."""
        return len(self._waiting)

    def note_stamp(self, stream: str, stamp: float) -> None:
        """Records a stamp of a stream; a clock jump clears all buffers. The map is not affected."""
        newest = self._newest.get(stream, stamp)
        if stamp < newest - self.clock_jump:
            self.counts.clock_jumps += 1
            self._waiting.clear()
            self._depths.clear()
            self.poses.clear()
            self._newest.clear()
            newest = stamp
        self._newest[stream] = max(newest, stamp)

    def add_image(self, stamp: float, image: Any, now: float) -> None:
        """Adds an image of `stamp` that arrived at `now` (monotonic clock), both seconds."""
        self.note_stamp("image", stamp)
        bisect.insort(self._waiting, _Waiting(stamp, now, image), key=lambda entry: entry.stamp)
        while len(self._waiting) > self.capacity or (
            len(self._waiting) > _MIN_BUFFERED and now - self._waiting[0].arrival > self.timeout + _MARGIN
        ):
            del self._waiting[0]
            self.counts.lost_overflow += 1

    def add_depth(self, stamp: float, depth: Any) -> None:
        """Adds a depth image of `stamp`, seconds."""
        self.note_stamp("depth", stamp)
        self._depths.add(stamp, depth)
        self._depths.trim(self._depths.stamps[-1] - self.timeout - self.slop - _MARGIN, _MIN_BUFFERED)

    def _depth_at(self, stamp: float, accept_nearest: bool) -> Any | None:
        """The nearest depth image; None while a nearer one may still arrive."""
        arrived = self._depths.stamps
        if not self.use_depth or not arrived or (arrived[-1] < stamp - SAME_STAMP and not accept_nearest):
            return None
        return self._depths.nearest(stamp, self.slop)

    def take_complete(self, now: float) -> list[Match]:
        """Removes and returns the complete images, by stamp; drops incomplete images after their timeout."""
        matches, waiting = [], []
        for entry in self._waiting:
            accept_nearest = now - entry.arrival >= self.timeout
            camtoworld = self.poses.at(entry.stamp, accept_nearest)
            depth = self._depth_at(entry.stamp, accept_nearest)
            if camtoworld is not None and (depth is not None or not self.use_depth):
                matches.append(Match(entry.stamp, entry.image, depth, camtoworld))
                self.counts.matched += 1
            elif not accept_nearest:
                waiting.append(entry)
            elif camtoworld is None:
                self.counts.lost_pose += 1
            else:
                self.counts.lost_depth += 1
        self._waiting = waiting
        return matches
