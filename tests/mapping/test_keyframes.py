"""Keyframes: which frames become one, and what they keep of a frame."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import synthetic
from helpers.mapping import make_keyframe, make_mapper, move_frame

from ovs3d_ros.mapping import keyframes
from ovs3d_ros.mapping.keyframes import is_new_view, training_view


@pytest.mark.parametrize(
    "move, expected",
    [
        ({}, False),
        (dict(shift=0.09), False),
        (dict(shift=0.11), True),
        (dict(degrees=4.9), False),
        (dict(degrees=5.2), True),
        (dict(degrees=-5.2), True),
        (dict(seconds=100.0), False),
        (dict(shift=0.03, seconds=2.1), True),
        (dict(shift=0.03, seconds=1.9), False),
        (dict(degrees=1.2, seconds=2.1), True),
        (dict(shift=0.01, degrees=0.5, seconds=100.0), False),  # pose noise of a robot that stands still
    ],
)
def test_keyframe_needs_motion_not_time_alone(move: dict, expected: bool) -> None:
    config = synthetic.make_config(
        keyframe__translation=0.05, keyframe__rotation=5.0, keyframe__max_interval=2.0
    )
    frame = synthetic.make_frame(synthetic.orbit(1)[0])
    assert (
        is_new_view(config.keyframe, move_frame(frame, **move), make_keyframe(frame), median_depth=2.0)
        is expected
    )


def test_translation_threshold_scales_with_scene_depth() -> None:
    near, far = (
        make_mapper(
            [synthetic.make_frame(synthetic.orbit(1)[0])],
            keyframe__translation=0.05,
            keyframe__rotation=180.0,
        )
        for _ in range(2)
    )
    frame = move_frame(synthetic.make_frame(synthetic.orbit(1)[0]), shift=0.15)
    depth = synthetic.make_frame(synthetic.orbit(1)[0]).depth
    far.log.median_depths[:] = [4 * near.log.median_depth]
    assert near.log.median_depth == pytest.approx(float(np.median(depth)), rel=0.01)
    assert near.needs_keyframe(frame) and not far.needs_keyframe(frame)


def test_first_frame_becomes_keyframe() -> None:
    assert make_mapper([]).needs_keyframe(synthetic.make_frame(synthetic.orbit(1)[0]))


def test_coarse_training_view_shows_the_same_scene() -> None:
    camera, pose = synthetic.make_camera(128, 96), synthetic.orbit(3)[0]
    frame = make_keyframe(synthetic.make_frame(pose, camera=camera))
    half, image, depth, _ = training_view(frame, coarse=True)
    rgb, z, _ = synthetic.ray_cast(half, pose)
    assert image.shape == (48, 64, 3) and depth.shape == (48, 64)
    assert float((image - torch.from_numpy(rgb) / 255).abs().mean()) < 0.02
    assert float(((depth - torch.from_numpy(z)).abs() / torch.from_numpy(z)).median()) < 0.01
    assert torch.equal(training_view(frame, coarse=False)[1], frame.image.float() / 255)


@pytest.mark.parametrize("factor", [3, 16 / 9, 32 / 9])
def test_smaller_keyframe_samples_depth_at_pixel_centres(factor: float) -> None:
    camera = synthetic.make_camera(round(120 * factor), round(90 * factor))
    large = synthetic.make_frame(synthetic.orbit(3)[1], camera=camera)
    small = keyframes.make_keyframe(large, 0, 120, 100.0, "cpu")
    exact = synthetic.ray_cast(small.camera, large.camtoworld)[1]
    error = small.depth.numpy() / exact - 1
    assert abs(np.median(error)) < 5e-4, "depth sampled beside the pixel centre would be biased on the floor"
