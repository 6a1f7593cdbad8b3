"""Remembers answers: the same question to the same snapshot is not answered twice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from ovs3d_ros.query.memo import PartMemo
from ovs3d_ros.types import MapSnapshot, Query, QueryResult, RefinedField, SemanticObject

_OBJECT = 200  # bytes of what is kept of an object beside its geometry, about
_Facts = tuple[str, int, int, float, int, int]  # prompt, label, instance, score, num_gaussians, views


@dataclass(frozen=True, slots=True)
class Asked:
    """A question to a map.

    Attributes:
        query: the question.
        snapshot: the map.
        field: the refined field that decides, or None.
        compute: answers anew.
    """

    query: Query
    snapshot: MapSnapshot
    field: RefinedField | None
    compute: Callable[[], QueryResult]


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """A copy of an answer. It keeps no map alive, and nobody who has the answer can change it.

    Attributes:
        columns: [P] found, presence, score and evidence.
        labels: [N] int16.
        scores: [N].
        instances: [N] int32.
        facts: of the objects.
        geometry: [O, 10] centre, orientation and size of each.
        observed, verdicts, notes: see `QueryResult`.
        is_refined: whether a refined field decided for some of the prompts.
    """

    columns: tuple[np.ndarray, ...]
    labels: torch.Tensor
    scores: torch.Tensor
    instances: torch.Tensor
    facts: tuple[_Facts, ...]
    geometry: np.ndarray
    observed: float
    verdicts: tuple[str, ...]
    notes: tuple[str, ...]
    is_refined: bool

    @property
    def nbytes(self) -> int:
        """Of memory."""
        rows = sum(t.numel() * t.element_size() for t in (self.labels, self.scores, self.instances))
        return rows + self.geometry.nbytes + _OBJECT * len(self.facts)

    def restore(self, asked: Asked) -> QueryResult:
        """The answer, which belongs to whoever asks; the relevancy of all Gaussians is computed anew."""
        found, presence, score, evidence = (column.copy() for column in self.columns)
        things = zip(self.facts, self.geometry.copy(), strict=True)
        return QueryResult(
            query=asked.query,
            map_version=asked.snapshot.version,
            found=found,
            presence=presence,
            score=score,
            evidence=evidence,
            scores=self.scores.clone(),
            score_all=lambda: asked.compute().score_all(),
            labels=self.labels.long(),
            instances=self.instances.long(),
            objects=[
                SemanticObject(*facts[:4], shape[:3], shape[3:7], shape[7:], *facts[4:])
                for facts, shape in things
            ],
            verdicts=[*self.verdicts],
            observed=self.observed,
            field=asked.field if self.is_refined else None,
            notes=self.notes,
        )


def keep_answer(result: QueryResult) -> KeptAnswer:
    """Copies an answer."""
    objects = result.objects
    shapes = [np.concatenate([o.center, o.quat, o.size]) for o in objects]
    columns = result.found, result.presence, result.score, result.evidence
    return KeptAnswer(
        columns=tuple(column.copy() for column in columns),
        labels=result.labels.to(torch.int16),
        scores=result.scores.clone(),
        instances=result.instances.to(torch.int32),
        facts=tuple((o.prompt, o.label, o.instance, o.score, o.num_gaussians, o.views) for o in objects),
        geometry=np.array(shapes).reshape(-1, 10),
        observed=result.observed,
        verdicts=tuple(result.verdicts),
        notes=result.notes,
        is_refined=result.field is not None,
    )


class AnswerMemo:
    """Keeps answers of snapshots, as long as these live, within a number of bytes.

    It knows nothing of what else an answer depends on: whoever changes that begins a new one. Any thread may
    use it.

    Args:
        most: bytes that all answers take at most.
    """

    def __init__(self, most: int) -> None:
        self._kept = PartMemo(most)

    def answer(self, asked: Asked) -> QueryResult:
        """The answer of a snapshot to a question; with another refined field than its own it is computed."""
        query, field = asked.query, asked.field
        if field is not None and field is not asked.snapshot.refined:
            return asked.compute()
        region = None if query.roi is None else np.asarray(query.roi, np.float64).tobytes()
        question = replace(query, roi=None), region, field is not None
        new: list[QueryResult] = []

        def keep(missing: list[int]) -> list[KeptAnswer]:
            new.extend(asked.compute() for _ in missing)
            return [keep_answer(answer) for answer in new]

        (kept,) = self._kept.gather(question, [asked.snapshot], keep)
        return new[0] if new else kept.restore(asked)

    @property
    def nbytes(self) -> int:
        """Of all answers."""
        return self._kept.nbytes
