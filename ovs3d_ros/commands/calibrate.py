"""`ovs3d calibrate`: fits presence decision and label threshold of an encoder to labelled datasets."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ovs3d_ros.commands import common
from ovs3d_ros.datasets import Dataset, open_dataset
from ovs3d_ros.evaluation import calibration
from ovs3d_ros.io.atomic import write_text
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.query.request import check_prompts
from ovs3d_ros.semantics.names import distinct_names
from ovs3d_ros.types import UserError

_MIN_SCENES = 2  # each scene is scored with a calibration fitted on the others


def run(options: argparse.Namespace) -> int:
    """Maps each dataset, queries it for present and absent names, and writes the fitted calibration.

    Raises:
        UserError: fewer than two datasets, one without labels or names to query, bad settings or output.
    """
    config = common.read_config(options)
    output = common.check_output_file(options.output)
    common.check_json(options.json, output)
    absent = distinct_names(check_prompts(options.absent.split(","), "absent name")) if options.absent else []
    datasets = [
        open_dataset(path, format=options.format, config=config, skip_missing=options.skip_missing)
        for path in options.data
    ]
    names = _names(datasets, options.data, absent)
    prompts = [calibration.choose_prompts(dataset, names) for dataset in datasets]
    pipeline = Ovs3d(config)
    distractors = tuple(dict.fromkeys([*names, *map(calibration.head_noun, names)]))
    pipeline.recalibrate(distractors=distractors)
    scenes = []
    for dataset, scene_prompts in zip(datasets, prompts, strict=True):
        with common.progress_bar(options, len(dataset), f"mapping {dataset.name}", "frame") as bar:
            for _ in calibration.map_scene(pipeline, dataset):
                bar.update()
        scenes.append(calibration.collect_evidence(pipeline, dataset, scene_prompts))
    fitted, figures = calibration.fit_calibration(scenes), calibration.leave_one_out(scenes)
    source = f"{len(scenes)} labelled scenes, {figures['all']['prompts']} prompts (ovs3d calibrate)"
    encoder = pipeline.queries.encoder_name
    assert encoder is not None  # the pipeline was made with an encoder
    document = dict(name=encoder, query=dict(fitted, distractors=distractors, source=source))
    # Before writing, so that a full disk does not lose the figures.
    common.print_message(options, _summary(output, encoder, figures))
    write_text(output, json.dumps(document, indent=1) + "\n")
    common.write_json(options.json, figures)
    return 0


def _names(datasets: list[Dataset], paths: list[Path], absent: list[str]) -> list[str]:
    """The class names of all datasets, then the absent ones."""
    if len(datasets) < _MIN_SCENES:
        raise UserError(
            "calibration needs at least two labelled datasets: each is scored with what was fitted on the "
            "others"
        )
    for dataset, path in zip(datasets, paths, strict=True):
        if not dataset.has_labels:
            raise UserError(
                f"{path}: has no labels; put index PNGs into labels/ and their names into classes.txt"
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
            f"{output}: calibration of {encoder} on {figures['scenes']} scenes, each scored with a fit on "
            "the others:",
            *rows,
            f"use it with --set query.calibration={output}",
        ]
    )
