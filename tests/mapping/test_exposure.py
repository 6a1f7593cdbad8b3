"""Exposure: per-keyframe gain and offset, relative to their mean."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from helpers import synthetic
from helpers.mapping import RASTERIZER, make_mapper

from ovs3d_ros.evaluation.metrics import psnr_aligned
from ovs3d_ros.mapping.exposure import Exposure
from ovs3d_ros.mapping.rendering import render_view


def test_exposure_is_separated_from_the_scene() -> None:
    """Half of the views are darker: each learns its gain, and the map keeps the mean of the exposures."""
    frames = synthetic.make_frames(4, camera=synthetic.make_camera(40, 30))
    dark = [
        f if i % 2 == 0 else dataclasses.replace(f, image=(f.image * 0.7).astype(np.uint8))
        for i, f in enumerate(frames)
    ]
    errors = {}
    for exposure in (True, False):
        mapper = make_mapper(dark, train__densify_every=0, train__exposure=exposure)
        for _ in range(160):
            mapper.step()
        view = render_view(mapper.gaussians.activated(), frames[0].camera, frames[0].camtoworld, RASTERIZER)
        errors[exposure] = psnr_aligned(view.rgb, frames[0].image)
        rows = torch.stack([mapper.log.exposure.log_gain_and_offset(index).detach() for index in range(4)])
        gains = (rows[:, 0].exp() + rows[:, 1] / 0.5).mean(-1)  # at mid grey
        if exposure:
            assert 0.6 < float(gains[1] / gains[0]) < 0.8 and 0.6 < float(gains[3] / gains[2]) < 0.8
            assert abs(float(gains.log().mean())) < 0.05
        else:
            assert (gains == 1).all()
    assert errors[True] > errors[False] + 1


def test_exposures_are_relative_to_their_mean() -> None:
    """A brighter keyframe darkens the others, so the brightness of the map stays fixed."""
    exposure = Exposure("cpu")
    for _ in range(3):
        exposure.add_keyframe()
    for _ in range(20):
        (exposure.apply(torch.full((1, 1, 3), 0.5), 0) - 0.9).square().sum().backward()
        exposure.step(0, decay=1.0)
    rows = torch.stack([exposure.log_gain_and_offset(index).detach() for index in range(3)])
    assert (rows[0] > 0.05).all() and (rows[1:] < -0.02).all()
    assert rows.mean(0).abs().max() < 1e-6
