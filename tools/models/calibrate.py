"""Fits how the bundled CLIP's cosines read: `python tools/models/calibrate.py --scenes DIR [DIR ...] --json FILE`.

Every labelled scene is mapped as a robot would map it and asked for what is there and for what is not. A logistic
regression on the evidence of `ovs3d_ros.query` gives the presence decision; the label threshold is the one with the
best mean IoU of single-prompt masks. Reported leave-one-scene-out; written into the model's `calibration.json`.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

sys.path[:0] = [str(Path(__file__).resolve().parent.parent / "world")]

import vocabulary
import words

from ovs3d_ros.config import Config
from ovs3d_ros.config_io import override
from ovs3d_ros.datasets import Dataset, open_dataset
from ovs3d_ros.evaluate import auroc, ece, fpr_at_tpr
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.presence import is_general
from ovs3d_ros.types import MapSnapshot

log = logging.getLogger("calibrate")

CALIBRATION = Path(__file__).resolve().parents[2] / "ovs3d_ros" / "models" / "tiny_clip" / "calibration.json"
SETTINGS = {"clip.model": "bundled", "keyframe.translation": 0.02, "keyframe.rotation": 2.0, "map.image_size": 320}
STEPS_PER_KEYFRAME = 15
THRESHOLDS = np.linspace(0.3, 0.9, 25)
ABSENT_PAIRS, ABSENT_WORDS = 20, 20  # asked for per scene, beside all absent nouns
MIN_PIXELS, MIN_VIEWS = 190, 3  # a thing that shows less, in fewer views of 320x240, is not asked for, as in the demo


@dataclass
class Asked:
    """The evidence [P, E] of a scene's prompts, which are general and which there [P], and the IoU [P, T] per threshold."""

    prompts: list[str]
    evidence: np.ndarray
    general: np.ndarray
    present: np.ndarray
    iou: np.ndarray


def distractors() -> list[str]:
    """What every prompt competes against: the world's nouns, with and without colours, and its surfaces."""
    names = list(vocabulary.NOUNS)
    for noun, about in vocabulary.NOUNS.items():
        names += [f"{colour} {noun}" for colour in about.colours]
    return names + ["wooden table", "wooden shelf", "wooden chair", "wooden stool"]


def build_map(dataset: Dataset) -> tuple[Ovs3d, MapSnapshot]:
    """Maps all frames of a scene with the bundled model."""
    pipeline = Ovs3d(override(Config(), SETTINGS))
    for frame in dataset:
        if pipeline.add_frame(frame):
            pipeline.optimize(STEPS_PER_KEYFRAME)
    for _ in pipeline.relift():
        pass
    return pipeline, pipeline.snapshot()


def questions(dataset: Dataset, rng: np.random.Generator) -> tuple[list[str], list[str]]:
    """Prompts for what a scene shows, bare nouns among them, and for what it does not."""
    pixels = np.sort([np.bincount(frame.labels.ravel(), minlength=len(dataset.classes)) for frame in dataset], axis=0)
    named = [name for name in dataset.classes if name]
    present = [name for name, count in zip(dataset.classes, pixels[-MIN_VIEWS]) if name and count >= MIN_PIXELS]
    shown = [noun for noun in vocabulary.NOUNS if any(name.endswith(noun) for name in present)]
    present += [noun for noun in shown if noun not in present]
    nouns = [noun for noun in vocabulary.NOUNS if not any(name.endswith(noun) for name in named)]
    pairs = [f"{colour} {noun}" for noun, about in vocabulary.NOUNS.items() for colour in about.colours]
    # Natural wood is named "wooden table" in the world, and "brown table" is no less true of it.
    pairs = [pair for pair in pairs if pair not in named and pair.replace("brown", "wooden") not in named]
    return present, [*nouns, *rng.choice(pairs, ABSENT_PAIRS, replace=False),
                     *rng.choice(words.DISTRACTORS, ABSENT_WORDS, replace=False)]


def ask(folder: Path, rng: np.random.Generator) -> Asked:
    """Maps one scene and collects the evidence for its questions."""
    dataset = open_dataset(folder)
    pipeline, snapshot = build_map(dataset)
    present, absent = questions(dataset, rng)
    prompts = [*present, *(str(name) for name in absent)]
    evidence = np.concatenate([pipeline.query(prompts[i:i + 64], snapshot=snapshot).evidence
                               for i in range(0, len(prompts), 64)])
    there = np.arange(len(prompts)) < len(present)
    named = [name for name in present if name in dataset.classes]
    return Asked(prompts, evidence, is_general(prompts, pipeline.calibration.distractors), there,
                 mask_iou(pipeline, snapshot, dataset, named))


