"""How likely single objects are what a prompt names: the presence decision for the Gaussians of each."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from ovs3d_ros.query.presence import (
    PresenceCalibration,
    general_prompts,
    presence_evidence,
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
        own, codes = labels - 1, snapshot.packed_codes
        directions = snapshot.directions(texts[0])[:, own]
        there = codes[torch.from_numpy(rows).to(codes.device)].unpack()  # [O, K, d + 1]
        of_objects = replace(
            gaussians,
            strongest=rows,
            cosines=torch.einsum("okd,do->ok", there, directions).double().cpu().numpy(),
            peaks=fits[rows].astype(np.float64),
            mean=gaussians.mean[own],
            deviation=gaussians.deviation[own],
        )
        competing = (texts[0] @ texts[1].T < calibration.synonym)[own]
        evidence = presence_evidence(
            of_objects, codes, snapshot.weight, snapshot.directions(texts[1]), competing
        )
        general = general_prompts(prompts, calibration.distractors)[own]
        return presence_probability(evidence, general, calibration)

    return Judge(fits, judge, least)
