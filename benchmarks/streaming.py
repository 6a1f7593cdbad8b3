"""Streams RGB-D at camera rate into a node, queries it meanwhile, and accounts for every image. Prints JSON.

Run: python benchmarks/streaming.py [--seconds 120] [--rate 30] [--size 640 480] [--set key=value ...]

The player walks back and forth through the demo scene, scaled to `--size`, and repeats each view for half a
second. Publisher, client and node share the machine; on 2 cores they compete.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from ovs3d_interfaces.srv import QueryText
from ovs3d_ros.datasets import open_dataset
from ovs3d_ros.demo.scene import SHIPPED
from ovs3d_ros.ros import conversions
from ovs3d_ros.ros.environment import child_environment, free_domain_id
from ovs3d_ros.ros.play import Player
from ovs3d_ros.types import Frame

HOLD = 0.5  # seconds per view
MOST = 10**6  # objects of a prompt, never reached
PROMPTS = ("yellow teapot", "brown chair", "purple elephant")
START_TIMEOUT, SETTLE_TIMEOUT, DISCOVERY = 300.0, 600.0, 30.0  # seconds
LOSSES = ("rejected", "lost_pose", "lost_depth", "lost_overflow", "waiting")  # input diagnostics
ENDS = ("frames_mapped", "frames_skipped", "frames_dropped", "frames_ignored", "frames_rejected")  # of frames


def frames(width: int, height: int, count: int) -> list[Frame]:
    """The first `count` views of the demo scene, scaled."""
    dataset = open_dataset(SHIPPED)
    scaled = []
    for i in range(min(count, len(dataset))):
        frame = dataset[i]
        scaled.append(
            Frame(
                frame.stamp,
                cv2.resize(frame.image, (width, height)),
                frame.camera.scaled(width, height),
                frame.camtoworld,
                cv2.resize(frame.depth, (width, height), interpolation=cv2.INTER_NEAREST),
            )
        )
    return scaled


def walk(views: list[Frame], rate: float) -> Iterator[Frame]:
    """Yields the views back and forth without end."""
    loop = [*views, *views[-2:0:-1]]
    while True:
        for view in loop:
            for _ in range(max(1, round(HOLD * rate))):
                yield view


class Client(Node):
    """Reads the diagnostics and sends one query after the other."""

    def __init__(self) -> None:
        super().__init__("streaming_client")
        self.values: dict[str, dict[str, str]] = {}
        self.latencies: list[float] = []
        self.reports = 0
        self._asked = 0
        self._queries = self.create_client(QueryText, "/ovs3d/query")
        self.create_subscription(conversions.DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)

    def _on_diagnostics(self, message: conversions.DiagnosticArray) -> None:
        self.reports += 1
        for status in message.status:
            self.values[status.name.rpartition(": ")[2]] = {pair.key: pair.value for pair in status.values}

    def ask(self) -> None:
        """Sends one query; records its latency unless there is no map yet."""
        started, done = time.perf_counter(), threading.Event()
        self._asked += 1  # another question each time, or its answer is remembered
        request = QueryText.Request(prompts=list(PROMPTS), max_instances=MOST - self._asked)
        future = self._queries.call_async(request)
        future.add_done_callback(lambda _: done.set())
        if done.wait(SETTLE_TIMEOUT) and future.result().error_code == QueryText.Response.OK:
            self.latencies.append(1e3 * (time.perf_counter() - started))


def resident_mib(pid: int) -> float:
    """Resident memory of a process in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024


def wait_for(condition, seconds: float, what: str, node: subprocess.Popen) -> None:
    """Returns when the condition holds; ends the benchmark after a timeout or when the node has died."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline or node.poll() is not None:
            sys.exit(f"streaming: no {what} within {seconds:.0f} s (node: {node.poll()})")
        time.sleep(0.1)


def stream(
    player: Player, views: list[Frame], rate: float, seconds: float, node: subprocess.Popen
) -> list[float]:
    """Publishes for `seconds`, then three more images; returns the node's memory in MiB, once per second."""
    memory, source, due = [], walk(views, rate), time.monotonic()
    end = due + seconds
    while time.monotonic() < end:
        player.publish(next(source))
        if player.sent % max(1, round(rate)) == 1:
            memory.append(resident_mib(node.pid))
        due = max(due, time.monotonic() - 1 / rate) + 1 / rate
        time.sleep(max(0.0, due - time.monotonic()))
    for _ in range(3):  # the node notices a gap only when a later image arrives
        time.sleep(1.0)
        player.publish(next(source))
    return memory


