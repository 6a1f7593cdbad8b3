"""How likely single objects are what a prompt names: the presence decision for the Gaussians of each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ovs3d_ros.query.distractors import Rivals
from ovs3d_ros.query.presence import (
    PresenceCalibration,
    general_prompts,
    margin_to_rivals,
    pool_codes,
    presence_probability,
)
from ovs3d_ros.query.similarity import GaussianScores
from ovs3d_ros.query.strays import Judge
from ovs3d_ros.types import MapSnapshot


@dataclass(frozen=True, slots=True)
class GroupJudge:
    """Judges groups of Gaussians as `presence.presence_probability` judges what a prompt finds in a map.

    Attributes:
        prompts: the P prompts.
        texts: [P, D] unit features of the prompts.
        snapshot: the map.
        gaussians: scores of the prompts in the map.
        fits: [N] relevancy of each Gaussian's label by the lifted codes.
        rivals: what the prompts compete against.
        calibration: of the encoder.
        least: probability from which an object is kept.
    """

    prompts: tuple[str, ...]
    texts: torch.Tensor
    snapshot: MapSnapshot
    gaussians: GaussianScores
    fits: np.ndarray
    rivals: Rivals
    calibration: PresenceCalibration
    least: float

    def evidence(self, labels: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Peak, cosine and margin [G, 3] of groups, see `Evidence`; no other Gaussian changes them.

        Args:
            labels: [G] of the groups, counted from 1.
            rows: [G, K] Gaussians of each.
        """
        own = labels - 1
        mass, pooled = pool_codes(rows, self.snapshot.packed_codes, self.snapshot.weight)
        directions = self.snapshot.directions(self.texts)[:, own].cpu().numpy()
        cosine = np.einsum("gd,dg->g", pooled, directions)
        competing = self.rivals.competing.numpy()[own]
        margin = margin_to_rivals(cosine, pooled, self.rivals.directions, competing)
        return np.stack([(self.fits[rows] * mass).sum(1), cosine, margin], axis=1)

    def probability(self, labels: np.ndarray, evidence: np.ndarray) -> np.ndarray:
        """How likely each group [G] is what its label names, by its `evidence` [G, 3]."""
        own, cosine = labels - 1, evidence[:, 1]
        zscore = (cosine - self.gaussians.mean[own]) / self.gaussians.deviation[own]
        general = general_prompts(self.prompts, self.calibration.distractors)[own]
        return presence_probability(np.column_stack([evidence, zscore]), general, self.calibration)

    def judge(self) -> Judge:
        """Judges objects by their Gaussians."""
        return Judge(self.fits, lambda own, rows: self.probability(own, self.evidence(own, rows)), self.least)
