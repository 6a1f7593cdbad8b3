"""Decides whether a thing is in the map at all (docs/method.md, "Presence"). Pure functions on codes."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ovs3d_ros.config import QueryConfig
from ovs3d_ros.encoders import ImageTextEncoder
from ovs3d_ros.packed_codes import PackedCodes, chosen_rows
from ovs3d_ros.query.similarity import GaussianScores
from ovs3d_ros.types import UserError

VERDICTS = ("no", "unsure", "yes")

PEAK_GAUSSIANS = 60  # evidence is a mean over this many: about a tenth of a mug seen from two metres
EVIDENCE_COLUMNS = 4  # of `Evidence.table`, and as many of `bank_presence.bank_evidence`


@dataclass(frozen=True, slots=True)
class PresenceCalibration:
    """Maps an encoder's cosines to labels and probabilities.

    The calibration is fitted on labelled scenes and stored beside the model.

    Attributes:
        temperature: factor on cosines before the softmax of relevancy (LERF uses 10 with OpenAI CLIP).
        threshold: relevancy from which a Gaussian carries a label.
        presence_weights: logistic weights of the four columns of `Evidence.table`. If there are eight, the
            others are of those of `bank_presence.bank_evidence`.
        presence_bias: logistic bias.
        general_weights: logistic weights for general prompts, such as "mug" where the distractors hold "red
            mug". Many round things fit a general name a little, so the same evidence means less.
        general_bias: logistic bias for general prompts.
        bank_weights: logistic weights of the columns of `bank_presence.bank_evidence`; if there are any, they
            alone decide about presence, and labels follow the map's own range.
        bank_bias: logistic bias of that decision.
        distractors: nouns every prompt competes against in the presence decision.
        synonym: text-text cosine above which a distractor counts as another word for the prompt.
        source: the data it was fitted on.
    """

    temperature: float = 10.0
    threshold: float = 0.55
    presence_weights: tuple[float, ...] = (10.0, 0.0, 20.0, 0.0)
    presence_bias: float = -5.5
    general_weights: tuple[float, ...] = (10.0, 0.0, 20.0, 0.0)
    general_bias: float = -5.5
    bank_weights: tuple[float, ...] = ()
    bank_bias: float = 0.0
    distractors: tuple[str, ...] = ()
    synonym: float = 0.9
    source: str = "none: the defaults of LERF for OpenAI CLIP, not calibrated"

    @property
    def weighs_bank(self) -> bool:
        """Whether ranks within a bank of names are evidence beside that of `Evidence.table`."""
        return not self.bank_weights and len(self.presence_weights) > EVIDENCE_COLUMNS


def is_calibrated(clip: ImageTextEncoder | None, path: str) -> bool:
    """Whether the encoder has a calibration: its own, or in a file at `path`."""
    return bool(path) or clip is None or "query" in (clip.calibration or {})


def encoder_calibration(clip: ImageTextEncoder | None, path: str) -> PresenceCalibration:
    """The calibration in the file at `path`; for an empty path the encoder's own, or else the defaults.

    Raises:
        UserError: see `load_calibration`; or the encoder's own calibration cannot be used.
    """
    if clip is None:
        return PresenceCalibration()
    if path:
        return load_calibration(path, clip.name)
    try:
        return _check_numbers(PresenceCalibration(**(clip.calibration or {}).get("query", {})))
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"encoder {clip.name}: its calibration cannot be used ({error}); make one with `ovs3d calibrate`"
        ) from None


def load_calibration(path: str, encoder: str) -> PresenceCalibration:
    """Reads a file of `ovs3d calibrate`.

    Args:
        path: the JSON file.
        encoder: name of the encoder in use.

    Raises:
        UserError: it cannot be used, or was fitted for another encoder.
    """
    where = f"query.calibration={path}"
    try:
        document = json.loads(Path(path).expanduser().read_text(encoding="utf-8"))
        calibration, fitted_for = _check_numbers(PresenceCalibration(**document["query"])), document["name"]
    except OSError as error:
        raise UserError(
            f"{where}: cannot read it ({error.strerror}); leave the parameter empty for the encoder's own "
            "calibration"
        ) from None
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{where}: not a calibration ({error!r}); make one with `ovs3d calibrate`") from None
    if fitted_for != encoder:
        raise UserError(
            f"{where}: was fitted for the encoder {fitted_for}, but {encoder} is loaded; make one for it "
            "with `ovs3d calibrate`, or leave the parameter empty"
        )
    sizes = [len(getattr(calibration, f"{kind}_weights")) for kind in ("presence", "general", "bank")]
    if (
        sizes[0] != sizes[1]
        or sizes[0] not in (EVIDENCE_COLUMNS, 2 * EVIDENCE_COLUMNS)
        or sizes[2] not in (0, EVIDENCE_COLUMNS)
    ):
        raise UserError(
            f"{where}: weighs {sizes} kinds of evidence, this version has {EVIDENCE_COLUMNS} and as many "
            "of the name bank; make it again with `ovs3d calibrate`"
        )
    return calibration


def _check_numbers(calibration: PresenceCalibration) -> PresenceCalibration:
    """The calibration of a JSON file if float32 can hold its numbers; raises ValueError or TypeError."""
    numbers = dict(
        temperature=[calibration.temperature],
        threshold=[calibration.threshold],
        presence_weights=calibration.presence_weights,
        presence_bias=[calibration.presence_bias],
        general_weights=calibration.general_weights,
        general_bias=[calibration.general_bias],
        bank_weights=calibration.bank_weights,
        bank_bias=[calibration.bank_bias],
        synonym=[calibration.synonym],
    )
    for name, values in numbers.items():
        if not all(isinstance(v, (int, float)) and abs(v) <= float(np.finfo(np.float32).max) for v in values):
            raise ValueError(f"{name} must be finite numbers")  # NaN compares as false
    if calibration.temperature < 1e-6 or not 0 <= calibration.threshold <= 1:
        raise ValueError("temperature must be positive and threshold from 0 to 1")
    if isinstance(calibration.distractors, str) or not all(
        isinstance(n, str) for n in calibration.distractors
    ):
        raise ValueError("distractors must be a list of texts")
    return replace(calibration, distractors=tuple(calibration.distractors))  # JSON has lists


@dataclass(frozen=True, slots=True)
class Evidence:
    """The evidence for the presence decision, [P] each. Nothing is rescaled per query.

    Attributes:
        peak: mean relevancy 0..1 of the strongest Gaussians.
        cosine: their mean cosine with the prompt.
        margin: `cosine` minus the cosine of the best competing distractor at the same Gaussians.
        zscore: `cosine` in standard deviations above the mean of the map.
        strongest: [P, K] indices of these Gaussians.
    """

    peak: np.ndarray
    cosine: np.ndarray
    margin: np.ndarray
    zscore: np.ndarray
    strongest: np.ndarray

    @property
    def table(self) -> np.ndarray:
        """[P, 4] the columns that `PresenceCalibration.presence_weights` weigh."""
        return np.stack([self.peak, self.cosine, self.margin, self.zscore], axis=1)


def presence_evidence(
    gaussians: GaussianScores,
    codes: PackedCodes,
    weight: torch.Tensor,
    distractors: torch.Tensor,
    competing: torch.Tensor,
) -> Evidence:
    """Collects the evidence that each prompt's thing is in the map.

    Args:
        gaussians: scores of P prompts at N Gaussians, with `PEAK_GAUSSIANS` strongest.
        codes: [N] of unit features.
        weight: [N] evidence mass of each Gaussian in pixels.
        distractors: [d + 1, M] directions of other things, see `FeatureCodec.directions`.
        competing: [P, M] bool, the distractor is another thing than the prompt.
    """
    mass, pooled = pool_codes(gaussians.strongest, codes, weight)
    peak, cosine = (gaussians.peaks * mass).sum(1), (gaussians.cosines * mass).sum(1)
    margin = margin_to_rivals(cosine, pooled, distractors, competing.numpy())
    return Evidence(
        peak, cosine, margin, (cosine - gaussians.mean) / gaussians.deviation, gaussians.strongest
    )


def pool_codes(rows: np.ndarray, codes: PackedCodes, weight: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Share of each of K Gaussians in the evidence mass of a group [G, K], and the group's code [G, d + 1].

    Args:
        rows: [G, K] numbers of the Gaussians.
        codes: [N] of unit features.
        weight: [N] evidence mass of each Gaussian in pixels.
    """
    # With NumPy: torch would divide these small sums between its threads, which wait for each other.
    mass = chosen_rows(weight, rows)
    mass = mass / mass.sum(1, keepdims=True).clip(1e-9)
    return mass, codes.pool_rows(rows, mass)


