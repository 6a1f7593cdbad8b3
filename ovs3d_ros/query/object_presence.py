"""How likely single objects are what a prompt names: the presence decision for the Gaussians of each."""

from __future__ import annotations

import numpy as np
import torch

from ovs3d_ros.query.presence import (
    Evidence,
    PresenceCalibration,
    general_prompts,
    presence_probability,
)
from ovs3d_ros.query.similarity import GaussianScores
from ovs3d_ros.query.strays import Judge
from ovs3d_ros.types import MapSnapshot


def judge_objects(
    prompts: tuple[str, ...],
    texts: tuple[torch.Tensor, torch.Tensor],
    snapshot: MapSnapshot,
    gaussians: GaussianScores,
    lifted: torch.Tensor,
    calibration: PresenceCalibration,
    least: float,
) -> Judge:
    """Judges objects as `presence.presence_probability` judges what a prompt finds in the whole map.

    Args:
        prompts: the P prompts.
        texts: unit features [P, D] of the prompts and [M, D] of `calibration.distractors`.
        snapshot: the map.
        gaussians: scores of the prompts in the map.
        lifted: [N] relevancy of each Gaussian's label by the lifted codes.
        calibration: of the encoder.
        least: probability from which an object is kept.
    """
    fits = lifted.cpu().numpy()

    def judge(labels: np.ndarray, rows: np.ndarray) -> np.ndarray:
        own, best = labels - 1, torch.from_numpy(rows).to(snapshot.weight.device)
        mass = snapshot.weight[best]
        mass = mass / mass.sum(1, keepdim=True).clamp_min(1e-9)  # [O, K]
        codes = (mass[..., None] * snapshot.packed_codes[best].unpack()).sum(1)  # [O, d + 1]
        rivals = (codes @ snapshot.directions(texts[1])).double().cpu().numpy()  # [O, M]
        cosine = (codes * snapshot.directions(texts[0])[:, own].T).sum(1).double().cpu().numpy()
        competing = (texts[0] @ texts[1].T < calibration.synonym)[own].numpy()
        rival = np.where(competing, rivals, -np.inf).max(axis=1, initial=-np.inf)
        evidence = Evidence(
            peak=(fits[rows] * mass.cpu().numpy()).sum(1),
            cosine=cosine,
            margin=np.where(np.isfinite(rival), cosine - rival, 0.0),
            zscore=(cosine - gaussians.mean[own]) / gaussians.deviation[own],
            strongest=rows,
        )
        general = general_prompts(prompts, calibration.distractors)[own]
        return presence_probability(evidence.table, general, calibration)

    return Judge(fits, judge, least)
