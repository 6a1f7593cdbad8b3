"""Labels of Gaussians and pixels."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from ovs3d_ros.config import Config
from ovs3d_ros.query.labelling import (
    Similarities,
    best_found,
    in_region,
    label_gaussians,
    label_pixels,
    return_strongest,
)
from ovs3d_ros.query.presence import PresenceCalibration
from ovs3d_ros.query.request import make_query
from ovs3d_ros.rasterize.labels import blend_shares


def test_label_is_the_best_found_prompt_from_the_threshold() -> None:
    scores = torch.tensor(
        [[0.9, 0.8, 0.1], [0.2, 0.7, 0.3], [0.5, 0.55, 0.9], [0.1, 0.1, 0.1], [0.6, 0.2, 0.0]]
    )
    assert best_found(scores, np.array([True, True, True]), 0.6).tolist() == [1, 2, 3, 0, 1]
    assert best_found(scores, np.array([True, True, False]), 0.6).tolist() == [1, 2, 0, 0, 1]
    assert best_found(scores, np.array([False, True, True]), 0.6).tolist() == [2, 2, 3, 0, 0]
    assert best_found(scores, np.array([False] * 3), 0.0).tolist() == [0] * 5


def peaks_of(relevancy: torch.Tensor, strongest: torch.Tensor) -> torch.Tensor:
    """Relevancy [P, K] of each prompt at its strongest Gaussians [P, K]."""
    return relevancy.T.gather(1, strongest)


def test_found_prompt_gets_its_strongest_gaussians_back() -> None:
    """The keyboard outscores the phone everywhere, yet both are found."""
    scores = torch.tensor([[0.9, 0.6], [0.9, 0.7], [0.8, 0.3], [0.9, 0.1], [0.9, 0.1]])
    labels = best_found(scores, np.array([True, True]), 0.5)
    assert labels.tolist() == [1, 1, 1, 1, 1]
    strongest = torch.tensor([[0, 1, 3], [1, 0, 2]])
    peaks = peaks_of(scores, strongest)
    three = torch.cat([scores[:3], torch.full((2, 2), 0.55)])
    kept = return_strongest(
        best_found(three, np.array([True, True]), 0.5),
        peaks_of(three, every := torch.tensor([[0, 1, 2, 3, 4], [1, 0, 3, 4, 2]])),
        np.array([True, True]),
        0.5,
        every,
        3,
    )
    assert kept.tolist().count(1) == 3, "the other prompt keeps as many as make an instance"
    both = return_strongest(labels, peaks, np.array([True, True]), 0.5, strongest, 2)
    assert both.tolist() == [2, 2, 1, 1, 1], "Gaussians below the threshold stay"
    assert labels.tolist() == [1, 1, 1, 1, 1], "the argument is unchanged"
    assert (
        return_strongest(labels, peaks, np.array([True, False]), 0.5, strongest, 2).tolist()
        == labels.tolist()
    )
    assert (
        return_strongest(both, peaks.flip(1), np.array([True, True]), 0.5, strongest.flip(1), 2).tolist()
        == both.tolist()
    )


def test_labels_are_for_eligible_gaussians_in_both_modes() -> None:
    query = make_query(["phone", "keyboard"], Config().query, PresenceCalibration(), threshold=0.5)
    relevancy = torch.rand(12, 2, generator=torch.Generator().manual_seed(1))
    eligible, strongest = torch.arange(12) > 2, torch.arange(3, 6).repeat(2, 1)
    for mode in ("relevancy", "argmax"):
        asked = dataclasses.replace(query, mode=mode)
        peaks = peaks_of(relevancy, strongest)
        similarities = Similarities(relevancy, relevancy, eligible, strongest, peaks, np.array([-1, -1]))
        labels, scores = label_gaussians(asked, np.array([True, True]), similarities, 0.5, 1)
        assert not labels[:3].any() and labels[3:].any() and torch.equal(scores, relevancy)


def test_pixel_has_the_label_that_fills_most_of_it() -> None:
    labels, scores = torch.tensor([2, 2, 7, 0]), torch.tensor([0.9, 0.7, 0.6, 0.3])
    weights = torch.tensor(  # blending weights of the four Gaussians at five pixels
        [
            [0.2, 0.2, 0.3, 0.2],  # 2 together fills more than 7, and more than what has no label
            [0.2, 0.1, 0.4, 0.2],  # 7
            [0.3, 0.1, 0.0, 0.5],  # mostly Gaussians without a label
            [0.2, 0.2, 0.0, 0.0],  # transparent
            [0.0, 0.0, 0.0, 0.9],
        ]
    )

    def render(splats: None, channels: torch.Tensor, views: None) -> tuple[torch.Tensor, torch.Tensor, dict]:
        return (weights @ channels)[None, None], weights.sum(1)[None, None, :, None], {}

    shown, score = label_pixels(blend_shares(render, None, labels, scores, None))
    assert shown[0, 0].tolist() == [2, 7, 0, 0, 0]
    np.testing.assert_allclose(score[0, 0], [0.5 / 0.7, 0.49 / 0.7, 0, 0, 0], rtol=1e-6)


def test_a_repeated_prompt_is_labelled_once() -> None:
    query = make_query(["mug", "mug"], Config().query, PresenceCalibration(), threshold=0.5)
    relevancy = torch.full((6, 2), 0.9)
    strongest = torch.arange(6).repeat(2, 1)
    everywhere = torch.ones(6, dtype=torch.bool)
    peaks = peaks_of(relevancy, strongest)
    similarities = Similarities(relevancy, relevancy, everywhere, strongest, peaks, np.array([-1, -1]))
    labels, _ = label_gaussians(query, np.array([True, True]), similarities, 0.5, 3)
    assert labels.tolist() == [1] * 6


def test_region_has_corners_in_any_order() -> None:
    points = torch.tensor([[0.5, 0.5, 0.5], [1.5, 0.5, 0.5]])
    corners = np.array([[1.0, 0, 1], [0, 1, 0]])
    assert in_region(points, corners).tolist() == [True, False] == in_region(points, corners[::-1]).tolist()
    assert in_region(points, None).all()
