"""The best that grouping could do: true regions, labelled by the features that the map has.

A region is all Gaussians of one labelled class. If its mean feature finds the class's name, a perfect
grouping would too. The distance to this ceiling is what grouping can still win with the same features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.semantics.class_field import class_distribution
from ovs3d_ros.types import Frame, MapSnapshot, RefinedField

_IMAGE_SIZE = 320  # longer side of the labels that are lifted


def true_classes(pipeline: Ovs3d, snapshot: MapSnapshot, frames: Sequence[Frame], count: int) -> torch.Tensor:
    """The labelled class of each Gaussian.

    Args:
        pipeline: lifts.
        snapshot: the map.
        frames: views; those without labels are left out.
        count: number of classes.

    Returns:
        [N] the class that most of a Gaussian's pixels carry, by blending weight; -1 if no view shows it.
    """
    votes = torch.zeros(snapshot.num_gaussians, count)
    for frame in frames:
        if frame.labels is not None:
            camera = frame.camera.fitted(_IMAGE_SIZE)
            labels = np.clip(frame.labels, 0, count - 1).astype(np.uint16)
            size = (camera.width, camera.height)
            labels = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST).astype(np.int64)
            values = F.one_hot(torch.from_numpy(labels), count).float()
            votes += pipeline.renderer.lift(values, camera, frame.camtoworld, snapshot).cpu()
    return torch.where(votes.sum(-1) > 1e-3, votes.argmax(-1), -1)


def label_regions(field: RefinedField, snapshot: MapSnapshot, regions: torch.Tensor) -> RefinedField:
    """The field with the class distribution of each region's mean code, weighted by evidence.

    Args:
        field: names, text features and temperature.
        snapshot: the map; its codes and evidence.
        regions: [N] number of each Gaussian's region; negative: it keeps its distribution in `field`.
    """
    assert snapshot.codec is not None, "the map has no language features"
    probabilities = field.probabilities.clone()
    for number in regions.unique().tolist():
        if number >= 0:
            members = (regions == number).to(probabilities.device)
            weight, codes = snapshot.weight[members], snapshot.packed_codes[members].unpack()
            code = snapshot.codec.normalize((weight[:, None] * codes).sum(0))
            cosines = code @ snapshot.codec.directions(field.texts)
            probabilities[members] = class_distribution(cosines, field.temperature)
    return replace(field, probabilities=probabilities)
