"""Queries, the objects that answer them, and results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ovs3d_ros.types.maps import RefinedField

if TYPE_CHECKING:  # annotations only: reading datasets and messages needs no torch
    import torch


@dataclass(frozen=True, slots=True)
class SemanticObject:
    """One instance of a queried name.

    Attributes:
        prompt: the name.
        label: 1-based index of the prompt in the query.
        instance: 1-based number within the answer.
        score: mean relevancy of its Gaussians, 0..1.
        center: [3] world frame, in the unit of its poses.
        quat: [4] wxyz, orientation of the box.
        size: [3] in that unit, full extents of the oriented box.
        num_gaussians: number of Gaussians in the instance.
        views: number of keyframes that saw it.
    """

    prompt: str
    label: int
    instance: int
    score: float
    center: np.ndarray
    quat: np.ndarray
    size: np.ndarray
    num_gaussians: int
    views: int


@dataclass(frozen=True, slots=True)
class Relation:
    """A prompt that says where its thing is.

    Attributes:
        thing: the plain name of what is asked for.
        name: one of `query.relations.RELATIONS`.
        place: the plain name of what it stands in relation to.
    """

    thing: str
    name: str
    place: str


@dataclass(frozen=True, slots=True)
class Query:
    """A text query whose parts were checked, see `query.request.make_query`.

    Attributes:
        prompts: the P names to find, as they were asked for.
        negatives: names the prompts compete against.
        own_negatives: the user named the negatives. Lifted codes then answer: a refined field holds others.
        mode: "relevancy" decides each prompt against the negatives; "argmax" gives every Gaussian the best
            prompt (3D-OVS).
        threshold: relevancy from which a Gaussian or a pixel carries a label, 0..1.
        max_instances: per prompt, 0 = all.
        roi: [2, 3] two opposite corners of a box in the world; nothing outside is labelled. None: no limit.
        refine: the map is refined for these prompts first.
        relations: [P] the prompts that say where a thing is, and None for plain names; empty: all are plain.
    """

    prompts: tuple[str, ...]
    negatives: tuple[str, ...]
    own_negatives: bool
    mode: str
    threshold: float
    max_instances: int
    roi: np.ndarray | None
    refine: bool
    relations: tuple[Relation | None, ...] = ()


@dataclass(frozen=True, slots=True)
class QueryResult:
    """The answer to a text query, per prompt and per Gaussian.

    Attributes:
        query: the question, with its P prompts.
        map_version: version of the snapshot that answered.
        found: [P] bool, the presence decision.
        presence: [P] float, calibrated probability that the thing is in the map.
        verdicts: [P] "yes" (found), "unsure" or "no".
        observed: share of the horizon round the keyframes that the map shows, 0..1. Well below 1, a thing
            that was not found may stand where no camera has looked.
        score: [P] float, the peak relevancy.
        evidence: [P, E] all the evidence of presence, see `presence.Evidence`.
        scores: [N] float32, 0..1: relevancy of each Gaussian's label; without one, of the best prompt.
        score_all: computes `relevancy`.
        labels: [N] int64, 0 = none, else 1 + prompt index.
        instances: [N] int64, 0 = none, else `SemanticObject.instance`.
        objects: the instances.
        field: the refined field that decided for some of the prompts; None: the lifted codes decided for all.
        latency_ms: time to answer in milliseconds, text encoding included.
        notes: [P] why a relation does not hold, or ""; empty: there are none.
    """

    query: Query
    map_version: int
    found: np.ndarray
    presence: np.ndarray
    score: np.ndarray
    evidence: np.ndarray
    scores: torch.Tensor
    score_all: Callable[[], torch.Tensor]
    labels: torch.Tensor
    instances: torch.Tensor
    objects: list[SemanticObject]
    verdicts: list[str]
    observed: float
    field: RefinedField | None = None
    latency_ms: float = 0.0
    notes: tuple[str, ...] = ()

    @property
    def relevancy(self) -> torch.Tensor:
        """[N, P] float32 per Gaussian, 0..1; computed anew at each call."""
        return self.score_all()

    @property
    def prompts(self) -> tuple[str, ...]:
        """The P prompts of the query."""
        return self.query.prompts
