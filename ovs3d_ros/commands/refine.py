"""`ovs3d refine`: refines the class distributions of names, checks them on images, stores them in the map."""

from __future__ import annotations

import argparse
import time

from ovs3d_ros.commands import common
from ovs3d_ros.commands.opening import load_semantic_map, open_data
from ovs3d_ros.mapping.keyframes import to_frame
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.query.request import check_prompts
from ovs3d_ros.sampling import evenly_spaced_indices
from ovs3d_ros.semantics.names import distinct_names
from ovs3d_ros.semantics.refinement_check import choose_check_views
from ovs3d_ros.types import Frame, UserError


def run(options: argparse.Namespace) -> int:
    """Refines a map for names. The map is written only when the result passes its check.

    Raises:
        UserError: bad names, settings, map or data, or an output that cannot be written.
    """
    started = time.monotonic()
    values = common.read_settings(options)
    names = distinct_names(check_prompts(options.names, "name"))
    output = common.check_output_file(options.output or options.map)
    common.check_json(options.json, output, options.map)
    pipeline = load_semantic_map(options.map, values, training=True)
    frames = _own_views(pipeline, options) if options.data is None else _views_of_data(pipeline, options)
    with common.progress_bar(options, 1, "refining", "step") as bar:
        for step in pipeline.refine(names, frames):
            bar.set_description(step.stage)
            bar.total, bar.n = step.total, step.step
            bar.refresh()
    if step.kept:
        pipeline.save(output)
    report = dict(
        map=str(output if step.kept else options.map),
        names=names,
        kept=step.kept,
        message=step.message,
        **step.figures,
        seconds=round(time.monotonic() - started, 2),
    )
    common.write_json(options.json, report)
    common.print_message(options, f"{report['map']}: {step.message}")
    return 0


def _views_of_data(pipeline: Ovs3d, options: argparse.Namespace) -> list[Frame]:
    """Frames of the data to check the refinement on."""
    dataset = open_data(options, pipeline.config)
    keyframes, limit = pipeline.snapshot().camtoworlds, pipeline.config.refine.check_views
    try:
        chosen = choose_check_views(dataset.camtoworlds, keyframes, limit)
    except UserError as error:
        raise UserError(f"{options.data}: {error}") from None
    return [dataset[index] for index in chosen]


def _own_views(pipeline: Ovs3d, options: argparse.Namespace) -> list[Frame]:
    """Keyframes that the map file holds, for the same."""
    keyframes = pipeline.keyframes
    if not keyframes:
        raise UserError(
            f"{options.map}: holds no keyframes to check the result on; give the data the map was made from, "
            "or map with --set map.keep_keyframes=true"
        )
    chosen = evenly_spaced_indices(len(keyframes), pipeline.config.refine.check_views)
    return [to_frame(keyframes[index]) for index in chosen]
