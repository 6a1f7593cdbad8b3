"""What keyframes see, in cells."""

from __future__ import annotations

import numpy as np
from helpers import synthetic

from ovs3d_ros.mapping.sight import Sight
from ovs3d_ros.types import KeyframeView

CAMERA = synthetic.make_camera(160, 120)


def make_sight(*reaches: float) -> Sight:
    """Keyframes at one place that see so far."""
    sight, pose = Sight(), synthetic.orbit(1)[0]
    for index, reach in enumerate(reaches):
        sight.add(KeyframeView(index, float(index), "", CAMERA, pose), reach)
    sight.begin()
    return sight


def test_keyframe_of_unknown_reach_sees_as_far_as_a_typical_one() -> None:
    sight = make_sight(0.0, 3.0, 2.0, 4.0)
    seen = sight.look(1)
    assert np.array_equal(sight.look(0), seen)
    sight.hide("sofa", seen)
    assert not len(sight.trainable), "it is not trained on what it may not see"


def test_hidden_things_are_found_by_their_cells_until_they_are_revealed() -> None:
    sight = make_sight(3.0, 2.0)
    far, near = sight.look(0), sight.look(1)
    assert len(far) > len(near) > 1
    beyond = np.setdiff1d(far, near)
    sight.hide("lamp", beyond)
    sight.hide("sofa", near[:2])
    sight.hide("sofa bed", near[1:2])
    assert sight.hidden_in(near) == ["sofa", "sofa bed"] and set(sight.hidden_in(beyond)) == {"lamp"}
    sight.reveal("sofa", near[:2])
    assert sight.hidden_in(near) == ["sofa bed"] and not len(sight.trainable)
    sight.reveal("sofa bed", near[1:2])
    assert not sight.hidden_in(near) and sight.trainable.tolist() == [1]
