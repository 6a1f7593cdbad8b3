"""Regions stand for the Gaussians they group."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from ovs3d_ros.fleet.regions import make_regions
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.types import MapSnapshot

PROMPTS = ["red box", "green box", "teapot"]


@pytest.fixture(scope="module")
def opened(maps) -> tuple[Ovs3d, MapSnapshot]:
    pipeline = Ovs3d.load(maps / "full.ovs3d", {"compute.device": "cpu"})
    return pipeline, pipeline.snapshot()


def known_of(snapshot: MapSnapshot, min_weight: float = 1.0) -> torch.Tensor:
    return (snapshot.weight >= min_weight) & (snapshot.codes[:, -1] != 0)


def test_every_known_gaussian_is_in_one_region(opened):
    _, snapshot = opened
    regions, known = make_regions(snapshot, 1.0), known_of(snapshot)
    assert regions.counts.sum() == known.sum() > 500
    assert regions.mass.sum() == pytest.approx(float(snapshot.weight[known].sum()), rel=1e-4)
    assert len(regions.codes) < 0.5 * int(known.sum())
    heavy = make_regions(snapshot, 20.0)
    assert heavy.counts.sum() == known_of(snapshot, 20.0).sum() < known.sum()


def test_moments_are_those_of_the_gaussians(opened):
    pipeline, snapshot = opened
    regions = make_regions(snapshot, 1.0)
    directions = snapshot.directions(pipeline.encode_text(PROMPTS)).double()
    cosines = snapshot.codes[known_of(snapshot)].double() @ directions  # [N, P]
    d = directions.numpy()
    np.testing.assert_allclose(regions.mean @ d, cosines.mean(0), atol=1e-6)
    np.testing.assert_allclose(
        np.einsum("dp,de,ep->p", d, regions.second, d), cosines.square().mean(0), atol=1e-6
    )


def test_codes_fit_the_texts_as_the_gaussians_do(opened):
    pipeline, snapshot = opened
    regions = make_regions(snapshot, 1.0)
    directions = snapshot.directions(pipeline.encode_text(PROMPTS)).numpy()
    best = np.sort(snapshot.codes[known_of(snapshot)].numpy() @ directions, axis=0)[-60:].mean(axis=0)
    cosines = regions.codes @ directions
    for p in range(len(PROMPTS)):
        order = np.argsort(-cosines[:, p])
        taken = order[: 1 + int(np.searchsorted(np.cumsum(regions.counts[order]), 60))]
        assert np.average(cosines[taken, p], weights=regions.counts[taken]) == pytest.approx(
            best[p], abs=0.03
        )


def test_boxes_hold_the_gaussians(opened):
    _, snapshot = opened
    regions = make_regions(snapshot, 1.0)
    means = snapshot.gaussians["means"][known_of(snapshot)].numpy()
    assert (regions.high >= regions.low).all()
    assert (regions.high - regions.low).max() <= 0.5
    np.testing.assert_allclose(regions.low.min(axis=0), means.min(axis=0), atol=0.1)
    np.testing.assert_allclose(regions.high.max(axis=0), means.max(axis=0), atol=0.1)


def test_map_without_features_has_no_regions(opened):
    _, snapshot = opened
    empty = dataclasses.replace(snapshot, weight=torch.zeros_like(snapshot.weight))
    regions = make_regions(empty, 1.0)
    assert len(regions.codes) == len(regions.low) == 0 and np.isfinite(regions.second).all()
