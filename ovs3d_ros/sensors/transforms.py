"""A tree of transforms over time: what tf2 keeps, without ROS."""

from __future__ import annotations

import math
import sys

import numpy as np

from ovs3d_ros.geometry import invert_rigid
from ovs3d_ros.sensors.sync import PoseBuffer
from ovs3d_ros.types import UserError

_MAX_DEPTH = 64  # frames between a sensor and its root; more is a loop
_SHOWN_FRAMES = 20  # in messages
_MAX_FRAMES = 5000  # a publisher that makes up names must not fill the memory


class TransformTree:
    """Every frame with its parent, and where it was in it; poses between two stamps are interpolated."""

    def __init__(
        self, slop: float, max_gap: float, capacity: int = sys.maxsize, clock_jump: float = math.inf
    ):
        """Takes the tolerances.

        Args:
            slop: beyond its first and last stamp a transform holds this long, seconds.
            max_gap: transforms further apart in time are not interpolated between, seconds.
            capacity: transforms kept of each frame; the oldest go.
            clock_jump: a transform this much older than the newest of its frame means the clock was set back, seconds:
                the frame's others are forgotten, or a full buffer would throw away every new one as its oldest.
        """
        self._slop = slop
        self._max_gap = max_gap
        self._capacity = capacity
        self._clock_jump = clock_jump
        self._parents: dict[str, str] = {}
        self._static: dict[str, np.ndarray] = {}
        self._moving: dict[str, PoseBuffer] = {}

    def add(self, parent: str, child: str, stamp: float, matrix: np.ndarray, static: bool) -> None:
        """Adds the transform [4, 4] from `child` to `parent` at `stamp`, or for all time if it is static.

        Raises:
            UserError: the child hangs on another parent already, or there are absurdly many frames.
        """
        parent, child = parent.lstrip("/"), child.lstrip("/")
        if len(self._parents) >= _MAX_FRAMES and child not in self._parents:
            raise UserError(
                f"/tf: more than {_MAX_FRAMES} frames, '{child}' is ignored; who publishes all these?"
            )
        known = self._parents.setdefault(child, parent)
        if known != parent:
            raise UserError(
                f"/tf: frame '{child}' has two parents, '{known}' and '{parent}'; only one source may publish it"
            )
        if static:
            self._static[child] = matrix
        else:
            if child not in self._moving:
                self._moving[child] = PoseBuffer(self._slop, self._max_gap, self._capacity)
            moving = self._moving[child]
            if moving.poses.stamps and stamp < moving.poses.stamps[-1] - self._clock_jump:
                moving.clear()
            moving.add(stamp, matrix)

    def clear(self) -> None:
        """Forgets what moves (the clock jumped); static transforms stay."""
        for child in self._moving.keys() - self._static.keys():
            del self._parents[child]
        self._moving.clear()

    @property
    def frames(self) -> list[str]:
        """The names of all frames."""
        return sorted(self._parents.keys() | set(self._parents.values()))

    def check(self, target: str, source: str) -> None:
        """Raises UserError unless `source` and `target` hang together, at whatever time."""
        for frame in (source, target):
            if frame not in self._parents and frame not in self._parents.values():
                shown, more = self.frames[:_SHOWN_FRAMES], len(self.frames) - _SHOWN_FRAMES
                known = (", ".join(shown) or "none") + (f" and {more} more" if more > 0 else "")
                raise UserError(f"/tf: there is no frame '{frame}' (there are: {known})")
        if self._path(source)[-1] != self._path(target)[-1]:
            raise UserError(
                f"/tf: '{source}' and '{target}' hang in trees of their own, under '{self._path(source)[-1]}' and "
                f"'{self._path(target)[-1]}'; what localises the robot is missing"
            )

    def at(self, target: str, source: str, stamp: float, final: bool = True) -> np.ndarray | None:
        """The transform [4, 4] from `source` to `target` at `stamp`; None if it is not known at that time.

        Args:
            target: frame the result maps into.
            source: frame it maps from.
            stamp: seconds.
            final: nothing better will come: settle for the nearest transforms in tolerance.

        Raises:
            UserError: see `check`.
        """
        down, up = self._paths(target, source)
        from_source, from_target = self._climb(down, stamp, final), self._climb(up, stamp, final)
        if from_source is None or from_target is None:
            return None
        return invert_rigid(from_target) @ from_source

    def why_not(self, target: str, source: str, stamp: float) -> str:
        """Which transform `at` lacks at `stamp`, and what is known of it; empty if it lacks none.

        Raises:
            UserError: see `check`.
        """
        down, up = self._paths(target, source)
        for child in (*down[:-1], *up[:-1]):
            if child in self._static or self._moving[child].at(stamp, final=True) is not None:
                continue
            stamps = self._moving[child].poses.stamps
            known = (
                f"is known from {stamps[0]:.3f} to {stamps[-1]:.3f} s" if stamps else "is not known any more"
            )
            reason = f"'{child}' in '{self._parents[child]}' {known}, the image is of {stamp:.3f} s"
            if stamps and stamps[0] < stamp < stamps[-1]:
                reason += f" in a gap of more than {self._max_gap} s; raise input.pose_gap"
            return reason
        return ""

    def _paths(self, target: str, source: str) -> tuple[list[str], list[str]]:
        """From `source` and from `target` up to the first frame they have in common."""
        self.check(target, source)
        down, up = self._path(source), self._path(target)
        while len(down) > 1 and len(up) > 1 and down[-2] == up[-2]:
            down.pop()
            up.pop()
        return down, up

    def _path(self, frame: str) -> list[str]:
        """The frame, its parent, and so on up to the root."""
        path = [frame]
        while path[-1] in self._parents:
            path.append(self._parents[path[-1]])
            if len(path) > _MAX_DEPTH:
                raise UserError(
                    f"/tf: the parents of '{frame}' form a loop; only one source may publish each frame"
                )
        return path

    def _climb(self, path: list[str], stamp: float, final: bool) -> np.ndarray | None:
        """The transform from the first to the last frame of a path."""
        total = np.eye(4)
        for child in path[:-1]:
            step = self._static.get(child)
            if step is None:
                step = self._moving[child].at(stamp, final)
            if step is None:
                return None
            total = step @ total
        return total
