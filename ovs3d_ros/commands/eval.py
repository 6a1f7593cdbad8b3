"""`ovs3d eval`: scores a map on the views of a labelled dataset by a protocol."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np

from ovs3d_ros.commands import common
from ovs3d_ros.commands.opening import load_semantic_map, open_data
from ovs3d_ros.datasets import Dataset, split_frames
from ovs3d_ros.evaluation import queries
from ovs3d_ros.evaluation.metrics import PROTOCOLS, SegmentationScore, score_segmentation
from ovs3d_ros.evaluation.segmentation import field_for_names, gaussian_segmenter, pixel_segmenter
from ovs3d_ros.io.text_table import pad
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.query.request import check_threshold
from ovs3d_ros.types import UserError

_SELECTED_IN_3D = "3dovs-d"


def run(options: argparse.Namespace) -> int:
    """Scores the map against labels, or against annotations.

    Raises:
        UserError: unknown protocol, a dataset without what the protocol needs, or a map that cannot be used.
    """
    values = common.read_settings(options)
    known = (*PROTOCOLS, queries.PROTOCOL)
    if options.protocol not in known:
        raise UserError(f"--protocol {options.protocol}: choose one of {', '.join(known)}")
    asks = options.protocol == queries.PROTOCOL
    check_threshold(options.threshold)
    if options.threshold is not None and not asks:
        raise UserError(
            f"--threshold {options.threshold}: protocol {options.protocol} has no threshold; leave it out"
        )
    common.check_json(options.json, options.map)
    pipeline = load_semantic_map(options.map, values)
    dataset = open_data(options, pipeline.config)
    held_out, _ = split_frames(dataset, options.holdout)
    indices = held_out or range(len(dataset))
    indices = _annotated(options, dataset, indices) if asks else _labelled(options, dataset, indices)
    score, how = (_ask if asks else _segment)(options, pipeline, dataset, indices)
    common.write_json(options.json, score.as_json() | how)
    rows = [
        f"  {pad(name, 24)} {'-' if np.isnan(iou) else f'{iou:.3f}'}" for name, iou in score.per_class.items()
    ]
    what, features = (
        "localisation accuracy" if asks else "accuracy",
        "refined" if how["refined"] else "lifted",
    )
    common.print_message(
        options,
        "\n".join(
            [
                f"{score.protocol}: mIoU {score.miou:.3f}, {what} {score.accuracy:.3f}, "
                f"{score.views} views, {features} features",
                *rows,
            ]
        ),
    )
    return 0


def _labelled(options: argparse.Namespace, dataset: Dataset, indices: Sequence[int]) -> Sequence[int]:
    if not dataset.has_labels:
        hint = f", or score its annotations with --protocol {queries.PROTOCOL}" if dataset.annotated else ""
        raise UserError(
            f"{options.data}: has no labels; put index PNGs into labels/ and their names into classes.txt"
            + hint
        )
    return indices


def _annotated(options: argparse.Namespace, dataset: Dataset, indices: Sequence[int]) -> Sequence[int]:
    if not dataset.annotated:
        raise UserError(
            f"{options.data}: has no annotations; put the JSON files of lerf_ovs into label/ in it, or "
            f"into label/{dataset.name}/ beside it"
        )
    left = [index for index in dataset.annotated if index in indices]
    if not left:
        raise UserError(f"{options.data}: none of the views to evaluate is annotated; leave out --holdout")
    return left


def _segment(
    options: argparse.Namespace, pipeline: Ovs3d, dataset: Dataset, indices: Sequence[int]
) -> tuple[SegmentationScore, dict]:
    """Segments the labelled views by all names and scores every pixel."""
    snapshot = pipeline.snapshot()
    classes = dataset.classes or ()
    numbers = np.array([index for index, name in enumerate(classes) if name])
    names = dataset.class_names
    field = field_for_names(snapshot.refined, names)
    segment = (gaussian_segmenter if options.protocol == _SELECTED_IN_3D else pixel_segmenter)(
        pipeline, snapshot, names, field
    )
    preds, targets = [], []
    with common.progress_bar(options, len(indices), "evaluating", "view") as bar:
        for index in indices:
            frame = dataset[index]
            if frame.labels is not None:
                pred = np.append(0, numbers)[segment(frame.camera, frame.camtoworld)]
                preds.append(pred if frame.mask is None else np.where(frame.mask, pred, 0))
                targets.append(frame.labels)
            bar.update()
    if not targets:
        raise UserError(f"{options.data}: none of the views to evaluate has labels; leave out --holdout")
    return score_segmentation(options.protocol, preds, targets, dataset.classes), dict(
        refined=field is not None
    )


def _ask(
    options: argparse.Namespace, pipeline: Ovs3d, dataset: Dataset, indices: Sequence[int]
) -> tuple[SegmentationScore, dict]:
    """Queries each name of the annotated views alone and scores its mask."""
    pipeline.recalibrate()  # the protocol is LERF's relevancy, also where the encoder has no calibration
    snapshot, threshold = pipeline.snapshot(), pipeline.label_threshold(options.threshold)
    scores = []
    with common.progress_bar(options, len(indices), "evaluating", "view") as bar:
        for index in indices:
            scores += queries.score_frame(pipeline, snapshot, dataset[index], threshold)
            bar.update()
    return queries.score_queries(scores), dict(refined=False, threshold=threshold, queries=len(scores))
