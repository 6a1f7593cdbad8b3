"""Masked pixels, such as the robot's own arm, take no part in the map."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import synthetic
from helpers.mapping import make_keyframe, make_mapper, view_psnr

from ovs3d_ros.mapping.keyframes import hide_masked, training_view
from ovs3d_ros.mapping.losses import ignore_masked, masked_psnr, photometric
from ovs3d_ros.mapping.seeding import ImageMatcher, find_features, seed_random
from ovs3d_ros.types import Camera, Frame, UserError

ARM = (slice(28, 48), slice(20, 44))  # rows and columns
SCENE = (synthetic.ROOM, synthetic.RED, synthetic.GREEN)


def with_arm(frame: Frame, masked: bool = True) -> Frame:
    """The frame with a blue arm 20 cm before the lens."""
    image, mask = frame.image.copy(), np.ones(frame.image.shape[:2], bool)
    image[ARM], mask[ARM] = (30, 40, 220), False
    depth = frame.depth
    if depth is not None:
        depth = depth.copy()
        depth[ARM] = 0.2
    return replace(frame, image=image, depth=depth, mask=mask if masked else None)


def test_masked_arm_is_neither_mapped_nor_found():
    clean = synthetic.make_frames(8, scene=SCENE)
    maps = {
        kind: synthetic.build_map(frames, steps=60)
        for kind, frames in dict(
            clean=clean, masked=list(map(with_arm, clean)), arm=[with_arm(frame, False) for frame in clean]
        ).items()
    }
    new = synthetic.make_frame(synthetic.orbit(15)[5], scene=SCENE)
    quality = {kind: view_psnr(room.map.mapper, new) for kind, room in maps.items()}
    assert quality["masked"] > quality["clean"] - 1.5 > quality["arm"] + 1.5, quality
    found = {kind: bool(room.query(["blue"]).found[0]) for kind, room in maps.items()}
    assert found == dict(clean=False, masked=False, arm=True)
    assert maps["masked"].query(["red", "green"]).found.all()


def test_training_psnr_counts_the_pixels_that_show_the_scene():
    torch.manual_seed(0)
    render, image = torch.rand(2, 48, 64, 3)
    mask = torch.zeros(48, 64, dtype=torch.bool)
    mask[:, :16] = True
    shown = ignore_masked(render, image, mask)
    expected = -10 * (render - image)[:, :16].square().mean().log10()
    torch.testing.assert_close(masked_psnr(shown, image, mask), expected)


def test_masked_pixels_leave_no_gradient():
    render, image = torch.rand(48, 64, 3, requires_grad=True), torch.rand(48, 64, 3)
    mask = torch.zeros(48, 64, dtype=torch.bool)
    mask[:, :16] = True
    photometric(ignore_masked(render, image, mask), image, 0.2).backward()
    assert render.grad[:, :16].abs().min() > 0 and not render.grad[:, 16:].any()


@pytest.mark.parametrize("coarse", [True, False])
def test_mask_has_the_size_of_the_training_view(coarse):
    camera = synthetic.make_camera(160, 120)
    frame = synthetic.make_frame(synthetic.orbit(3)[1], camera=camera, scene=SCENE)
    mask = np.zeros((120, 160), bool)
    mask[:, :80] = True
    keyframe = make_keyframe(replace(frame, mask=mask))
    view, image, depth, shown = training_view(keyframe, coarse)
    assert shown.shape == image.shape[:2] == depth.shape == (view.height, view.width)
    assert shown[:, : view.width // 2].all() and not shown[:, view.width // 2 :].any()


def test_masked_places_are_not_seeded():
    mask = np.ones((48, 64), bool)
    mask[:, 32:] = False
    frame = replace(synthetic.make_frames(2, scene=SCENE)[0], mask=mask)
    rng = np.random.default_rng(0)
    config = synthetic.make_config().seed
    for depth in (True, False):
        keyframe = make_keyframe(hide_masked(frame if depth else replace(frame, depth=None)))
        if depth:
            means = make_mapper([hide_masked(frame)]).gaussians.params["means"].detach().numpy()
        else:
            means = seed_random(keyframe, 2.0, config, rng)[0].numpy()
        local = (means - frame.camtoworld[:3, 3]) @ frame.camtoworld[:3, :3]
        columns = frame.camera.K[0, 0] * local[:, 0] / local[:, 2] + frame.camera.K[0, 2]
        assert len(means) > 100 and columns.max() < 32


def test_image_matches_leave_masked_pixels_out():
    camera = Camera(np.array([[200.0, 0, 120], [0, 200, 90], [0, 0, 1]]), 240, 180)
    mask = np.ones((180, 240), bool)
    mask[:, 120:] = False
    frames = []
    for index, x in enumerate((-0.2, 0.0, 0.2)):
        pose = synthetic.look_at((x, -0.6, 1.5), (0, 0.1, 0))
        image, _ = synthetic.textured_plane(camera, pose)
        frames.append(make_keyframe(Frame(float(index), image, camera, pose, mask=mask), index))
    pixels, _ = find_features(frames[0].image.numpy(), mask)
    assert len(pixels) > 20 and pixels[:, 0].max() < 121
    matcher, alpha = ImageMatcher(), torch.zeros(180, 240)
    seeds = [matcher.seed(frame, alpha, synthetic.make_config().seed) for frame in frames][-1]
    local = (seeds[0].numpy() - frames[-1].camtoworld[:3, 3]) @ frames[-1].camtoworld[:3, :3]
    assert (200 * local[:, 0] / local[:, 2] + 120).max() < 120


def test_encoder_does_not_see_masked_pixels():
    frame = hide_masked(with_arm(synthetic.make_frames(1, scene=SCENE)[0]))
    assert len(np.unique(frame.image[ARM].reshape(-1, 3), axis=0)) == 1 and not frame.depth[ARM].any()
    np.testing.assert_allclose(frame.image[ARM][0, 0], frame.image[frame.mask].mean(0), atol=0.51)


def test_frame_that_is_all_masked_is_no_keyframe():
    room = synthetic.build_map(synthetic.make_frames(2), steps=1)
    frame = synthetic.make_frames(4)[2]
    assert not room.add_frame(replace(frame, mask=np.zeros((48, 64), bool)))
    for mask in (np.ones((48, 64)), np.ones((2, 2), bool)):
        with pytest.raises(UserError, match="mask is"):
            room.add_frame(replace(frame, mask=mask))


def test_masked_pixels_do_not_judge_a_refinement():
    frames, names = synthetic.make_frames(6), ["red", "green", "blue", "grey"]
    settings = {"dino.model": "helpers.color_encoder:ColorPatches", "refine.background": ("object",)}
    room = synthetic.build_map(frames[:4], steps=20, **settings)
    views = dict(clean=frames[4:], masked=[with_arm(f) for f in frames[4:]])
    views["arm"] = [replace(frame, mask=None) for frame in views["masked"]]
    mismatch = {
        kind: list(room.refine(names, checked))[-1].figures["before"]["rda"]
        for kind, checked in views.items()
    }
    assert abs(mismatch["masked"] - mismatch["clean"]) < 0.02 < 0.08 < mismatch["arm"] - mismatch["clean"]
