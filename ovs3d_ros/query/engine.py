"""Answers a text query from one snapshot of the map: what is there, where, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from ovs3d_ros.config import QueryConfig
from ovs3d_ros.query.coverage import observed_share
from ovs3d_ros.query.instances import find_objects
from ovs3d_ros.query.labelling import Similarities, first_mentions, in_region, label_places
from ovs3d_ros.query.presence import (
    PEAK_GAUSSIANS,
    Calibration,
    Evidence,
    is_general,
    presence_evidence,
    presence_probability,
    verdicts,
)
from ovs3d_ros.query.similarity import Scan, scan
from ovs3d_ros.semantics.class_field import vocabulary_indices
from ovs3d_ros.types import MapSnapshot, Query, QueryResult, RefinedField, SemanticObject


@dataclass(frozen=True, slots=True)
class TextFeatures:
    """Unit text features of a query's words.

    Attributes:
        prompts: [P, D].
        negatives: [M, D].
        distractors: [K, D] of `Calibration.distractors`.
    """

    prompts: torch.Tensor
    negatives: torch.Tensor
    distractors: torch.Tensor


def answer_query(
    query: Query,
    texts: TextFeatures,
    snapshot: MapSnapshot,
    field: RefinedField | None,
    calibration: Calibration,
    config: QueryConfig,
) -> QueryResult:
    """Answers a query.

    Args:
        query: the question.
        texts: its words, encoded.
        snapshot: the map.
        field: the refined field; it decides for the prompts it holds, unless the user named negatives.
        calibration: of the encoder.
        config: when a prompt counts as found, and what an instance is.
    """
    similarity, evidence = _scan_map(query, texts, snapshot, calibration, config)
    general = is_general(query.prompts, calibration.distractors)
    presence = presence_probability(evidence, general, calibration)
    found = presence >= config.presence
    columns = vocabulary_indices(None if query.own_negatives else field, query.prompts, query.mode)
    field = field if (columns >= 0).any() else None
    labels, relevancy = label_places(
        query,
        found,
        Similarities(
            # By cosine: relevancy rounds to 1 at a high temperature, and the best prompt would be one of many.
            ranking=snapshot.codes @ snapshot.codec.directions(texts.prompts)
            if query.mode == "argmax"
            else similarity.scores,
            relevancy=similarity.scores,
            eligible=similarity.known & in_region(snapshot.gaussians["means"], query.roi),
            columns=columns,
            probabilities=field.probabilities if field is not None else None,
            strongest=torch.from_numpy(evidence.strongest).to(snapshot.codes.device),
        ),
        calibration.threshold,
        config.min_instance,
    )
    objects, instances = _find_objects(query, snapshot, labels, relevancy, config)
    return QueryResult(
        query=query,
        map_version=snapshot.version,
        found=found,
        presence=presence,
        score=evidence.peak,
        evidence=evidence.table,
        relevancy=relevancy,
        labels=labels,
        instances=torch.from_numpy(instances),
        objects=objects,
        verdicts=verdicts(presence, config),
        observed=observed_share(snapshot),
        field=field,
    )


def _scan_map(
    query: Query, texts: TextFeatures, snapshot: MapSnapshot, calibration: Calibration, config: QueryConfig
) -> tuple[Scan, Evidence]:
    """The relevancy of every Gaussian, and the evidence that each prompt's thing is in the map."""
    codes, directions = snapshot.codes, snapshot.codec.directions
    found = scan(
        codes,
        snapshot.weight >= config.min_weight,
        directions(texts.prompts),
        directions(texts.negatives),
        calibration.temperature,
        PEAK_GAUSSIANS,
    )
    competing = texts.prompts @ texts.distractors.T < calibration.synonym
    evidence = presence_evidence(found, codes, snapshot.weight, directions(texts.distractors), competing)
    return found, evidence


def _find_objects(
    query: Query,
    snapshot: MapSnapshot,
    labels: torch.Tensor,
    relevancy: torch.Tensor,
    config: QueryConfig,
) -> tuple[list[SemanticObject], np.ndarray]:
    """The instances, and their numbers per Gaussian [N]; a prompt that is named again gets those of the first mention."""
    objects, instances = find_objects(
        snapshot.gaussians["means"].cpu().numpy(),
        labels.cpu().numpy(),
        relevancy.cpu().numpy(),
        snapshot.views.cpu().numpy(),
        query.prompts,
        config,
        query.max_instances,
    )
    first = first_mentions(query.prompts)
    for repeated in np.flatnonzero(first < np.arange(len(first))):
        objects += [replace(o, label=int(repeated) + 1) for o in objects if o.label == first[repeated] + 1]
    return objects, instances
