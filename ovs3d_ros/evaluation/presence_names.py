"""Calibrates the presence decision with names of things that are in scenes and that are not, without labels.

The decision by a bank of names (`query.bank_presence`) is fitted to them, starting from its own weights: a
few dozen names are too few to learn all of it anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ovs3d_ros.datasets.text import read_json_object
from ovs3d_ros.evaluation.calibration import LogisticFit, ScenePrompts, decision_metrics, fit_logistic
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.query import bank_presence
from ovs3d_ros.query.bank_presence import BankPresence
from ovs3d_ros.query.presence import logistic_regression
from ovs3d_ros.semantics.names import distinct_names
from ovs3d_ros.types import UserError

NAMES_FILE = "presence.json"
MIN_NAMES = 5  # that are there, and that are not, over all scenes
_DECAY = 1.0  # towards the weights of the bank's own decision


@dataclass(frozen=True, slots=True)
class NameEvidence:
    """The evidence of P names in maps, with the truth.

    Attributes:
        names: the names; one that was asked in two scenes occurs twice.
        evidence: [P, 4] see `bank_presence.bank_evidence`.
        present: [P] bool, the truth.
    """

    names: list[str]
    evidence: np.ndarray
    present: np.ndarray


def read_presence(path: Path) -> ScenePrompts:
    """Reads names from a JSON file: {"present": ["sofa", ...], "absent": ["piano", ...]}.

    Raises:
        UserError: it is missing or not such a file, or a name is in both lists.
    """
    document, kinds = read_json_object(path), ("present", "absent")
    names: dict[str, list[str]] = {}
    for kind in kinds:
        given = document.get(kind)
        if not isinstance(given, list) or not given or not all(isinstance(name, str) for name in given):
            raise UserError(
                f'{path}: give names that are there and names that are not: {{"present": ["sofa"], "absent": '
                '["piano"]}'
            )
        names[kind] = distinct_names([" ".join(name.split()) for name in given])
    present, absent = (names[kind] for kind in kinds)
    both = {name.casefold() for name in present} & {name.casefold() for name in absent}
    if both:
        raise UserError(f"{path}: {min(both)!r} is in both lists; leave it in one")
    return ScenePrompts(present, absent)


def check_names(scenes: Sequence[ScenePrompts]) -> None:
    """Raises UserError if fewer than `MIN_NAMES` are there, or not there."""
    present, absent = (sum(len(getattr(scene, kind)) for scene in scenes) for kind in ("present", "absent"))
    if min(present, absent) < MIN_NAMES:
        raise UserError(
            f"calibration needs at least {MIN_NAMES} names of things that are there and {MIN_NAMES} of "
            f"things that are not; there are {present} and {absent}: add some to {NAMES_FILE}"
        )


def collect_names(pipeline: Ovs3d, names: ScenePrompts) -> NameEvidence:
    """The evidence of names in the map of a pipeline."""
    asked = [*names.present, *names.absent]
    evidence = BankPresence(pipeline.encode_text).evidence(
        asked, pipeline.encode_text(asked), pipeline.snapshot(), pipeline.config.query.min_weight
    )
    return NameEvidence(asked, evidence, np.arange(len(asked)) < len(names.present))


def join_names(scenes: Sequence[NameEvidence]) -> NameEvidence:
    """The names of several scenes as one list."""
    evidence, present = (
        np.concatenate([getattr(scene, field) for scene in scenes]) for field in ("evidence", "present")
    )
    return NameEvidence([name for scene in scenes for name in scene.names], evidence, present)


def fit_names(asked: NameEvidence, rows: np.ndarray | None = None) -> LogisticFit:
    """Fits the decision to the names, or to those in `rows` [P] bool."""
    chosen = np.ones(len(asked.names), bool) if rows is None else rows
    prior = np.array(bank_presence.WEIGHTS), bank_presence.BIAS
    return fit_logistic(asked.evidence[chosen], asked.present[chosen], prior, _DECAY)


def leave_one_name_out(asked: NameEvidence) -> dict[str, Any]:
    """Metrics when each name is predicted by a fit on all other names: as `decision_metrics`."""
    names = np.array([name.casefold() for name in asked.names])
    probability = np.zeros(len(names))
    for name in np.unique(names):
        rows = names == name
        probability[rows] = logistic_regression(asked.evidence[rows], *fit_names(asked, ~rows))
    return decision_metrics(probability, asked.present)
