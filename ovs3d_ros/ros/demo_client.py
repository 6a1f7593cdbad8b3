"""The demo's client: observes a mapping run over ROS, calls `~/query`, and saves the answers.

`ovs3d demo` starts `python -m ovs3d_ros.ros.demo_client REQUEST.json OUT`. The client reports its progress on
stdout, one JSON object per line, and writes answers.json, query_cloud.npy, overlay.npy, label.npy to OUT.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from rclpy.node import Node

from ovs3d_interfaces.srv import QueryText
from ovs3d_ros.io.atomic import atomic_write, write_text
from ovs3d_ros.ros import conversions
from ovs3d_ros.ros.outputs.publishers import LATCHED
from ovs3d_ros.sensors.pixels import BitDepth
from ovs3d_ros.types import UserError

SERVER = "/ovs3d"  # the mapping node
SPIN_PERIOD = 0.05  # seconds
CALL_TIMEOUT = 30.0  # seconds a query may take
OUTPUT_TIMEOUT = 20.0  # seconds until the topics show the last answer
IDLE_REPORTS = 2  # diagnostics in a row that must report idle; at the first, an image may be in transit
LOSSES = ("rejected", "lost_pose", "lost_depth", "lost_overflow")  # input diagnostics


@dataclass(frozen=True, slots=True)
class Request:
    """The content of REQUEST.json, which the demo writes.

    Attributes:
        prompts: queried one by one.
        player_report: file that the player writes after it has sent all frames.
        timeout: seconds within which the mapping must finish.
    """

    prompts: list[str]
    player_report: str
    timeout: float


SEGMENTATION = ("segmentation/overlay", "segmentation/label")


class DemoClient(Node):
    """Subscribes to the diagnostics and the answers of the mapping node."""

    def __init__(self) -> None:
        super().__init__("demo_client")
        self.mapping: dict[str, str] = {}
        self.input: dict[str, str] = {}
        self.idle_reports = 0
        self.latest: dict[str, Any] = {}
        self._query = self.create_client(QueryText, f"{SERVER}/query")
        self.create_subscription(conversions.DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        outputs = {
            "query_cloud": (conversions.PointCloud2, LATCHED),
            "label_map": (conversions.String, LATCHED),
            **dict.fromkeys(SEGMENTATION, (conversions.Image, 1)),
        }
        for topic, (kind, profile) in outputs.items():
            self.create_subscription(kind, f"{SERVER}/{topic}", self._keep(topic), profile)

    def _keep(self, topic: str) -> Callable[[Any], None]:
        def keep(message: Any) -> None:
            if topic == "label_map":  # the images of this answer arrive after it; earlier ones are outdated
                self.latest = {name: last for name, last in self.latest.items() if name not in SEGMENTATION}
            self.latest[topic] = message

        return keep

    def _on_diagnostics(self, message: conversions.DiagnosticArray) -> None:
        for status in message.status:
            values = {pair.key: pair.value for pair in status.values}
            if status.name.endswith(": mapping"):
                self.mapping = values
                self.idle_reports = self.idle_reports + 1 if values["idle"] == "True" else 0
            elif status.name.endswith(": input"):
                self.input = values

    def wait_for(self, condition: Callable[[], bool], seconds: float, subject: str) -> None:
        """Spins until the condition holds.

        Raises:
            UserError: the condition still fails after `seconds`; the message names it by `subject`.
        """
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise UserError(f"no {subject} within {seconds:.0f} s")
            rclpy.spin_once(self, timeout_sec=SPIN_PERIOD)

    def figures(self) -> dict[str, float]:
        """The numbers of the last diagnostics; `frames_dropped` counts all frames and images lost."""
        numbers = {key: float(value) for key, value in self.mapping.items() if _is_number(value)}
        if numbers:
            lost = sum(int(self.input.get(key, 0)) for key in LOSSES)
            numbers["frames_dropped"] += numbers["frames_rejected"] + lost
        return numbers

    def ask(self, prompts: list[str]) -> tuple[QueryText.Response, float]:
        """Calls the service; returns the response and its latency in milliseconds.

        Raises:
            UserError: no response in time, or an error code.
        """
        request = QueryText.Request(prompts=prompts)
        started = time.perf_counter()
        future = self._query.call_async(request)
        rclpy.spin_until_future_complete(self, future, timeout_sec=CALL_TIMEOUT)
        latency_ms = 1e3 * (time.perf_counter() - started)
        if not future.done():
            raise UserError(f"no answer from {SERVER}/query within {CALL_TIMEOUT:.0f} s")
        response: Any = future.result()
        if response.error_code != QueryText.Response.OK:
            raise UserError(f"{SERVER}/query refused {prompts}: {response.error_msg}")
        return response, latency_ms

    def wait_until_mapped(self, player_report: Path, timeout: float) -> None:
        """Waits until the player has sent all frames and the node is idle."""
        reported: dict[str, float] = {}

        def done() -> bool:
            nonlocal reported
            if (figures := self.figures()) != reported:
                reported = figures
                _report(figures)
            if not player_report.exists():
                self.idle_reports = 0
            return self.idle_reports >= IDLE_REPORTS

        self.wait_for(done, timeout, "end of mapping")

    def answer_shown(self, prompts: list[str]) -> bool:
        """Whether the topics show the answer for these prompts."""
        if not {"query_cloud", "label_map", *SEGMENTATION} <= set(self.latest):
            return False
        return [label["prompt"] for label in json.loads(self.latest["label_map"].data)["labels"]] == prompts


def _is_number(text: str) -> bool:
    try:
        return np.isfinite(float(text))
    except ValueError:
        return False


def _report(message: dict) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def run(client: DemoClient, request: Request, out: Path) -> None:
    """Waits for the map, queries each prompt, then all found ones together, and saves the answers."""
    client.wait_until_mapped(Path(request.player_report), request.timeout)
    answers = []
    for prompt in request.prompts:
        response, latency_ms = client.ask([prompt])
        answers.append(
            dict(
                prompt=prompt,
                found=bool(response.found[0]),
                presence=float(response.presence[0]),
                latency_ms=latency_ms,
            )
        )
    found = [answer["prompt"] for answer in answers if answer["found"]]
    if found:
        client.latest.clear()
        client.ask(found)
        client.wait_for(lambda: client.answer_shown(found), OUTPUT_TIMEOUT, "answer on the output topics")
        _save_array(out / "query_cloud.npy", conversions.from_cloud(client.latest["query_cloud"]))
        for name in ("overlay", "label"):
            topic = f"{SERVER}/segmentation/{name}"
            image = conversions.from_image(client.latest[f"segmentation/{name}"], topic, BitDepth())
            _save_array(out / f"{name}.npy", image)
    report = dict(figures=client.figures(), answers=answers)
    write_text(out / "answers.json", json.dumps(report) + "\n")


def _save_array(path: Path, array: np.ndarray) -> None:
    with atomic_write(path) as file:
        np.save(file, array)


def main(arguments: list[str] | None = None) -> int:
    """Runs the client; returns 0, or 1 if the node did not finish or answer in time."""
    request_path, out = (Path(a) for a in (sys.argv[1:] if arguments is None else arguments))
    request = Request(**json.loads(request_path.read_text(encoding="utf-8")))
    rclpy.init(args=[])
    client = DemoClient()
    try:
        run(client, request, out)
    except UserError as error:
        sys.stderr.write(f"demo client: {error}\n")
        return 1
    finally:
        client.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
