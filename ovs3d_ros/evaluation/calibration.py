"""Fits the presence decision and the label threshold of an encoder (docs/method.md, "Presence").

Every scene is mapped as a robot would map it and asked for what is there and for what is not. A logistic regression on
the evidence gives the presence decision; the label threshold is the one with the best mean IoU of single-prompt masks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ovs3d_ros.datasets import Dataset
from ovs3d_ros.evaluation.metrics import auroc, ece, fpr_at_tpr
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.query.presence import is_general
from ovs3d_ros.query.request import MAX_PROMPTS
from ovs3d_ros.types import MapSnapshot, UserError

THRESHOLDS = np.linspace(0.3, 0.9, 25)
MIN_SHARE, MIN_VIEWS = 0.0025, 3  # of a view (14 x 14 px of 320 x 240): what shows less is not asked for
_EVERY = 4  # views whose masks decide on the threshold
_MIN_GENERAL = 8  # general prompts of either outcome, below which they are judged like the others
_DECAY = 1e-2  # of the logistic weights


@dataclass(frozen=True, slots=True)
class Questions:
    """Names of what a scene shows and of what it does not."""

    present: list[str]
    absent: list[str]


@dataclass(frozen=True, slots=True)
class Asked:
    """What came of a scene's questions.

    Attributes:
        prompts: the P prompts.
        evidence: [P, E] see `presence.Evidence.table`.
        general: [P] bool, see `presence.is_general`.
        present: [P] bool, the truth.
        iou: [L, T] IoU of each labelled present prompt's mask at each of `THRESHOLDS`.
    """

    prompts: list[str]
    evidence: np.ndarray
    general: np.ndarray
    present: np.ndarray
    iou: np.ndarray


def visible_classes(dataset: Dataset, indices: Sequence[int] | None = None) -> list[str]:
    """Class names that cover `MIN_SHARE` of `MIN_VIEWS` views at least: a map cannot know of others.

    Args:
        dataset: a labelled one.
        indices: the views that count; default all.
    """
    views = np.zeros(len(dataset.classes), np.int64)
    for index in range(len(dataset)) if indices is None else indices:
        labels = dataset[index].labels
        if labels is not None:
            views += np.bincount(labels.ravel(), minlength=len(views)) >= MIN_SHARE * labels.size
    return [name for name, count in zip(dataset.classes, views, strict=True) if name and count >= MIN_VIEWS]


def bare(name: str) -> str:
    """What a name with attributes is a kind of: its last word."""
    return name.split()[-1]


def questions(dataset: Dataset, names: Sequence[str]) -> Questions:
    """Asks a scene for its own classes and for other names, all with and without attributes.

    What is labelled but hardly to be seen is asked for neither way.

    Raises:
        UserError: nothing is left to ask for.
    """
    shown, named = visible_classes(dataset), [name for name in dataset.classes if name]
    present = list(dict.fromkeys([*shown, *map(bare, shown)]))
    there = {*named, *map(bare, named)}
    absent = [name for name in dict.fromkeys([*names, *map(bare, names)]) if name not in there]
    if not present and not absent:
        raise UserError(
            f"{dataset.name}: there is nothing to ask for: no class covers {MIN_SHARE:.2%} of {MIN_VIEWS} "
            "labelled views, and the other datasets have no class that this one lacks; label more views or "
            "name absent things"
        )
    return Questions(present, absent)


def map_scene(pipeline: Ovs3d, dataset: Dataset) -> Iterator[None]:
    """Maps all frames of a scene anew, `train.steps_per_keyframe` steps after each keyframe; yields after each frame.

    Raises:
        UserError: nothing could be mapped.
    """
    pipeline.reset()
    for frame in dataset:
        if pipeline.add_frame(frame):
            pipeline.optimize(pipeline.config.train.steps_per_keyframe)
        yield
    if not pipeline.stats["num_gaussians"]:
        raise UserError(f"{dataset.name}: no Gaussian could be seeded; it takes depth or overlapping views")
    for _ in pipeline.relift():
        pass


def ask(pipeline: Ovs3d, dataset: Dataset, asked: Questions) -> Asked:
    """Collects the evidence for a mapped scene's questions."""
    snapshot = pipeline.snapshot()
    prompts = [*asked.present, *asked.absent]
    evidence = np.concatenate(
        [
            pipeline.query(prompts[i : i + MAX_PROMPTS], snapshot=snapshot).evidence
            for i in range(0, len(prompts), MAX_PROMPTS)
        ]
    )
    named = [name for name in asked.present if name in dataset.classes]
    return Asked(
        prompts,
        evidence,
        is_general(prompts, pipeline.calibration.distractors),
        np.arange(len(prompts)) < len(asked.present),
        mask_iou(pipeline, snapshot, dataset, named),
    )


