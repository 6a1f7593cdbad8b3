"""Doubled surfaces are found, and the map that saw them better keeps them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from ovs3d_ros.merging.surfaces import Surface, choose_kept, is_covered, make_surface, nearest_kept

SPACING = 0.03


def plane(seed: int, height: float = 0.0, gray: float = 0.5, weight: float = 10.0, shift=0.0) -> Surface:
    """A square of 1.2 m with noise across, seen with equal weight."""
    rng = np.random.default_rng(seed)
    points = np.stack([rng.uniform(0, 1.2, 1600) + shift, rng.uniform(0, 1.2, 1600), np.zeros(1600)], axis=1)
    points[:, 2] = height + rng.normal(0, 0.003, 1600)
    params = dict(
        means=torch.from_numpy(points).float(),
        sh_dc=torch.full((1600, 3), (gray - 0.5) / 0.28209479),
        opacity_logits=torch.full((1600,), 2.0),
    )
    return make_surface(params, torch.full((1600,), weight))


def test_surface_of_both_maps_stays_with_the_one_that_saw_it_better():
    for weights, expected in (((10.0, 20.0), (0, 1)), ((20.0, 10.0), (1, 0))):
        first, second = choose_kept(plane(0, weight=weights[0]), plane(1, weight=weights[1]))
        assert abs(first.mean() - expected[0]) < 0.1 and abs(second.mean() - expected[1]) < 0.1


def test_every_place_stays_covered():
    """The better map changes along a surface; there neither map may leave a hole."""
    surfaces = [plane(0), plane(1)]
    for surface, sign in zip(surfaces, (1, -1), strict=True):
        surface.weight[:] = 10 * np.exp(sign * 4 * (surface.points[:, 0] - 0.6))
    kept = choose_kept(*surfaces)
    left = np.concatenate([s.points[k] for s, k in zip(surfaces, kept, strict=True)])
    assert 1400 < len(left) < 2400, "neither all nor a half of one map"
    assert abs(kept[0][surfaces[0].points[:, 0] < 0.4].mean()) < 0.1, "the second saw the left better"
    everywhere = np.stack(np.meshgrid(*[np.linspace(0.1, 1.1, 60)] * 2, [0.0]), axis=-1).reshape(-1, 3)
    alone = cKDTree(surfaces[0].points).query(everywhere)[0].max()
    assert cKDTree(left).query(everywhere)[0].max() < 1.5 * alone


@pytest.mark.parametrize(
    "other", [dict(height=0.3), dict(gray=0.95), dict(shift=3.0)], ids=["behind", "colour", "beside"]
)
def test_other_surfaces_are_not_fused(other):
    first, second = plane(0), plane(1, **other)
    assert not is_covered(second, first).any() and np.concatenate(choose_kept(first, second)).all()


def test_transparent_gaussians_cover_nothing():
    fog = plane(0)
    fog.opacities[:] = 0.05
    assert not is_covered(plane(1), fog).any() and is_covered(fog, plane(1)).all()


def test_empty_map_covers_nothing():
    empty = plane(0).rows(np.zeros(1600, bool))
    assert all(kept.all() for kept in choose_kept(plane(1), empty))
    assert all(kept.all() for kept in choose_kept(empty, plane(1)))


def test_heirs_are_the_nearest_that_stay():
    points = np.array([[0.0, 0, 0], [1, 0, 0], [0.9, 0, 0], [5, 0, 0]])
    assert nearest_kept(points, np.array([True, True, False, False])).tolist() == [1, 1]
