"""A pose jumps if it moves far faster than before."""

from __future__ import annotations

import numpy as np
import pytest

from ovs3d_ros.sensors.jumps import JumpDetector


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
