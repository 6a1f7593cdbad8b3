"""Queries: prompts that may be asked, relevancy by the book, labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ovs3d_ros.query.relevancy import MAX_PROMPTS, assign_labels, check_prompts, relevancy, restore_taken
from ovs3d_ros.types import UserError


def test_prompts_are_stripped_and_checked() -> None:
    assert check_prompts([" red mug ", "so\n fa"]) == ["red mug", "so fa"]
    for prompts, word in (
        ([], "no prompt"),
        (["a", "  "], "prompt 2 is empty"),
        (["x" * 257], "257 characters"),
        (["caf\udce9"], "prompt 1 is not valid UTF-8"),
        (["a"] * (MAX_PROMPTS + 1), "at most"),
    ):
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
            literal = min(
                np.exp(10 * positive[i, p].item())
                / (np.exp(10 * positive[i, p].item()) + np.exp(10 * negative[i, m].item()))
                for m in range(4)
            )
            assert scores[i, p].item() == pytest.approx(literal, abs=1e-5)
    assert relevancy(torch.tensor([[0.3]]), torch.tensor([[0.3, 0.1]]), 10.0).item() == pytest.approx(0.5)


def test_labels_are_the_best_found_prompt_above_the_threshold() -> None:
    scores = torch.tensor(
        [[0.9, 0.8, 0.1], [0.2, 0.7, 0.3], [0.5, 0.55, 0.9], [0.1, 0.1, 0.1], [0.6, 0.2, 0.0]]
    )
    assert assign_labels(scores, np.array([True, True, True]), 0.6).tolist() == [1, 2, 3, 0, 1]
    assert assign_labels(scores, np.array([True, True, False]), 0.6).tolist() == [1, 2, 0, 0, 1]
    assert assign_labels(scores, np.array([False, True, True]), 0.6).tolist() == [2, 2, 3, 0, 0]
    assert assign_labels(scores, np.array([False] * 3), 0.0).tolist() == [0] * 5
    image = scores.expand(4, 5, 3)  # the same for pixels
    assert assign_labels(image, np.array([True, True, True]), 0.6)[2].tolist() == [1, 2, 3, 0, 1]


def test_what_is_found_keeps_gaussians_of_its_own() -> None:
    """The keyboard outscores the phone everywhere, yet both are there."""
    scores = torch.tensor([[0.9, 0.6], [0.9, 0.7], [0.8, 0.3], [0.9, 0.1], [0.9, 0.1]])
    labels = assign_labels(scores, np.array([True, True]), 0.5)
    assert labels.tolist() == [1, 1, 1, 1, 1]
    strongest = torch.tensor([[0, 1, 3], [1, 0, 2]])
    three = torch.cat([scores[:3], torch.full((2, 2), 0.55)])
    kept = restore_taken(
        assign_labels(three, np.array([True, True]), 0.5),
        three,
        np.array([True, True]),
        0.5,
        torch.tensor([[0, 1, 2, 3, 4], [1, 0, 3, 4, 2]]),
        3,
    )
    assert kept.tolist().count(1) == 3, "who held them keeps as many as make an instance"
    both = restore_taken(labels, scores, np.array([True, True]), 0.5, strongest, 2)
    assert both.tolist() == [2, 2, 1, 1, 1], "but not what lies below the threshold"
    assert labels.tolist() == [1, 1, 1, 1, 1], "the argument is left alone"
    assert (
        restore_taken(labels, scores, np.array([True, False]), 0.5, strongest, 2).tolist() == labels.tolist()
    )
    assert (
        restore_taken(both, scores, np.array([True, True]), 0.5, strongest.flip(1), 2).tolist()
        == both.tolist()
    )
