"""`ovs3d eval`: segmentation of a labelled dataset's views by the map, scored by a protocol."""

from __future__ import annotations

import argparse

import numpy as np

from ovs3d_ros.commands import common
from ovs3d_ros.commands.query import load_semantic_map
from ovs3d_ros.datasets import open_dataset, split_holdout
from ovs3d_ros.evaluate import PROTOCOLS, score_segmentation
from ovs3d_ros.segment import by_gaussians, by_pixels, covering
from ovs3d_ros.types import UserError

_SELECTED_IN_3D = "3dovs-d"


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
    field = covering(snapshot.refined, names)
    segment = (by_gaussians if options.protocol == _SELECTED_IN_3D else by_pixels)(pipeline, snapshot, names, field)
    preds, targets = [], []
    with common.progress(options, len(indices), "evaluating", "view") as bar:
        for index in indices:
            frame = dataset[index]
            if frame.labels is not None:
                preds.append(np.append(0, numbers)[segment(frame.camera, frame.camtoworld)])
                targets.append(frame.labels)
            bar.update()
    if not targets:
        raise UserError(f"{options.data}: none of the views to evaluate has labels; leave out --holdout")
    score = score_segmentation(options.protocol, preds, targets, dataset.classes)
    common.write_json(options.json, score.as_json() | dict(refined=field is not None))
    rows = [f"  {name:<24} {'-' if np.isnan(iou) else f'{iou:.3f}'}" for name, iou in score.per_class.items()]
    common.say(options, "\n".join([f"{score.protocol}: mIoU {score.miou:.3f}, accuracy {score.accuracy:.3f}, "
                                   f"{score.views} views, {'lifted' if field is None else 'refined'} features", *rows]))
    return 0
