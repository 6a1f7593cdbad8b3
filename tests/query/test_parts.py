"""Parts of a map that are told apart without names."""

from __future__ import annotations

import numpy as np
import torch
from helpers import synthetic

from ovs3d_ros.config import RefineConfig
from ovs3d_ros.query import parts
from ovs3d_ros.query.parts import find_map_parts, find_parts
from ovs3d_ros.semantics.surface_graph import make_surface_graph

CONFIG = RefineConfig()
STEP = 0.02  # m


def room() -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Points [N, 3], colours [N, 3] and surface [N] of a floor, half grey and half red, and a grey wall."""
    x, y = (c.ravel() for c in np.meshgrid(np.arange(0, 1, STEP), np.arange(0, 1, STEP)))
    floor, wall = np.stack([x, y, 0 * x], 1), np.stack([x, 0 * x, y + STEP], 1)
    points = np.concatenate([floor, wall]) + np.random.default_rng(0).normal(0, STEP / 20, (2 * len(x), 3))
    truth = np.concatenate([np.where(x < 0.5, 0, 1), np.full(len(x), 2)])
    colors = np.array([[0.5, 0.5, 0.5], [0.8, 0.1, 0.1], [0.5, 0.5, 0.5]])[truth]
    return torch.from_numpy(points).float(), torch.from_numpy(colors).float(), truth


def agreement(numbers: np.ndarray, truth: np.ndarray) -> float:
    """The share of points in the main part of their surface, if these parts are different ones."""
    counts = np.array(
        [np.bincount(numbers[truth == t], minlength=numbers.max() + 1) for t in np.unique(truth)]
    )
    main = counts.argmax(1)
    return counts.max(1).sum() / len(truth) if len(set(main)) == len(main) else 0.0


def test_surfaces_and_colours_are_told_apart():
    points, colors, truth = room()
    numbers = find_parts(make_surface_graph(points, colors, CONFIG.neighbours), None, CONFIG)
    assert agreement(numbers, truth) > 0.9
    sizes = np.bincount(numbers)
    assert (np.diff(sizes) <= 0).all() and sizes[-1] >= 20, "counted by falling size, without specks"


def test_features_tell_apart_what_looks_alike():
    points = room()[0]
    points = points[: len(points) // 2]  # the floor
    truth = (points[:, 0] > 0.5).long()
    graph = make_surface_graph(points, torch.full_like(points, 0.5), CONFIG.neighbours)
    features = torch.eye(3)[truth]
    assert agreement(find_parts(graph, features, CONFIG), truth.numpy()) > 0.95
    assert agreement(find_parts(graph, None, CONFIG), truth.numpy()) < 0.7


def test_boxes_of_a_map_are_parts_and_a_thinned_map_has_nearly_the_same(monkeypatch):
    snapshot = synthetic.build_map(synthetic.make_frames(6), steps=40).snapshot()
    means, truth = snapshot.gaussians["means"].numpy(), np.zeros(snapshot.num_gaussians, int)
    for label, box in enumerate((synthetic.RED, synthetic.GREEN, synthetic.BLUE), start=1):
        offset = np.abs((means - np.array(box.center)) @ box.rotation)
        truth[(offset < np.array(box.size) / 2 + 0.01).all(1) & (means[:, 2] > 0.03)] = label
    assert np.bincount(truth, minlength=4).min() > 50

    def mixed(numbers: np.ndarray) -> float:
        """The share of Gaussians in a part that belongs to another thing for the most part."""
        table = np.array([np.bincount(truth[numbers == n], minlength=4) for n in range(numbers.max() + 1)])
        return 1 - table.max(1).sum() / table.sum()

    numbers = find_map_parts(snapshot, CONFIG)
    assert mixed(numbers) < 0.05 and numbers.max() < 40
    monkeypatch.setattr(parts, "_MAX_GAUSSIANS", snapshot.num_gaussians // 2)
    thinned = find_map_parts(snapshot, CONFIG)
    assert len(thinned) == len(numbers) and mixed(thinned) < 0.1 and thinned.max() < 40
