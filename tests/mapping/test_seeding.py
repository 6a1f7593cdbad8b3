"""Seeds lie on the true surface, where the map lacks Gaussians, and nowhere else."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from helpers import synthetic

from ovs3d_ros.config import SeedConfig
from ovs3d_ros.mapping import keyframes
from ovs3d_ros.mapping.seeding import (
    ImageMatcher,
    match_features,
    seed_from_depth,
    seed_from_points,
    seed_random,
    triangulate,
)
from ovs3d_ros.types import Keyframe

CONFIG = SeedConfig(spacing=2.0)


def make_keyframe(pose: np.ndarray, index: int = 0, camera=None, picture=synthetic.ray_cast) -> Keyframe:
    camera = camera or synthetic.make_camera()
    rgb, depth = picture(camera, pose)[:2]
    return Keyframe(
        index, float(index), f"k{index}", torch.from_numpy(rgb), camera, pose, torch.from_numpy(depth)
    )


def nearest_surface(points: np.ndarray) -> np.ndarray:
    """Distance [M] in metres to the closest face of any box of the scene."""
    distances = []
    for box in synthetic.SCENE:
        local = np.abs((points - box.center) @ box.rotation) - np.array(box.size) / 2
        outside = np.linalg.norm(np.maximum(local, 0), axis=1)
        distances.append(np.where(local.max(1) > 0, outside, -local.max(1)))
    return np.min(distances, axis=0)


def empty_view(frame: Keyframe) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.zeros_like(frame.depth), torch.zeros_like(frame.depth)


def test_edges_that_are_off_by_pixels_are_no_news_to_a_map_that_shows_them() -> None:
    frame = make_keyframe(synthetic.orbit(3)[0])
    full, shown = torch.ones_like(frame.depth), frame.depth.roll(2, dims=1)
    shown[:, :2] = frame.depth[:, :2]
    assert len(seed_from_depth(frame, full, shown, CONFIG)[0]) > 20
    assert len(seed_from_depth(frame, full, shown, CONFIG, slack=2)[0]) == 0
    new = frame.depth.clone()
    new[10:30, 10:30] *= 0.5
    means = seed_from_depth(dataclasses.replace(frame, depth=new), full, shown, CONFIG, slack=2)[0]
    assert 64 <= len(means) <= 100
    holes = full.clone()
    holes[:, 20:40] = 0
    assert len(seed_from_depth(frame, holes, shown, CONFIG, slack=2)[0]) == 10 * 24


def test_empty_map_is_seeded_on_the_coloured_surface() -> None:
    frame = make_keyframe(synthetic.orbit(3)[0])
    means, colors, scales = seed_from_depth(frame, *empty_view(frame), CONFIG)
    assert len(means) == 32 * 24
    assert nearest_surface(means.double().numpy()).max() < 1e-4
    local = (means.double().numpy() - frame.camtoworld[:3, 3]) @ frame.camtoworld[:3, :3]
    u = (local[:, 0] / local[:, 2] * frame.camera.K[0, 0] + frame.camera.K[0, 2]).astype(int)
    v = (local[:, 1] / local[:, 2] * frame.camera.K[1, 1] + frame.camera.K[1, 2]).astype(int)
    torch.testing.assert_close(colors, frame.rgb[v, u])
    footprint = scales.numpy() * frame.camera.K[0, 0] / local[:, 2]
    np.testing.assert_allclose(footprint, 0.65 * CONFIG.spacing, rtol=1e-4)  # pixels


def test_only_unexplained_pixels_are_seeded() -> None:
    frame = make_keyframe(synthetic.orbit(3)[1])
    alpha, depth = torch.ones_like(frame.depth), frame.depth.clone()
    assert len(seed_from_depth(frame, alpha, depth, CONFIG)[0]) == 0
    alpha[:, :32] = 0.3  # a hole in the left half
    holes = seed_from_depth(frame, alpha, depth, CONFIG)[0]
    assert len(holes) == 16 * 24
    alpha[:], depth[:24] = 1.0, 1.2 * depth[:24]  # a new object stands in front of the upper half
    assert len(seed_from_depth(frame, alpha, depth, CONFIG)[0]) == 32 * 12
    # Depth behind the map's surface is occluded, not missing.
    assert len(seed_from_depth(frame, alpha, 0.5 * frame.depth, CONFIG)[0]) == 0


def test_depth_noise_within_the_margin_seeds_nothing() -> None:
    frame = make_keyframe(synthetic.orbit(3)[1])
    noise = 1 + 0.03 * torch.rand(frame.depth.shape, generator=torch.Generator().manual_seed(0))
    alpha = torch.ones_like(frame.depth)
    assert len(seed_from_depth(frame, alpha, frame.depth * noise, CONFIG)[0]) == 0
    strict = dataclasses.replace(CONFIG, depth_margin=0.001)
    assert len(seed_from_depth(frame, alpha, frame.depth * noise, strict)[0]) > 500


def test_missing_and_far_depth_is_not_seeded() -> None:
    frame = make_keyframe(synthetic.orbit(3)[1])
    frame.depth[:24] = 0
    assert len(seed_from_depth(frame, *empty_view(frame), CONFIG)[0]) == 32 * 12
    taken = synthetic.make_frame(frame.camtoworld)
    kept = keyframes.make_keyframe(taken, 0, 0, 2.0, "cpu").depth.numpy()
    assert 0 < (kept == 0).mean() < 1 and kept.max() < 2.0
    assert np.array_equal(kept[kept > 0], taken.depth[taken.depth < 2.0])


def test_neighbour_distances_are_exact() -> None:
    points = np.random.default_rng(0).random((3000, 3))
    squared = np.square(points[:300, None] - points).sum(-1)
    expected = np.sqrt(np.sort(squared, axis=1)[:, 1:4].mean(1))
    scales = seed_from_points(points, np.zeros((3000, 3), np.uint8))[2].numpy()
    assert np.allclose(scales[:300], expected, rtol=1e-3)


def test_seed_scale_of_points_is_their_spacing() -> None:
    grid = np.stack(np.meshgrid(*[np.arange(6) * 0.2] * 3), -1).reshape(-1, 3)
    rgb = np.random.default_rng(0).integers(0, 256, (len(grid), 3), dtype=np.uint8)
    means, colors, scales = seed_from_points(grid, rgb)
    np.testing.assert_allclose(means, grid, atol=1e-6)
    np.testing.assert_allclose(colors * 255, rgb, atol=1e-3)
    np.testing.assert_allclose(scales, 0.2, atol=1e-4)


def test_seed_of_a_point_never_fills_a_view() -> None:
    points = np.array([[0, 0, 1], [2, 0, 1], [0, 3, 2], [1, 1, 1], [40, 0, 10.0]])
    centers = np.array([[0, 0, 0], [2.0, 0, 0]])
    black = np.zeros((5, 3), np.uint8)
    nearest = np.linalg.norm(points[:, None] - centers, axis=-1).min(1)
    scales = seed_from_points(points, black, centers)[2].numpy()
    np.testing.assert_allclose(scales, 0.05 * nearest, rtol=1e-5)
    dense = np.concatenate([points[:1] + 0.001 * offset for offset in np.eye(3)])
    scales = seed_from_points(np.concatenate([points[:1], dense]), black[:4], centers)[2].numpy()
    assert (scales < 0.002).all()  # close neighbours still decide


def test_outliers_are_no_larger_than_a_few_medians_without_cameras() -> None:
    grid = np.stack(np.meshgrid(*[np.arange(4) * 0.2] * 3), -1).reshape(-1, 3)
    points = np.concatenate([grid, [[40.0, 0, 0], [0, -30.0, 0]]])
    scales = seed_from_points(points, np.zeros((len(points), 3), np.uint8))[2].numpy()
    np.testing.assert_allclose(scales[-2:], 0.8, rtol=1e-3)


def test_few_and_repeated_points_give_valid_seeds() -> None:
    for points in (np.zeros((0, 3)), np.ones((1, 3)), np.ones((50, 3))):
        means, _, scales = seed_from_points(points, np.zeros((len(points), 3), np.uint8))
        assert len(means) == len(points) and (scales > 0).all() and torch.isfinite(scales).all()


@pytest.fixture(scope="module")
def plane_views() -> list[Keyframe]:
    camera = synthetic.make_camera(160, 120)
    eyes = [(-0.3, -0.2, 1.5), (0.0, -0.25, 1.5), (0.3, -0.2, 1.4)]
    return [
        make_keyframe(synthetic.look_at(eye, (0, 0.1, 0)), i, camera, synthetic.textured_plane)
        for i, eye in enumerate(eyes)
    ]


def test_image_matches_find_the_plane(plane_views) -> None:
    matcher = ImageMatcher()
    transparent = torch.zeros(120, 160)
    assert matcher.seed(plane_views[0], transparent, CONFIG) is None  # nothing to match yet
    for frame in plane_views[1:]:
        means, colors, scales = matcher.seed(frame, transparent, CONFIG)
        assert len(means) == 80 * 60
        height = means[:, 2].abs().numpy()  # the plane is z = 0
        assert np.median(height) < 0.05 and np.percentile(height, 90) < 0.2  # metres, from 1.5 m away
        assert (scales > 0).all() and colors.min() >= 0 and colors.max() <= 1


def match_and_triangulate(view, pixels, descriptors, other, other_pixels, other_descriptors):
    a, b = match_features(pixels, descriptors, other_pixels, other_descriptors)
    return triangulate(view, a, other, b)


def test_triangulated_points_have_no_bias(plane_views) -> None:
    """A quarter of a pixel of bias in the keypoints would move the plane by a centimetre."""
    matcher = ImageMatcher()
    camera = plane_views[0].camera
    tilted = [
        make_keyframe(synthetic.look_at((x, -0.6, 1.5), (0, 0.1, 0)), i, camera, synthetic.textured_plane)
        for i, x in enumerate((-0.3, 0.0, 0.3))
    ]
    for frame in tilted:
        matcher.seed(frame, torch.zeros(120, 160), CONFIG)
    points = np.concatenate(
        [
            match_and_triangulate(*matcher._history[a], *matcher._history[b])
            for a, b in ((1, 0), (2, 1), (2, 0))
        ]
    )
    assert len(points) > 40
    assert abs(np.median(points[:, 2])) < 0.004 and np.median(np.abs(points[:, 2])) < 0.008  # metres


def test_matches_seed_only_transparent_pixels(plane_views) -> None:
    matcher = ImageMatcher()
    alpha = torch.ones(120, 160)
    alpha[:, 80:] = 0.0
    matcher.seed(plane_views[0], alpha, CONFIG)
    means = matcher.seed(plane_views[1], alpha, CONFIG)[0].double().numpy()
    local = (means - plane_views[1].camtoworld[:3, 3]) @ plane_views[1].camtoworld[:3, :3]
    u = local[:, 0] / local[:, 2] * plane_views[1].camera.K[0, 0] + plane_views[1].camera.K[0, 2]
    assert len(means) == 40 * 60 and u.min() >= 80


def test_matches_without_parallax_give_no_seeds(plane_views) -> None:
    matcher = ImageMatcher()
    still = plane_views[0]
    turned = make_keyframe(
        still.camtoworld @ np.block([[np.eye(3), np.zeros((3, 1))], [np.zeros((1, 3)), 1]]),
        1,
        still.camera,
        synthetic.textured_plane,
    )
    matcher.seed(still, torch.zeros(120, 160), CONFIG)
    assert matcher.seed(turned, torch.zeros(120, 160), CONFIG) is None


def test_matches_that_contradict_poses_are_dropped(plane_views) -> None:
    """Matches that contradict the poses are dropped rather than triangulated."""
    matcher = ImageMatcher()
    matcher.seed(plane_views[0], torch.zeros(120, 160), CONFIG)
    wrong = dataclasses.replace(plane_views[1], camtoworld=synthetic.look_at((0, 3, 1.5), (0, 0, 0.5)))
    seeds = matcher.seed(wrong, torch.zeros(120, 160), CONFIG)
    assert seeds is None or len(seeds[0]) < 80 * 60


def test_blank_images_match_nothing() -> None:
    matcher, pose = ImageMatcher(), synthetic.orbit(3)
    for i in range(2):
        frame = make_keyframe(pose[i], i)
        frame.image = torch.full_like(frame.image, 128)
        assert matcher.seed(frame, torch.zeros(48, 64), CONFIG) is None


def test_random_seeds_surround_the_depth_guess() -> None:
    frame = make_keyframe(synthetic.orbit(3)[0])
    means, _, _ = seed_random(frame, 2.0, CONFIG, np.random.default_rng(0))
    z = ((means.double().numpy() - frame.camtoworld[:3, 3]) @ frame.camtoworld[:3, :3])[:, 2]
    assert len(z) == 32 * 24 and z.min() >= 2 / 3 - 1e-4 and z.max() <= 6 + 1e-4
    assert np.median(z) == pytest.approx(2.0, rel=0.1)
    again = seed_random(frame, 2.0, CONFIG, np.random.default_rng(0))[0]
    assert torch.equal(means, again)
