"""The one place where prompts, negatives, mode, threshold and region of a text query are checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np

from ovs3d_ros.config import QueryConfig
from ovs3d_ros.query.presence import PresenceCalibration
from ovs3d_ros.query.relation_prompts import parse_relations
from ovs3d_ros.semantics.names import unify_spelling
from ovs3d_ros.types import MapSnapshot, Query, UserError

MODES = ("relevancy", "argmax")
MAX_PROMPTS, MAX_PROMPT_LENGTH = 128, 256  # masks and label images hold a label in 8 bits


class QueryOptions(TypedDict, total=False):
    """The options of `Ovs3d.query`, for type checkers and editors; `make_query` explains them."""

    negatives: Sequence[str] | None
    mode: str
    threshold: float | None
    max_instances: int
    roi: np.ndarray | None
    refine: bool


def make_query(
    prompts: Sequence[str],
    config: QueryConfig,
    calibration: PresenceCalibration,
    *,
    negatives: Sequence[str] | None = None,
    mode: str = "relevancy",
    threshold: float | None = None,
    max_instances: int = 0,
    roi: np.ndarray | None = None,
    refine: bool = False,
) -> Query:
    """Checks the parts of a text query and fills in the defaults.

    Args:
        prompts: 1 to 128 names, or relations like "mug on the table" (see `relation_prompts.parse_relation`).
            A repeated one, in any letter case, gets the answer of its first mention.
        config: default negatives and threshold.
        calibration: threshold of the encoder, for a configuration that sets none.
        negatives: names the prompts compete against; None or empty: those of `config`.
        mode: one of `MODES`, see `Query`.
        threshold: relevancy from which a label is given, 0..1; None: see `resolve_threshold`.
        max_instances: per prompt, 0 = all.
        roi: [2, 3] two opposite corners of a box in metres; None: everywhere.
        refine: refine the map for these prompts first.

    Raises:
        UserError: one of them cannot be used; the message names it.
    """
    if mode not in MODES:
        raise UserError(f"mode {mode!r}: choose {' or '.join(MODES)}")
    if max_instances < 0:
        raise UserError(f"max_instances {max_instances}: give 0 (all) or more")
    checked = tuple(unify_spelling(check_prompts(prompts)))
    return Query(
        prompts=checked,
        negatives=tuple(check_prompts(negatives or config.negatives, "negative")),
        own_negatives=bool(negatives),
        mode=mode,
        threshold=resolve_threshold(threshold, config, calibration),
        max_instances=max_instances,
        roi=_check_roi(roi),
        refine=refine,
        relations=parse_relations(checked),
    )


def check_names(names: Sequence[str], parameter: str) -> list[str]:
    """The names that a parameter lists, checked as prompts; it may list none.

    Raises:
        UserError: a bad name; the message begins with the parameter.
    """
    try:
        return check_prompts(names, "name") if names else []
    except UserError as error:
        raise UserError(f"{parameter}: {error}") from None


def check_prompts(prompts: Sequence[str], kind: str = "prompt") -> list[str]:
    """Returns the prompts, each on one line and without needless blanks.

    Args:
        prompts: names of things.
        kind: what error messages call one of them: "prompt", "negative", "name".

    Raises:
        UserError: there are none or too many, or one is empty, too long or not valid UTF-8.
    """
    if not prompts:
        raise UserError(f'no {kind}: name at least one object, for example "red mug"')
    if len(prompts) > MAX_PROMPTS:
        raise UserError(f"{len(prompts)} {kind}s: at most {MAX_PROMPTS} per query; split the list")
    stripped = [" ".join(p.split()) for p in prompts]
    for index, prompt in enumerate(stripped):
        if not prompt:
            raise UserError(f'{kind} {index + 1} is empty: name an object, for example "red mug"')
        if len(prompt) > MAX_PROMPT_LENGTH:
            raise UserError(f"{kind} {index + 1} has {len(prompt)} characters: at most {MAX_PROMPT_LENGTH}")
        try:
            prompt.encode("utf-8")
        except UnicodeEncodeError:
            raise UserError(
                f"{kind} {index + 1} is not valid UTF-8: set the terminal to UTF-8 and type it again"
            ) from None
    return stripped


def check_threshold(threshold: float | None) -> None:
    """Raises UserError unless a threshold is a relevancy, 0..1, or None."""
    if threshold is not None and not 0 <= threshold <= 1:  # NaN too
        raise UserError(f"threshold {threshold}: give a relevancy from 0 to 1, or leave it out")


def resolve_threshold(
    threshold: float | None, config: QueryConfig, calibration: PresenceCalibration
) -> float:
    """The relevancy from which a label is given: argument, else configured, else calibrated value.

    Raises:
        UserError: the argument is not in 0..1.
    """
    check_threshold(threshold)
    if threshold is not None:
        return threshold
    return config.threshold if config.threshold >= 0 else calibration.threshold


def check_semantics(snapshot: MapSnapshot, encoder: str | None) -> None:
    """Raises UserError unless the map holds language features of the encoder with this name."""
    if snapshot.num_gaussians == 0 or snapshot.codec is None:
        raise UserError("the map holds no language features yet: feed it posed frames first")
    if encoder is None:
        raise UserError("no text encoder is loaded: create the pipeline with encode=True")
    if snapshot.meta["clip"] != encoder:
        raise UserError(
            f"the map was made with the encoder {snapshot.meta['clip']}, but {encoder} is loaded: set "
            "clip.model and clip.pretrained to match"
        )


def _check_roi(roi: np.ndarray | None) -> np.ndarray | None:
    if roi is None:
        return None
    corners = np.asarray(roi, np.float64)
    if corners.shape != (2, 3) or not (np.abs(corners) <= np.finfo(np.float32).max).all():
        raise UserError(
            f"roi: give two finite corners in metres, [[x, y, z], [x, y, z]], not {corners.tolist()}"
        )
    return corners
