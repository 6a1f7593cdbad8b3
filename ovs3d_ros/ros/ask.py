"""`ros2 run ovs3d_ros ask NAME ...`: asks a running node for things by name and prints what it answers."""

from __future__ import annotations

import argparse
import json
import sys
import threading
from typing import Any

import rclpy
from rclpy.duration import Duration
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args

from ovs3d_interfaces.srv import QueryText
from ovs3d_ros.io.text_table import format_table
from ovs3d_ros.ros import conversions
from ovs3d_ros.ros.client import NodeClient
from ovs3d_ros.ros.stopping import stop_on_signals
from ovs3d_ros.types import UserError

VERDICTS = {QueryText.Response.NO: "no", QueryText.Response.UNSURE: "unsure", QueryText.Response.YES: "yes"}
GOAL_WAIT = 5.0  # seconds until the goal of an answer has come, and until someone takes it
ACKNOWLEDGE = Duration(seconds=2)


class Guide:
    """Passes goals of the mapping node on to nav2.

    Args:
        asker: the node that asks, whose goals are due.
        server: name of the mapping node.
    """

    def __init__(self, asker: NodeClient, server: str) -> None:
        self._asker = asker
        self._target = 0  # id of the object that the last goal leads to
        self._goals: list[conversions.PoseStamped] = []
        self._navigation = asker.create_publisher(conversions.PoseStamped, "goal_pose", 1)
        asker.create_subscription(conversions.PoseStamped, f"{server}/goal_pose", self._goals.append, 1)

    def forget(self) -> None:
        """Drops earlier goals; call it before asking."""
        self._goals.clear()

    def send(self, answer: QueryText.Response) -> None:
        """Publishes the goal that belongs to an answer on `goal_pose`, once for each object.

        Raises:
            UserError: the node sent no goal, or nobody listens.
        """
        target = answer.objects[0].id
        if target == self._target:
            return
        if not self._asker.wait(lambda: bool(self._goals), GOAL_WAIT):
            raise UserError("the node sent no goal; its log says why")
        if not self._asker.wait(lambda: bool(self._navigation.get_subscription_count()), GOAL_WAIT):
            raise UserError(f"nobody listens on {self._navigation.topic_name}: start nav2 first")
        goal, self._target = self._goals[-1], target
        self._navigation.publish(goal)
        self._navigation.wait_for_all_acked(ACKNOWLEDGE)
        x, y, frame = goal.pose.position.x, goal.pose.position.y, goal.header.frame_id
        sys.stderr.write(f"sent ({x:.2f}, {y:.2f}) in {frame} to {self._navigation.topic_name}\n")


def describe_answer(prompts: list[str], answer: QueryText.Response) -> list[dict[str, Any]]:
    """One entry per prompt: whether it was found, and its objects, best first."""
    return [
        dict(
            prompt=prompt,
            found=bool(answer.found[p]),
            verdict=VERDICTS[answer.verdict[p]],
            presence=round(answer.presence[p], 4),
            frame=answer.header.frame_id,
            objects=[_describe_object(item) for item in answer.objects if item.label == prompt],
        )
        for p, prompt in enumerate(prompts)
    ]


def _describe_object(item: Any) -> dict[str, Any]:
    place, turn = item.pose.position, item.pose.orientation
    return dict(
        id=item.id,
        score=round(item.score, 4),
        center=[round(v, 4) for v in (place.x, place.y, place.z)],
        size=[round(v, 4) for v in (item.size.x, item.size.y, item.size.z)],
        quat=[round(v, 6) for v in (turn.w, turn.x, turn.y, turn.z)],
    )


def answer_table(entries: list[dict[str, Any]]) -> str:
    """The entries of `describe_answer` as a text table, with place and size of the best object."""
    rows = [("prompt", "found", "presence", "objects", "position (m)", "size (m)")]
    for entry in entries:
        best = entry["objects"][0] if entry["objects"] else None
        place = f"({', '.join(f'{v:.2f}' for v in best['center'])})" if best else "-"
        size = " x ".join(f"{v:.2f}" for v in best["size"]) if best else "-"
        count = str(len(entry["objects"]))
        rows.append((entry["prompt"], entry["verdict"], f"{entry['presence']:.2f}", count, place, size))
    return format_table(rows)


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """Reads the command line, without the arguments of ROS."""
    parser = argparse.ArgumentParser(prog="ask", description="Asks a running node for things by name.")
    parser.add_argument("names", nargs="+", metavar="NAME", help='name of a thing, e.g. "red mug"')
    parser.add_argument("--node", default="ovs3d", help="name of the mapping node (default ovs3d)")
    parser.add_argument("--threshold", type=float, default=-1.0, metavar="T", help="least relevancy, 0 to 1")
    parser.add_argument("--refine", action="store_true", help="refine the map for these names first")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--go", action="store_true", help="send the goal beside the best object to nav2")
    parser.add_argument(
        "--watch", type=float, nargs="?", const=2.0, metavar="S", help="ask again every S seconds (default 2)"
    )
    parser.add_argument(
        "--timeout", type=float, default=30.0, metavar="S", help="seconds to wait (default 30)"
    )
    return parser.parse_args(arguments)


def run(asker: NodeClient, options: argparse.Namespace, stopping: threading.Event) -> None:
    """Asks once, or until it is stopped; prints each answer that differs from the one before.

    Raises:
        UserError: no node, no goal, or a refused request; but who watches waits for the first map.
        TimeoutError: no answer came in time.
    """
    request = QueryText.Request(prompts=options.names, cloud=False, masks=False)
    request.threshold, request.refine = options.threshold, options.refine
    guide = Guide(asker, options.node) if options.go else None
    shown = None
    while not stopping.is_set():
        if guide is not None:
            guide.forget()
        answer = asker.call(QueryText, "query", request, options.timeout)
        is_early = answer.error_code == QueryText.Response.NO_MAP and options.watch is not None
        if answer.error_code != QueryText.Response.OK and not is_early:
            raise UserError(answer.error_msg)
        text = answer.error_msg if is_early else answer_text(options, answer)
        if text != shown:
            (sys.stderr if is_early else sys.stdout).write(text + "\n")
            sys.stdout.flush()
        shown = text
        if guide is not None and answer.objects:
            guide.send(answer)
        elif guide is not None and options.watch is None:
            raise UserError(f"no goal was sent: nothing was found of {', '.join(options.names)}")
        if options.watch is None:
            return
        asker.wait(lambda: False, options.watch)


def answer_text(options: argparse.Namespace, answer: QueryText.Response) -> str:
    """What is printed of an answer."""
    entries = describe_answer(options.names, answer)
    return json.dumps(entries) if options.json else answer_table(entries)


def main() -> int:
    """Entry of `ros2 run ovs3d_ros ask`; returns the exit code."""
    options = parse_arguments(remove_ros_args(sys.argv)[1:])
    stopping = threading.Event()
    rclpy.init(args=sys.argv, signal_handler_options=SignalHandlerOptions.NO)
    stop_on_signals(stopping)
    asker = NodeClient("ask", options.node, stopping)
    try:
        run(asker, options, stopping)
        return 0
    except (UserError, TimeoutError) as error:
        if stopping.is_set():
            return 0
        sys.stderr.write(f"{error}\n")
        return 1
    finally:
        asker.destroy_node()
        rclpy.shutdown()
