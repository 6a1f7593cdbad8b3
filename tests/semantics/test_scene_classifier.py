"""The classifier that learns from a map what its names look like."""

from __future__ import annotations

import numpy as np
import torch

from ovs3d_ros.semantics.scene_classifier import adapt_distributions, discriminate

CENTERS = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
SPREAD = torch.tensor([0.1, 0.1, 3.0])  # the third feature says nothing


def samples(counts: tuple[int, ...] = (900, 80, 20)) -> tuple[torch.Tensor, torch.Tensor]:
    """Features [N, 3] and class [N]."""
    generator = torch.Generator().manual_seed(0)
    classes = torch.cat([torch.full((count,), number) for number, count in enumerate(counts)])
    return CENTERS[classes] + SPREAD * torch.randn(len(classes), 3, generator=generator), classes


def test_learns_small_classes_from_labels_that_are_mostly_right() -> None:
    features, classes = samples()
    truth = torch.nn.functional.one_hot(classes, 3).float()
    generator = torch.Generator().manual_seed(1)
    noisy = torch.rand(len(classes), generator=generator) < 0.2
    labels = torch.where(noisy[:, None], 0.6 * truth.roll(1, dims=1) + 0.4 * truth, 0.8 * truth + 0.2 / 3)
    learned, known = discriminate(labels, features, torch.ones(len(classes)))
    assert known.all() and (labels.argmax(1) == classes).float().mean() < 0.85
    for number in range(3):
        assert (learned.argmax(1) == classes)[classes == number].float().mean() > 0.95
    assert torch.allclose(learned.sum(1), torch.ones(len(classes)), atol=1e-5)


def test_hard_labels_give_the_textbook_discriminant() -> None:
    features, classes = samples()
    found, _ = discriminate(torch.nn.functional.one_hot(classes, 3).float(), features, torch.ones(1000))
    x, y = features.double().numpy(), classes.numpy()
    centers = np.stack([x[y == number].mean(0) for number in range(3)])
    within = sum((y == number).mean() * np.cov(x[y == number].T, bias=True) for number in range(3))
    covariance = 0.95 * within + 0.05 * np.diag(x.var(0))  # shrunk towards the variances of all
    away = x[:, None] - centers
    distance = np.einsum("nvf,fg,nvg->nv", away, np.linalg.inv(covariance), away)
    likelihood = np.exp(-0.5 * distance) * np.sqrt(np.bincount(y))
    np.testing.assert_allclose(found, likelihood / likelihood.sum(1, keepdims=True), atol=2e-3)


def test_result_does_not_depend_on_the_scale_of_the_features() -> None:
    features, classes = samples()
    labels = torch.nn.functional.one_hot(classes, 3).float() * 0.9 + 0.1 / 3
    mass = torch.ones(len(classes))
    scaled = torch.cat([features * torch.tensor([1e3, 1.0, 1e-3]), torch.ones(len(classes), 1)], dim=1)
    assert torch.allclose(
        discriminate(labels, features, mass)[0], discriminate(labels, scaled, mass)[0], atol=1e-3
    )


def test_class_without_sure_samples_keeps_its_probability() -> None:
    features, classes = samples()
    labels = torch.nn.functional.one_hot(classes, 4).float() * 0.95 + 0.05 / 4
    mass = torch.ones(len(classes))
    assert discriminate(labels, features, mass)[1].tolist() == [True, True, True, False]
    labels[::10] = torch.tensor([0.3, 0.3, 0.3, 0.1])
    adapted = adapt_distributions(labels, features, mass, 0.3)
    assert torch.equal(adapted[:, 3], labels[:, 3])
    assert torch.allclose(adapted.sum(1), mass, atol=1e-5)
    assert (adapted[::10, :3].argmax(1) == classes[::10]).float().mean() > 0.9


def test_weight_zero_changes_nothing_and_the_unsure_follow_the_map() -> None:
    features, classes = samples()
    distributions = 0.9 * torch.nn.functional.one_hot(classes, 3).float() + 0.1 / 3
    unsure = torch.arange(len(classes)) % 10 == 0
    distributions[unsure] = torch.tensor([0.3, 0.35, 0.35])  # the text features cannot tell
    mass = torch.ones(len(classes))
    assert torch.allclose(adapt_distributions(distributions, features, mass, 0.0), distributions, atol=1e-5)
    adapted = adapt_distributions(distributions, features, mass, 0.3)
    assert (distributions.argmax(1) == classes)[unsure].float().mean() < 0.2
    assert (adapted.argmax(1) == classes)[unsure].float().mean() > 0.9


def test_map_without_anything_sure_stays_as_it_is() -> None:
    features = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    vague = torch.full((6, 4), 0.25)
    assert torch.equal(adapt_distributions(vague, features, torch.ones(6), 0.3), vague)
    single = torch.tensor([[0.9, 0.1]])
    assert torch.isfinite(adapt_distributions(single, features[:1], torch.full((1,), 9.0), 0.3)).all()
