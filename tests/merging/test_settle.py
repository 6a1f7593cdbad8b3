"""Renders of both maps heal the seams of a merged one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from helpers import synthetic

from ovs3d_ros.map_file import load_map
from ovs3d_ros.mapping.gaussians import activate
from ovs3d_ros.mapping.rendering import render_view
from ovs3d_ros.merging.merge import StoredMap, merge_maps
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


def test_kept_images_take_the_place_of_renders(tmp_path):
    frames = synthetic.make_frames(4)
    brighter = [
        replace(f, image=np.clip(f.image * (1.2 if i % 2 else 1 / 1.2), 0, 255).astype(np.uint8))
        for i, f in enumerate(frames)
    ]
    settings = dict(map__keep_keyframes=True, train__exposure=True)
    synthetic.build_map(brighter, steps=150, **settings).save(tmp_path / "kept.ovs3d")
    stored = StoredMap(*load_map(tmp_path / "kept.ovs3d", training=True), "kept")
    bare = replace(stored, snapshot=replace(stored.snapshot, training=None))
    for kept, rendered, raw in zip(
        render_keyframes(stored, RASTERIZER), render_keyframes(bare, RASTERIZER), brighter, strict=True
    ):
        assert not torch.equal(kept.image, rendered.image)
        own = (kept.image - rendered.image)[kept.mask].abs().mean()
        assert own < 0.5 * (torch.from_numpy(raw.image) / 255 - rendered.image)[kept.mask].abs().mean()
    mask = torch.zeros(48, 64, dtype=torch.bool)
    mask[:, :32] = True
    stored.snapshot.training.keyframes[0].mask = mask
    assert not render_keyframes(stored, RASTERIZER)[0].mask[:, 32:].any()
