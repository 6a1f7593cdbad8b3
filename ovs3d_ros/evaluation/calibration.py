"""Fits the presence decision and the label threshold of an encoder (docs/method.md, "Presence").

Each scene is mapped as on a robot, and queried for names of things that are in it and of things that are not.
The presence decision is a logistic regression on the evidence of these queries. The label threshold is the
one with the best mean IoU of single-prompt masks.
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
from ovs3d_ros.query.bank_presence import BankPresence
from ovs3d_ros.query.presence import EVIDENCE_COLUMNS, general_prompts, logistic_regression
from ovs3d_ros.query.request import MAX_PROMPTS
from ovs3d_ros.types import MapSnapshot, UserError

THRESHOLDS = np.linspace(0.3, 0.9, 25)
# Share of the pixels of a view, 14 x 14 px of 320 x 240: a class that covers less is not visible.
MIN_SHARE = 0.0025
MIN_VIEWS = 3  # views in which a class must be visible to serve as a prompt
_MASK_STRIDE = 4  # every fourth labelled view takes part in the choice of the threshold
_MIN_GENERAL = 8  # least number of present, and of absent, general prompts for a separate fit
_WEIGHT_DECAY = 1e-2  # of the logistic regression

LogisticFit = tuple[np.ndarray, float]  # weights [E] and bias


@dataclass(frozen=True, slots=True)
class ScenePrompts:
    """Names of things that are in a scene, and of things that are not."""

    present: list[str]
    absent: list[str]


@dataclass(frozen=True, slots=True)
class SceneEvidence:
    """The evidence of one scene's prompts, with the truth.

    Attributes:
        prompts: the P prompts.
        evidence: [P, E] see `PresenceCalibration.presence_weights`.
        general: [P] bool, see `presence.general_prompts`.
        present: [P] bool, the truth.
        iou: [L, T] IoU of the mask of each labelled present prompt at each of `THRESHOLDS`.
    """

    prompts: list[str]
    evidence: np.ndarray
    general: np.ndarray
    present: np.ndarray
    iou: np.ndarray


def visible_classes(dataset: Dataset, indices: Sequence[int] | None = None) -> list[str]:
    """Names of the classes that cover at least `MIN_SHARE` of at least `MIN_VIEWS` views.

    Args:
        dataset: a labelled dataset.
        indices: the views to count in; default all.
    """
    views = np.zeros(len(dataset.classes), np.int64)
    for index in range(len(dataset)) if indices is None else indices:
        labels = dataset[index].labels
        if labels is not None:
            views += np.bincount(labels.ravel(), minlength=len(views)) >= MIN_SHARE * labels.size
    return [name for name, count in zip(dataset.classes, views, strict=True) if name and count >= MIN_VIEWS]


def head_noun(name: str) -> str:
    """The last word of a name, without its attributes: "mug" of "red mug"."""
    return name.split()[-1]


def choose_prompts(dataset: Dataset, names: Sequence[str]) -> ScenePrompts:
    """Chooses the prompts for a scene: its visible classes, and those of `names` that it lacks.

    Each name is a prompt with and without its attributes. Barely visible classes are left out.

    Raises:
        UserError: no prompt is left.
    """
    visible, labelled = visible_classes(dataset), dataset.class_names
    present = list(dict.fromkeys([*visible, *map(head_noun, visible)]))
    in_scene = {*labelled, *map(head_noun, labelled)}
    absent = [name for name in dict.fromkeys([*names, *map(head_noun, names)]) if name not in in_scene]
    if not present and not absent:
        raise UserError(
            f"{dataset.name}: there is nothing to ask for: no class covers {MIN_SHARE:.2%} of {MIN_VIEWS} "
            "labelled views, and the other datasets have no class that this one lacks; label more views or "
            "name absent things"
        )
    return ScenePrompts(present, absent)


def map_scene(pipeline: Ovs3d, dataset: Dataset) -> Iterator[None]:
    """Maps all frames of a scene into an empty map; yields after each frame.

    Each keyframe is followed by `train.steps_per_keyframe` training steps.

    Raises:
        UserError: no Gaussian was seeded.
    """
    pipeline.reset()
    for frame in dataset:
        if pipeline.add_frame(frame):
            pipeline.optimize(pipeline.config.train.steps_per_keyframe)
        yield
    if not pipeline.stats["num_gaussians"]:
        raise UserError(
            f"{dataset.name}: no Gaussian could be seeded; give frames with depth or overlapping views"
        )
    for _ in pipeline.relift():
        pass


def collect_evidence(pipeline: Ovs3d, dataset: Dataset, scene_prompts: ScenePrompts) -> SceneEvidence:
    """Queries a mapped scene for its prompts and collects the evidence, with that of the name bank."""
    snapshot = pipeline.snapshot()
    prompts = [*scene_prompts.present, *scene_prompts.absent]
    parts = [prompts[i : i + MAX_PROMPTS] for i in range(0, len(prompts), MAX_PROMPTS)]
    evidence = np.concatenate([pipeline.query(part, snapshot=snapshot).evidence for part in parts])
    ranks = BankPresence(pipeline.encode_text).evidence(
        prompts, pipeline.encode_text(prompts), snapshot, pipeline.config.query.min_weight
    )
    classes = dataset.classes or ()
    labelled = [name for name in scene_prompts.present if name in classes]
    return SceneEvidence(
        prompts,
        np.hstack([evidence[:, :EVIDENCE_COLUMNS], ranks]),
        general_prompts(prompts, pipeline.calibration.distractors),
        np.arange(len(prompts)) < len(scene_prompts.present),
        iou_by_threshold(pipeline, snapshot, dataset, labelled),
    )


def iou_by_threshold(
    pipeline: Ovs3d, snapshot: MapSnapshot, dataset: Dataset, present: list[str]
) -> np.ndarray:
    """IoU [P, T] of each present prompt's mask per threshold, over every fourth labelled view."""
    classes = dataset.classes or []
    inter, union = np.zeros((2, len(present), len(THRESHOLDS)))
    for frame in [frame for frame in dataset if frame.labels is not None][::_MASK_STRIDE]:
        _, scores = pipeline.render_relevancy(present, frame.camera, frame.camtoworld, snapshot)
        for row, prompt in enumerate(present):
            masks = scores[..., row].cpu().numpy()[..., None] >= THRESHOLDS
            truth = (frame.labels == classes.index(prompt))[..., None]
            inter[row] += (masks & truth).sum((0, 1))
            union[row] += (masks | truth).sum((0, 1))
    return inter / np.maximum(union, 1)


