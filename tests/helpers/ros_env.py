"""Helpers of the ROS tests: a small scene on disk, and child processes."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from ovs3d_ros.geometry import OPENGL_TO_OPENCV
from ovs3d_ros.ros.environment import BOOTSTRAP_MARK, child_environment  # noqa: F401

WIDTH, HEIGHT, FOCAL = 160, 120, 130.0
ROOM = np.array([[-4.0, -4.0, 0.0], [4.0, 4.0, 3.0]])  # opposite corners, metres
SPHERES = (
    ((0.0, 0.0, 0.35), 0.35, (200, 30, 30)),
    ((0.9, 0.2, 0.25), 0.25, (30, 60, 200)),
    ((-0.8, 0.4, 0.3), 0.3, (40, 180, 60)),
)


def look_at(eye: np.ndarray, target: np.ndarray) -> np.ndarray:
    """camtoworld [4, 4] in OpenCV axes of a camera at `eye` that looks at `target`, world z up."""
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
    pose[:3, 3] = eye
    return pose


def render(camtoworld: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ray casts three spheres in a chequered room: RGB uint8 [H, W, 3], z-depth float32 [H, W] metres."""
    columns, rows = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
    local = np.stack([(columns - WIDTH / 2) / FOCAL, (rows - HEIGHT / 2) / FOCAL, np.ones_like(columns)], -1)
    # z of `local` is 1, so ray lengths are z-depths.
    rays, eye = local @ camtoworld[:3, :3].T, camtoworld[:3, 3]
    rays = np.where(np.abs(rays) < 1e-9, 1e-9, rays)  # avoids division by zero
    exits = np.where(rays > 0, ROOM[1] - eye, ROOM[0] - eye) / rays  # [H, W, 3] to the walls of each axis
    depth = exits.min(-1)
    hits = eye + depth[..., None] * rays
    checks = np.floor(hits * 2 + 0.25).sum(-1) % 2
    color = (90 + 40 * exits.argmin(-1) + 25 * checks)[..., None] * np.ones(3)
    for center, radius, rgb in SPHERES:
        offset = eye - np.array(center)
        a, b = (rays**2).sum(-1), rays @ offset
        root = b * b - a * (offset @ offset - radius**2)
        z = np.where(root > 0, (-b - np.sqrt(np.maximum(root, 0))) / a, np.inf)
        nearer = (z > 0.05) & (z < depth)
        normal_z = (eye[2] + np.where(nearer, z, 0) * rays[..., 2] - center[2]) / radius
        color = np.where(nearer[..., None], np.array(rgb) * (0.7 + 0.3 * normal_z[..., None]), color)
        depth = np.where(nearer, z, depth)
    return np.clip(color, 0, 255).round().astype(np.uint8), depth.astype(np.float32)


def write_dataset(folder: Path, count: int = 8) -> Path:
    """Writes a nerfstudio dataset with depth in millimetres: a walk around the spheres."""
    frames = []
    for name in ("images", "depth"):
        (folder / name).mkdir(parents=True)
    for i in range(count):
        angle = 0.25 * i
        eye = np.array([2.6 * np.cos(angle), 2.6 * np.sin(angle), 1.3])
        camtoworld = look_at(eye, np.array([0.0, 0.1, 0.25]))
        rgb, depth = render(camtoworld)
        cv2.imwrite(str(folder / f"images/{i:04d}.png"), rgb[..., ::-1])
        cv2.imwrite(str(folder / f"depth/{i:04d}.png"), np.round(depth * 1000).astype(np.uint16))
        frames.append(
            {
                "file_path": f"images/{i:04d}.png",
                "depth_file_path": f"depth/{i:04d}.png",
                "transform_matrix": (camtoworld @ OPENGL_TO_OPENCV).tolist(),
            }
        )
    camera = {
        "camera_model": "OPENCV",
        "w": WIDTH,
        "h": HEIGHT,
        "fl_x": FOCAL,
        "fl_y": FOCAL,
        "cx": WIDTH / 2,
        "cy": HEIGHT / 2,
    }
    (folder / "transforms.json").write_text(json.dumps({**camera, "frames": frames}), encoding="utf-8")
    return folder


def use_child_environment(patch: pytest.MonkeyPatch) -> None:
    """Gives this process the ROS settings of its children; call it before the first `rclpy.init`."""
    environment = child_environment(0)
    for name in (
        "ROS_AUTOMATIC_DISCOVERY_RANGE",
        "FASTDDS_DEFAULT_PROFILES_FILE",
        "FASTRTPS_DEFAULT_PROFILES_FILE",
    ):
        if name in environment:
            patch.setenv(name, environment[name])


def heed_hangup() -> None:
    """Lets SIGHUP reach a child also where the tests themselves run under `nohup`."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


class Process:
    """A Python module in a child process with its output in a file."""

    def __init__(self, module: str, arguments: list[str], domain_id: int, log: Path):
        self.log = log
        self._stream = log.open("wb")
        tests = Path(__file__).resolve().parents[1]
        environment = child_environment(domain_id)
        environment["PYTHONPATH"] = os.pathsep.join(
            filter(None, [str(tests.parent), str(tests), environment.get("PYTHONPATH")])
        )
        environment["ROS_LOG_DIR"] = str(log.parent)
        self.child = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            env=environment,
            stdout=self._stream,
            stderr=subprocess.STDOUT,
            preexec_fn=heed_hangup,
        )

    def output(self) -> str:
        """The output so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def wait_for(self, text: str, seconds: float) -> None:
        """Waits until the output contains `text`; fails after a timeout or if the process ends before."""
        wait_until(
            lambda: text in self.output() or self.child.poll() is not None,
            seconds,
            lambda: f"no {text!r} in:\n{self.output()}",
        )
        assert text in self.output(), f"ended with {self.child.returncode} before {text!r}:\n{self.output()}"

    def stop(self, number: int = signal.SIGINT, seconds: float = 30.0) -> int:
        """Signals the process and returns its exit status."""
        if self.child.poll() is None:
            self.child.send_signal(number)
        return self.wait(seconds)

    def wait(self, seconds: float) -> int:
        """Waits for the process to end and returns its exit status; kills the process after a timeout."""
        try:
            return self.child.wait(seconds)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait(10)
            raise AssertionError(f"did not end within {seconds} s:\n{self.output()}") from None
        finally:
            self._stream.close()


def has_messages(package: str) -> bool:
    """Whether a package of messages is installed; tests/PACKAGE alone looks like a package without a file."""
    spec = importlib.util.find_spec(package)
    return spec is not None and spec.origin is not None


def wait_until(condition: Callable[[], bool], seconds: float, explain: Callable[[], str] = str) -> None:
    """Polls until the condition holds; fails with the explanation after a timeout."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, explain()
        time.sleep(0.02)
