"""The answer to a question in words, from one snapshot: what is there, where, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from ovs3d_ros.config import QueryConfig
from ovs3d_ros.query.coverage import observed_share
from ovs3d_ros.query.instances import find_objects
from ovs3d_ros.query.presence import (
    PEAK_GAUSSIANS,
    Calibration,
    is_general,
    presence_evidence,
    presence_probability,
    verdicts,
)
from ovs3d_ros.query.relevancy import choose_labels, inside, restore_taken
from ovs3d_ros.query.similarity import scan
from ovs3d_ros.semantics.class_field import merge_refined_scores, vocabulary_indices
from ovs3d_ros.types import MapSnapshot, QueryResult, RefinedField, UserError

MODES = ("relevancy", "argmax")


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, its words encoded.

    Attributes:
        prompts: the P prompts.
        texts: [P, D] their unit features.
        negatives: the negatives the user named; None for the usual ones.
        against: [M, D] unit features of what the prompts compete against.
        distractors: [K, D] unit features of `Calibration.distractors`.
        mode: one of `MODES`.
        threshold: relevancy above which a Gaussian carries a label.
        max_instances: per prompt, 0 = all.
        roi: [2, 3] corners of a box in metres outside of which nothing is labelled; None: everywhere.
    """

    prompts: list[str]
    texts: torch.Tensor
    negatives: list[str] | None
    against: torch.Tensor
    distractors: torch.Tensor
    mode: str
    threshold: float
    max_instances: int
    roi: np.ndarray | None


def check_mode(mode: str) -> None:
    """Raises UserError unless there is such a mode."""
    if mode not in MODES:
        raise UserError(f"mode {mode!r}: choose {' or '.join(MODES)}")


def answer(question: Question, snapshot: MapSnapshot, field: RefinedField | None, calibration: Calibration,
           config: QueryConfig) -> QueryResult:
    """Answers a question.

    Args:
        question: what is asked.
        snapshot: the map.
        field: the refined field to prefer where it has the names.
        calibration: of the encoder.
        config: when a thing counts as found, and what an instance is.
    """
    prompts = question.prompts
    first = np.array([prompts.index(prompt) for prompt in prompts])  # what is named twice is there once
    codes, directions = snapshot.codes, snapshot.codec.directions
    texts = directions(question.texts)
    scanned = scan(codes, snapshot.weight >= config.min_weight, texts, directions(question.against), calibration.temperature,
                   PEAK_GAUSSIANS)
    competing = question.texts @ question.distractors.T < calibration.synonym
    evidence = presence_evidence(scanned, codes, snapshot.weight, directions(question.distractors), competing)
    presence = presence_probability(evidence, is_general(prompts, calibration.distractors), calibration)
    found = presence >= config.presence
    columns, scores = vocabulary_indices(field, prompts, question.negatives, question.mode), scanned.scores
    # by cosine: relevancy rounds to 1 where the temperature is high, and what is clear would be a tie
    ranking = codes @ texts if question.mode == "argmax" else scores
    if (columns >= 0).any():
        ranking, scores = merge_refined_scores(field.probabilities, columns, ranking, scores, calibration.threshold)
    labels = choose_labels(question.mode, scores, ranking, found, question.threshold)
    if question.mode == "relevancy":
        strongest = torch.from_numpy(evidence.strongest).to(codes.device)
        once = found & (first == np.arange(len(first)))
        labels = restore_taken(labels, scanned.scores, once, question.threshold, strongest, config.min_instance)
    labels = labels * (scanned.known & inside(snapshot.gaussians["means"], question.roi))
    objects, instances = find_objects(
        snapshot.gaussians["means"].cpu().numpy(), labels.cpu().numpy(), scores.cpu().numpy(),
        snapshot.views.cpu().numpy(), prompts, config, question.max_instances)
    for repeated in np.flatnonzero(first < np.arange(len(first))):
        objects += [replace(o, label=int(repeated) + 1) for o in objects if o.label == first[repeated] + 1]
    return QueryResult(
        prompts=prompts, map_version=snapshot.version, found=found, presence=presence, score=evidence.peak,
        evidence=evidence.table, relevancy=scores, labels=labels, instances=torch.from_numpy(instances),
        objects=objects, verdicts=verdicts(presence, config), observed=observed_share(snapshot), field=field,
        roi=question.roi)
