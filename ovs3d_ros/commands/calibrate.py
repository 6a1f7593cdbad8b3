"""`ovs3d calibrate`: fits the presence decision of an encoder, to labelled datasets or to names alone."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ovs3d_ros.commands import common
from ovs3d_ros.config import Config
from ovs3d_ros.datasets import Dataset, open_dataset
from ovs3d_ros.evaluation import calibration, presence_names
from ovs3d_ros.evaluation.presence_names import NAMES_FILE
from ovs3d_ros.io.atomic import write_text
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.query.request import check_prompts
from ovs3d_ros.semantics.names import distinct_names
from ovs3d_ros.types import UserError

Fit = tuple[str, dict[str, Any], dict[str, Any]]  # encoder, fields of its calibration, figures

_MIN_SCENES = 2  # each scene is scored with a calibration fitted on the others


def run(options: argparse.Namespace) -> int:
    """Maps each dataset, queries it for present and absent names, and writes the fitted calibration.

    Raises:
        UserError: bad data, too few names to query, bad settings or output.
    """
    config = common.read_config(options)
    output = common.check_output_file(options.output)
    common.check_json(options.json, output)
    if options.names and options.absent:
        raise UserError(f"--absent: with --names the absent things stand in {NAMES_FILE}; leave it out")
    fit = _fit_names if options.names else _fit_labels
    encoder, query, figures = fit(options, config)
    # Before writing, so that a full disk does not lose the figures.
    common.print_message(options, _summary(output, encoder, figures))
    write_text(output, json.dumps(dict(name=encoder, query=query), indent=1) + "\n")
    common.write_json(options.json, figures)
    return 0


def _fit_names(options: argparse.Namespace, config: Config) -> Fit:
    """Fits the decision by a bank of names to the `presence.json` of each dataset."""
    names = [presence_names.read_presence(path.expanduser() / NAMES_FILE) for path in options.data]
    presence_names.check_names(names)
    datasets = _open(options, config)
    pipeline = Ovs3d(config)
    scenes = []
    for dataset, asked in zip(datasets, names, strict=True):
        _map(options, pipeline, dataset)
        scenes.append(presence_names.collect_names(pipeline, asked))
    joined = presence_names.join_names(scenes)
    (weights, bias), figures = presence_names.fit_names(joined), presence_names.leave_one_name_out(joined)
    source = f"{len(joined.names)} names in {len(scenes)} scenes (ovs3d calibrate --names)"
    query = dict(bank_weights=weights.tolist(), bank_bias=bias, source=source)
    return _encoder(pipeline), query, dict(scenes=len(scenes), all=figures)


def _fit_labels(options: argparse.Namespace, config: Config) -> Fit:
    """Fits presence decision and label threshold to labelled datasets."""
    absent = distinct_names(check_prompts(options.absent.split(","), "absent name")) if options.absent else []
    datasets = _open(options, config)
    names = _names(datasets, options.data, absent)
    prompts = [calibration.choose_prompts(dataset, names) for dataset in datasets]
    pipeline = Ovs3d(config)
    distractors = tuple(dict.fromkeys([*names, *map(calibration.head_noun, names)]))
    pipeline.recalibrate(distractors=distractors)
    scenes = []
    for dataset, scene_prompts in zip(datasets, prompts, strict=True):
        _map(options, pipeline, dataset)
        scenes.append(calibration.collect_evidence(pipeline, dataset, scene_prompts))
    fitted, figures = calibration.fit_calibration(scenes), calibration.leave_one_out(scenes)
    source = f"{len(scenes)} labelled scenes, {figures['all']['prompts']} prompts (ovs3d calibrate)"
    return _encoder(pipeline), dict(fitted, distractors=distractors, source=source), figures


def _open(options: argparse.Namespace, config: Config) -> list[Dataset]:
    return [
        open_dataset(path, format=options.format, config=config, skip_missing=options.skip_missing)
        for path in options.data
    ]


def _map(options: argparse.Namespace, pipeline: Ovs3d, dataset: Dataset) -> None:
    with common.progress_bar(options, len(dataset), f"mapping {dataset.name}", "frame") as bar:
        for _ in calibration.map_scene(pipeline, dataset):
            bar.update()


def _encoder(pipeline: Ovs3d) -> str:
    name = pipeline.queries.encoder_name
    assert name is not None  # the pipeline was made with an encoder
    return name


def _names(datasets: list[Dataset], paths: list[Path], absent: list[str]) -> list[str]:
    """The class names of all datasets, then the absent ones."""
    if len(datasets) < _MIN_SCENES:
        raise UserError(
            "calibration needs at least two labelled datasets: each is scored with what was fitted on the "
            f"others; or names alone, see --names and {NAMES_FILE}"
        )
    for dataset, path in zip(datasets, paths, strict=True):
        if not dataset.has_labels:
            raise UserError(
                f"{path}: has no labels; put index PNGs into labels/ and their names into classes.txt, or "
                f"calibrate with --names by what stands in {NAMES_FILE}"
            )
    return list(dict.fromkeys([*(name for dataset in datasets for name in dataset.class_names), *absent]))


def _summary(output: Path, encoder: str, figures: dict) -> str:
    rows = [
        f"  {kind:<9} {row['prompts']:>4} prompts: AUROC {row['auroc']:.3f}, found {row['tpr_at_half']:.0%} "
        f"of the present and {row['fpr_at_half']:.0%} of the absent names"
        for kind, row in figures.items()
        if isinstance(row, dict)
    ]
    return "\n".join(
        [
            f"{output}: calibration of {encoder}, judged by fits on others; scenes: {figures['scenes']}",
            *rows,
            f"use it with --set query.calibration={output}",
        ]
    )
