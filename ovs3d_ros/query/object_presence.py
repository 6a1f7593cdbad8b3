"""How likely single objects are what a prompt names: the presence decision for the Gaussians of each."""

from __future__ import annotations

import numpy as np
import torch

from ovs3d_ros.query.distractors import Rivals
from ovs3d_ros.query.presence import (
    Evidence,
    PresenceCalibration,
    general_prompts,
    margin_to_rivals,
    pool_codes,
    presence_probability,
)
from ovs3d_ros.query.similarity import GaussianScores
from ovs3d_ros.query.strays import Judge
from ovs3d_ros.types import MapSnapshot


def judge_objects(
    prompts: tuple[str, ...],
    texts: torch.Tensor,
    snapshot: MapSnapshot,
    gaussians: GaussianScores,
    lifted: torch.Tensor,
    rivals: Rivals,
    calibration: PresenceCalibration,
    least: float,
) -> Judge:
    """Judges objects as `presence.presence_probability` judges what a prompt finds in the whole map.

    Args:
        prompts: the P prompts.
        texts: [P, D] unit features of the prompts.
        snapshot: the map.
        gaussians: scores of the prompts in the map.
        lifted: [N] relevancy of each Gaussian's label by the lifted codes.
        rivals: what the prompts compete against.
        calibration: of the encoder.
        least: probability from which an object is kept.
    """
    fits = lifted.cpu().numpy()

    def judge(labels: np.ndarray, rows: np.ndarray) -> np.ndarray:
        own = labels - 1
        mass, pooled = pool_codes(rows, snapshot.packed_codes, snapshot.weight)
        cosine = np.einsum("gd,dg->g", pooled, snapshot.directions(texts)[:, own].cpu().numpy())
        evidence = Evidence(
            peak=(fits[rows] * mass).sum(1),
            cosine=cosine,
            margin=margin_to_rivals(cosine, pooled, rivals.directions, rivals.competing.numpy()[own]),
            zscore=(cosine - gaussians.mean[own]) / gaussians.deviation[own],
            strongest=rows,
        )
        general = general_prompts(prompts, calibration.distractors)[own]
        return presence_probability(evidence.table, general, calibration)

    return Judge(fits, judge, least)
