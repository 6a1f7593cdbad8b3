"""A pose jumps if it moves far faster than before."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from helpers import synthetic

from ovs3d_ros.sensors.jumps import JumpDetector, SpeedLimit


def jumps(positions: list[float], period: float = 0.1) -> list[float]:
    detector = JumpDetector()
    found = [detector.update(k * period, np.array([x, 0.0, 0.0])) for k, x in enumerate(positions)]
    assert detector.count == sum(bool(distance) for distance in found)
    return found


def test_correction_of_the_localisation_is_one_jump():
    assert jumps([0.0, 0.1, 0.2, 3.3, 3.4, 3.5]) == pytest.approx([0, 0, 0, 3.1, 0, 0])


@pytest.mark.parametrize(
    "step", [0.05, 3.0]
)  # a robot, and a car at 30 m/s that is seen from its second frame
def test_steady_motion_does_not_jump(step):
    assert not any(jumps([k * step for k in range(20)]))


def test_clock_that_is_set_back_is_no_jump():
    detector = JumpDetector()
    detector.update(100.0, np.zeros(3))
    assert not detector.update(1.0, np.full(3, 9.0)) and not detector.count


def excesses(
    xs: list[float], max_speed: float, period: float = 0.1, sensors: tuple[str, ...] = ("",)
) -> list[int]:
    """The frames that are too fast, of cameras that take turns."""
    limit, found = SpeedLimit(), []
    for k, x in enumerate(xs):
        frame = synthetic.make_frames(1)[0]
        pose = np.eye(4)
        pose[0, 3] = x
        sensor = sensors[k % len(sensors)]
        frame = dataclasses.replace(frame, stamp=k * period, camtoworld=pose, sensor=sensor)
        if text := limit.exceeded(frame, max_speed):
            assert f"input.max_speed is {max_speed:g} m/s" in text
            found.append(k)
    return found


def test_speed_limit_is_exceeded_by_a_jump_alone():
    assert excesses([0.0, 0.1, 0.2, 3.3, 3.4], 2.0) == [3]
    assert excesses([0.0, 0.1, 0.2, 3.3, 3.4], 0.0) == []
    assert excesses([0.0, 0.09, 0.0, 0.09], 2.0, period=0.001) == []  # noise between two near stamps
    assert excesses([0.0, 3.0, 6.0], 2.0, period=2.0) == []


def test_each_camera_has_a_speed_of_its_own():
    assert excesses([0.0, 5.0, 0.1, 5.1], 3.0, sensors=("left", "right")) == []
