"""The demo over ROS: node, player and client run as separate processes and talk over DDS."""

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
from ovs3d_ros.io.atomic import write_text
from ovs3d_ros.ros.environment import child_environment, free_domain_id
from ovs3d_ros.visualization.pictures import label_colors

NODE, PLAYER, CLIENT = "ovs3d_ros.ros.node", "ovs3d_ros.ros.play", "ovs3d_ros.ros.demo_client"
START_TIMEOUT = 90.0  # seconds until the node subscribes; it imports torch and loads its models first
SETTLE_TIMEOUT = 600.0  # seconds from the last frame to the last answer, on a busy machine
# Seconds from a signal until the process must have ended; the node saves its map meanwhile.
STOP_TIMEOUT = 60.0
POLL = 0.1  # seconds
TAIL = 15  # log lines that the error of a failed process shows
# The demo writes these files into logs/ and removes those of an earlier run.
LOG_FILES = (
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
)
ROS_LOGS = "python*_[0-9]*_[0-9]*.log"  # rcl writes these, named by process and time


class ProcessFailed(RuntimeError):
    """A process of the demo failed; the message ends with the last lines of its log."""


class Child:
    """A Python module that runs as a process and prints into a log file."""

    def __init__(self, module: str, arguments: list[str], environment: dict[str, str], log: Path):
        """Starts the process."""
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
        """The complete lines that the process has printed so far."""
        return self.log.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]

    def has_ended(self) -> bool:
        """Whether the process has ended.

        Raises:
            ProcessFailed: the process ended with an error; the message holds the last lines of its log.
        """
        code = self.process.poll()
        if code:
            raise self.failure(f"ended with exit status {code}")
        return code == 0

    def failure(self, event: str) -> ProcessFailed:
        """An error that quotes the last lines of the log."""
        tail = "\n".join(f"  {line}" for line in self.lines()[-TAIL:])
        return ProcessFailed(f"{self.module} {event}; the end of {self.log}:\n{tail}")

    def stop(self) -> int:
        """Interrupts the process, waits, then kills it; returns its exit status."""
        # A shell starts background commands with SIGINT ignored, and so are their children.
        is_ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
        first = signal.SIGTERM if is_ignored else signal.SIGINT
        for signal_number, timeout in ((first, STOP_TIMEOUT), (signal.SIGKILL, STOP_TIMEOUT)):
            if self.process.poll() is None:
                self.process.send_signal(signal_number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(timeout)
        return self.process.returncode


@contextlib.contextmanager
def running(module: str, arguments: list[str], environment: dict[str, str], log: Path) -> Iterator[Child]:
    """Runs a child process until the block ends."""
    child = Child(module, arguments, environment, log)
    try:
        yield child
    finally:
        child.stop()


def run_processes(scene: Scene, config: Config, rate: float, map_path: Path, progress: Progress) -> Session:
    """Starts node, player and client, waits for the answers, and stops the node, which writes the map.

    Logs, parameters and the messages that the client received go to `logs/` beside the map.

    Raises:
        ProcessFailed: a process failed or did not finish in time.
    """
    logs = map_path.parent / "logs"
    logs.mkdir(exist_ok=True)
    for stale in [map_path, *(logs / name for name in LOG_FILES), *logs.glob(ROS_LOGS)]:
        stale.unlink(missing_ok=True)
    environment = child_environment(free_domain_id()) | {"ROS_LOG_DIR": str(logs.resolve())}
    parameters, player_report, request = logs / "parameters.yaml", logs / "player.json", logs / "request.json"
    write_text(parameters, to_yaml(config))
    seconds = START_TIMEOUT + len(scene.training) / rate + SETTLE_TIMEOUT
    content = dict(prompts=[*scene.present, *scene.absent], player_report=str(player_report), timeout=seconds)
    write_text(request, json.dumps(content))
    player_arguments = [
        str(scene.path),
        "--rate",
        f"{rate:g}",
        "--holdout",
        str(HOLDOUT),
        "--json",
        str(player_report),
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
        running(PLAYER, player_arguments, environment, logs / "player.log") as player,
        running(CLIENT, [str(request), str(logs)], environment, logs / "client.log") as client,
    ):
        _watch(node, player, client, time.monotonic() + seconds, progress)
        if node.stop() != 0:
            raise node.failure(f"ended with exit status {node.process.returncode}")
    if not map_path.is_file():
        raise node.failure("wrote no map")
    return _session(
        logs, map_path, json.loads(player_report.read_text(encoding="utf-8"))["frames_sent"], rate
    )


def _watch(node: Child, player: Child, client: Child, deadline: float, progress: Progress) -> None:
    """Forwards the client's progress until it ends.

    Raises ProcessFailed when a process fails or time is up.
    """
    reported = 0
    while not client.has_ended():
        player.has_ended()
        if node.has_ended():
            raise node.failure("ended before the client was done")
        if time.monotonic() > deadline:
            raise node.failure("did not serve the client in time")
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
        how_run=f"ROS 2: node, player at {rate:g} Hz and client are separate processes",
        map_path=map_path,
        frames_sent=frames_sent,
        frames_received=int(figures["frames_received"]),
        frames_dropped=int(figures["frames_dropped"]),
        keyframes=int(figures["keyframes"]),
        frame_to_map_p95_ms=figures["frame_to_map_p95_ms"],
        frame_to_features_p95_ms=figures["frame_to_features_p95_ms"],
        answers=[PromptAnswer(**answer) for answer in report["answers"]],
        pictures=pictures,
    )
