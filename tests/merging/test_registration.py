"""A map finds its place in another one by what both show, or says that it is not sure."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers import synthetic
from helpers.stored_maps import in_unit, move, random_motion, store

from ovs3d_ros.merging.clouds import Cloud
from ovs3d_ros.merging.merge import StoredMap
from ovs3d_ros.merging.motions import fit_motions, refine_motion
from ovs3d_ros.merging.registration import register
from ovs3d_ros.rasterize import make_rasterizer
from ovs3d_ros.semantics.lift import no_codes
from ovs3d_ros.types import UserError

RASTERIZER = make_rasterizer("cpu", 1)
Box = synthetic.Box
# Another room of the same kind: other places, other sizes.
OTHER = (
    Box((0.3, 0.5, 1.0), (4.0, 6.0, 2.0), (125, 125, 125)),
    Box((0.5, -0.3, 0.15), (0.3, 0.7, 0.3), (215, 40, 35), 1),
    Box((-0.2, 0.6, 0.4), (0.3, 0.3, 0.8), (45, 190, 50), 2),
    Box((-0.7, -0.1, 0.15), (0.5, 0.3, 0.3), (40, 60, 205), 3),
)


def errors(found: np.ndarray, expected: np.ndarray, points: np.ndarray) -> tuple[float, float]:
    """Degrees, and metres at the centre of the points [N, 3]."""
    turn = found[:3, :3].T @ expected[:3, :3]
    center = np.append(points.mean(0), 1.0)
    angle = np.degrees(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1)))
    return float(angle), float(np.linalg.norm((found @ center - expected @ center)[:3]))


@pytest.mark.parametrize("seed", range(9))
def test_half_of_a_room_finds_its_place(halves, seed):
    motion = random_motion(seed)
    moved = move(halves[1], motion)
    try:
        found = register(halves[0], moved, RASTERIZER)
    except UserError as error:
        pytest.fail(f"refused: {error}")
    angle, distance = errors(found.motion, motion, moved.params["means"].numpy())
    assert angle < 2 and distance < 0.06
    assert 0.5 <= found.confidence <= 1


def test_other_room_is_refused(halves, tmp_path):
    other = store(synthetic.make_frames(8, scene=OTHER), tmp_path / "other.ovs3d")
    for first, second in ((halves[0], other), (other, halves[1])):
        with pytest.raises(UserError, match="not sure where one lies in the other"):
            register(first, second, RASTERIZER)


def test_units_and_origins_are_respected(halves):
    motion, origin = random_motion(20), np.array([4.5e5, 5.3e6, 100.0])
    far = in_unit(halves[0], 1.0, origin)
    other = in_unit(move(halves[1], motion), 0.01, np.array([-300.0, 200.0, 0.0]))
    found = register(far, other, RASTERIZER).motion
    # A point of the second map, in its world in metres, and where it belongs in the world of the first.
    point = np.append(halves[1].params["means"].numpy().mean(0), 1.0)
    there = (np.linalg.inv(motion) @ point)[:3] + [-3.0, 2.0, 0.0]
    assert np.linalg.norm(found[:3, :3] @ there + found[:3, 3] - (point[:3] + origin)) < 0.06


def test_map_without_features_is_refused(halves):
    plain = [
        replace(
            half, snapshot=replace(half.snapshot, codec=None, **no_codes(len(half.snapshot.weight), "cpu"))
        )
        for half in halves
    ]
    with pytest.raises(UserError, match="features of an encoder"):
        register(*plain, RASTERIZER)


def plane_cloud(axes: list[int], seed: int) -> Cloud:
    """Noisy squares of 2 m at the origin, one across each axis, all of one colour."""
    rng, points, normals = np.random.default_rng(seed), [], []
    for axis in axes:
        square = rng.uniform(0, 2, (500, 3))
        square[:, axis] = rng.normal(0, 0.003, 500)
        points.append(square)
        normals.append(np.tile(np.eye(3)[axis], (500, 1)))
    count = 500 * len(axes)
    return Cloud(np.concatenate(points), np.concatenate(normals), np.zeros((count, 3)), np.ones((count, 1)))


def test_corner_holds_a_map_and_a_wall_does_not():
    push = np.eye(4)
    push[:3, 3] = 0.05, -0.04, 0.06
    firmness = {}
    for axes in ([2], [1, 2], [0, 1, 2]):
        motion, firmness[len(axes)] = refine_motion(plane_cloud(axes, 0), plane_cloud(axes, 1), push)
        np.testing.assert_allclose(motion[axes, 3], 0, atol=2e-3)
    assert firmness[1] < 1e-3 and firmness[2] < 1e-3 and firmness[3] > 0.03


def cropped(stored: StoredMap, height: float) -> StoredMap:
    """The Gaussians of a map below a height."""
    keep, s = stored.params["means"][:, 2] < height, stored.snapshot
    rows = {name: getattr(s, name)[keep] for name in ("packed_codes", "packed_levels", "weight", "views")}
    params = {name: p[keep] for name, p in stored.params.items()}
    return replace(stored, params=params, snapshot=replace(s, selection=s.selection[keep], **rows))


def test_bare_floor_is_refused(halves):
    with pytest.raises(UserError, match="not sure where one lies in the other"):
        register(*(cropped(half, 0.04) for half in halves), RASTERIZER)


def test_motions_are_fitted_exactly():
    points = np.random.default_rng(0).normal(size=(5, 3, 3))
    motions = np.stack([random_motion(seed) for seed in range(5)])
    target = np.einsum("nij,nkj->nki", motions[:, :3, :3], points) + motions[:, None, :3, 3]
    np.testing.assert_allclose(fit_motions(points, target), motions, atol=1e-9)
