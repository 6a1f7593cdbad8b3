"""The demo without ROS: this process feeds frames to the mapping thread at the rate of a camera."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

from ovs3d_ros.config import Config
from ovs3d_ros.demo.scene import Scene
from ovs3d_ros.demo.session import Progress, PromptAnswer, Session
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.types import UserError
from ovs3d_ros.worker import MappingWorker

IDLE_TIMEOUT = 600.0  # seconds that mapping may take after the last frame
POLL = 0.2  # seconds between progress reports


def run_one_process(scene: Scene, config: Config, rate: float, map_path: Path, progress: Progress) -> Session:
    """Maps the scene while frames arrive at `rate` Hz, asks for every prompt, and saves the map.

    Raises:
        UserError: the mapping thread failed or did not finish in time.
    """
    pipeline = Ovs3d(config)
    worker = MappingWorker(pipeline, config)
    worker.start()
    try:
        _feed(scene, worker, rate, progress)
        _wait_until_mapped(worker, progress)
        answers = [_ask(pipeline, worker, prompt) for prompt in [*scene.present, *scene.absent]]
    finally:
        stopped = worker.stop()
    if not stopped:
        raise UserError("the mapping thread did not end; lower train.steps_per_keyframe and try again")
    stats = worker.stats()
    pipeline.save(map_path)
    return Session(
        how_run="one process without ROS: queries are function calls",
        map_path=map_path,
        frames_sent=len(scene.training),
        frames_received=stats["frames_received"],
        frames_dropped=stats["frames_dropped"] + stats["frames_rejected"],
        keyframes=stats["keyframes"],
        frame_to_map_p95_ms=stats["frame_to_map_p95_ms"],
        frame_to_features_p95_ms=stats["frame_to_features_p95_ms"],
        answers=answers,
    )


def _feed(scene: Scene, worker: MappingWorker, rate: float, progress: Progress) -> None:
    started = time.monotonic()
    for sent, index in enumerate(scene.training):
        frame = dataclasses.replace(scene.dataset[index], stamp=sent / rate)
        time.sleep(max(0.0, started + sent / rate - time.monotonic()))
        worker.submit(frame)
        _raise_worker_error(worker)
        progress(worker.stats())


def _wait_until_mapped(worker: MappingWorker, progress: Progress) -> None:
    deadline = time.monotonic() + IDLE_TIMEOUT
    while not worker.wait_idle(POLL):
        _raise_worker_error(worker)
        if time.monotonic() > deadline:
            raise UserError(
                f"mapping did not finish within {IDLE_TIMEOUT:.0f} s after the last frame; "
                "lower train.steps_per_keyframe"
            )
        progress(worker.stats())
    progress(worker.stats())


def _raise_worker_error(worker: MappingWorker) -> None:
    if worker.error is not None:
        raise UserError(f"the mapping thread failed: {worker.error}") from worker.error


def _ask(pipeline: Ovs3d, worker: MappingWorker, prompt: str) -> PromptAnswer:
    started = time.perf_counter()
    result = pipeline.query([prompt], snapshot=worker.snapshot)
    latency_ms = 1e3 * (time.perf_counter() - started)
    return PromptAnswer(prompt, bool(result.found[0]), float(result.presence[0]), latency_ms)