def mask_iou(pipeline: Ovs3d, snapshot: MapSnapshot, dataset: Dataset, present: list[str]) -> np.ndarray:
    """IoU [P, T] of each present prompt's mask, pixels of all views pooled, at every threshold."""
    inter, union = np.zeros((2, len(present), len(THRESHOLDS)))
    for frame in list(dataset)[::4]:
        _, scores = pipeline.render_relevancy(present, frame.camera, frame.camtoworld, snapshot)
        for row, prompt in enumerate(present):
            only = scores[..., row].cpu().numpy()
            truth = frame.labels == dataset.classes.index(prompt)
            masks = only[..., None] >= THRESHOLDS
            inter[row] += (masks & truth[..., None]).sum((0, 1))
            union[row] += (masks | truth[..., None]).sum((0, 1))
    return inter / np.maximum(union, 1)


def fit_logistic(evidence: np.ndarray, present: np.ndarray, decay: float = 1e-2) -> tuple[np.ndarray, float]:
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
        loss = loss + decay * weights[:-1].square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    fitted = weights.detach().numpy()
    return fitted[:-1] / std, float(fitted[-1] - (fitted[:-1] * mean / std).sum())


def probability(evidence: np.ndarray, weights: np.ndarray, bias: float) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(evidence @ weights + bias, -50, 50)))


def fit_both(scenes: list[Asked]) -> dict[bool, tuple[np.ndarray, float]]:
    """Weights and bias of specific and of general prompts."""
    evidence, general, present = (np.concatenate([getattr(s, name) for s in scenes])
                                  for name in ("evidence", "general", "present"))
    return {kind: fit_logistic(evidence[general == kind], present[general == kind]) for kind in (False, True)}


def report(scenes: list[Asked]) -> dict:
    """Leave-one-scene-out figures of the presence decision and of the threshold."""
    held = []
    for index, scene in enumerate(scenes):
        fitted = fit_both([other for other in scenes if other is not scene])
        held.append(np.where(scene.general, *(probability(scene.evidence, *fitted[kind]) for kind in (True, False))))
    scores, present, general = (np.concatenate(rows) for rows in (
        held, [s.present for s in scenes], [s.general for s in scenes]))
    figures = {name: decision(scores[rows], present[rows]) for name, rows in (
        ("all", general | True), ("specific", ~general), ("general", general))}
    return dict(scenes=len(scenes), **figures, mean_iou=float(np.concatenate([s.iou for s in scenes]).mean(0).max()))


def decision(scores: np.ndarray, present: np.ndarray) -> dict:
    """How well scores [P] tell what is present [P]."""
    return dict(prompts=len(present), present=int(present.sum()), auroc=auroc(scores, present),
                fpr_at_95_tpr=fpr_at_tpr(scores, present), ece=ece(scores, present),
                tpr_at_half=float((scores[present] >= 0.5).mean()),
                fpr_at_half=float((scores[~present] >= 0.5).mean()))


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=Path, nargs="+", required=True, help="labelled scene folders")
    parser.add_argument("--json", type=Path, help="where the leave-one-scene-out report goes")
    args = parser.parse_args()
    calibration = json.loads(CALIBRATION.read_text())
    calibration["query"] = dict(calibration.get("query", {}), distractors=distractors())
    CALIBRATION.write_text(json.dumps(calibration, indent=1) + "\n")
    scenes = []
    for folder in args.scenes:
        scenes.append(ask(folder, np.random.default_rng(len(scenes))))
        log.info("%s: %d prompts, best mean IoU %.3f", folder, len(scenes[-1].prompts), scenes[-1].iou.mean(0).max())
    fitted = fit_both(scenes)
    threshold = float(THRESHOLDS[np.concatenate([s.iou for s in scenes]).mean(0).argmax()])
    figures = report(scenes)
    for name, kind in (("presence", False), ("general", True)):
        weights, bias = fitted[kind]
        calibration["query"].update({f"{name}_weights": [float(w) for w in weights], f"{name}_bias": bias})
    calibration["query"].update(
        threshold=threshold, source=f"{len(scenes)} rendered scenes, {figures['all']['prompts']} prompts "
                                    "(tools/models/calibrate.py)")
    CALIBRATION.write_text(json.dumps(calibration, indent=1) + "\n")
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")
    log.info("threshold %.3f, %s", threshold, figures)


if __name__ == "__main__":
    main()
