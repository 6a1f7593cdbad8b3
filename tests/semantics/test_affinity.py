"""Nearest neighbours, affinities and the alignment of class distributions."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from ovs3d_ros.config import RefineConfig
from ovs3d_ros.semantics.affinity import align_distributions, compute_affinities
from ovs3d_ros.semantics.neighbours import nearest_neighbours
from ovs3d_ros.semantics.surface_graph import make_surface_graph

CONFIG = RefineConfig()


def affinities(points: torch.Tensor, colors: torch.Tensor, config: RefineConfig = CONFIG) -> torch.Tensor:
    return compute_affinities(make_surface_graph(points, colors, config.neighbours), config)


@pytest.mark.parametrize("flat", [1.0, 0.02])
def test_nearest_neighbours_are_exact(flat: float) -> None:
    points = np.random.default_rng(0).random((800, 3)) * [1, 1, flat] * 3 - 1
    distances = np.linalg.norm(points[:, None] - points, axis=-1)
    np.fill_diagonal(distances, np.inf)
    found = nearest_neighbours(points, 9)
    assert (found == np.argsort(distances, axis=1)[:, :9]).mean() > 0.999  # float32 may swap equals


def test_isolated_points_have_no_neighbours() -> None:
    points = np.concatenate([np.random.default_rng(0).random((200, 3)), [[90.0, 0.0, 0.0]]])
    found = nearest_neighbours(points, 5)
    assert (found[-1] == -1).all() and (found[:-1] >= 0).all() and (found[:-1] != 200).all()


@pytest.mark.parametrize("count", [0, 1, 3])
def test_few_and_equal_points_have_valid_neighbours(count: int) -> None:
    found = nearest_neighbours(np.ones((count, 3)), 5)
    assert found.shape == (count, 5)
    assert all(set(row[row >= 0]) == set(range(count)) - {i} for i, row in enumerate(found))


def corner() -> tuple[torch.Tensor, torch.Tensor]:
    """Points of a floor [400] and a wall [400] at a right angle, and the surface index of each point."""
    grid = torch.cartesian_prod(torch.arange(20.0), torch.arange(20.0)) / 20
    noise = 1e-3 * torch.randn(800, 3, generator=torch.Generator().manual_seed(0))
    zero = torch.zeros(400, 1)
    points = torch.cat(
        [torch.cat([grid, zero], 1), torch.cat([grid[:, :1], zero - 0.02, grid[:, 1:] + 0.02], 1)]
    )
    return points + noise, torch.arange(800) // 400


def between(affinity: torch.Tensor, parts: torch.Tensor) -> tuple[float, float]:
    """Mean affinity between neighbours of the same part, and of different parts."""
    affinity = affinity.coalesce()
    rows, columns = affinity.indices()
    same = parts[rows] == parts[columns]
    return float(affinity.values()[same].mean()), float(affinity.values()[~same].mean())


def test_normals_separate_surfaces_of_one_colour() -> None:
    points, parts = corner()
    affinity = affinities(points, torch.full((800, 3), 0.5))
    within, across = between(affinity, parts)
    assert within > 0.4 and across < 0.1 * within
    dense = affinity.to_dense()
    torch.testing.assert_close(dense, dense.T)
    assert dense.diagonal().abs().max() == 0


def test_colours_separate_parts_of_one_surface() -> None:
    points, _ = corner()
    floor, half = points[:400], (points[:400, 0] > 0.49).long()
    colors = torch.tensor([[0.8, 0.1, 0.1], [0.1, 0.1, 0.8]])[half]
    within, across = between(affinities(floor, colors), half)
    assert within > 0.4 and across < 1e-3


def test_alignment_minimises_its_objective() -> None:
    generator = torch.Generator().manual_seed(0)
    points, _ = corner()
    affinity = affinities(points, torch.rand(800, 3, generator=generator))
    prior = torch.rand(800, 4, generator=generator).softmax(-1)
    mass = torch.full((800,), 5.0)  # equal masses are 1 after division by their median
    result = align_distributions(prior, mass, affinity, 3.0)
    dense = affinity.to_dense()

    def gradient(p: torch.Tensor) -> torch.Tensor:
        """Gradient of the objective; the dense matrix lists each pair twice."""
        p = p.clone().requires_grad_()
        pairs = (p[:, None] - p[None]).square().sum(-1)
        objective = (p - prior).square().sum() + 3.0 * 0.5 * (dense * pairs).sum()
        return torch.autograd.grad(objective, p)[0]

    assert gradient(result).abs().max() < 1e-2 * gradient(prior).abs().max()
    torch.testing.assert_close(result.sum(-1), torch.ones(800))


def test_alignment_removes_noise_and_keeps_surfaces_apart() -> None:
    points, parts = corner()
    generator = torch.Generator().manual_seed(0)
    wrong = torch.rand(800, generator=generator) < 0.3
    labels = torch.where(wrong, torch.randint(3, (800,), generator=generator), parts)
    prior = 0.9 * torch.nn.functional.one_hot(labels, 3).float() + 0.1 / 3
    mass = torch.full((800,), 10.0)
    mass[::7], prior[::7] = 0.0, 1 / 3  # Gaussians that were never seen follow their neighbours
    affinity = affinities(points, torch.full((800, 3), 0.5))
    result = align_distributions(prior, mass, affinity, CONFIG.strength)
    assert (prior.argmax(-1) == parts).float().mean() < 0.85
    assert (result.argmax(-1) == parts).float().mean() > 0.99
    torch.testing.assert_close(align_distributions(prior, mass, affinity, 0.0), prior, atol=1e-5, rtol=0)
    blind = dataclasses.replace(CONFIG, normal_scale=10.0)
    spilled = align_distributions(prior, mass, affinities(points, torch.full((800, 3), 0.5), blind), 1e4)
    assert (spilled[:, 0] - spilled[:, 1]).abs().max() < 0.5 * (result[:, 0] - result[:, 1]).abs().max()


def test_evidence_weighs_in_up_to_a_limit() -> None:
    points, colors = torch.tensor([[0.0, 0, 0], [1.0, 0, 0]]), torch.full((2, 3), 0.5)
    pair = affinities(points, colors, dataclasses.replace(CONFIG, neighbours=3))
    prior = torch.tensor([[1.0, 0.0], [0.0, 1.0]])

    def first_probability(*mass: float) -> float:
        return float(align_distributions(prior, torch.tensor(mass), pair, 5.0)[0, 0])

    assert first_probability(5.0, 5.0) == pytest.approx(
        1 - float(align_distributions(prior, torch.tensor([5.0, 5.0]), pair, 5.0)[1, 0]), abs=1e-3
    )
    assert (
        first_probability(10.0, 1.0) > first_probability(5.0, 5.0) + 0.1 > first_probability(1.0, 10.0) + 0.2
    ), "more evidence keeps a Gaussian closer to its prior"
    assert first_probability(1e6, 1.0) == pytest.approx(first_probability(1e3, 1.0), abs=1e-3), (
        "evidence above the limit must not weigh more"
    )
