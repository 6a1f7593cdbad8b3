"""Queries: relevancy by the book, instances and boxes that are where things are."""

from __future__ import annotations

from collections import deque

import numpy as np
import pytest
import synthetic
import torch

from ovs3d_ros.config import QueryConfig
from ovs3d_ros.geometry import quat_to_matrix
from ovs3d_ros.query import (
    MAX_PROMPTS,
    assign_labels,
    check_prompts,
    connected_components,
    find_objects,
    oriented_box,
    relevancy,
    restore_taken,
)
from ovs3d_ros.types import UserError


def test_prompts_are_stripped_and_checked() -> None:
    assert check_prompts([" red mug ", "sofa"]) == ["red mug", "sofa"]
    for prompts, word in (([], "no prompt"), (["a", "  "], "prompt 2 is empty"), (["x" * 257], "257 characters"),
                          (["a"] * (MAX_PROMPTS + 1), "at most")):
        with pytest.raises(UserError, match=word):
            check_prompts(prompts)
    with pytest.raises(UserError, match="negative 1 is empty"):
        check_prompts([""], "negative")


def test_relevancy_is_the_formula_of_lerf() -> None:
    generator = torch.Generator().manual_seed(0)
    positive, negative = (torch.rand(50, n, generator=generator) * 2 - 1 for n in (3, 4))
    scores = relevancy(positive, negative, 10.0)
    for i in range(50):
        for p in range(3):
            literal = min(np.exp(10 * positive[i, p].item())
                          / (np.exp(10 * positive[i, p].item()) + np.exp(10 * negative[i, m].item())) for m in range(4))
            assert scores[i, p].item() == pytest.approx(literal, abs=1e-5)
    assert relevancy(torch.tensor([[0.3]]), torch.tensor([[0.3, 0.1]]), 10.0).item() == pytest.approx(0.5)


def test_labels_are_the_best_found_prompt_above_the_threshold() -> None:
    scores = torch.tensor([[0.9, 0.8, 0.1], [0.2, 0.7, 0.3], [0.5, 0.55, 0.9], [0.1, 0.1, 0.1], [0.6, 0.2, 0.0]])
    assert assign_labels(scores, np.array([True, True, True]), 0.6).tolist() == [1, 2, 3, 0, 1]
    assert assign_labels(scores, np.array([True, True, False]), 0.6).tolist() == [1, 2, 0, 0, 1]
    assert assign_labels(scores, np.array([False, True, True]), 0.6).tolist() == [2, 2, 3, 0, 0]
    assert assign_labels(scores, np.array([False] * 3), 0.0).tolist() == [0] * 5
    image = scores.expand(4, 5, 3)  # the same for pixels
    assert assign_labels(image, np.array([True, True, True]), 0.6)[2].tolist() == [1, 2, 3, 0, 1]


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
def test_components_are_those_of_a_naive_search(seed: int, gap: float) -> None:
    points = np.random.default_rng(seed).uniform(-2, 2, (400, 3)) * [1, 1, 0.3]
    labels = connected_components(points, gap)
    got = {frozenset(np.flatnonzero(labels == label).tolist()) for label in np.unique(labels)}
    assert got == set(components_by_search(points, gap))
    assert set(np.unique(labels)) == set(range(len(got)))


def test_a_long_winding_chain_is_one_component() -> None:
    t = np.linspace(0, 40 * np.pi, 12000)
    spiral = np.stack([np.cos(t) * (1 + t / 10), np.sin(t) * (1 + t / 10), t * 0.02], 1)
    assert connected_components(spiral, 0.15).max() == 0
    cut = connected_components(np.delete(spiral, np.s_[6000:6100], axis=0), 0.15)
    assert (cut[:6000] == cut[0]).all() and (cut[6000:] == cut[-1]).all() and cut.max() == 1


def test_one_point_is_one_component() -> None:
    assert connected_components(np.array([[3.0, -2.0, 1.0]]), 0.1).tolist() == [0]


def test_what_is_found_keeps_gaussians_of_its_own() -> None:
    """The keyboard outscores the phone everywhere, yet both are there."""
    scores = torch.tensor([[0.9, 0.6], [0.9, 0.7], [0.8, 0.3], [0.9, 0.1], [0.9, 0.1]])
    labels = assign_labels(scores, np.array([True, True]), 0.5)
    assert labels.tolist() == [1, 1, 1, 1, 1]
    strongest = torch.tensor([[0, 1, 3], [1, 0, 2]])
    both = restore_taken(labels, scores, np.array([True, True]), 0.5, strongest, 2)
    assert both.tolist() == [2, 2, 1, 1, 1], "but not what lies below the threshold"
    assert labels.tolist() == [1, 1, 1, 1, 1], "the argument is left alone"
    assert restore_taken(labels, scores, np.array([True, False]), 0.5, strongest, 2).tolist() == labels.tolist()
    assert restore_taken(both, scores, np.array([True, True]), 0.5, strongest.flip(1), 2).tolist() == both.tolist()


def surface(box: synthetic.Box, count: int, seed: int = 0) -> np.ndarray:
    """Points on the faces of a box, by area."""
    rng = np.random.default_rng(seed)
    size = np.array(box.size)
    areas = np.array([size[1] * size[2], size[0] * size[2], size[0] * size[1]])
    axis = rng.choice(3, count, p=areas / areas.sum())
    points = rng.uniform(-0.5, 0.5, (count, 3))
    points[np.arange(count), axis] = rng.choice([-0.5, 0.5], count)
    return (points * size) @ box.rotation.T + box.center


