"""A mapping node, the player and a client for the ROS tests; imported only if rclpy is installed."""

from __future__ import annotations

import json
import re
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import rclpy
from rclpy.action import ActionClient
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from helpers.ros_env import Process, use_child_environment, wait_until, write_dataset
from ovs3d_interfaces.action import Refine
from ovs3d_interfaces.srv import QueryText
from ovs3d_ros.ros import conversions
from ovs3d_ros.ros.environment import free_domain_id

FRAMES = 8
GOAL_WAIT = 60.0  # seconds
SETTINGS = {
    "clip.model": "helpers.color_encoder:ColorEncoder",
    "dino.model": "helpers.color_encoder:GatedPatches",
    "map.codec_dim": 8,
    "map.image_size": 0,
    "qos.input": "reliable",
    "input.silence": 1.0,
    "output.rate": 5.0,
    "train.steps_per_keyframe": 15,
    "compute.threads": 2,
}


def documented(heading: str) -> list[list[str]]:
    """The rows of the table in docs/ros_interface.md whose first column is called so."""
    text = (Path(__file__).resolve().parents[2] / "docs/ros_interface.md").read_text(encoding="utf-8")
    table = re.search(rf"^\| {heading} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", text, re.MULTILINE)[1]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()]


def timeless(objects: list) -> list[tuple]:
    """The objects of an answer without their times, which are those of the answer, in a billionth of a unit.

    The first answer of a map adds up in another order than later ones, so last digits may differ.
    """
    timed = ("header", "age", "first_seen", "last_seen")
    return [
        tuple(_rounded(getattr(item, n)) for n in item.get_fields_and_field_types() if n not in timed)
        for item in objects
    ]


def _rounded(value: object) -> object:
    """A field of a message as plain values."""
    if hasattr(value, "get_fields_and_field_types"):
        return tuple(_rounded(getattr(value, name)) for name in value.get_fields_and_field_types())
    return round(value, 9) if isinstance(value, float) else value


def start_node(settings: dict, domain_id: int, log: Path, remappings: tuple[str, ...] = ()) -> Process:
    arguments = [word for name, value in settings.items() for word in ("-p", f"{name}:={value}")]
    arguments += [word for rule in remappings for word in ("-r", rule)]
    return Process("ovs3d_ros.ros.node", ["--ros-args", *arguments], domain_id, log)


