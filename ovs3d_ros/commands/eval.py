"""`ovs3d eval`: segmentation of a labelled dataset's views by the map, scored by a protocol."""

from __future__ import annotations

import argparse
from functools import partial
from typing import Callable

import numpy as np
import torch

from ovs3d_ros.commands import common
from ovs3d_ros.commands.query import load_semantic_map
from ovs3d_ros.datasets import open_dataset, split_holdout
from ovs3d_ros.evaluate import PROTOCOLS, score_segmentation
from ovs3d_ros.field import render_channels, vocabulary_indices
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.types import Camera, MapSnapshot, UserError

_SELECTED_IN_3D = "3dovs-d"
_CHANNELS = 32  # one-hot labels rendered at a time
_SOLID = 0.5  # below this alpha a pixel shows no Gaussian's label


def run(options: argparse.Namespace) -> int:
    """Scores the map against labels.

    Raises:
        UserError: unknown protocol, a dataset without labels, or a map that cannot be used.
    """
    values = common.settings(options)
    if options.protocol not in PROTOCOLS:
        raise UserError(f"--protocol {options.protocol}: choose one of {', '.join(PROTOCOLS)}")
    common.check_json(options.json)
    dataset = open_dataset(options.data, format=options.format)
    if not dataset.has_labels:
        raise UserError(f"{options.data}: has no labels; put index PNGs into labels/ and their names into classes.txt")
    indices = split_holdout(len(dataset), options.holdout)[0] if options.holdout else range(len(dataset))
    pipeline = load_semantic_map(options.map, values)
    snapshot = pipeline.snapshot()
    numbers = np.array([index for index, name in enumerate(dataset.classes) if name])
    names = [dataset.classes[index] for index in numbers]
    columns = vocabulary_indices(snapshot.refined, names, None, "argmax")
    refined = bool((columns >= 0).all())
    predict = _predictor(pipeline, snapshot, names, columns if refined else None, options.protocol == _SELECTED_IN_3D)
    preds, targets = [], []
    with common.progress(options, len(indices), "evaluating", "view") as bar:
        for index in indices:
            frame = dataset[index]
            if frame.labels is not None:
                best = predict(frame.camera, frame.camtoworld)
                preds.append(np.append(0, numbers)[best])
                targets.append(frame.labels)
            bar.update()
    if not targets:
        raise UserError(f"{options.data}: none of the views to evaluate has labels; leave out --holdout")
    score = score_segmentation(options.protocol, preds, targets, dataset.classes)
    common.write_json(options.json, score.as_json() | dict(refined=refined))
    rows = [f"  {name:<24} {'-' if np.isnan(iou) else f'{iou:.3f}'}" for name, iou in score.per_class.items()]
    common.say(options, "\n".join([f"{score.protocol}: mIoU {score.miou:.3f}, accuracy {score.accuracy:.3f}, "
                                   f"{score.views} views, {'refined' if refined else 'lifted'} features", *rows]))
    return 0


def _predictor(pipeline: Ovs3d, snapshot: MapSnapshot, names: list[str], columns: np.ndarray | None,
               in_3d: bool) -> Callable[[Camera, np.ndarray], np.ndarray]:
    """How a view is labelled: per pixel or by labels of Gaussians, by columns of the refined field or lifted features."""
    if in_3d:
        if columns is not None:
            labels = snapshot.refined.probabilities[:, columns].argmax(-1)
        else:
            labels = (snapshot.codes @ snapshot.codec.directions(pipeline.encode_text(names))).argmax(-1)
        labels = torch.where(snapshot.codes[:, -1] != 0, labels, -1)
        return partial(label_gaussians, pipeline, snapshot, labels, len(names))
    if columns is not None:
        return partial(label_refined_pixels, pipeline, snapshot, columns)
    return partial(label_pixels, pipeline, snapshot, pipeline.encode_text(names))


def label_refined_pixels(pipeline: Ovs3d, snapshot: MapSnapshot, columns: np.ndarray, camera: Camera,
                         camtoworld: np.ndarray) -> np.ndarray:
    """The likeliest of the refined field's `columns` [P] at each pixel: [H, W] 1 + row, 0 where the map is not."""
    field = snapshot.refined.probabilities[:, columns]
    blended, alpha = render_channels(snapshot.gaussians, field, camera, camtoworld, pipeline.rasterizer)
    return torch.where(alpha[..., 0] > _SOLID, blended.argmax(-1) + 1, 0).cpu().numpy()


def label_pixels(pipeline: Ovs3d, snapshot: MapSnapshot, texts: torch.Tensor, camera: Camera,
                 camtoworld: np.ndarray) -> np.ndarray:
    """The best of texts [P, D] at each pixel's rendered feature: [H, W] 1 + row of the text, 0 where the map is not."""
    z = pipeline.render_codes(camera, camtoworld, snapshot)
    directions = snapshot.codec.directions(texts)
    best = torch.stack([(row @ directions).argmax(-1) + 1 for row in z])  # row by row: memory
    return torch.where(z[..., -1] != 0, best, torch.zeros_like(best)).cpu().numpy()


def label_gaussians(pipeline: Ovs3d, snapshot: MapSnapshot, labels: torch.Tensor, count: int, camera: Camera,
                    camtoworld: np.ndarray) -> np.ndarray:
    """Labels [N] in 0..count - 1 of Gaussians, -1 = none, rendered: [H, W] as `label_pixels` has it."""
    shares = []
    for start in range(0, count, _CHANNELS):
        one_hot = (labels[:, None] == torch.arange(start, min(start + _CHANNELS, count), device=labels.device))
        out, alpha = render_channels(snapshot.gaussians, one_hot.float(), camera, camtoworld, pipeline.rasterizer)
        shares.append(out)
    weight, best = torch.cat(shares, dim=-1).max(-1)
    seen = (alpha[..., 0] > _SOLID) & (weight > 0)
    return torch.where(seen, best + 1, torch.zeros_like(best)).cpu().numpy()