def test_the_box_of_a_rotated_cuboid() -> None:
    box = synthetic.Box((1.0, -2.0, 0.5), (1.2, 0.6, 0.3), (0, 0, 0), yaw=0.7)
    center, quat, size = oriented_box(surface(box, 4000))
    np.testing.assert_allclose(center, box.center, atol=0.02)
    np.testing.assert_allclose(size, box.size, atol=0.04)  # longest axis first
    axes = quat_to_matrix(quat)
    assert np.linalg.det(axes) == pytest.approx(1)
    for k in range(3):
        assert abs(axes[:, k] @ box.rotation[:, k]) > np.cos(np.radians(2))


@pytest.mark.parametrize("size, yaw", [((0.8, 0.8, 0.3), 0.6), ((0.4, 0.4, 1.0), 0.3), ((0.5, 0.45, 0.5), 0.8)])
def test_the_box_of_a_thing_with_a_square_side_is_tight(size, yaw: float) -> None:
    """Its principal axes point anywhere: a box along them would be up to 1.4 times too wide."""
    box = synthetic.Box((1.0, -2.0, 0.5), size, (0, 0, 0), yaw=yaw)
    center, _, found = oriented_box(surface(box, 2000))
    np.testing.assert_allclose(center, box.center, atol=0.03)
    np.testing.assert_allclose(sorted(found), sorted(size), rtol=0.12)


def test_stray_points_do_not_blow_up_the_box() -> None:
    box = synthetic.Box((0.0, 0.0, 0.0), (1.2, 0.6, 0.3), (0, 0, 0))
    stray = np.random.default_rng(0).uniform(-2, 2, (20, 3))
    _, _, size = oriented_box(np.concatenate([surface(box, 4000), stray]))
    np.testing.assert_allclose(size, box.size, atol=0.06)


@pytest.mark.parametrize("points", [np.ones((1, 3)), np.ones((5, 3)), np.array([[0.0, 0, 0], [1, 0, 0]])])
def test_flat_and_tiny_things_have_a_box(points: np.ndarray) -> None:
    center, quat, size = oriented_box(points)
    assert np.isfinite(center).all() and np.isfinite(size).all() and np.linalg.norm(quat) == pytest.approx(1)
    np.testing.assert_allclose(center, points.mean(0), atol=1e-9)


def two_mugs_and_a_sofa():
    mugs = [surface(synthetic.Box((x, 0.0, 0.5), (0.1, 0.1, 0.12), (0, 0, 0)), count, seed=count)
            for x, count in ((0.0, 120), (1.0, 60))]
    sofa = surface(synthetic.Box((0.0, 2.0, 0.4), (1.8, 0.9, 0.6), (0, 0, 0)), 3000)
    speck = np.array([[5.0, 5.0, 5.0], [5.01, 5.0, 5.0]])  # labelled mug, but too small to be one
    means = np.concatenate([*mugs, sofa, speck])
    labels = np.repeat([1, 1, 2, 1], [120, 60, 3000, 2])
    scores = np.zeros((len(means), 2))
    scores[np.arange(len(means)), labels - 1] = np.repeat([0.8, 0.7, 0.9, 0.99], [120, 60, 3000, 2])
    return means, labels, scores, np.arange(len(means)) % 7


def test_instances_are_found_counted_and_placed() -> None:
    means, labels, scores, views = two_mugs_and_a_sofa()
    config = QueryConfig(instance_gap=0.15, min_instance=12)
    objects, instances = find_objects(means, labels, scores, views, ["mug", "sofa"], config, 0)
    assert [(o.prompt, o.label, o.instance, o.num_gaussians) for o in objects] == [
        ("mug", 1, 1, 120), ("mug", 1, 2, 60), ("sofa", 2, 3, 3000)]
    for thing, x in zip(objects[:2], (0.0, 1.0)):
        np.testing.assert_allclose(thing.center, [x, 0, 0.5], atol=0.01)
    np.testing.assert_allclose(sorted(objects[2].size), [0.6, 0.9, 1.8], atol=0.05)
    assert [o.score for o in objects] == pytest.approx([0.8, 0.7, 0.9]) and all(o.views == 6 for o in objects)
    assert instances[:120].tolist() == [1] * 120 and instances[120:180].tolist() == [2] * 60
    assert (instances[180:3180] == 3).all() and instances[3180:].tolist() == [0, 0]


def test_the_best_instances_come_first_and_no_more_than_asked() -> None:
    means, labels, scores, views = two_mugs_and_a_sofa()
    scores[120:180, 0] = 0.99 * 2  # the smaller mug is by far the better one
    config = QueryConfig(instance_gap=0.15, min_instance=12)
    objects, instances = find_objects(means, labels, scores, views, ["mug", "sofa"], config, 1)
    assert [(o.prompt, o.num_gaussians) for o in objects] == [("mug", 60), ("sofa", 3000)]
    assert (instances[:120] == 0).all()


def test_nothing_labelled_gives_no_objects() -> None:
    means = np.zeros((30, 3))
    nothing = np.zeros(30, int)
    objects, instances = find_objects(means, nothing, np.zeros((30, 1)), nothing, ["mug"], QueryConfig(), 0)
    assert objects == [] and (instances == 0).all()


def test_single_gaussian_instances_are_allowed() -> None:
    config = QueryConfig(min_instance=1)
    objects, _ = find_objects(np.zeros((1, 3)), np.ones(1, int), np.ones((1, 1)), np.ones(1), ["mug"], config, 0)
    assert len(objects) == 1 and (objects[0].size == 0).all()
