"""Loop closures: Gaussians follow the corrected poses of their keyframes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import synthetic
from helpers.mapping import RASTERIZER, make_mapper, move_frame

from ovs3d_ros.mapping.rendering import render_view
from ovs3d_ros.types import UserError


@pytest.mark.parametrize("degree", [0, 3])
def test_gaussians_move_with_their_keyframe(degree: int) -> None:
    """Moving all keyframes rigidly keeps every view; moving one keyframe moves only its own Gaussians."""
    frames = synthetic.make_frames(4)
    mapper = make_mapper(
        frames[:3], map__sh_degree=degree, train__densify_every=4, train__densify_gradient=1e-4
    )
    for _ in range(8):
        mapper.step()
    with torch.no_grad():
        mapper.gaussians.params["sh_rest"].normal_(std=0.1)
        mapper.gaussians.params["quats"].add_(torch.randn(len(mapper.gaussians), 4) * 0.3)
    before = [render_view(mapper.gaussians.activated(), f.camera, f.camtoworld, RASTERIZER) for f in frames]
    motion = move_frame(frames[0], 0.3, 25.0).camtoworld @ np.linalg.inv(frames[0].camtoworld)
    corrected = {index: motion @ f.camtoworld for index, f in enumerate(frames[:3])}
    assert mapper.move_keyframes(corrected) == len(mapper.gaussians)
    for frame, old in zip(frames, before, strict=True):
        new = render_view(mapper.gaussians.activated(), frame.camera, motion @ frame.camtoworld, RASTERIZER)
        assert (
            float((new.rgb - old.rgb).abs().mean()) < 1e-3
            and float((new.alpha - old.alpha).abs().max()) < 2e-2
        )

    means = mapper.gaussians.params["means"].detach().clone()
    own = mapper.gaussians.stats["owner"] == 2
    assert mapper.move_keyframes({1: frames[1].camtoworld}) == int(own.sum()) > 0
    shifted = (mapper.gaussians.params["means"] - means).abs().amax(-1) > 1e-4
    assert torch.equal(shifted, own)
    assert np.allclose(mapper.keyframes[1].camtoworld, frames[1].camtoworld)
    mapper.step()


def test_corrections_apply_to_all_keyframes_or_none() -> None:
    frames = synthetic.make_frames(4)
    mapper = make_mapper([*frames, *frames])  # stamps repeat, as in a bag that was played twice
    corrected = {4 + i: move_frame(frame, 0.2).camtoworld for i, frame in enumerate(frames)}
    mapper.move_keyframes(corrected)
    for index, frame in enumerate(frames):
        assert np.allclose(mapper.keyframes[index].camtoworld, frame.camtoworld)
        assert np.allclose(mapper.keyframes[4 + index].camtoworld, corrected[4 + index])
    with pytest.raises(UserError, match="pose of keyframe 1"):
        mapper.move_keyframes({0: frames[0].camtoworld, 1: 2 * frames[0].camtoworld})
    assert np.allclose(mapper.keyframes[0].camtoworld, frames[0].camtoworld)


def test_extent_follows_corrected_poses() -> None:
    frames = synthetic.make_frames(2)
    mapper = make_mapper(frames)
    before = mapper.gaussians.extent
    mapper.move_keyframes({1: move_frame(frames[1], 1.0).camtoworld})
    centers = np.stack([frames[0].camtoworld[:3, 3], move_frame(frames[1], 1.0).camtoworld[:3, 3]])
    spread = np.linalg.norm(centers[0] - centers[1]) / 2
    assert (
        mapper.gaussians.extent
        == pytest.approx(spread + np.median(mapper.log.median_depths), rel=1e-5)
        != before
    )
    assert make_mapper([]).move_keyframes({}) == 0


def test_cameras_in_another_hall_are_not_part_of_the_extent() -> None:
    frames = synthetic.make_frames(3)
    alone = make_mapper(frames)
    away = [move_frame(frame, 200.0) for frame in synthetic.make_frames(3)]
    assert make_mapper([*away, *frames]).gaussians.extent == pytest.approx(alone.gaussians.extent, rel=1e-5)


def test_extent_does_not_shrink_before_a_wall() -> None:
    frames = [synthetic.make_frame(pose, float(i)) for i, pose in enumerate(synthetic.orbit(8, arc=6.0))]
    extent = make_mapper(frames).gaussians.extent
    last = frames[-1]
    close = last.camtoworld.copy()
    close[:3, 3] += 0.75 * float(np.median(last.depth)) * close[:3, 2]
    assert make_mapper([*frames, synthetic.make_frame(close, 50.0)]).gaussians.extent > 0.8 * extent


def test_points_stay_and_bad_poses_change_nothing() -> None:
    mapper = make_mapper(synthetic.make_frames(1))
    mapper.insert_points(np.random.default_rng(0).uniform(-1, 1, (200, 3)), np.zeros((200, 3), np.uint8))
    pose = move_frame(synthetic.make_frames(1)[0], shift=1.0).camtoworld
    assert mapper.move_keyframes({0: pose}) == len(mapper.gaussians) - 200
    with pytest.raises(UserError, match="not a rotation"):
        mapper.move_keyframes({0: 2 * pose})
    assert np.array_equal(mapper.keyframes[0].camtoworld, pose)
