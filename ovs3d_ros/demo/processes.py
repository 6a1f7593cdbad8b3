"""The demo over ROS: node, player and client as processes of their own, that talk over DDS."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ovs3d_ros.config import Config
from ovs3d_ros.config.yaml_io import to_yaml
from ovs3d_ros.demo.scene import HOLDOUT, Scene
from ovs3d_ros.demo.session import Progress, PromptAnswer, Session
from ovs3d_ros.ros.environment import child_environment, free_domain_id
from ovs3d_ros.visualization.pictures import label_colors

NODE, PLAYER, CLIENT = "ovs3d_ros.ros.node", "ovs3d_ros.ros.play", "ovs3d_ros.ros.demo_client"
START_TIMEOUT = 90.0  # seconds until the node subscribes: it imports torch and loads its models
SETTLE_TIMEOUT = (
    600.0  # seconds from the last frame to the last answer, on a machine that is busy with other things
)
STOP_TIMEOUT = 60.0  # seconds a process has to end after a signal; the node writes its map in them
POLL = 0.1  # seconds
TAIL = 15  # lines of a failed process's log
WRITTEN = (
    "answers.json",
    "client.log",
    "label.npy",
    "node.log",
    "overlay.npy",
    "parameters.yaml",
    "player.json",
    "player.log",
    "query_cloud.npy",
    "request.json",
)  # to logs/; nothing else in there is the demo's
ROS_LOGS = "python*_[0-9]*_[0-9]*.log"  # but for these, which rcl names by process and time


class ProcessFailed(RuntimeError):
    """A process of the demo failed; the message ends with the last lines of its log."""


class Child:
    """A Python module run as a process; what it prints goes to a log file."""

    def __init__(self, module: str, arguments: list[str], environment: dict[str, str], log: Path):
        """Starts it."""
        self.module = module
        self.log = log
        with log.open("wb") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
            )

    def lines(self) -> list[str]:
        """What it has printed so far, complete lines only."""
        return self.log.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]

    def ended_well(self) -> bool:
        """Whether it has ended.

        Raises:
            ProcessFailed: it ended with an error; the message holds the last lines of its log.
        """
        code = self.process.poll()
        if code:
            raise self.failure(f"ended with exit status {code}")
        return code == 0

    def failure(self, what: str) -> ProcessFailed:
        """An error that shows the end of the log."""
        tail = "\n".join(f"  {line}" for line in self.lines()[-TAIL:])
        return ProcessFailed(f"{self.module} {what}; the end of {self.log}:\n{tail}")

    def stop(self) -> int:
        """Interrupts it, gives it time, then kills it; returns its exit status."""
        for number, patience in ((signal.SIGINT, STOP_TIMEOUT), (signal.SIGKILL, STOP_TIMEOUT)):
            if self.process.poll() is None:
                self.process.send_signal(number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(patience)
        return self.process.returncode


@contextlib.contextmanager
def running(module: str, arguments: list[str], environment: dict[str, str], log: Path) -> Iterator[Child]:
    """A child process that does not outlive the block."""
    child = Child(module, arguments, environment, log)
    try:
        yield child
    finally:
        child.stop()


def run_processes(scene: Scene, config: Config, rate: float, map_path: Path, progress: Progress) -> Session:
    """Starts node, player and client, waits for the answers, and stops the node, which writes the map.

    Logs, parameters and what the client received go to `logs/` beside the map.

    Raises:
        ProcessFailed: a process failed, or something did not happen in time.
    """
    logs = map_path.parent / "logs"
    logs.mkdir(exist_ok=True)
    for stale in [map_path, *(logs / name for name in WRITTEN), *logs.glob(ROS_LOGS)]:
        stale.unlink(missing_ok=True)
    environment = child_environment(free_domain_id()) | {"ROS_LOG_DIR": str(logs.resolve())}
    parameters, sent, request = logs / "parameters.yaml", logs / "player.json", logs / "request.json"
    parameters.write_text(to_yaml(config), encoding="utf-8")
    seconds = START_TIMEOUT + len(scene.training) / rate + SETTLE_TIMEOUT
    request.write_text(
        json.dumps(dict(prompts=[*scene.present, *scene.absent], player_report=str(sent), timeout=seconds)),
        encoding="utf-8",
    )
    play = [
        str(scene.path),
        "--rate",
        f"{rate:g}",
        "--holdout",
        str(HOLDOUT),
        "--json",
        str(sent),
        "--wait",
        f"{START_TIMEOUT:g}",
        "--pose-source",
        config.pose_source,
        "--world-frame",
        config.input.world_frame,
    ]
    node_arguments = [
        "--ros-args",
        "--params-file",
        str(parameters),
        "-p",
        f"output.save_on_exit:={map_path}",
    ]
    with (
        running(NODE, node_arguments, environment, logs / "node.log") as node,
        running(PLAYER, play, environment, logs / "player.log") as player,
        running(CLIENT, [str(request), str(logs)], environment, logs / "client.log") as client,
    ):
        _watch(node, player, client, time.monotonic() + seconds, progress)
        if node.stop() != 0:
            raise node.failure(f"ended with exit status {node.process.returncode}")
    if not map_path.is_file():
        raise node.failure("wrote no map")
    return _session(logs, map_path, json.loads(sent.read_text(encoding="utf-8"))["frames_sent"], rate)


def _watch(node: Child, player: Child, client: Child, deadline: float, progress: Progress) -> None:
    """Passes the client's reports on until it ends; raises ProcessFailed when a process fails or time is up."""
    reported = 0
    while not client.ended_well():
        player.ended_well()
        if node.ended_well():
            raise node.failure("ended before it was told to")
        if time.monotonic() > deadline:
            raise node.failure("and its client did not finish in time")
        for line in client.lines()[reported:]:
            reported += 1
            if line.startswith("{"):
                progress(json.loads(line))
        time.sleep(POLL)


def _session(logs: Path, map_path: Path, frames_sent: int, rate: float) -> Session:
    report = json.loads((logs / "answers.json").read_text(encoding="utf-8"))
    figures = report["figures"]
    pictures = {}
    if (logs / "overlay.npy").is_file():
        labels = np.load(logs / "label.npy")[..., 0]
        pictures = dict(overlay=np.load(logs / "overlay.npy"), label=label_colors(int(labels.max()))[labels])
    return Session(
        how=f"ROS 2: node, player at {rate:g} Hz and client are processes of their own",
        map_path=map_path,
        frames_sent=frames_sent,
        frames_received=int(figures["frames_received"]),
        frames_dropped=int(figures["frames_dropped"]),
        keyframes=int(figures["keyframes"]),
        frame_to_map_p95_ms=figures["frame_to_map_p95_ms"],
        answers=[PromptAnswer(**answer) for answer in report["answers"]],
        pictures=pictures,
    )
