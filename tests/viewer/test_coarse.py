"""The coarse map of the first picture stands for the whole one."""

from __future__ import annotations

import numpy as np

from ovs3d_ros.viewer import coarse
from ovs3d_ros.viewer.drawing import Drawn


def wall(count: int, seed: int = 0) -> Drawn:
    """A wall of 4 m x 2.5 m at y = 1, red on its left half and blue on the other, of discs of 1 cm."""
    rng = np.random.default_rng(seed)
    centers = np.stack([rng.uniform(0, 4, count), np.ones(count), rng.uniform(0, 2.5, count)], axis=1)
    colors = np.where(centers[:, :1] < 2, (200, 0, 0), (0, 0, 200))
    covariances = np.tile(np.diag([1e-4, 1e-6, 1e-4]), (count, 1, 1))
    return Drawn(
        centers.astype(np.float32),
        covariances.astype(np.float32),
        colors.astype(np.uint8),
        np.full((count, 1), 0.9, np.float32),
    )


def test_wall_stays_flat_closed_and_in_its_colours():
    merged = coarse.merge(wall(50_000))
    assert 0.5 * coarse.MOST < len(merged.centers) < 1.2 * coarse.MOST
    deviations = np.sqrt(np.diagonal(merged.covariances, axis1=1, axis2=2))
    assert deviations[:, 1].max() < 0.002, "as thin as it was"
    rng = np.random.default_rng(1)
    points = np.stack([rng.uniform(0.1, 3.9, 500), rng.uniform(0.1, 2.4, 500)], axis=1)
    off = (points[:, None] - merged.centers[:, [0, 2]]) / deviations[:, [0, 2]]
    covered = 1 - np.prod(1 - merged.opacities[:, 0] * np.exp(-0.5 * (off**2).sum(-1)), axis=1)
    assert covered.min() > 0.6 and np.median(covered) > 0.8, "no holes"
    left = merged.centers[:, 0] < 1.8
    np.testing.assert_array_equal(np.unique(merged.colors[left], axis=0), [[200, 0, 0]])


def test_faint_and_small_gaussians_count_less():
    drawn = wall(4000)
    drawn.colors[::2], drawn.opacities[::2] = (0, 255, 0), 0.02
    colors = coarse.merge(drawn).colors
    assert np.median(colors[:, 1]) < 40


def test_single_place_is_one_gaussian():
    drawn = wall(4000)
    drawn.centers[:] = (1.0, 2.0, 3.0)
    merged = coarse.merge(drawn)
    assert merged.centers.shape == (1, 3)
    np.testing.assert_allclose(merged.covariances[0], drawn.covariances[0], rtol=1e-4)