class Client:
    """A ROS client in this process that keeps the newest message of each subscribed topic."""

    def __init__(self, domain_id: int):
        self.context = Context()
        rclpy.init(context=self.context, args=[], domain_id=domain_id)
        self.node = Node("client", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.newest: dict[str, object] = {}
        self.topics: set[str] = set()
        self.queries = self.node.create_client(QueryText, "/ovs3d/query")
        self.listen("/diagnostics", conversions.DiagnosticArray, 10)
        self.thread = threading.Thread(target=self.executor.spin, daemon=True)
        self.thread.start()

    def listen(self, topic: str, message_type: type, profile) -> None:
        self.topics.add(topic)
        self.node.create_subscription(
            message_type, topic, lambda m: self.newest.__setitem__(topic, m), profile
        )
        self.executor.wake()

    def receive(self, topic: str, message_type: type, profile, seconds: float = 20.0):
        """Subscribes once, and returns the newest message as soon as one has arrived."""
        if topic not in self.topics:
            self.listen(topic, message_type, profile)
        wait_until(lambda: topic in self.newest, seconds, lambda: f"nothing on {topic}")
        return self.newest[topic]

    def in_executor(self, call: Callable, *arguments):
        """The result of a call in the thread of the executor.

        Action clients of Jazzy have no lock: an answer that comes before its request is noted is lost. Those
        of Kilted get theirs after the executor has begun to look at them, which ends its thread.
        """
        task = self.executor.create_task(call, *arguments)
        wait_until(task.done, 30)
        return task.result()

    def query(self, *prompts: str, seconds: float = 30.0, **fields) -> QueryText.Response:
        assert self.queries.wait_for_service(seconds), "no query service"
        future = self.queries.call_async(QueryText.Request(prompts=list(prompts), **fields))
        wait_until(future.done, seconds, lambda: f"no answer to {prompts}")
        return future.result()

    def call(self, kind: type, service: str, /, seconds: float = 60.0, **fields):
        """The response of the node's service `~/service`."""
        client = self.node.create_client(kind, f"/ovs3d/{service}")
        try:
            assert client.wait_for_service(seconds), f"no service {service}"
            future = client.call_async(kind.Request(**fields))
            self.executor.wake()
            wait_until(future.done, seconds, lambda: f"no answer of {service} to {fields}")
            return future.result()
        finally:
            self.node.destroy_client(client)

    def diagnostic(self, name: str) -> tuple[str, dict[str, str]]:
        """Message and values of the newest status whose name ends in `name`."""
        message = self.newest.get("/diagnostics", conversions.DiagnosticArray())
        for status in message.status:
            if status.name.endswith(name):
                return status.message, {pair.key: pair.value for pair in status.values}
        return "", {}

    def value(self, name: str, key: str) -> float:
        return float(self.diagnostic(name)[1].get(key) or "nan")

    def close(self) -> None:
        self.executor.shutdown()
        self.thread.join(10)
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


class Session:
    """A node that has mapped the scene, and a client."""

    def __init__(self, folder: Path, settings: dict | None = None):
        self.domain_id = free_domain_id()
        self.folder = folder
        self.saved = folder / "room.ovs3d"
        self.data = write_dataset(folder / "tiny", FRAMES)
        self.maps = folder / "maps"
        self.settings = {
            **SETTINGS,
            "output.save_on_exit": self.saved,
            "map.directory": self.maps,
            **(settings or {}),
        }
        self.node = start_node(self.settings, self.domain_id, folder / "node.log")
        self.client = Client(self.domain_id)
        self.early_answer: QueryText.Response | None = None
        self.silence = ""
        self.sent = 0

    def run(self) -> None:
        """Queries the empty map, plays the scene, and returns when it is mapped."""
        self.node.wait_for("ready", 120)
        self.early_answer = self.client.query("red ball")
        wait_until(
            lambda: "no publisher" in self.client.diagnostic(": input")[0],
            20,
            lambda: f"missing inputs are not reported: {self.client.diagnostic(': input')}",
        )
        self.silence = self.client.diagnostic(": input")[0]
        self.sent = self.play("--rate", "4")
        self.settle(FRAMES)

    def settle(self, received: int) -> None:
        """Waits until this many frames are received and the mapping thread is idle."""
        wait_until(
            lambda: (
                self.client.diagnostic(": mapping")[1].get("idle") == "True"
                and self.client.value(": mapping", "frames_received") == received
            ),
            90,
            lambda: f"not mapped: {self.client.diagnostic(': mapping')}\n{self.node.output()}",
        )

    def restart(self) -> None:
        """Kills the node with SIGKILL and starts it again with the same settings."""
        self.node.stop(signal.SIGKILL)
        self.client.close()
        self.node = start_node(self.settings, self.domain_id, self.folder / "node_again.log")
        self.node.wait_for("ready", 120)
        # The old client would call the services of the dead node until its lease ends.
        self.client = Client(self.domain_id)

    def close(self) -> None:
        """Ends the client and the node."""
        self.client.close()
        self.node.stop(signal.SIGKILL)

    def play(self, *arguments: str) -> int:
        """Runs the player to its end and returns the number of frames it sent."""
        report = self.folder / "played.json"
        player = Process(
            "ovs3d_ros.ros.play",
            [str(self.data), "--json", str(report), *arguments],
            self.domain_id,
            self.folder / "play.log",
        )
        assert player.wait(180) == 0, player.output()
        return json.loads(report.read_text(encoding="utf-8"))["frames_sent"]


class Goal:
    """A goal sent to the node of a session, and its feedback."""

    def __init__(self, session, names: list[str]):
        self.feedback: list[Refine.Feedback] = []
        self._run = session.client.in_executor
        self.client = self._run(ActionClient, session.client.node, Refine, "/ovs3d/refine")
        assert self.client.wait_for_server(GOAL_WAIT)
        goal = Refine.Goal(names=names)
        sent = self._run(self.client.send_goal_async, goal, lambda m: self.feedback.append(m.feedback))
        wait_until(sent.done, GOAL_WAIT)
        self.handle = sent.result()
        assert self.handle.accepted
        self.done = self._run(self.handle.get_result_async)

    def wait_for_stage(self, stage: str) -> None:
        wait_until(
            lambda: any(f.stage == stage and f.step for f in self.feedback),
            GOAL_WAIT,
            lambda: str(self.feedback),
        )

    def cancel(self) -> int:
        """Cancels the goal; returns the number of goals the node agrees to cancel."""
        asked = self._run(self.handle.cancel_goal_async)
        wait_until(asked.done, GOAL_WAIT)
        return len(asked.result().goals_canceling)

    def end(self) -> tuple[int, Refine.Result]:
        """Waits for the result; returns status and result."""
        wait_until(self.done.done, GOAL_WAIT, lambda: str(self.feedback))
        self._run(self.client.destroy)  # while the executor waits, it would end its thread
        return self.done.result().status, self.done.result().result


@pytest.fixture(scope="module")
def session(tmp_path_factory) -> Iterator[Session]:
    """A node that has mapped the scene. Its DINO waits while the file GATE exists."""
    with pytest.MonkeyPatch.context() as patch:
        use_child_environment(patch)
        folder = tmp_path_factory.mktemp("node")
        patch.setenv("GATE", str(folder / "gate"))
        session = Session(folder)
        try:
            session.run()
            yield session
        finally:
            session.close()
