"""Densification and pruning: where Gaussians appear, which ones go, and the cap."""

from __future__ import annotations

import numpy as np
import torch
from helpers import synthetic
from helpers.mapping import RASTERIZER, make_keyframe, make_mapper

from ovs3d_ros.mapping.densification import record_gradients
from ovs3d_ros.mapping.rendering import render_view


def test_densification_adds_gaussians_and_statistics_rows() -> None:
    mapper = make_mapper(
        synthetic.make_frames(3), seed__spacing=4.0, train__densify_every=40, train__densify_gradient=1e-4
    )
    before = len(mapper.gaussians)
    for _ in range(40):
        last = mapper.step()
    g = mapper.gaussians
    assert len(g) > 1.2 * before and last.num_gaussians == len(g)
    assert all(len(t) == len(g) for t in g.stats.values())
    assert (g.stats["gradient"] == 0).all()
    mapper.step()


def test_densification_ends_towards_the_horizon() -> None:
    mapper = make_mapper(
        synthetic.make_frames(2),
        train__densify_every=5,
        train__densify_gradient=0.0,
        train__prune_opacity=0.0,
    )
    mapper.steps = 79
    count = len(mapper.gaussians)
    mapper.step(horizon=100)
    assert len(mapper.gaussians) <= count


def test_gradients_are_summed_over_views_that_see_a_gaussian() -> None:
    mapper = make_mapper(synthetic.make_frames(1))
    visible = torch.arange(len(mapper.gaussians)) < 2
    absgrad = torch.zeros(len(visible), 2)
    absgrad[0] = torch.tensor([3.0, 4.0])
    for side in (100, 200):
        record_gradients(mapper.gaussians, absgrad, visible, side)
    stats = mapper.gaussians.stats
    assert stats["gradient"][:3].tolist() == [5 * 50 + 5 * 100, 0, 0]
    assert torch.equal(stats["gradient_count"], 2.0 * visible)


def test_transparent_gaussians_and_fog_are_pruned() -> None:
    mapper = make_mapper(synthetic.make_frames(1), train__densify_every=1, train__densify_gradient=1e9)
    with torch.no_grad():
        mapper.gaussians.params["opacity_logits"][:50] = -9.0
        mapper.gaussians.params["log_scales"][50:60] = np.log(mapper.gaussians.extent)
    count = len(mapper.gaussians)
    mapper.step()
    assert len(mapper.gaussians) == count - 60


def test_gaussians_of_a_loaded_map_are_not_fog() -> None:
    mapper = make_mapper(synthetic.make_frames(1), train__densify_every=1, train__densify_gradient=1e9)
    params = {name: p.detach().clone() for name, p in mapper.gaussians.params.items()}
    params["log_scales"][:10] = np.log(3 * mapper.gaussians.extent)
    mapper.load_params(params)
    mapper.step()
    assert len(mapper.gaussians) == len(params["means"])


def test_cap_holds_through_seeding_and_densification() -> None:
    frames = synthetic.make_frames(5)
    mapper = make_mapper(
        frames[:1], map__max_gaussians=600, train__densify_every=3, train__densify_gradient=0.0
    )
    assert len(mapper.gaussians) == 600
    for index, frame in enumerate(frames[1:], start=1):
        mapper.insert(make_keyframe(frame, index))
        assert len(mapper.gaussians) <= 600
        for _ in range(4):
            mapper.step()
            assert len(mapper.gaussians) <= 600
    assert len(mapper.gaussians) > 500


def test_least_contributing_gaussians_go_at_the_cap() -> None:
    mapper = make_mapper(synthetic.make_frames(1), map__max_gaussians=600)
    g = mapper.gaussians
    with torch.no_grad():
        g.params["opacity_logits"][:30] = -8.0
        g.params["log_scales"][30:60] = -12.0
    g.stats["tag"] = torch.arange(600.0)
    mapper._insert_seeds((torch.randn(60, 3), torch.rand(60, 3), torch.full((60,), 0.01)), 0.5)
    assert len(g) == 600
    assert sorted(g.stats["tag"].tolist()) == [0.0] * 60 + list(range(60, 600))


def test_lowered_cap_is_reached() -> None:
    mapper = make_mapper(synthetic.make_frames(1))
    assert len(mapper.gaussians) > 1000
    mapper.config = synthetic.make_config(map__max_gaussians=300)
    mapper._insert_seeds((torch.randn(50, 3), torch.rand(50, 3), torch.full((50,), 0.01)), 0.5)
    assert len(mapper.gaussians) <= 300


def test_hall_survives_when_the_robot_turns_to_a_wall() -> None:
    hall = (
        synthetic.Box((0, 0, 2), (20, 20, 8), (125, 125, 125)),
        synthetic.Box((0, -0.55, 0.9), (3, 0.1, 3), (200, 40, 40)),
    )
    far, near = (
        synthetic.make_frame(synthetic.look_at([0, 0, 0.9], [0, y, 0.9]), float(y < 0), scene=hall)
        for y in (9, -9)
    )
    mapper = make_mapper([far], train__densify_every=10)
    extent = mapper.gaussians.extent
    for _ in range(3):
        mapper.insert(make_keyframe(near, len(mapper.keyframes)))
    assert mapper.gaussians.extent < 0.2 * extent, "most keyframes now show the near wall"
    for _ in range(20):
        mapper.step()
    view = render_view(mapper.gaussians.activated(), far.camera, far.camtoworld, RASTERIZER)
    assert view.alpha.mean() > 0.9
    loaded = make_mapper([])
    loaded.load_params({name: value.detach() for name, value in mapper.gaussians.params.items()})
    loaded.insert(make_keyframe(near))
    for _ in range(20):
        loaded.step()
    assert (
        render_view(loaded.gaussians.activated(), far.camera, far.camtoworld, RASTERIZER).alpha.mean() > 0.9
    )