def margin_to_rivals(
    cosine: np.ndarray, pooled: np.ndarray, distractors: torch.Tensor, competing: np.ndarray
) -> np.ndarray:
    """What a prompt's cosine [G] is above that of the best distractor that competes; 0 if none does.

    Args:
        cosine: of the prompt of each group.
        pooled: [G, d + 1] code of each group, see `pool_codes`.
        distractors: [d + 1, M] directions.
        competing: [G, M] bool, the distractor is another thing than the prompt.
    """
    rivals = np.einsum("gd,dm->gm", pooled, distractors.cpu().numpy())
    rival = np.where(competing, rivals, -np.inf).max(axis=1, initial=-np.inf)
    return np.where(np.isfinite(rival), cosine - rival, 0.0)


def general_prompts(prompts: Sequence[str], distractors: tuple[str, ...]) -> np.ndarray:
    """Finds general prompts, bool [P]: a distractor holds all their words and more.

    "mug" is general if "red mug" is a distractor.
    """
    return np.array([_is_general(prompt, distractors) for prompt in prompts], bool)


@functools.lru_cache(maxsize=1024)  # a robot asks for the same things, and each answer needs this twice
def _is_general(prompt: str, distractors: tuple[str, ...]) -> bool:
    words = set(prompt.lower().split())
    candidates = _names_by_word(distractors).get(next(iter(words), ""), ())
    return any(words < specific for specific in candidates)