def mask_iou(pipeline: Ovs3d, snapshot: MapSnapshot, dataset: Dataset, present: list[str]) -> np.ndarray:
    """IoU [P, T] of each present prompt's mask, pixels of every fourth view pooled, at every threshold."""
    inter, union = np.zeros((2, len(present), len(THRESHOLDS)))
    for frame in [frame for frame in dataset if frame.labels is not None][::_EVERY]:
        _, scores = pipeline.render_relevancy(present, frame.camera, frame.camtoworld, snapshot)
        for row, prompt in enumerate(present):
            masks = scores[..., row].cpu().numpy()[..., None] >= THRESHOLDS
            truth = (frame.labels == dataset.classes.index(prompt))[..., None]
            inter[row] += (masks & truth).sum((0, 1))
            union[row] += (masks | truth).sum((0, 1))
    return inter / np.maximum(union, 1)


def fit(scenes: Sequence[Asked]) -> dict[str, Any]:
    """Fields of `presence.Calibration` that serve these scenes best.

    Raises:
        UserError: they were asked for present things only, or for absent ones only.
    """
    (weights, bias), (general_weights, general_bias) = fit_both(scenes)
    return dict(
        threshold=float(THRESHOLDS[mean_iou(scenes).argmax()]),
        presence_weights=weights.tolist(),
        presence_bias=bias,
        general_weights=general_weights.tolist(),
        general_bias=general_bias,
    )


def mean_iou(scenes: Sequence[Asked]) -> np.ndarray:
    """Mean IoU [T] over all labelled prompts at each threshold."""
    return np.concatenate([scene.iou for scene in scenes]).mean(0)


def fit_both(scenes: Sequence[Asked]) -> list[tuple[np.ndarray, float]]:
    """Weights and bias of specific prompts and of general ones.

    Raises:
        UserError: as `fit`.
    """
    evidence, general, present = (
        np.concatenate([getattr(s, name) for s in scenes]) for name in ("evidence", "general", "present")
    )
    if present.all() or not present.any():
        raise UserError(
            "the scenes must be asked for things that are there and for things that are not: give datasets "
            "with different classes, or names of absent things"
        )
    few = min(np.sum(general & present), np.sum(general & ~present)) < _MIN_GENERAL
    specific = np.ones_like(general) if few or general.all() else ~general
    return [fit_logistic(evidence[rows], present[rows]) for rows in (specific, specific if few else general)]


def fit_logistic(evidence: np.ndarray, present: np.ndarray) -> tuple[np.ndarray, float]:
    """Weights [E] and bias of a logistic regression, both outcomes weighing alike, with a little weight decay."""
    mean, std = evidence.mean(0), evidence.std(0) + 1e-9
    x = torch.from_numpy((evidence - mean) / std)
    y = torch.from_numpy(present.astype(np.float64))
    balance = torch.where(y > 0, 0.5 / y.mean(), 0.5 / (1 - y.mean()))
    weights = torch.zeros(x.shape[1] + 1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        logits = x @ weights[:-1] + weights[-1]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, y, weight=balance)
        loss = loss + _DECAY * weights[:-1].square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    fitted = weights.detach().numpy()
    return fitted[:-1] / std, float(fitted[-1] - (fitted[:-1] * mean / std).sum())


def probability(evidence: np.ndarray, weights: np.ndarray, bias: float) -> np.ndarray:
    """Logistic [P] of weighted evidence [P, E]."""
    return 1 / (1 + np.exp(-np.clip(evidence @ weights + bias, -50, 50)))


def leave_one_out(scenes: Sequence[Asked]) -> dict[str, Any]:
    """Figures of the decision when every scene is judged by what the other ones taught.

    Returns:
        As `figures`.
    """
    return figures(
        scenes,
        [
            judge(scene, *fit_both([*scenes[:index], *scenes[index + 1 :]]))
            for index, scene in enumerate(scenes)
        ],
    )


def judge(scene: Asked, specific: tuple[np.ndarray, float], general: tuple[np.ndarray, float]) -> np.ndarray:
    """Probability [P] that what was asked for is there, by weights and bias of either kind of prompt."""
    return np.where(
        scene.general, probability(scene.evidence, *general), probability(scene.evidence, *specific)
    )


def figures(scenes: Sequence[Asked], judged: Sequence[np.ndarray]) -> dict[str, Any]:
    """How well probabilities [P] of each scene's prompts tell what is there.

    Returns:
        scenes, mean_iou at the best threshold, and for "all", "specific" and "general" prompts those of `decision`.
    """
    scores, present, general = (
        np.concatenate(rows)
        for rows in (judged, [scene.present for scene in scenes], [scene.general for scene in scenes])
    )
    kinds = dict(all=np.ones_like(general), specific=~general, general=general)
    kinds = {
        name: decision(scores[rows], present[rows])
        for name, rows in kinds.items()
        if present[rows].any() and not present[rows].all()
    }
    return dict(scenes=len(scenes), **kinds, mean_iou=float(mean_iou(scenes).max()))


def decision(scores: np.ndarray, present: np.ndarray) -> dict[str, float]:
    """How well probabilities [P] tell what is present [P]."""
    return dict(
        prompts=len(present),
        present=int(present.sum()),
        auroc=auroc(scores, present),
        fpr_at_95_tpr=fpr_at_tpr(scores, present),
        ece=ece(scores, present),
        tpr_at_half=float((scores[present] >= 0.5).mean()),
        fpr_at_half=float((scores[~present] >= 0.5).mean()),
    )
