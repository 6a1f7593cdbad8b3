"""`ovs3d map`: builds a map file from posed frames and measures its quality on held-out views."""

from __future__ import annotations

import argparse
import math
import sys
import time

import numpy as np

from ovs3d_ros.commands import common
from ovs3d_ros.commands.scale import TYPICAL_DEPTH, check_depth_unit, estimate_unit
from ovs3d_ros.config import Config, override
from ovs3d_ros.datasets import Dataset, open_dataset, split_frames
from ovs3d_ros.evaluation.metrics import SSIM_WINDOW, psnr, psnr_aligned, ssim
from ovs3d_ros.mapping.mapper import StepStats
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.types import UserError

_BUNDLED_WARNING = (
    "ovs3d: warning: clip.model is 'bundled', a small offline model for the rendered "
    "demo world only; for real scenes use --set clip.model=ViT-B-16"
)
_UNKNOWN_UNIT = (
    "The data do not say how long their unit is. Lengths in metres are read as if the typical depth, {:.3g} "
    "units, were {:g} m (map.unit)."
)
_DEPTH_SAMPLES = 8  # frames read to explain why no depth was used


def run(options: argparse.Namespace) -> int:
    """Maps a dataset.

    Raises:
        UserError: bad settings, data or output. Most are found before any work begins.
    """
    started = time.monotonic()
    config = common.read_config(options)
    output = common.check_output_file(options.output, options.data)
    common.check_json(options.json, output)
    dataset = open_dataset(
        options.data,
        0 if options.clip else config.map.image_size,
        options.format,
        config,
        labels=False,
        images=options.images,
        skip_missing=options.skip_missing,
    )
    held_out, training = split_frames(dataset, options.holdout)
    if options.clip and config.clip.model == "bundled":
        sys.stderr.write(_BUNDLED_WARNING + "\n")
    check_depth_unit(dataset, training)
    unit = config.map.unit or estimate_unit(dataset, training)
    pipeline = Ovs3d(override(config, {"map.unit": unit}), encode=options.clip)
    _add_frames(options, pipeline, dataset, training)
    _optimize(options, pipeline, config.train.final_steps)
    _relift(options, pipeline)
    pipeline.save(output)
    try:
        quality = _hold_out_quality(pipeline, dataset.resized(config.map.image_size), held_out)
    except UserError as error:
        raise UserError(
            f"{error}; the map is finished and saved as {output}, but its quality could not be measured"
        ) from None
    stats = pipeline.stats
    report = dict(
        **quality,
        psnr_training=round(stats["psnr"], 4),
        num_gaussians=stats["num_gaussians"],
        frames=stats["frames"],
        keyframes=stats["keyframes"],
        steps=stats["steps"],
        metres_per_unit=float(f"{unit:.4g}"),
        seconds=round(time.monotonic() - started, 2),
        peak_memory_mib=round(common.peak_memory_mib(), 1),
    )
    common.write_json(options.json, report)
    common.print_message(options, f"{output}: {_summary(report, len(held_out))}")
    if unit not in (1.0, config.map.unit):
        common.print_message(options, _UNKNOWN_UNIT.format(TYPICAL_DEPTH / unit, TYPICAL_DEPTH))
    return 0


def _add_frames(options: argparse.Namespace, pipeline: Ovs3d, dataset: Dataset, indices: list[int]) -> None:
    if dataset.points is not None and not dataset.has_depth:
        pipeline.add_points(*dataset.points, dataset.camtoworlds[indices, :3, 3])
    with common.progress_bar(options, len(indices), "frames", "frame") as bar:
        for index in indices:
            pipeline.add_frame(dataset[index])
            stats = pipeline.stats
            bar.set_postfix(
                keyframes=str(stats["keyframes"]), Gaussians=str(stats["num_gaussians"]), refresh=False
            )
            bar.update()
    if not pipeline.stats["num_gaussians"]:
        raise UserError(
            f"{options.data}: {len(indices)} frames gave no Gaussian; "
            + (
                _depth_remedy(dataset, indices, pipeline.config)
                if dataset.has_depth
                else "give depth, COLMAP points, or at least two overlapping views from different places"
            )
        )


def _depth_remedy(dataset: Dataset, indices: list[int], config: Config) -> str:
    """Explains from the depth of a few frames why none of it was used."""
    chosen = indices[:: max(1, len(indices) // _DEPTH_SAMPLES)]
    depths = [depth[depth > 0] for depth in (dataset[index].depth for index in chosen) if depth is not None]
    values = np.concatenate([np.zeros(0), *depths]) * (config.map.unit or 1.0)
    if not len(values):
        return "their depth images are empty; check the depth files"
    return (
        f"their median depth is {np.median(values):.4g} m, and depth beyond seed.max_depth = "
        f"{config.seed.max_depth:g} m is ignored; correct the unit (depth_unit_m in transforms.json, "
        "input.depth_scale for a bag) or raise seed.max_depth"
    )


def _optimize(options: argparse.Namespace, pipeline: Ovs3d, steps: int) -> None:
    with common.progress_bar(options, steps, "optimising", "it") as bar:

        def on_step(stats: StepStats) -> None:
            if bar.update():
                bar.set_postfix(
                    PSNR=f"{pipeline.stats['psnr']:.1f} dB", Gaussians=str(stats.num_gaussians), refresh=False
                )

        pipeline.optimize(steps, on_step, horizon=steps)


def _relift(options: argparse.Namespace, pipeline: Ovs3d) -> None:
    """Lifts the features again: the optimisation moved Gaussians and added some without features."""
    with common.progress_bar(options, pipeline.stats["keyframes"], "lifting", "keyframe") as bar:
        for _ in pipeline.relift():
            bar.update()


def _hold_out_quality(pipeline: Ovs3d, dataset: Dataset, held_out: list[int]) -> dict[str, float | None]:
    """Mean measures over the held-out frames at the mapping resolution; None without such frames.

    SSIM is None too if a frame is smaller than its window.
    """
    measures = dict(psnr_holdout=psnr, psnr_holdout_aligned=psnr_aligned, ssim_holdout=ssim)
    unknown: dict[str, float | None] = dict.fromkeys(measures)
    if not held_out:
        return unknown
    if any(
        min(dataset.cameras[index].width, dataset.cameras[index].height) < SSIM_WINDOW for index in held_out
    ):
        del measures["ssim_holdout"]
    snapshot = pipeline.snapshot()
    rows = []
    for index in held_out:
        frame = dataset[index]
        rgb = pipeline.render(frame.camera, frame.camtoworld, snapshot).rgb.cpu().numpy()
        rows.append([measure(rgb, frame.image) for measure in measures.values()])
    return unknown | {
        name: round(float(value), 4) for name, value in zip(measures, np.mean(rows, axis=0), strict=True)
    }


def _summary(report: dict, held_out: int) -> str:
    text = (
        f"{report['num_gaussians']} Gaussians from {report['keyframes']} keyframes of "
        f"{report['frames']} frames, {report['steps']} steps, {report['seconds']:.0f} s, "
        f"{report['peak_memory_mib']:.0f} MiB"
    )
    if math.isfinite(report["psnr_training"]):
        text += f"; training PSNR {report['psnr_training']:.2f} dB"
    if held_out:
        text += (
            f"; {held_out} held-out views: PSNR {report['psnr_holdout']:.2f} dB "
            f"(aligned {report['psnr_holdout_aligned']:.2f})"
        )
        text += "" if report["ssim_holdout"] is None else f", SSIM {report['ssim_holdout']:.3f}"
    return text
