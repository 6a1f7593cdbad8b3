"""Measures the quality of a map on held-out frames over time. Prints one JSON document.

    python benchmarks/mapping.py DATA [--modes offline online] [--holdout 8] [--set key=value ...]
                                 [--json FILE] [--picture FILE.svg]

Modes: `offline` adds all frames, then optimises for `train.final_steps` steps. `online` submits the frames to
a mapping thread at the rate of their stamps, and waits until the thread has taken all its steps. The suffix
`-exposure` turns exposure compensation off, `-depth` removes the depth images. Every `--holdout`-th frame is
held out. Each mode runs in its own process; quality is measured on snapshots after the clock has stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from documents import print_document

from ovs3d_ros.commands.common import peak_memory_mib
from ovs3d_ros.config import Config, override, resolve_device, resolve_rasterizer
from ovs3d_ros.config.yaml_io import parse_assignments
from ovs3d_ros.datasets import open_dataset, split_holdout
from ovs3d_ros.evaluation.metrics import psnr, psnr_aligned, ssim
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.types import Frame, MapSnapshot
from ovs3d_ros.warm_up import warm_up
from ovs3d_ros.worker import MappingWorker

MODES = tuple(f"{base}{change}" for base in ("offline", "online") for change in ("", "-exposure", "-depth"))
# Shares of all steps at which offline mapping takes a snapshot.
SNAPSHOT_AT = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 3 / 4, 1)
# Online mapping takes a snapshot whenever the time since the first frame has grown by this factor.
SNAPSHOT_FACTOR = 1.3
PANELS = (
    ("psnr_aligned", "PSNR, gain-aligned [dB]"),
    ("ssim", "SSIM"),
    ("depth_error", "depth error, median [%]"),
)
COLORS = ("#1f6f8b", "#d1603d", "#6a994e", "#7d5ba6", "#c9a227", "#5c6770")

Sample = tuple[float, float, int, MapSnapshot]  # seconds, processor seconds, steps, map


class Clock:
    """Wall-clock and processor seconds of this process since the clock was made."""

    def __init__(self) -> None:
        self._start = time.perf_counter(), time.process_time()

    def read(self) -> tuple[float, float]:
        """(seconds, processor seconds)."""
        return time.perf_counter() - self._start[0], time.process_time() - self._start[1]


def offline(pipeline: Ovs3d, frames: list[Frame]) -> Iterator[Sample]:
    """Adds all frames, then takes the final steps."""
    clock, steps = Clock(), pipeline.config.train.final_steps
    for frame in frames:
        pipeline.add_frame(frame)
    yield *clock.read(), 0, pipeline.snapshot()
    for share in SNAPSHOT_AT:
        pipeline.optimize(round(share * steps) - pipeline.stats["steps"], horizon=steps)
        yield *clock.read(), pipeline.stats["steps"], pipeline.snapshot()


def online(pipeline: Ovs3d, frames: list[Frame]) -> Iterator[Sample]:
    """Submits frames at the rate of their stamps, then waits until the mapping thread is idle."""
    worker = MappingWorker(pipeline, pipeline.config)
    worker.start()
    clock, pending, due = Clock(), list(frames), 1.0

    def sample() -> Sample:
        return *clock.read(), pipeline.stats["steps"], worker.run(pipeline.snapshot, timeout=600.0)

    while pending or not worker.wait_idle(0.05):
        if worker.error is not None:
            raise RuntimeError("the mapping thread failed") from worker.error
        elapsed = clock.read()[0]
        while pending and pending[0].stamp - frames[0].stamp <= elapsed:
            worker.submit(pending.pop(0))
        if elapsed >= due and pipeline.stats["steps"]:
            yield sample()
            due = SNAPSHOT_FACTOR * clock.read()[0]
        time.sleep(0.005)
    yield sample()
    worker.stop()


def measure(pipeline: Ovs3d, snapshot: MapSnapshot, frames: list[Frame]) -> dict[str, float]:
    """Means over held-out frames at mapping resolution; depth_error: median relative error in per cent."""
    rows = []
    for frame in frames:
        view = pipeline.render(frame.camera, frame.camtoworld, snapshot)
        pair = view.rgb.cpu().numpy(), frame.image
        row = dict(psnr=psnr(*pair), psnr_aligned=psnr_aligned(*pair), ssim=ssim(*pair))
        if frame.depth is not None:
            valid = (frame.depth > 0) & (view.alpha.cpu().numpy() > 0.5)
            error = np.abs(view.depth.cpu().numpy() - frame.depth)[valid] / frame.depth[valid]
            row["depth_error"] = 100 * float(np.median(error)) if valid.any() else 100.0
        rows.append(row)
    return {name: round(float(np.mean([row[name] for row in rows])), 4) for name in rows[0]}


def run_mode(mode: str, data: str, holdout: int, values: dict) -> dict:
    """Runs one mode on one dataset; returns its curve over time and the last point of it."""
    base, _, change = mode.partition("-")
    if change == "exposure":
        values = {**values, "train.exposure": False}
    config = override(Config(), values)
    dataset = open_dataset(data, config.map.image_size, None, config)
    held_out, training = split_holdout(len(dataset), holdout)
    frames = [dataset[index] for index in training]
    if change == "depth":
        frames = [dataclasses.replace(frame, depth=None) for frame in frames]
    pipeline = Ovs3d(config, encode=False)
    warm_up(pipeline)  # kernels compile once per machine; benchmarks/raster.py reports that time
    samples = list({"offline": offline, "online": online}[base](pipeline, frames))
    memory = peak_memory_mib()
    views, curve = [dataset[index] for index in held_out], []
    for seconds, processor, steps, snapshot in samples:
        curve.append(
            dict(
                seconds=round(seconds, 2),
                processor_s=round(processor, 2),
                steps=steps,
                gaussians=snapshot.num_gaussians,
                **measure(pipeline, snapshot, views),
            )
        )
    size = [frames[0].camera.width, frames[0].camera.height]
    return dict(
        mode=mode,
        size=size,
        frames=len(frames),
        keyframes=pipeline.stats["keyframes"],
        held_out=len(views),
        peak_mib=round(memory, 1),
        end=curve[-1],
        curve=curve,
    )


def draw_curves(runs: list[dict]) -> str:
    """Draws the curves as SVG: one panel per measure over processor seconds, one line per mode."""
    width, height, gap = 300, 190, 62
    last = max(point["processor_s"] for run in runs for point in run["curve"])
    parts = []
    for column, (key, title) in enumerate(PANELS):
        points = [[(p["processor_s"], p[key]) for p in run["curve"] if key in p] for run in runs]
        values = [value for line in points for _, value in line]
        if not values:
            continue
        low, high = min(values), max(values)
        left, top = 50 + column * (width + gap), 34
        scale = (high - low) or 1.0

        def place(
            seconds: float,
            value: float,
            left: float = left,
            top: int = top,
            low: float = low,
            scale: float = scale,
        ) -> str:
            return f"{left + width * seconds / last:.1f},{top + height * (1 - (value - low) / scale):.1f}"

        parts.append(f'<text x="{left}" y="20" font-weight="bold">{title}</text>')
        parts.append(f'<path d="M{left} {top}v{height}h{width}" fill="none" stroke="#999"/>')
        for value in (low, high):
            at = place(0, value).split(",")[1]
            parts.append(f'<text x="{left - 6}" y="{float(at) + 4}" text-anchor="end">{value:.3g}</text>')
        end = f'x="{left + width}" y="{top + height + 16}" text-anchor="end"'
        parts.append(f"<text {end}>{last:.0f} processor s</text>")
        for line, color in zip(points, COLORS, strict=False):
            path = " ".join(place(*point) for point in line)
            parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>')
    for row, (run, color) in enumerate(zip(runs, COLORS, strict=False)):
        parts.append(f'<text x="{50 + 150 * row}" y="{34 + height + 36}" fill="{color}">{run["mode"]}</text>')
    total = 3 * (width + gap) + 20
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total} 280" font-family="sans-serif" '
        f'font-size="12"><rect width="{total}" height="280" fill="#fafaf8"/>' + "".join(parts) + "</svg>\n"
    )


def _run_in_process(function: Callable, *arguments: object) -> dict:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


def main() -> None:
    """Runs the chosen modes and prints one JSON document."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=["offline", "online"])
    parser.add_argument("--holdout", type=int, default=8)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    values = parse_assignments(options.set)
    config = override(Config(), values)
    runs = [_run_in_process(run_mode, mode, options.data, options.holdout, values) for mode in options.modes]
    report = dict(
        data=Path(options.data).name,
        holdout=options.holdout,
        settings=values,
        processors=os.cpu_count(),
        threads=config.compute.threads or os.cpu_count(),
        torch_threads=config.compute.torch_threads,
        torch=torch.__version__,
        device=resolve_device(config.compute),
        rasterizer=resolve_rasterizer(config.compute),
        runs=runs,
    )
    print_document(report, options.json)
    if options.picture:
        options.picture.write_text(draw_curves(runs))


if __name__ == "__main__":
    main()
