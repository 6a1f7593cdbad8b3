"""Measures each step of a call of ~/query with a mask, from the request to the response. Prints JSON.

Run: python benchmarks/service.py room.ovs3d [--prompts NAME ...] [--repeats 100] [--set key=value ...]

The node runs in a process of its own, with a timer round each step, and loads the map. The client asks for
the mask of one keyframe. What the node does not see of a call is serialisation, transport and deserialisation
of both messages, and waiting for the processor.
"""

from __future__ import annotations

import argparse
import collections
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import rclpy

from ovs3d_interfaces.srv import LoadMap, QueryText
from ovs3d_ros.datasets import open_dataset
from ovs3d_ros.demo.scene import SHIPPED
from ovs3d_ros.map_file import load_map
from ovs3d_ros.query import engine, tracking
from ovs3d_ros.ros import conversions
from ovs3d_ros.ros import node as ros_node
from ovs3d_ros.ros.environment import child_environment, free_domain_id
from ovs3d_ros.ros.services import asking
from ovs3d_ros.ros.services import query as query_service

START_TIMEOUT, CALL_TIMEOUT = 300.0, 60.0  # seconds
MOST = 10**6  # objects of a prompt, never reached
STEPS = {
    "encode the texts": (engine.QueryEngine, "_encode_query"),
    "score": (engine, "_score_map"),
    "label": (engine, "label_snapshot"),
    "instances and boxes": (engine, "find_query_objects"),
    "the whole answer": (engine.QueryEngine, "answer"),
    "follow the objects": (tracking.ObjectTracker, "update"),
    "cloud": (query_service, "build_query_cloud"),
    "objects as messages": (asking.Asking, "object_messages"),
    "mask": (query_service.QueryServices, "_render_mask"),
    "the whole call in the node": (query_service.QueryServices, "_query"),
}


def run_node(report: Path, arguments: list[str]) -> int:
    """The node with a timer round each of `STEPS`; writes all milliseconds to a file at its end."""
    taken: dict[str, list[float]] = collections.defaultdict(list)

    def timed(name: str, function: Any) -> Any:
        @functools.wraps(function)
        def measured(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                taken[name].append(1e3 * (time.perf_counter() - started))

        return measured

    for name, (owner, attribute) in STEPS.items():
        setattr(owner, attribute, timed(name, getattr(owner, attribute)))
    try:
        return ros_node.main(arguments)
    finally:
        report.write_text(json.dumps(taken))


def percentiles(milliseconds: list[float]) -> dict[str, float]:
    """Median and 95th percentile."""
    return dict(
        zip(("p50_ms", "p95_ms"), np.percentile(milliseconds, [50, 95]).round(2).tolist(), strict=True)
    )


def call(node: Any, client: Any, request: Any) -> tuple[Any, float]:
    """The response to a request, and the milliseconds until it arrived."""
    started = time.perf_counter()
    future = client.call_async(request)
    rclpy.spin_until_future_complete(node, future, timeout_sec=CALL_TIMEOUT)
    milliseconds = 1e3 * (time.perf_counter() - started)
    response = future.result()
    if response is None or response.error_code != response.OK:
        sys.exit(f"service: no answer, {getattr(response, 'error_msg', 'timeout')}")
    return response, milliseconds


def ask(
    map_name: str, stamp: float, prompts: list[str], repeats: int
) -> tuple[list[float], QueryText.Response]:
    """Milliseconds of each call as the client sees them, and the last response."""
    node = rclpy.create_node("service_benchmark")
    loading, asking_ = (
        node.create_client(kind, f"/ovs3d/{name}")
        for kind, name in ((LoadMap, "load_map"), (QueryText, "query"))
    )
    if not (loading.wait_for_service(START_TIMEOUT) and asking_.wait_for_service(START_TIMEOUT)):
        sys.exit("service: the node does not answer")
    call(node, loading, LoadMap.Request(name=map_name))
    request = QueryText.Request(prompts=prompts, mask_stamps=[conversions.to_time(stamp)])
    call(node, asking_, request)  # encodes the texts, sorts the map
    responses = []
    for number in range(repeats):
        request.max_instances = MOST - number  # never reached; another question, or its answer is remembered
        responses.append(call(node, asking_, request))
    node.destroy_node()
    return [milliseconds for _, milliseconds in responses], responses[-1][0]


def main() -> None:
    """Runs the node and asks it; prints one JSON document."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("map", type=Path)
    parser.add_argument("--prompts", nargs="+", help="default: ten names, half of them of the demo scene")
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="parameters of the node"
    )
    options = parser.parse_args()
    there = [name for name in open_dataset(SHIPPED).classes or () if name]
    absent = (SHIPPED / "absent.txt").read_text().split("\n")
    prompts = options.prompts or [*there[:5], *filter(None, absent)][:10]
    params, stored = load_map(options.map)
    environment = child_environment(free_domain_id())
    os.environ.update(environment)  # rclpy.init loads the middleware, which reads these
    rclpy.init()
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(options.map, Path(folder) / "asked.ovs3d")
        report = Path(folder) / "steps.json"
        values = [f"map.directory:={folder}", *(pair.replace("=", ":=", 1) for pair in options.set)]
        words = [word for value in values for word in ("-p", value)]
        with open(Path(folder) / "node.log", "wb") as log:
            node = subprocess.Popen(
                [sys.executable, __file__, "--node", str(report), "--ros-args", *words],
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            try:
                stamp = float(stored.stamps[len(stored.stamps) // 2])
                seen, response = ask("asked.ovs3d", stamp, prompts, options.repeats)
            finally:
                node.terminate()
                node.wait(60)
                rclpy.shutdown()
        steps = json.loads(report.read_text())
    whole = steps["the whole call in the node"][-options.repeats :]
    around = (np.array(seen) - whole).tolist()
    document = dict(
        gaussians=len(params["means"]),
        prompts=len(prompts),
        objects=len(response.objects),
        points=response.cloud.width,
        mask=[response.masks[0].width, response.masks[0].height],
        load=[round(v, 1) for v in os.getloadavg()],
        steps={name: percentiles(steps[name][-options.repeats :]) for name in STEPS},
        messages=percentiles(around),
        client=percentiles(seen),
    )
    sys.stdout.write(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--node"]:
        sys.exit(run_node(Path(sys.argv[2]), sys.argv))
    main()