def fit_calibration(scenes: Sequence[SceneEvidence]) -> dict[str, Any]:
    """The fields of `presence.PresenceCalibration` that fit these scenes best.

    Raises:
        UserError: all prompts are present, or all are absent.
    """
    (weights, bias), (general_weights, general_bias) = fit_presence(scenes)
    return dict(
        threshold=float(THRESHOLDS[mean_iou(scenes).argmax()]),
        presence_weights=weights.tolist(),
        presence_bias=bias,
        general_weights=general_weights.tolist(),
        general_bias=general_bias,
    )


def mean_iou(scenes: Sequence[SceneEvidence]) -> np.ndarray:
    """Mean IoU [T] over all labelled prompts at each threshold."""
    return np.concatenate([scene.iou for scene in scenes]).mean(0)


def fit_presence(scenes: Sequence[SceneEvidence]) -> tuple[LogisticFit, LogisticFit]:
    """Fits the presence decision: one regression for specific prompts, one for general prompts.

    Both are the same, fitted on all prompts, where general prompts are few.

    Raises:
        UserError: as `fit_calibration`.
    """
    evidence, general, present = (
        np.concatenate([getattr(scene, name) for scene in scenes])
        for name in ("evidence", "general", "present")
    )
    if present.all() or not present.any():
        raise UserError(
            "calibration needs prompts for things that are in a scene and for things that are not: give "
            "datasets with different classes, or names of absent things"
        )
    few = min(np.sum(general & present), np.sum(general & ~present)) < _MIN_GENERAL
    specific = np.ones_like(general) if few or general.all() else ~general
    specific_fit, general_fit = (
        fit_logistic(evidence[rows], present[rows]) for rows in (specific, specific if few else general)
    )
    return specific_fit, general_fit