def settle(client: Client, sent: int, node: subprocess.Popen) -> None:
    """Waits until the node is idle and two more diagnostics have arrived."""

    def is_idle() -> bool:
        arrived = int(client.values["input"]["image messages"]) + int(client.values["input"]["image lost"])
        return client.values["mapping"]["idle"] == "True" and (
            arrived >= sent or client.reports > last_report
        )

    # Some images are neither delivered nor reported lost: stop waiting for them.
    last_report = client.reports + 30
    wait_for(is_idle, SETTLE_TIMEOUT, "idle state", node)
    before = client.reports
    wait_for(lambda: client.reports >= before + 2, SETTLE_TIMEOUT, "diagnostics", node)


def summary(
    client: Client, sent: int, seconds: float, memory: list[float], options: argparse.Namespace
) -> dict:
    """The figures of the run; `unaccounted` is 0 when no image was lost silently."""
    inputs, mapping = client.values["input"], client.values["mapping"]
    ends = {name.removeprefix("frames_"): int(mapping[name]) for name in ENDS}
    losses = {f"input_{name}": int(inputs[name]) for name in LOSSES} | {
        "lost_in_transport": int(inputs["image lost"])
    }
    queries = np.array(client.latencies or [np.nan])
    return dict(
        cores=os.cpu_count(),
        size=options.size,
        rate=options.rate,
        seconds=round(seconds, 1),
        images_sent=sent,
        images_sent_per_s=round(sent / seconds, 1),
        images_received=int(inputs["image messages"]),
        **ends,
        **losses,
        unaccounted=sent - sum(ends.values()) - sum(losses.values()),
        slowest_callback_ms=float(inputs["slowest callback (ms)"]),
        queries=len(client.latencies),
        query_p50_ms=round(float(np.percentile(queries, 50)), 1),
        query_p95_ms=round(float(np.percentile(queries, 95)), 1),
        frame_to_map_p50_ms=float(mapping["frame_to_map_p50_ms"] or "nan"),
        frame_to_map_p95_ms=float(mapping["frame_to_map_p95_ms"] or "nan"),
        num_gaussians=int(mapping["num_gaussians"]),
        psnr=float(mapping["psnr"] or "nan"),
        memory_mib=dict(
            start=round(memory[0]),
            middle=round(memory[len(memory) // 2]),
            end=round(memory[-1]),
            most=round(max(memory)),
        ),
    )


def main() -> None:
    """Runs the benchmark and prints its result as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--rate", type=float, default=30.0, help="images per second")
    parser.add_argument("--size", type=int, nargs=2, default=(640, 480), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--queries", type=float, default=2.0, help="queries per second")
    parser.add_argument("--views", type=int, default=60, help="number of views of the scene")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="parameters of the node"
    )
    options = parser.parse_args()
    environment = child_environment(free_domain_id())
    os.environ.update(environment)  # rclpy.init loads the middleware, which reads these
    rclpy.init()
    with tempfile.TemporaryDirectory() as folder:
        parameters = {
            "qos.input": "reliable",
            "map.directory": folder,
            "input.silence": "5.0",
            **dict(item.split("=", 1) for item in options.set),
        }
        words = [word for name, value in parameters.items() for word in ("-p", f"{name}:={value}")]
        with open(Path(folder) / "node.log", "wb") as log:
            node = subprocess.Popen(
                [sys.executable, "-m", "ovs3d_ros.ros.node", "--ros-args", *words],
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            try:
                print(json.dumps(measure(node, options), indent=2))
            finally:
                node.terminate()
                node.wait(60)
                rclpy.shutdown()


def measure(node: subprocess.Popen, options: argparse.Namespace) -> dict:
    """Streams and queries; returns the figures."""
    views = frames(*options.size, options.views)
    client, player = Client(), Player("pose", "32FC1", "map", True)
    executor = SingleThreadedExecutor()
    executor.add_node(client)
    spinning = threading.Thread(target=executor.spin)
    spinning.start()
    try:
        return _measure(node, options, views, client, player)
    finally:
        executor.shutdown()
        spinning.join()


def _measure(
    node: subprocess.Popen, options: argparse.Namespace, views: list[Frame], client: Client, player: Player
) -> dict:
    wait_for(lambda: not player.missing_subscribers(), START_TIMEOUT, "subscriptions", node)
    wait_for(
        lambda: all(player.count_subscribers(topic) for topic in ("/image", "/depth")),
        DISCOVERY,
        "match",
        node,
    )
    time.sleep(1.0)  # the node may discover the player later than the player the node
    stopping = threading.Event()

    def ask() -> None:
        while not stopping.wait(1 / options.queries):
            client.ask()

    asking = threading.Thread(target=ask)
    asking.start()
    started = time.monotonic()
    memory = stream(player, views, options.rate, options.seconds, node)
    seconds = time.monotonic() - started
    stopping.set()
    asking.join()
    settle(client, player.sent, node)
    return summary(client, player.sent, seconds, memory, options)


if __name__ == "__main__":
    main()
