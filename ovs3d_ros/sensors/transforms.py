"""A tree of transforms over time, like the buffer of tf2, without ROS."""

from __future__ import annotations

import math
import sys

import numpy as np

from ovs3d_ros.geometry import invert_rigid
from ovs3d_ros.sensors.sync import PoseBuffer
from ovs3d_ros.types import UserError

_MAX_DEPTH = 64  # frames between a sensor and its root; more is a loop
_SHOWN_FRAMES = 20  # in error messages
_MAX_FRAMES = 5000  # protects the memory from a publisher with ever new frame names


class TransformTree:
    """Keeps the parent of each frame and the transforms between them; interpolates between stamps."""

    def __init__(
        self, slop: float, max_gap: float, capacity: int = sys.maxsize, clock_jump: float = math.inf
    ):
        """Takes the tolerances.

        Args:
            slop: how long a transform is valid before its first and after its last stamp, seconds.
            max_gap: longest time between two transforms to interpolate over, seconds.
            capacity: number of transforms to keep of each frame; the oldest are dropped.
            clock_jump: a transform older than the newest of its frame by more than this means that the clock
                was set back, seconds. The earlier transforms of the frame are then dropped; otherwise a full
                buffer would drop each new transform as its oldest.
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
            UserError: the child has another parent already, or there are too many frames.
        """
        parent, child = parent.lstrip("/"), child.lstrip("/")
        if len(self._parents) >= _MAX_FRAMES and child not in self._parents:
            raise UserError(
                f"/tf: more than {_MAX_FRAMES} frames, '{child}' is ignored; find the publisher that makes "
                "up frame names"
            )
        known = self._parents.setdefault(child, parent)
        if known != parent:
            raise UserError(
                f"/tf: frame '{child}' has two parents, '{known}' and '{parent}'; only one source may "
                "publish it"
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
        """Drops all transforms but the static ones, after a clock jump."""
        for child in self._moving.keys() - self._static.keys():
            del self._parents[child]
        self._moving.clear()

    @property
    def frames(self) -> list[str]:
        """The names of all frames."""
        return sorted(self._parents.keys() | set(self._parents.values()))

    def check_connected(self, target: str, source: str) -> None:
        """Raises UserError unless a chain of transforms, of any stamps, connects `source` and `target`."""
        for frame in (source, target):
            if frame not in self._parents and frame not in self._parents.values():
                shown, more = self.frames[:_SHOWN_FRAMES], len(self.frames) - _SHOWN_FRAMES
                known = (", ".join(shown) or "none") + (f" and {more} more" if more > 0 else "")
                raise UserError(f"/tf: there is no frame '{frame}' (there are: {known})")
        if self._path(source)[-1] != self._path(target)[-1]:
            raise UserError(
                f"/tf: '{source}' and '{target}' are in separate trees, under '{self._path(source)[-1]}' and "
                f"'{self._path(target)[-1]}'; start the node that localises the robot"
            )

    def at(self, target: str, source: str, stamp: float, accept_nearest: bool = True) -> np.ndarray | None:
        """The transform [4, 4] from `source` to `target` at `stamp`; None if it is not known at that time.

        Args:
            target: frame the result maps into.
            source: frame it maps from.
            stamp: seconds.
            accept_nearest: accept the nearest transforms within the tolerance.

        Raises:
            UserError: see `check_connected`.
        """
        down, up = self._paths(target, source)
        from_source, from_target = (
            self._chain(down, stamp, accept_nearest),
            self._chain(up, stamp, accept_nearest),
        )
        if from_source is None or from_target is None:
            return None
        return invert_rigid(from_target) @ from_source

    def explain_missing(self, target: str, source: str, stamp: float) -> str:
        """Names the transform that is missing at `stamp`, and when it is known; empty if none is missing.

        Raises:
            UserError: see `check_connected`.
        """
        down, up = self._paths(target, source)
        for child in (*down[:-1], *up[:-1]):
            if child in self._static or self._moving[child].at(stamp, accept_nearest=True) is not None:
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
        """The paths from `source` and from `target` up to their first common frame."""
        self.check_connected(target, source)
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

    def _chain(self, path: list[str], stamp: float, accept_nearest: bool) -> np.ndarray | None:
        """The transform from the first to the last frame of a path, or None."""
        total = np.eye(4)
        for child in path[:-1]:
            step = self._static.get(child)
            if step is None:
                step = self._moving[child].at(stamp, accept_nearest)
            if step is None:
                return None
            total = step @ total
        return total
