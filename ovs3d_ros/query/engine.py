"""Answers text queries from snapshots of the map: what is there, where, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from ovs3d_ros.config import QueryConfig
from ovs3d_ros.encoders import ImageTextEncoder
from ovs3d_ros.encoders.validation import check_texts
from ovs3d_ros.query.answers import AnswerMemo, Asked
from ovs3d_ros.query.bank_presence import BankPresence, decide_presence
from ovs3d_ros.query.coverage import horizon_coverage
from ovs3d_ros.query.distractors import DistractorMemo, Rivals
from ovs3d_ros.query.instances import map_grid
from ovs3d_ros.query.labelling import label_snapshot
from ovs3d_ros.query.map_objects import find_query_objects
from ovs3d_ros.query.memo import PartMemo, SnapshotMemo
from ovs3d_ros.query.name_cache import encode_names
from ovs3d_ros.query.object_presence import GroupJudge
from ovs3d_ros.query.parked import score_map
from ovs3d_ros.query.parked_objects import ObjectMemo
from ovs3d_ros.query.presence import (
    PEAK_GAUSSIANS,
    Evidence,
    PresenceCalibration,
    encoder_calibration,
    is_calibrated,
    presence_evidence,
    verdicts,
)
from ovs3d_ros.query.related import answer_related, map_layout
from ovs3d_ros.query.relevancy import relevancy
from ovs3d_ros.query.request import QueryOptions, check_semantics, make_query, resolve_threshold
from ovs3d_ros.query.similarity import (
    Competition,
    GaussianScores,
    at_least,
    lerf_competition,
    score_gaussians,
)
from ovs3d_ros.query.voxels import PointGrid
from ovs3d_ros.semantics.class_field import vocabulary_indices
from ovs3d_ros.semantics.scale_selection import COMMON_NAMES
from ovs3d_ros.types import MapSnapshot, Query, QueryResult, RefinedField

if TYPE_CHECKING:
    from typing_extensions import Unpack

_MAX_CACHED_TEXTS = 10_000
_MEMO, _ANSWERS = 128 << 20, 64 << 20  # bytes
_GENERAL_NEGATIVES = QueryConfig().negatives


@dataclass(frozen=True, slots=True)
class TextFeatures:
    """Unit text features of a query's words.

    Attributes:
        prompts: [P, D].
        negatives: [M, D].
    """

    prompts: torch.Tensor
    negatives: torch.Tensor


@dataclass(frozen=True, slots=True)
class MapFacts:
    """What is remembered of a map from query to query.

    Attributes:
        observed: of `horizon_coverage`.
        grid: of the Gaussians, with `query.instance_gap`; None at the first query.
        rivals: of the prompts.
        parts: what was computed from parked Gaussians.
        objects: finds objects in maps with such.
    """

    observed: float
    grid: PointGrid | None
    rivals: Rivals
    parts: PartMemo
    objects: ObjectMemo


class QueryEngine:
    """Answers text queries from snapshots, from any thread.

    Args:
        clip: the text encoder; None: nothing can be asked.
        config: parameters of queries.

    Attributes:
        clip: see above.
        calibration: how the encoder's cosines read.
    """

    def __init__(self, clip: ImageTextEncoder | None, config: QueryConfig) -> None:
        self.clip = clip
        self.calibration = encoder_calibration(clip, config.calibration)
        self._bank = self._make_bank(is_calibrated(clip, config.calibration))
        self._config = config
        self._texts: dict[str, torch.Tensor] = {}
        self._distractors = DistractorMemo(self.encode_text, _MAX_CACHED_TEXTS)
        self._coverage = SnapshotMemo(horizon_coverage)
        self._grid = SnapshotMemo(map_grid)
        self._layout = SnapshotMemo(map_layout)
        self._parts = PartMemo(_MEMO)
        self._objects = ObjectMemo(self._parts)
        self._answers = AnswerMemo(_ANSWERS)

    def configure(self, config: QueryConfig) -> None:
        """Takes new values of runtime parameters."""
        self._config = config
        self._answers = AnswerMemo(_ANSWERS)

    def calibrate(self, calibration: PresenceCalibration) -> None:
        """Takes another calibration of the encoder, which decides about presence and labels from now on."""
        self.calibration = calibration
        self._bank = self._make_bank(is_calibrated=True)
        self._answers = AnswerMemo(_ANSWERS)

    def _make_bank(self, is_calibrated: bool) -> BankPresence | None:
        """The comparison with a bank of names, where the calibration asks for it or there is none."""
        weights, bias = self.calibration.bank_weights, self.calibration.bank_bias
        if weights:
            return BankPresence(self._encode_bank, weights, bias)
        needless = is_calibrated and not self.calibration.weighs_bank
        return None if needless else BankPresence(self._encode_bank)

    @property
    def bank(self) -> BankPresence | None:
        """Compares prompts with a bank of names; None: `calibration` decides without that."""
        return self._bank

    @property
    def is_ranged(self) -> bool:
        """Whether labels follow the map's own range of cosines, see `BankPresence.relevancy`."""
        return self._bank is not None and not self.calibration.weighs_bank

    @property
    def encoder_name(self) -> str | None:
        """Name of the text encoder; None: none is loaded."""
        return self.clip.name if self.clip is not None else None

    def encode_text(self, prompts: Sequence[str]) -> torch.Tensor:
        """Unit text features [P, D]; cached by prompt."""
        assert self.clip is not None, "texts need an encoder, see `check`"
        cache = self._texts if len(self._texts) < _MAX_CACHED_TEXTS else {}  # a robot runs for months
        unknown = [p for p in dict.fromkeys(prompts) if p not in cache]
        if unknown:
            features = check_texts(self.clip.encode_text(unknown), len(unknown), self.clip)
            cache.update(zip(unknown, features, strict=True))
        self._texts = cache
        return torch.stack([cache[p] for p in prompts]) if prompts else torch.zeros(0, self.clip.dim)

    def _encode_bank(self, names: Sequence[str]) -> torch.Tensor:
        """Unit text features [M, D] of the name bank, which keeps them itself."""
        clip = self.clip
        assert clip is not None, "a bank needs an encoder"
        return encode_names(
            names, clip.name, lambda part: check_texts(clip.encode_text(part), len(part), clip)
        )

    def common_names(self) -> Sequence[str]:
        """Nouns of other things: those of the calibration, or a short list for an encoder without one."""
        return self.calibration.distractors or COMMON_NAMES

    def make_query(self, prompts: Sequence[str], **options: Unpack[QueryOptions]) -> Query:
        """Checks a query and fills in the defaults, see `request.make_query`."""
        return make_query(prompts, self._config, self.calibration, **options)

    def label_threshold(self, threshold: float | None) -> float:
        """The relevancy from which a label is given, see `request.resolve_threshold`."""
        return resolve_threshold(threshold, self._config, self.calibration)

    def check(self, snapshot: MapSnapshot) -> None:
        """Raises UserError unless a map has features of this encoder."""
        check_semantics(snapshot, self.encoder_name)

    def answer(self, query: Query, snapshot: MapSnapshot, field: RefinedField | None) -> QueryResult:
        """Answers a query from a snapshot and a refined field, see `answer_query` and `answer_related`.

        The same question to the same snapshot has the same answer, which is remembered.
        """
        # An answer that is under way while the settings change goes into the memory of before.
        answers, asked = self._answers, (query, snapshot, field)
        return answers.answer(Asked(*asked, lambda: self._answer_anew(*asked)))

    def _answer_anew(self, query: Query, snapshot: MapSnapshot, field: RefinedField | None) -> QueryResult:
        if query.relations:
            rules = snapshot, self._config, self._layout
            return answer_related(query, lambda q: self._answer_anew(q, snapshot, field), *rules)
        texts = self._encode_query(query)
        # Of a map that is asked once, as while it grows, or large, the labelled part alone is sorted.
        grid = None if snapshot.parked else self._grid.if_repeated(snapshot, self._config.instance_gap)
        rivals = self._rivals(query, texts, snapshot)
        facts = MapFacts(self._coverage(snapshot), grid, rivals, self._parts, self._objects)
        return answer_query(query, texts, snapshot, field, self.calibration, self._config, facts, self._bank)

    def score(
        self,
        codes: torch.Tensor,
        snapshot: MapSnapshot,
        prompts: Sequence[str],
        negatives: Sequence[str] | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosine and relevancy [..., P] of prompts at unit codes [..., d + 1]; zero codes: relevancy 0.

        Args:
            codes: of Gaussians or pixels.
            snapshot: the map they are from.
            prompts: the P names.
            negatives: names the prompts compete against; None: `query.negatives`.
        """
        negatives = negatives or self._config.negatives
        texts, count = self.encode_text([*prompts, *negatives]), len(prompts)
        cosines = codes @ snapshot.directions(texts)
        own, others = cosines[..., :count], cosines[..., count:]
        if self._bank is not None and self.is_ranged and tuple(negatives) == _GENERAL_NEGATIVES:
            scores = self._bank.relevancy(own, texts[:count], snapshot, self._config.min_weight)
        else:
            scores = relevancy(own, others, self.calibration.temperature)
        return own, scores * (codes[..., -1:] != 0)

    def label_map(self, result: QueryResult, snapshot: MapSnapshot) -> tuple[torch.Tensor, torch.Tensor]:
        """Labels [N] of the Gaussians of a map as a query was answered, and the relevancy [N] of each label.

        A map that grew since the answer is labelled anew; what was found stays found.
        """
        labels, scores = result.labels, result.scores
        if snapshot.version != result.map_version and result.query.relations:
            anew = self.answer(result.query, snapshot, None)
            labels, scores = anew.labels, anew.scores
        elif snapshot.version != result.map_version:
            texts = self._encode_query(result.query)
            rivals = self._rivals(result.query, texts, snapshot)
            rules = self.calibration, self._config
            scored = _score_map(result.query, texts, snapshot, rivals, *rules, self._bank, self._parts)
            query, prompts = result.query, texts.prompts
            labelled = label_snapshot(query, prompts, snapshot, scored, result.found, None, *rules)
            labels, scores = labelled.labels.long(), labelled.scores
        return labels, scores * (labels > 0)

    def _encode_query(self, query: Query) -> TextFeatures:
        return TextFeatures(*map(self.encode_text, (query.prompts, query.negatives)))

    def _rivals(self, query: Query, texts: TextFeatures, snapshot: MapSnapshot) -> Rivals:
        return self._distractors.rivals(query.prompts, texts.prompts, snapshot, self.calibration)


def answer_query(
    query: Query,
    texts: TextFeatures,
    snapshot: MapSnapshot,
    field: RefinedField | None,
    calibration: PresenceCalibration,
    config: QueryConfig,
    facts: MapFacts,
    bank: BankPresence | None = None,
) -> QueryResult:
    """Answers a query.

    Args:
        query: the question.
        texts: its words, encoded.
        snapshot: the map.
        field: the refined field; it decides for the prompts it holds, unless the user named negatives.
        calibration: of the encoder.
        config: when a prompt counts as found, and what an instance is.
        facts: of the map.
        bank: gives `calibration` evidence if it weighs that. Otherwise it decides alone what is there and,
            unless the user chose negatives, which Gaussians show it. None: `calibration` does.
    """
    scored = _score_map(query, texts, snapshot, facts.rivals, calibration, config, bank, facts.parts)
    evidence = scored[1]
    ranks = bank and bank.evidence(query.prompts, texts.prompts, snapshot, config.min_weight)
    presence, table = decide_presence(query.prompts, evidence.table, ranks, bank, calibration)
    found = presence >= config.presence
    if query.own_negatives or (vocabulary_indices(field, query.prompts, query.mode) < 0).all():
        field = None
    labelled = label_snapshot(query, texts.prompts, snapshot, scored, found, field, calibration, config)
    labels, judge = labelled.labels.cpu().numpy(), None
    if bank is None:
        groups = query.prompts, texts.prompts, snapshot, scored[0], labelled.lifted.cpu().numpy()
        judge = GroupJudge(*groups, facts.rivals, calibration, config.presence)
    groups = query, labelled, scored[0].all, snapshot
    objects, instances = find_query_objects(*groups, config, facts.grid, facts.objects, judge)
    return QueryResult(
        query=query,
        map_version=snapshot.version,
        found=found,
        presence=presence,
        score=evidence.peak,
        evidence=table,
        scores=labelled.scores,
        score_all=labelled.score_all,
        labels=torch.from_numpy(labels.astype(np.int64, copy=False)),
        instances=torch.from_numpy(instances),
        objects=objects,
        verdicts=verdicts(presence, config),
        observed=facts.observed,
        field=field,
    )


def _score_map(
    query: Query,
    texts: TextFeatures,
    snapshot: MapSnapshot,
    rivals: Rivals,
    calibration: PresenceCalibration,
    config: QueryConfig,
    bank: BankPresence | None,
    parts: PartMemo,
) -> tuple[GaussianScores, Evidence]:
    """The relevancy of every Gaussian, and the evidence that each prompt's thing is in the map."""
    codes, directions = snapshot.packed_codes, snapshot.directions
    prompts, negatives = directions(texts.prompts), directions(texts.negatives)
    ranger = None if calibration.weighs_bank or query.negatives != _GENERAL_NEGATIVES else bank
    if ranger is None:
        competition = lerf_competition(prompts, negatives, calibration.temperature)
    else:  # nothing competes: a direction of cosine 0
        ranges = ranger.ranges(texts.prompts, snapshot, config.min_weight)
        competition = Competition(prompts, torch.zeros_like(prompts[:, :1]), *ranges, 1.0)
    if ranger is None and snapshot.parked and codes.device.type == "cpu":
        gaussians = score_map(snapshot, competition, config.min_weight, PEAK_GAUSSIANS, parts)
    else:  # ranges change with the map
        eligible = at_least(snapshot.weight, config.min_weight)
        gaussians = score_gaussians(codes, eligible, competition, PEAK_GAUSSIANS)
    evidence = presence_evidence(gaussians, codes, snapshot.weight, rivals.directions, rivals.competing)
    return gaussians, evidence
