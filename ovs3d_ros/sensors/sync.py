"""Matches images with depth and poses by stamp. Pure Python: no ROS here.

Nothing waits: what is incomplete stays in a bounded buffer until its time is up, and every loss is counted.
"""

from __future__ import annotations

import bisect
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

from ovs3d_ros.geometry import matrix_to_quat, quat_to_matrix, slerp

SAME_STAMP = 1e-6  # seconds: float64 stamps are exact to about 2e-7
_KEPT = 30  # images, and depth images, that may stay beyond their time: one second of a camera
_MARGIN = 1.0  # seconds beyond the timeout: looks at what waits are apart, and depth may be ahead of images


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
    """The newest `capacity` items in order of their stamps, whatever order they arrive in."""

    def __init__(self, capacity: int):
        self.capacity = capacity
        self.stamps: list[float] = []
        self.items: list[Any] = []

    def add(self, stamp: float, item: Any) -> None:
        """Inserts an item; an equal stamp replaces the older item, and the oldest leaves when full."""
        i = bisect.bisect_left(self.stamps, stamp)
        if i < len(self.stamps) and self.stamps[i] == stamp:
            self.items[i] = item
            return
        self.stamps.insert(i, stamp)
        self.items.insert(i, item)
        if len(self.stamps) > self.capacity:
            del self.stamps[0], self.items[0]

    def trim(self, oldest: float, keep: int) -> None:
        """Forgets what is older than `oldest`, but the newest `keep` items stay."""
        going = min(bisect.bisect_left(self.stamps, oldest), len(self.stamps) - keep)
        if going > 0:
            del self.stamps[:going], self.items[:going]

    def nearest(self, stamp: float, slop: float) -> Any | None:
        """The item closest to `stamp`, or None if it is more than `slop` seconds away."""
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
        """Forgets everything."""
        self.stamps.clear()
        self.items.clear()


class PoseSource(Protocol):
    """Where the camera was at a time; never waits."""

    def at(self, stamp: float, final: bool) -> np.ndarray | None:
        """The pose camtoworld [4, 4] at `stamp`, or None while it is not known.

        Args:
            stamp: seconds.
            final: nothing better will come: settle for the nearest pose in tolerance.
        """

    def clear(self) -> None:
        """Forgets everything (the clock jumped)."""


class PoseBuffer:
    """Poses received by message, interpolated to the time asked for."""

    def __init__(self, slop: float, max_gap: float, capacity: int = 4000):
        """Takes the tolerances.

        Args:
            slop: a single pose this close in time is good enough, seconds.
            max_gap: poses further apart in time are not interpolated between, seconds.
            capacity: poses kept.
        """
        self.slop = slop
        self.max_gap = max_gap
        self.poses = StampBuffer(capacity)

    def add(self, stamp: float, camtoworld: np.ndarray) -> None:
        """Stores a pose [4, 4] received for `stamp`."""
        self.poses.add(stamp, camtoworld)

    def at(self, stamp: float, final: bool) -> np.ndarray | None:
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
        return self.poses.nearest(stamp, self.slop) if final else None

    def clear(self) -> None:
        """Forgets everything."""
        self.poses.clear()


@dataclass(frozen=True, slots=True)
class Match:
    """An image with all that belongs to it; `image` and `depth` are what was put in."""

    stamp: float
    image: Any
    depth: Any | None
    camtoworld: np.ndarray


@dataclass(slots=True)
class SyncCounts:
    """What became of the images; without clock jumps matched + lost_* + waiting = images received."""

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
    """Holds images until their depth and pose are known. Not thread-safe: call it from one callback group."""

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
            poses: answers where the camera was.
            slop: image and depth this close in time belong together, seconds.
            timeout: images that are still incomplete after this time are dropped and counted, seconds.
            clock_jump: a stamp this much older than the newest of its stream means the clock was set back,
                seconds.
            use_depth: an image needs a depth image.
            capacity: images, and depth images, that may wait, however long the timeout: ten seconds at 30 Hz, half a
                gigabyte at 640 x 480.
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
        """Images that wait for depth or pose."""
        return len(self._waiting)

    def observe(self, stream: str, stamp: float) -> None:
        """Notes a stamp of a stream; a jump back clears all buffers, and the map stays what it is."""
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
        """Takes an image taken at `stamp` that arrived at `now` (a monotonic clock), seconds."""
        self.observe("image", stamp)
        bisect.insort(self._waiting, _Waiting(stamp, now, image), key=lambda entry: entry.stamp)
        while len(self._waiting) > self.capacity or (
            len(self._waiting) > _KEPT and now - self._waiting[0].arrival > self.timeout + _MARGIN
        ):
            del self._waiting[0]
            self.counts.lost_overflow += 1

    def add_depth(self, stamp: float, depth: Any) -> None:
        """Takes a depth image."""
        self.observe("depth", stamp)
        self._depths.add(stamp, depth)
        self._depths.trim(self._depths.stamps[-1] - self.timeout - self.slop - _MARGIN, _KEPT)

    def _depth_at(self, stamp: float, final: bool) -> Any | None:
        """The nearest depth image, once none that is nearer can come."""
        arrived = self._depths.stamps
        if not self.use_depth or not arrived or (arrived[-1] < stamp - SAME_STAMP and not final):
            return None
        return self._depths.nearest(stamp, self.slop)

    def ready(self, now: float) -> list[Match]:
        """Takes out the images that are complete, in order of their stamps; drops those whose time is up."""
        matches, waiting = [], []
        for entry in self._waiting:
            final = now - entry.arrival >= self.timeout
            camtoworld = self.poses.at(entry.stamp, final)
            depth = self._depth_at(entry.stamp, final)
            if camtoworld is not None and (depth is not None or not self.use_depth):
                matches.append(Match(entry.stamp, entry.image, depth, camtoworld))
                self.counts.matched += 1
            elif not final:
                waiting.append(entry)
            elif camtoworld is None:
                self.counts.lost_pose += 1
            else:
                self.counts.lost_depth += 1
        self._waiting = waiting
        return matches
