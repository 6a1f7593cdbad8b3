"""Renders of both maps heal the seams of a merged one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from helpers import synthetic

from ovs3d_ros.mapping.gaussians import activate
from ovs3d_ros.mapping.rendering import render_view
from ovs3d_ros.merging.merge import merge_maps
from ovs3d_ros.merging.settle import render_keyframes, settle_map
from ovs3d_ros.rasterize import make_rasterizer

RASTERIZER = make_rasterizer("cpu", 1)


def test_renders_are_what_the_map_shows_where_it_is_opaque(halves):
    first = halves[0]
    views = render_keyframes(first, RASTERIZER)
    assert len(views) == len(first.snapshot.names)
    view = views[2]
    shown = render_view(activate(first.params), view.camera, view.camtoworld, RASTERIZER)
    torch.testing.assert_close(view.image, shown.rgb)
    assert not view.depth[~view.mask].any() and view.mask.float().mean() > 0.5
    assert not render_keyframes(
        replace(first, params={k: p[:0] for k, p in first.params.items()}), RASTERIZER
    )


def test_settling_brings_back_what_was_spoiled(halves):
    first, second = halves
    merged = merge_maps(first, second)
    frames = synthetic.make_frames(16)[1::2]

    def error(params) -> float:
        views = [
            render_view(activate(params), f.camera, f.camtoworld, RASTERIZER).rgb.numpy() for f in frames
        ]
        return float(np.mean([(rgb - f.image / 255) ** 2 for rgb, f in zip(views, frames, strict=True)]))

    settled = settle_map(merged, halves, RASTERIZER, 160)
    assert error(settled.params) < 0.75 * error(merged.params)
    same = settle_map(merged, halves, RASTERIZER, 0)
    assert torch.equal(same.params["means"], merged.params["means"])
    assert len(settled.params["means"]) == len(settled.snapshot.weight) == merged.figures["gaussians"]
