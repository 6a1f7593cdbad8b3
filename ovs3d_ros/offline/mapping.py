"""Builds a map file from a recorded dataset and measures its quality on held-out views."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ovs3d_ros.config import Config, override
from ovs3d_ros.datasets import Dataset, open_dataset, split_frames
from ovs3d_ros.evaluation.image_quality import image_quality
from ovs3d_ros.mapping.mapper import StepStats
from ovs3d_ros.offline.scale import check_depth_unit, estimate_unit
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.types import UserError

_MEASURES = dict(psnr_holdout="psnr", psnr_holdout_aligned="psnr_aligned", ssim_holdout="ssim")
_DEPTH_SAMPLES = 8  # frames read to explain why no depth was used


@dataclass(frozen=True, slots=True)
class Source:
    """A dataset to map; the attributes are those of `datasets.open_dataset`.

    Attributes:
        path: the data.
        format: one of `datasets.FORMATS`, or None.
        images: folder of the photographs, if elsewhere.
        skip_missing: leave out frames without a photograph.
        holdout: hold out every n-th frame, see `datasets.split_frames`.
    """

    path: Path
    format: str | None = None
    images: Path | None = None
    skip_missing: bool = False
    holdout: int = 0


@dataclass(frozen=True, slots=True)
class Recording:
    """A dataset that was opened and divided.

    Attributes:
        source: where it comes from.
        dataset: its frames, at the size they are mapped at.
        held_out: indices of the frames that measure the map.
        training: indices of the frames that are mapped.
    """

    source: Source
    dataset: Dataset
    held_out: list[int]
    training: list[int]


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage of the work.

    Attributes:
        title: what is done.
        unit: what is counted.
        total: how many of them there are.
    """

    title: str
    unit: str
    total: int


class Progress(Protocol):
    """Is told how far the work is."""

    def __call__(self, stage: Stage, done: int, figures: Callable[[], dict[str, str]]) -> None:
        """Takes note of `done` units of a stage; `figures` tells the state of the map, at some cost."""
        ...


def open_source(source: Source, config: Config, encode: bool) -> Recording:
    """Opens a dataset at the size it is mapped at, and holds frames out.

    Args:
        source: the data.
        config: all parameters.
        encode: see `map_dataset`; the encoder sees photographs in full size.

    Raises:
        UserError: see `open_dataset` and `split_frames`.
    """
    dataset = open_dataset(
        source.path,
        0 if encode else config.map.image_size,
        source.format,
        config,
        labels=False,
        images=source.images,
        skip_missing=source.skip_missing,
    )
    held_out, training = split_frames(dataset, source.holdout)
    return Recording(source, dataset, held_out, training)


def map_dataset(
    recording: Recording,
    output: Path,
    config: Config,
    encode: bool,
    progress: Progress,
    onto: Ovs3d | None = None,
) -> tuple[Ovs3d, dict[str, Any]]:
    """Maps a dataset and writes the map file.

    Args:
        recording: the data.
        output: map file to write.
        config: all parameters.
        encode: False maps colours and shape only.
        progress: is told about every frame and every step.
        onto: a map with its keyframes, in the frame of the dataset, that grows; None: a new map.

    Returns:
        The map, and a report: measures over held-out frames (None without such frames), figures of the map,
        `masked_share` (of the pixels, left out by masks) and `metres_per_unit`.

    Raises:
        UserError: data that cannot be read or mapped, or a file that cannot be written.
    """
    dataset, training = recording.dataset, recording.training
    check_depth_unit(dataset, training)
    if onto is None:
        unit = config.map.unit or estimate_unit(dataset, training)
        pipeline = Ovs3d(override(config, {"map.unit": unit}), encode=encode)
    else:
        unit, pipeline = onto.config.map.unit or 1.0, onto
    masked = _add_frames(recording.source.path, pipeline, dataset, training, progress)
    _optimize(pipeline, config.train.final_steps, progress)
    _relift(pipeline, progress)
    pipeline.save(output)
    try:
        quality = _hold_out_quality(pipeline, dataset.resized(config.map.image_size), recording.held_out)
    except UserError as error:
        raise UserError(
            f"{error}; the map is finished and saved as {output}, but its quality could not be measured"
        ) from None
    stats = pipeline.stats
    return pipeline, dict(
        **quality,
        psnr_training=round(stats["psnr"], 4),
        num_gaussians=stats["num_gaussians"],
        frames=stats["frames"],
        keyframes=stats["keyframes"],
        steps=stats["steps"],
        masked_share=round(masked, 4),
        metres_per_unit=float(f"{unit:.4g}"),
    )


def _add_frames(
    path: Path, pipeline: Ovs3d, dataset: Dataset, indices: list[int], progress: Progress
) -> float:
    """Adds the frames; returns the share of their pixels that their masks leave out."""

    def figures() -> dict[str, str]:
        stats = pipeline.stats
        return dict(keyframes=str(stats["keyframes"]), Gaussians=str(stats["num_gaussians"]))

    stage, shares = Stage("frames", "frame", len(indices)), []
    progress(stage, 0, figures)
    if dataset.points is not None and not dataset.has_depth:
        pipeline.add_points(*dataset.points, dataset.camtoworlds[indices, :3, 3])
    for done, index in enumerate(indices, start=1):
        frame = dataset[index]
        pipeline.add_frame(frame)
        shares.append(0.0 if frame.mask is None else 1 - float(frame.mask.mean()))
        progress(stage, done, figures)
    masked = float(np.mean(shares or [0.0]))
    if masked == 1:
        raise UserError(
            f"{path}: its masks leave out every pixel (black pixels are left out, all others kept); "
            "invert them"
        )
    if not pipeline.stats["num_gaussians"]:
        raise UserError(
            f"{path}: {len(indices)} frames gave no Gaussian; "
            + (
                _depth_remedy(dataset, indices, pipeline.config)
                if dataset.has_depth
                else "give depth, COLMAP points, or at least two overlapping views from different places"
            )
        )
    return masked


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


def _optimize(pipeline: Ovs3d, steps: int, progress: Progress) -> None:
    stage, done = Stage("optimising", "it", steps), 0

    def on_step(stats: StepStats) -> None:
        nonlocal done
        done += 1
        progress(
            stage,
            done,
            lambda: dict(PSNR=f"{pipeline.stats['psnr']:.1f} dB", Gaussians=str(stats.num_gaussians)),
        )

    pipeline.optimize(steps, on_step, horizon=steps)


def _relift(pipeline: Ovs3d, progress: Progress) -> None:
    """Lifts the features again: the optimisation moved Gaussians and added some without features."""
    stage = Stage("lifting", "keyframe", pipeline.stats["keyframes"])
    for done, _ in enumerate(pipeline.relift(), start=1):
        progress(stage, done, dict)


def _hold_out_quality(pipeline: Ovs3d, dataset: Dataset, held_out: list[int]) -> dict[str, float | None]:
    """Mean measures over the held-out frames at the mapping resolution; None without such frames.

    SSIM is None too if a frame is smaller than its window. Masked pixels do not count.
    """
    snapshot, rows = pipeline.snapshot(), []
    for index in held_out:
        frame = dataset[index]
        if frame.mask is None or frame.mask.any():
            rgb = pipeline.render(frame.camera, frame.camtoworld, snapshot).rgb.cpu().numpy()
            rows.append(image_quality(rgb, frame.image, frame.mask))
    means = {key: np.mean([row[name] for row in rows] or np.nan) for key, name in _MEASURES.items()}
    return {key: None if np.isnan(mean) else round(float(mean), 4) for key, mean in means.items()}
