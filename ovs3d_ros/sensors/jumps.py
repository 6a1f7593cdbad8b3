"""Jumps of a pose: localisation that corrects itself, or a wrong stamp."""

from __future__ import annotations

import numpy as np

from ovs3d_ros.types import Frame

MIN_DISTANCE = 0.5  # metres; less is noise of the localisation
MIN_SPEED = 10.0  # metres per second
NOISE = 0.1  # metres a pose may move between two frames whatever their distance in time
MIN_RATIO = 4.0  # to the speed before, so that a car or a drone on its way does not jump


class JumpDetector:
    """Compares the speed between two poses with that before.

    Attributes:
        count: jumps so far.
    """

    def __init__(self) -> None:
        self.count = 0
        self._stamp = 0.0
        self._position: np.ndarray | None = None
        self._speed: float | None = None  # unknown until there are two poses

    def update(self, stamp: float, position: np.ndarray) -> float:
        """Takes the position [3] in metres at `stamp` in seconds; returns the distance of a jump, else 0."""
        earlier, elapsed = self._position, stamp - self._stamp
        self._stamp, self._position = stamp, position
        if earlier is None or elapsed <= 0:
            self._speed = None
            return 0.0
        distance = float(np.linalg.norm(position - earlier))
        before, self._speed = self._speed, distance / elapsed
        if before is None or distance < MIN_DISTANCE or self._speed < max(MIN_SPEED, MIN_RATIO * before):
            return 0.0
        self.count += 1
        return distance


class SpeedLimit:
    """Compares the speed of each camera with `input.max_speed`."""

    def __init__(self) -> None:
        self._last: dict[str, Frame] = {}

    def exceeded(self, frame: Frame, max_speed: float) -> str:
        """Takes the next frame of its camera; says by how much it is too fast, "" if it is not.

        Args:
            frame: with stamp, pose and the name of its camera.
            max_speed: metres per second; 0: no limit.
        """
        before, self._last[frame.sensor] = self._last.get(frame.sensor), frame
        if before is None or not max_speed or frame.stamp <= before.stamp:
            return ""
        distance = float(np.linalg.norm(frame.camtoworld[:3, 3] - before.camtoworld[:3, 3]))
        speed = distance / (frame.stamp - before.stamp)
        if speed <= max_speed or distance < NOISE:
            return ""
        return (
            f"the pose moved {distance:.2f} m in {frame.stamp - before.stamp:.3f} s ({speed:.1f} m/s, "
            f"input.max_speed is {max_speed:g} m/s)"
        )
