"""`ovs3d demo`: maps a scene shipped with the project, asks for things, and measures the map."""

from __future__ import annotations

import contextlib
import json
import logging
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ovs3d_ros.config import Config, leaves, override
from ovs3d_ros.demo.evaluation import evaluate_map
from ovs3d_ros.demo.one_process import run_one_process
from ovs3d_ros.demo.pictures import write_pictures
from ovs3d_ros.demo.processes import ProcessFailed, run_processes
from ovs3d_ros.demo.report import Report, describe, make_report
from ovs3d_ros.demo.scene import PHOTOS, SHIPPED, Scene, read_scene
from ovs3d_ros.demo.session import Progress, Session
from ovs3d_ros.io.atomic import check_target, write_text
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.types import UserError
from ovs3d_ros.warm_up import warm_up

log = logging.getLogger(__name__)

# The demo shows what a plain CPU can do: the images of the scene are 320 x 240. On a busy machine mapping
# falls behind, and the report says how far. No frame is lost then: the inbox holds the whole walk, and
# messages wait long for their pose.
DEFAULTS = {
    "compute.device": "cpu",
    "clip.model": "bundled",
    "map.image_size": 320,
    "input.inbox": 64,
    "qos.input": "reliable",
    "tf.timeout_s": 10.0,
}
# Beside `DEFAULTS`, for photographs: two CPU cores encode two of them per second, and map meanwhile.
PHOTO_DEFAULTS = {"clip.model": "conse", "map.image_size": 240, "train.steps_per_keyframe": 15}
MAP_NAME = "demo.ovs3d"


def run(
    out: Path,
    ros: bool,
    settings: dict[str, Any],
    json_path: str | None = None,
    rate: float = 2.0,
    quiet: bool = False,
    scene_path: Path = SHIPPED,
) -> int:
    """The `ovs3d demo` command: runs the demo and prints its results.

    Args:
        out: folder to write.
        ros: True runs node, player and client over ROS; False runs everything in this process.
        settings: dotted parameters that override the demo's own (`DEFAULTS`).
        json_path: a second file for the report beside `out/report.json`; "-" prints it, not the summary.
        rate: frames per second.
        quiet: no progress bar.
        scene_path: as of `make_demo`.

    Returns:
        0, or 1 when a process of the demo failed; its last log lines are then on stderr.

    Raises:
        UserError: bad settings, or the folder or a file cannot be written.
    """
    if json_path not in (None, "-"):
        check_target(Path(json_path))
    try:
        with _exit_on_sigterm():
            report, how_run = make_demo(out, ros, settings, rate, quiet, scene_path)
    except ProcessFailed as error:
        sys.stderr.write(f"ovs3d: error: {error}\n")
        return 1
    text = json.dumps(report.as_json(), indent=1) + "\n"
    write_text(out / "report.json", text)
    if json_path == "-":
        sys.stdout.write(text)
        return 0
    if json_path:
        write_text(Path(json_path).expanduser(), text)
    sys.stdout.write(f"{describe(report, how_run)}\nLook at {out / 'demo.png'}; all files are in {out}\n")
    return 0


def make_demo(
    out: Path,
    ros: bool,
    settings: dict[str, Any],
    rate: float,
    quiet: bool = True,
    scene_path: Path = SHIPPED,
) -> tuple[Report, str]:
    """Maps the scene while frames arrive, queries and measures the map, and writes map and pictures to `out`.

    Args:
        out: folder to write.
        ros: True runs node, player and client over ROS; False runs everything in this process.
        settings: dotted parameters that override `DEFAULTS`.
        rate: frames per second.
        quiet: no progress bar.
        scene_path: a labelled dataset with names, see `read_scene`; `PHOTOS` is mapped with `PHOTO_DEFAULTS`.

    Returns:
        The report, and one line that says how the demo ran.

    Raises:
        UserError: bad settings or data, or the folder cannot be written.
        ProcessFailed: a process of the demo failed.
    """
    started = time.monotonic()
    defaults = DEFAULTS | (PHOTO_DEFAULTS if scene_path == PHOTOS else {})
    config = override(Config(), defaults | settings)
    if not 0 < rate <= 1000:
        raise UserError(f"rate {rate:g}: give frames per second between 0 and 1000")
    scene = read_scene(scene_path)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{out}: cannot make this folder ({error.strerror}); choose another with -o"
        ) from None
    with tqdm(total=len(scene.training), unit="frame", disable=quiet, dynamic_ncols=True) as bar:
        bar.set_description("getting ready")
        warm_up(Ovs3d(config))  # compiled kernels are cached on disk: no frame waits for them
        bar.set_description("mapping")
        run_session = run_processes if ros else run_one_process
        session = run_session(scene, config, rate, (out / MAP_NAME).resolve(), _progress_on(bar))
        bar.set_description("evaluating")
        report = _evaluate(out, session, scene, config, started)
    return report, session.how_run


def _evaluate(out: Path, session: Session, scene: Scene, config: Config, started: float) -> Report:
    not_in_map = {leaf.path: value for leaf, value in leaves(config) if not leaf.stored}
    pipeline = Ovs3d.load(session.map_path, not_in_map)
    snapshot = pipeline.snapshot()
    found = [answer.prompt for answer in session.answers if answer.found]
    evaluation = evaluate_map(pipeline, snapshot, scene, found)
    seconds = time.monotonic() - started
    report = make_report(session, evaluation, scene, snapshot.num_gaussians, seconds, config.query)
    write_pictures(out, report, session, evaluation, scene, snapshot, config)
    return report


def _progress_on(bar: tqdm) -> Progress:
    def show(figures: dict[str, Any]) -> None:
        bar.update(int(figures.get("frames_received", 0)) - bar.n)
        psnr = figures.get("psnr")
        bar.set_postfix(
            keyframes=int(figures.get("keyframes", 0)),
            Gaussians=int(figures.get("num_gaussians", 0)),
            PSNR="-" if psnr is None else f"{psnr:.1f} dB",
        )

    return show


@contextlib.contextmanager
def _exit_on_sigterm() -> Iterator[None]:
    """Turns SIGTERM into SystemExit inside the block, so the demo stops its child processes first."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
