"""Share of the horizon that a map shows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import synthetic

from ovs3d_ros.query.coverage import horizon_coverage
from ovs3d_ros.semantics.packing import pack_codes
from ovs3d_ros.types import MapSnapshot

TURN = synthetic.look_at([0, 0, 0], [0.3, -0.8, 0.9])[:3, :3]  # a world whose up is no axis


def snapshot_of(
    points: np.ndarray, cameras: np.ndarray, opacity: float = 0.9, weight: float = 5.0
) -> MapSnapshot:
    """A map of points [N, 3] seen by upright cameras at [F, 3], all rotated by TURN."""
    count = len(points)
    poses = np.stack([synthetic.look_at(position, position + [1.0, 0.2, 0.0]) for position in cameras])
    poses[:, :3] = TURN @ poses[:, :3]
    gaussians = dict(means=torch.from_numpy(points @ TURN.T).float(), opacities=torch.full((count,), opacity))
    nothing = torch.zeros(count, 1)
    return MapSnapshot(
        version=1,
        gaussians=gaussians,
        packed_codes=pack_codes(nothing),
        packed_levels=pack_codes(nothing[:, None]),
        weight=torch.full((count,), weight),
        views=nothing[:, 0],
        selection=nothing,
        codec=None,
        camtoworlds=poses,
        stamps=np.zeros(len(poses)),
        cameras=[],
        names=[],
    )


def wall(degrees: float, count: int = 4000) -> np.ndarray:
    """Points [N, 3] of a round wall (radius 3 m) over the first `degrees` of the horizon, full height."""
    rng = np.random.default_rng(0)
    angle = np.radians(rng.uniform(0, degrees, count))
    return np.stack([3 * np.cos(angle), 3 * np.sin(angle), rng.uniform(-1, 1, count)], axis=1)


CAMERAS = np.array([[-0.2, 0.0, 0.0], [0.0, 0.1, 0.0], [0.2, -0.1, 0.0]])


@pytest.mark.parametrize("degrees", [30.0, 90.0, 200.0, 360.0])
def test_coverage_is_the_share_of_the_wall(degrees: float) -> None:
    assert horizon_coverage(snapshot_of(wall(degrees), CAMERAS)) == pytest.approx(degrees / 360, abs=0.06)


def test_coverage_ignores_floors_and_unseen_gaussians() -> None:
    floor = wall(360.0) * [0.3, 0.3, 0.0] - [0, 0, 1.0]  # right below the cameras
    assert horizon_coverage(snapshot_of(floor, CAMERAS)) < 0.1
    assert horizon_coverage(snapshot_of(wall(360.0), CAMERAS, weight=0.0)) == 0
    assert horizon_coverage(snapshot_of(wall(360.0), CAMERAS, opacity=0.05)) == 0
    assert horizon_coverage(snapshot_of(np.zeros((0, 3)), CAMERAS)) == 0


def test_coverage_ignores_a_few_floaters() -> None:
    floaters = wall(360.0, count=40)
    assert horizon_coverage(snapshot_of(np.concatenate([wall(90.0), floaters]), CAMERAS)) < 0.45


def test_coverage_samples_a_large_map() -> None:
    assert horizon_coverage(snapshot_of(wall(180.0, count=400_000), CAMERAS)) == pytest.approx(0.5, abs=0.06)