def fit_logistic(
    evidence: np.ndarray, present: np.ndarray, prior: LogisticFit | None = None, decay: float = _WEIGHT_DECAY
) -> LogisticFit:
    """Fits a logistic regression; present and absent prompts weigh the same in total.

    Args:
        evidence: [P, E].
        present: [P] bool, the truth.
        prior: weights decay towards these; None: towards 0.
        decay: how strongly.
    """
    mean, std = evidence.mean(0), evidence.std(0) + 1e-9
    x = torch.from_numpy((evidence - mean) / std)
    y = torch.from_numpy(present.astype(np.float64))
    balance = torch.where(y > 0, 0.5 / y.mean(), 0.5 / (1 - y.mean()))
    start = np.zeros(x.shape[1] + 1)
    if prior is not None:
        start = np.append(prior[0] * std, prior[1] + prior[0] @ mean)
    expected = torch.from_numpy(start)
    weights = expected.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        logits = x @ weights[:-1] + weights[-1]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, y, weight=balance)
        loss = loss + decay * (weights - expected)[:-1].square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    fitted = weights.detach().numpy()
    return fitted[:-1] / std, float(fitted[-1] - (fitted[:-1] * mean / std).sum())


def leave_one_out(scenes: Sequence[SceneEvidence]) -> dict[str, Any]:
    """Metrics of the presence decision when each scene is predicted by a fit on the other scenes.

    Returns:
        As `presence_metrics`.
    """
    fits = [fit_presence([*scenes[:index], *scenes[index + 1 :]]) for index in range(len(scenes))]
    return presence_metrics(
        scenes, [predict_presence(scene, *fit) for scene, fit in zip(scenes, fits, strict=True)]
    )


def predict_presence(scene: SceneEvidence, specific: LogisticFit, general: LogisticFit) -> np.ndarray:
    """Probability [P] that each prompt's thing is in the scene, by the fit for its kind of prompt."""
    return np.where(
        scene.general,
        logistic_regression(scene.evidence, *general),
        logistic_regression(scene.evidence, *specific),
    )


def presence_metrics(scenes: Sequence[SceneEvidence], probabilities: Sequence[np.ndarray]) -> dict[str, Any]:
    """How well probabilities [P] of each scene's prompts separate present from absent things.

    Returns:
        The number of scenes, `mean_iou` at the best threshold, and for "all", "specific" and "general"
        prompts the metrics of `decision_metrics`.
    """
    scores, present, general = (
        np.concatenate(rows)
        for rows in (
            probabilities,
            [scene.present for scene in scenes],
            [scene.general for scene in scenes],
        )
    )
    kinds = dict(all=np.ones_like(general), specific=~general, general=general)
    metrics = {
        name: decision_metrics(scores[rows], present[rows])
        for name, rows in kinds.items()
        if present[rows].any() and not present[rows].all()
    }
    return dict(scenes=len(scenes), **metrics, mean_iou=float(mean_iou(scenes).max()))


def decision_metrics(scores: np.ndarray, present: np.ndarray) -> dict[str, float]:
    """How well probabilities [P] separate present from absent things; `present` [P] is the truth."""
    return dict(
        prompts=len(present),
        present=int(present.sum()),
        auroc=auroc(scores, present),
        fpr_at_95_tpr=fpr_at_tpr(scores, present),
        ece=ece(scores, present),
        tpr_at_half=float((scores[present] >= 0.5).mean()),
        fpr_at_half=float((scores[~present] >= 0.5).mean()),
    )
