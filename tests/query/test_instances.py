"""Labelled Gaussians are grouped into objects with oriented boxes."""

from __future__ import annotations

from collections import deque

import cv2
import numpy as np
import pytest
import torch
from helpers import synthetic

from ovs3d_ros.config import QueryConfig
from ovs3d_ros.geometry import matrix_to_quat, quat_to_matrix
from ovs3d_ros.query import instances as instances_module
from ovs3d_ros.query.boxes import oriented_boxes, vertical_axis
from ovs3d_ros.query.components import Components, connected_components, join_fragments
from ovs3d_ros.query.instances import find_objects
from ovs3d_ros.query.voxels import sort_into_voxels
from ovs3d_ros.rasterize.thread_pool import shared_pool


def joined(points: np.ndarray, gap: float) -> np.ndarray:
    """Component numbers of points."""
    return components_of(points, gap).number


def components_of(points: np.ndarray, gap: float) -> Components:
    """Components of points of one label."""
    return connected_components(
        np.ones(len(points), np.int16), sort_into_voxels(points, gap).fine, shared_pool(2)
    )


def box_of(points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centre, quaternion and size of the box of one point set."""
    (center,), (axes,), (size,) = oriented_boxes(points, np.array([[0, len(points)]]))
    return center, matrix_to_quat(axes), size


def components_by_search(points: np.ndarray, gap: float) -> list[frozenset]:
    """Breadth-first search over voxels that touch, corners included."""
    cells: dict[tuple, list[int]] = {}
    for i, cell in enumerate(np.floor(points / gap).astype(int)):
        cells.setdefault(tuple(cell), []).append(i)
    steps = [(x, y, z) for x in (-1, 0, 1) for y in (-1, 0, 1) for z in (-1, 0, 1)]
    left, found = set(cells), []
    while left:
        queue, members = deque([left.pop()]), []
        while queue:
            cell = queue.popleft()
            members += cells[cell]
            for step in steps:
                near = tuple(np.add(cell, step))
                if near in left:
                    left.remove(near)
                    queue.append(near)
        found.append(frozenset(members))
    return found


@pytest.mark.parametrize("seed, gap", [(0, 0.1), (1, 0.2), (2, 0.35), (3, 5.0), (4, 0.01)])
def test_components_match_a_naive_search(seed: int, gap: float) -> None:
    points = np.random.default_rng(seed).uniform(-2, 2, (400, 3)) * [1, 1, 0.3]
    labels = joined(points, gap)
    got = {frozenset(np.flatnonzero(labels == label).tolist()) for label in np.unique(labels)}
    assert got == set(components_by_search(points, gap))
    assert set(np.unique(labels)) == set(range(len(got)))


def test_winding_chain_is_one_component() -> None:
    t = np.linspace(0, 40 * np.pi, 12000)
    spiral = np.stack([np.cos(t) * (1 + t / 10), np.sin(t) * (1 + t / 10), t * 0.02], 1)
    assert joined(spiral, 0.15).max() == 0
    cut = joined(np.delete(spiral, np.s_[6000:6100], axis=0), 0.15)
    assert (cut[:6000] == cut[0]).all() and (cut[6000:] == cut[-1]).all() and cut.max() == 1


def test_one_point_is_one_component() -> None:
    assert joined(np.array([[3.0, -2.0, 1.0]]), 0.1).tolist() == [0]


def surface(box: synthetic.Box, count: int, seed: int = 0) -> np.ndarray:
    """Points on the faces of a box, by area."""
    rng = np.random.default_rng(seed)
    size = np.array(box.size)
    areas = np.array([size[1] * size[2], size[0] * size[2], size[0] * size[1]])
    axis = rng.choice(3, count, p=areas / areas.sum())
    points = rng.uniform(-0.5, 0.5, (count, 3))
    points[np.arange(count), axis] = rng.choice([-0.5, 0.5], count)
    return (points * size) @ box.rotation.T + box.center


def test_box_fits_a_rotated_cuboid() -> None:
    box = synthetic.Box((1.0, -2.0, 0.5), (1.2, 0.6, 0.3), (0, 0, 0), yaw=0.7)
    center, quat, size = box_of(surface(box, 4000))
    np.testing.assert_allclose(center, box.center, atol=0.02)
    np.testing.assert_allclose(size, box.size, atol=0.04)  # longest axis first
    axes = quat_to_matrix(quat)
    assert np.linalg.det(axes) == pytest.approx(1)
    for k in range(3):
        assert abs(axes[:, k] @ box.rotation[:, k]) > np.cos(np.radians(2))


@pytest.mark.parametrize(
    "size, yaw", [((0.8, 0.8, 0.3), 0.6), ((0.4, 0.4, 1.0), 0.3), ((0.5, 0.45, 0.5), 0.8)]
)
def test_box_is_tight_around_square_sides(size, yaw: float) -> None:
    """The principal axes are arbitrary: a box along them would be up to 1.4 times too wide."""
    box = synthetic.Box((1.0, -2.0, 0.5), size, (0, 0, 0), yaw=yaw)
    center, _, found = box_of(surface(box, 2000))
    np.testing.assert_allclose(center, box.center, atol=0.03)
    np.testing.assert_allclose(sorted(found), sorted(size), rtol=0.12)


def test_box_ignores_stray_points() -> None:
    box = synthetic.Box((0.0, 0.0, 0.0), (1.2, 0.6, 0.3), (0, 0, 0))
    stray = np.random.default_rng(0).uniform(-2, 2, (20, 3))
    _, _, size = box_of(np.concatenate([surface(box, 4000), stray]))
    np.testing.assert_allclose(size, box.size, atol=0.06)


@pytest.mark.parametrize("points", [np.ones((1, 3)), np.ones((5, 3)), np.array([[0.0, 0, 0], [1, 0, 0]])])
def test_box_of_flat_and_tiny_objects(points: np.ndarray) -> None:
    center, quat, size = box_of(points)
    assert np.isfinite(center).all() and np.isfinite(size).all() and np.linalg.norm(quat) == pytest.approx(1)
    np.testing.assert_allclose(center, points.mean(0), atol=1e-9)


def two_mugs_and_a_sofa():
    mugs = [
        surface(synthetic.Box((x, 0.0, 0.5), (0.1, 0.1, 0.12), (0, 0, 0)), count, seed=count)
        for x, count in ((0.0, 120), (1.0, 60))
    ]
    sofa = surface(synthetic.Box((0.0, 2.0, 0.4), (1.8, 0.9, 0.6), (0, 0, 0)), 3000)
    speck = np.array([[5.0, 5.0, 5.0], [5.01, 5.0, 5.0]])  # labelled mug, but too small to be one
    means = np.concatenate([*mugs, sofa, speck])
    labels = np.repeat([1, 1, 2, 1], [120, 60, 3000, 2])
    scores = np.repeat([0.8, 0.7, 0.9, 0.99], [120, 60, 3000, 2])
    return means, labels, scores, np.arange(len(means)) % 7


def test_objects_are_found_counted_and_placed() -> None:
    means, labels, scores, views = two_mugs_and_a_sofa()
    config = QueryConfig(instance_gap=0.15, min_instance=12)
    objects, instances = find_objects(means, labels, scores, views, ["mug", "sofa"], config, 0)
    assert [(o.prompt, o.label, o.instance, o.num_gaussians) for o in objects] == [
        ("mug", 1, 1, 120),
        ("mug", 1, 2, 60),
        ("sofa", 2, 3, 3000),
    ]
    for thing, x in zip(objects[:2], (0.0, 1.0), strict=True):
        np.testing.assert_allclose(thing.center, [x, 0, 0.5], atol=0.01)
    np.testing.assert_allclose(sorted(objects[2].size), [0.6, 0.9, 1.8], atol=0.05)
    assert [o.score for o in objects] == pytest.approx([0.8, 0.7, 0.9]) and all(o.views == 6 for o in objects)
    assert instances[:120].tolist() == [1] * 120 and instances[120:180].tolist() == [2] * 60
    assert (instances[180:3180] == 3).all() and instances[3180:].tolist() == [0, 0]


def test_objects_are_sorted_and_limited() -> None:
    means, labels, scores, views = two_mugs_and_a_sofa()
    # The smaller mug wins with half the Gaussians: instances rank by score times the root of their number.
    scores[120:180] = 1.3
    config = QueryConfig(instance_gap=0.15, min_instance=12)
    objects, instances = find_objects(means, labels, scores, views, ["mug", "sofa"], config, 1)
    assert [(o.prompt, o.num_gaussians) for o in objects] == [("mug", 60), ("sofa", 3000)]
    assert (instances[:120] == 0).all()


def test_no_labels_give_no_objects() -> None:
    means = np.zeros((30, 3))
    nothing = np.zeros(30, int)
    objects, instances = find_objects(means, nothing, np.zeros(30), nothing, ["mug"], QueryConfig(), 0)
    assert objects == [] and (instances == 0).all()


def test_single_gaussian_can_be_an_object() -> None:
    config = QueryConfig(min_instance=1)
    objects, _ = find_objects(np.zeros((1, 3)), np.ones(1, int), np.ones(1), np.ones(1), ["mug"], config, 0)
    assert len(objects) == 1 and (objects[0].size == 0).all()


def test_touching_objects_of_two_names_stay_apart() -> None:
    rng = np.random.default_rng(5)
    points, labels = rng.uniform(-1, 1, (3000, 3)) * [1, 1, 0.2], rng.integers(0, 4, 3000)
    config = QueryConfig(min_instance=1, instance_gap=0.12)
    objects, instances = find_objects(
        points, labels, np.ones(3000), np.ones(3000), ["a", "b", "c"], config, 0
    )
    assert set(instances) == set(range(len(objects) + 1)) and set(np.flatnonzero(instances == 0)) == set(
        np.flatnonzero(labels == 0)
    )
    for label in (1, 2, 3):
        got = {frozenset(np.flatnonzero(instances == o.instance)) for o in objects if o.label == label}
        rows = np.flatnonzero(labels == label)
        components = {frozenset(rows[list(part)]) for part in components_by_search(points[rows], 0.12)}
        assert all(sum(part <= instance for instance in got) == 1 for part in components)
        large = {part for part in components if 4 * len(part) >= max(map(len, components))}
        assert all(len({part for part in large if part <= instance}) == 1 for instance in got)


def test_far_floater_costs_no_memory_and_joins_nothing() -> None:
    points = np.concatenate([np.random.default_rng(0).uniform(0, 1, (500, 3)), [[1e5, -1e5, 3e4]]])
    number = joined(points, 0.3)
    assert number[:500].max() == 0 and number[500] == 1


def test_components_are_the_same_far_from_the_origin() -> None:
    points = np.random.default_rng(0).uniform(0, 0.4, (600, 3))
    points[300:, 0] += 0.9
    for away in (0.0, 1e5, -2e6):
        number = joined(points + [away, 0, 0], 0.1)
        assert number[:300].max() == 0 and (number[300:] == 1).all()


def test_boxes_of_several_sets_match_single_ones() -> None:
    sets = [
        surface(synthetic.Box((i, -i, 0.5), (0.2 + 0.3 * i, 0.4, 0.3), (0, 0, 0), yaw=0.4 * i), 300 + i)
        for i in range(4)
    ]
    stops = np.cumsum([len(points) for points in sets])
    segments = np.stack([np.append(0, stops[:-1]), stops], 1)[[0, 2, 3]]  # one is left out
    centers, axes, sizes = oriented_boxes(np.concatenate(sets), segments)
    for row, points in enumerate((sets[0], sets[2], sets[3])):
        center, quat, size = box_of(points)
        np.testing.assert_allclose(centers[row], center, atol=1e-9)
        np.testing.assert_allclose(sizes[row], size, atol=1e-9)
        np.testing.assert_allclose(axes[row], quat_to_matrix(quat), atol=1e-6)


def test_box_spans_the_percentiles_along_its_axes() -> None:
    points = np.random.default_rng(2).normal(size=(900, 3)) * [3.0, 1.0, 0.3] + [5, 6, 7]
    (center,), (axes,), (size,) = oriented_boxes(points, np.array([[0, 900]]))
    low, high = np.percentile(points @ axes, [2, 98], axis=0)
    np.testing.assert_allclose(size, high - low, rtol=1e-9)
    np.testing.assert_allclose(axes.T @ center, (low + high) / 2, rtol=1e-9)


@pytest.mark.parametrize("turn", [0.0, 0.6, 1.3])
def test_upright_box_of_a_leaning_thing_is_its_footprint_and_height(turn: float) -> None:
    along = np.linspace(-1, 1, 2001)
    thick = np.random.default_rng(0).uniform(-0.05, 0.05, 2001)
    board = np.stack([0.4 * along, thick, 0.9 * along], axis=1)  # leans by 24 degrees
    cosine, sine = np.cos(turn), np.sin(turn)
    points = board @ np.array([[cosine, sine, 0], [-sine, cosine, 0], [0, 0, 1]]) + [1, 2, 3]
    (center,), (axes,), (size,) = oriented_boxes(points, np.array([[0, 2001]]), np.array([0.0, 0.0, 1.0]))
    np.testing.assert_allclose(size, 0.96 * np.array([0.8, 0.1, 1.8]), rtol=0.06)
    np.testing.assert_allclose(center, [1, 2, 3], atol=0.01)
    np.testing.assert_allclose(np.abs(axes[:, 2]), [0, 0, 1], atol=1e-9)
    np.testing.assert_allclose(np.abs(axes[:, 0]), np.abs([cosine, sine, 0]), atol=0.02)
    assert np.linalg.det(axes) == pytest.approx(1)
    rolled = oriented_boxes(points[:, [1, 2, 0]], np.array([[0, 2001]]), np.array([0.0, 1.0, 0.0]))
    np.testing.assert_allclose(rolled[2][0], size, rtol=1e-6)
    np.testing.assert_allclose(np.abs(rolled[1][0]), np.abs(axes[[1, 2, 0]]), atol=1e-6)
    slanted = oriented_boxes(points, np.array([[0, 2001]]))
    assert slanted[2][0][0] == pytest.approx(0.96 * 2 * np.hypot(0.4, 0.9), rel=0.05)


def test_z_is_vertical_if_the_cameras_say_so() -> None:
    level = np.eye(4)
    level[:3, :3] = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]])  # looks along y, z up
    tilted = level.copy()
    tilted[:3, :3] = level[:3, :3] @ cv2.Rodrigues(np.array([np.radians(-30), 0, 0]))[0]
    for poses in ([level], [level, tilted], [tilted]):
        np.testing.assert_array_equal(vertical_axis(np.stack(poses), "auto"), [0, 0, 1])
    opencv = np.eye(4)  # of photographs: y down
    assert vertical_axis(opencv[None], "auto") is None and vertical_axis(np.zeros((0, 4, 4)), "auto") is None
    upside_down = np.diag([1.0, -1.0, -1.0, 1.0]) @ level
    assert vertical_axis(upside_down[None], "auto") is None
    np.testing.assert_array_equal(vertical_axis(opencv[None], "always"), [0, 0, 1])
    assert vertical_axis(level[None], "never") is None


def blob(center: tuple[float, float, float], count: int, seed: int = 0) -> np.ndarray:
    """Points within 0.1 m of a centre."""
    return np.random.default_rng(seed).uniform(-0.1, 0.1, (count, 3)) + center


def test_fragments_join_the_nearest_large_piece_and_equals_stay_apart() -> None:
    chairs = [blob((0, 0, 0), 400), blob((0.35, 0, 0), 300)]  # 0.15 m apart
    leg, speck, stray = blob((0.35, 0, -0.33), 60), blob((-0.3, 0, 0), 8), blob((3, 0, 0), 20)
    points = np.concatenate([*chairs, leg, speck, stray])
    components = components_of(points, 0.06)
    sizes = np.bincount(components.number)
    assert len(sizes) == len(components.labels) > 3
    members = [points[components.number == c] for c in range(len(sizes))]

    def everything(chosen: np.ndarray, _: int) -> tuple[np.ndarray, np.ndarray]:
        stops = np.cumsum(sizes[chosen])
        return np.concatenate([members[c] for c in chosen]), np.stack([stops - sizes[chosen], stops], axis=1)

    centers = np.array([part.mean(0) for part in members])
    target, joined_count = join_fragments(
        components, sort_into_voxels(points, 0.06), sizes, centers, everything
    )
    parts = np.split(target[components.number], np.cumsum([400, 300, 60, 8]))
    assert joined_count == 3 and all(len(set(part)) == 1 for part in parts)
    first, second, of_leg, of_speck, of_stray = (int(part[0]) for part in parts)
    assert of_leg == second != first == of_speck and of_stray not in (first, second)


@pytest.mark.parametrize("seed", range(20))
def test_blocks_stand_for_their_points(seed: int) -> None:
    """Few points: with many, voxels that a block wrongly counted to would be filled anyway."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(-2, 2, (80, 3)) * [1, 1, 0.3] + rng.uniform(-40, 40, 3)
    wide = joined(points, 4 * 0.08)
    grid = sort_into_voxels(points, 0.08)
    blocks = grid.wide.cells
    of_block = connected_components(np.ones(len(blocks), np.int16), grid.wide, shared_pool(1)).number
    by_blocks = of_block[grid.fine.cells >> 3]
    pairs = {*zip(wide.tolist(), by_blocks.tolist(), strict=True)}
    assert len(pairs) == len(set(wide)) == len(set(by_blocks)), "one to one"


def test_object_in_pieces_has_one_box() -> None:
    seat, arm = blob((0, 0, 0.1), 500), blob((0.36, 0, 0.1), 70)
    points = np.concatenate([seat, arm])
    objects, instances = find_objects(
        points, np.ones(570, np.int64), np.ones(570), np.ones(570), ["sofa"], QueryConfig(), 0
    )
    (sofa,) = objects
    assert sofa.num_gaussians == 570 and (instances == 1).all()
    assert max(sofa.size) > 0.45


@pytest.mark.parametrize("threads", [2, 3])
def test_objects_do_not_depend_on_threads_or_the_grid(threads: int, monkeypatch) -> None:
    rng = np.random.default_rng(7)
    corners = rng.uniform(0, 3, (40, 3))
    means = np.concatenate([corner + rng.uniform(-0.1, 0.1, (120, 3)) for corner in corners]).astype(
        np.float32
    )
    means = rng.permutation(np.concatenate([means, rng.uniform(0, 3, (3000, 3)).astype(np.float32)]))
    means[:2600] = means[0] + rng.uniform(-0.2, 0.2, (2600, 3))  # more than a box is measured by
    labels = rng.integers(0, 3, len(means))
    labels[:2600] = 2
    columns = means, labels, rng.random(len(means), np.float32), rng.integers(0, 9, len(means))
    settings = ["a", "b"], QueryConfig(instance_gap=0.08, min_instance=2), 0, np.array([0.0, 0, 1])
    monkeypatch.setattr(instances_module, "_GAUSSIANS_PER_THREAD", 10)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    expected, numbers = find_objects(*columns, *settings)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    got, same = find_objects(*columns, *settings, sort_into_voxels(means, 0.08))
    assert len(got) == len(expected) > 10 and (same == numbers).all()
    for a, b in zip(got, expected, strict=True):
        assert (a.label, a.num_gaussians, a.views) == (b.label, b.num_gaussians, b.views)
        np.testing.assert_allclose([a.score, *a.center, *a.size], [b.score, *b.center, *b.size], atol=1e-6)