@functools.lru_cache(maxsize=4)  # of the few calibrations that a process uses
def _names_by_word(names: tuple[str, ...]) -> dict[str, list[set[str]]]:
    """The words of each name, listed under each of them."""
    by_word: dict[str, list[set[str]]] = {}
    for words in (set(name.lower().split()) for name in names):
        for word in words:
            by_word.setdefault(word, []).append(words)
    return by_word


def verdicts(presence: np.ndarray, config: QueryConfig) -> list[str]:
    """One of `VERDICTS` for each probability."""
    return [
        VERDICTS[int(p >= min(config.absent, config.presence)) + int(p >= config.presence)] for p in presence
    ]


def presence_probability(
    evidence: np.ndarray, general: np.ndarray, calibration: PresenceCalibration
) -> np.ndarray:
    """Calibrated probability [P] that each prompt's thing is in the map (logistic regression).

    Args:
        evidence: [P, E] `Evidence.table` of P prompts, and what else `PresenceCalibration` weighs.
        general: [P] bool, see `general_prompts`.
        calibration: of the encoder.
    """
    specific = logistic_regression(evidence, calibration.presence_weights, calibration.presence_bias)
    general_presence = logistic_regression(evidence, calibration.general_weights, calibration.general_bias)
    return np.where(general, general_presence, specific)


def logistic_regression(evidence: np.ndarray, weights: Sequence[float], bias: float) -> np.ndarray:
    """Probability [P] per row of evidence [P, E]: logistic function of its weighted sum plus bias."""
    logits = np.asarray(evidence @ np.asarray(weights) + bias, np.float64)
    return torch.sigmoid(torch.from_numpy(logits)).numpy()
