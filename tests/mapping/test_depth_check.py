"""Depth in a wrong unit is noticed, with the factor that mends it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from helpers import synthetic

from ovs3d_ros.config import Config, override
from ovs3d_ros.mapping.depth_check import DepthCheck
from ovs3d_ros.pipeline import Ovs3d

WALL = np.linspace(0.8, 4.0, 64 * 48, dtype=np.float32).reshape(48, 64)  # metres


def update(check: DepthCheck, depth: np.ndarray, scale: float = 1.0) -> str:
    frame = dataclasses.replace(synthetic.make_frames(1)[0], depth=depth)
    check.update(frame, override(Config(), {"input.depth_scale": scale}))
    return check.doubt


def doubt(depth: np.ndarray, scale: float = 1.0) -> str:
    check = DepthCheck()
    return [update(check, depth, scale) for _ in range(3)][-1]


@pytest.mark.parametrize(
    "factor, scale, remedy",
    [
        (1000.0, 1.0, "millimetres are read as metres; set input.depth_scale to 0.001"),
        (0.001, 1.0, "metres are read as millimetres; set input.depth_scale to 1000"),
        (1000.0, 1000.0, "millimetres are read as metres; set input.depth_scale to 1 "),
        (15.0, 1.0, "raise seed.max_depth"),
        (0.0, 1.0, "hold no reading"),
    ],
)
def test_wrong_unit_is_named_with_its_remedy(factor, scale, remedy):
    assert remedy in doubt(WALL * np.float32(factor), scale=scale)


def test_usual_depth_is_not_doubted():
    holes = WALL.copy()
    holes[:, 8:] = 0
    street = np.where(np.arange(64) < 16, 5.0, 60.0)[None].repeat(48, 0).astype(np.float32)
    assert not doubt(WALL) and not doubt(holes) and not doubt(street)


def test_doubt_needs_several_images_and_ends_with_a_good_one():
    check = DepthCheck()
    for k in range(5):
        update(check, WALL * 1000)
        assert bool(check.doubt) == (k >= 2)
    update(check, WALL)
    assert not check.doubt


@pytest.mark.parametrize("factor", [1000.0, 0.001])
def test_map_tells_of_depth_in_another_unit(factor):
    pipeline = Ovs3d(synthetic.make_config())
    for frame in synthetic.make_frames(4):
        scaled = dataclasses.replace(frame, depth=frame.depth * np.float32(factor))
        pipeline.add_frame(scaled)
    assert "input.depth_scale" in pipeline.stats["depth_doubt"]
    pipeline.reset()
    assert not pipeline.stats["depth_doubt"]
