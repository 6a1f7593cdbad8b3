"""`ovs3d map`: builds a map file from posed frames and measures its quality on held-out views."""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from ovs3d_ros.commands import common
from ovs3d_ros.config import Config
from ovs3d_ros.offline.mapping import Source, Stage, map_dataset, open_source
from ovs3d_ros.offline.scale import TYPICAL_DEPTH
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


def run(options: argparse.Namespace) -> int:
    """Maps a dataset.

    Raises:
        UserError: bad settings, data or output. Most are found before any work begins.
    """
    started = time.monotonic()
    config = common.read_config(options)
    output = common.check_output_file(options.output, options.data)
    common.check_json(options.json, output, *([options.onto] if options.onto else []))
    onto = _open(options.onto, options) if options.onto else None
    config = onto.config if onto else config
    source = Source(options.data, options.format, options.images, options.skip_missing, options.holdout)
    recording = open_source(source, config, options.clip)
    warn_about_bundled_model(config, options.clip)
    with _Bars(options) as progress:
        pipeline, report = map_dataset(recording, output, config, options.clip, progress, onto)
    report["seconds"] = round(time.monotonic() - started, 2)
    report["peak_memory_mib"] = round(common.peak_memory_mib(), 1)
    common.write_json(options.json, report)
    common.print_message(options, f"{output}: {_summary(report, len(recording.held_out))}")
    unit = pipeline.config.map.unit
    if unit not in (1.0, config.map.unit):
        common.print_message(options, _UNKNOWN_UNIT.format(TYPICAL_DEPTH / unit, TYPICAL_DEPTH))
    return 0


def _open(path: Path, options: argparse.Namespace) -> Ovs3d:
    """Opens a map that grows by the data.

    Raises:
        UserError: it cannot be used, or it holds no keyframes, or a file of settings was given.
    """
    if options.config:
        raise UserError("--config: a map keeps the settings it was made with; change single ones with --set")
    pipeline = Ovs3d.load(path, common.read_settings(options), encode=options.clip, training=True)
    if not pipeline.keyframes:
        raise UserError(
            f"{path}: holds no keyframes, and training on new frames alone would make its places fade; map "
            "it anew with --set map.keep_keyframes=true"
        )
    return pipeline


def warn_about_bundled_model(config: Config, encode: bool) -> None:
    """Warns on standard error if features of the bundled model will be mapped."""
    if encode and config.clip.model == "bundled":
        sys.stderr.write(_BUNDLED_WARNING + "\n")


class _Bars:
    """A progress bar for each stage of the work, one after the other."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._stage: Stage | None = None
        self._shown = ExitStack()

    def __enter__(self) -> _Bars:
        return self

    def __exit__(self, *error: object) -> None:
        self._shown.close()

    def __call__(self, stage: Stage, done: int, figures: Callable[[], dict[str, str]]) -> None:
        if stage is not self._stage:
            self._shown.close()
            self._stage = stage
            bar = common.progress_bar(self._options, stage.total, stage.title, stage.unit)
            self._bar = self._shown.enter_context(bar)
        if self._bar.update(done - self._bar.n):
            self._bar.set_postfix(figures(), refresh=False)


def _summary(report: dict, held_out: int) -> str:
    text = (
        f"{report['num_gaussians']} Gaussians from {report['keyframes']} keyframes of "
        f"{report['frames']} frames, {report['steps']} steps, {report['seconds']:.0f} s, "
        f"{report['peak_memory_mib']:.0f} MiB"
    )
    if math.isfinite(report["psnr_training"]):
        text += f"; training PSNR {report['psnr_training']:.2f} dB"
    if report["masked_share"]:
        text += f"; masks leave out {100 * report['masked_share']:.0f} % of the pixels"
    if report["psnr_holdout"] is not None:
        text += (
            f"; {held_out} held-out views: PSNR {report['psnr_holdout']:.2f} dB "
            f"(aligned {report['psnr_holdout_aligned']:.2f})"
        )
        text += "" if report["ssim_holdout"] is None else f", SSIM {report['ssim_holdout']:.3f}"
    return text
