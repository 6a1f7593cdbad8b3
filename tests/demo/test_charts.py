"""The drawings of the demo."""

from __future__ import annotations

import numpy as np
import pytest

from ovs3d_ros.demo.charts import _place_plates


@pytest.mark.parametrize("center", [(100.0, 20.0), (100.0, 200.0), (100.0, 395.0), (-50.0, 900.0)])
def test_names_of_near_objects_stand_apart_inside_the_picture(center):
    count, wide, high = 12, 80.0, 22
    places = np.array(_place_plates([np.array(center)] * count, [wide] * count, 300, 400))
    assert (places >= 0).all() and (places[:, 0] + wide <= 300).all() and (places[:, 1] + high <= 400).all()
    assert (np.diff(np.sort(places[:, 1])) >= high).all(), "one below the other"
    clipped = np.clip(center[1] - high / 2, 2, 400 - high - 2)
    assert np.abs(places[:, 1] - clipped).min() <= 1, "the first stands at its object"


def test_names_side_by_side_stay_at_their_objects():
    places = _place_plates([np.array([50.0, 100.0]), np.array([200.0, 100.0])], [80.0, 80.0], 300, 400)
    assert places == [(10.0, 89.0), (160.0, 89.0)]
