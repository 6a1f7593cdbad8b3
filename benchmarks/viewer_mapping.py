"""Measures mapping without the web viewer and with one that a page looks at, in turns. Prints JSON.

Run: PYTHONPATH=.:tests python benchmarks/viewer_mapping.py [--turns 4] [--rate 1] [--pictures] [--json FILE]

Node, player and page are processes of their own. More frames come than the node can map, so that what the
viewer takes shows in the frames that it maps. The page takes all that a browser takes, and asks for a thing;
it draws nothing, because that is the work of another machine. With --pictures it says that it has no graphics
card, and moves all the time, so that the viewer renders pictures for it. On a busy machine the frames that
are mapped in a minute tell little, so the processor time that the node takes for a mapped frame is measured
as well: it holds all work of the viewer. Needs ROS 2 and the extra `view`.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import rclpy
from documents import print_document
from helpers.web_page import Page
from viewer import SOFTWARE, free_port, processor_seconds

from ovs3d_ros import Config, Ovs3d
from ovs3d_ros.config import override
from ovs3d_ros.config.yaml_io import to_yaml
from ovs3d_ros.demo import DEFAULTS
from ovs3d_ros.demo.processes import NODE, PLAYER, running
from ovs3d_ros.demo.scene import HOLDOUT, SHIPPED
from ovs3d_ros.io.atomic import write_text
from ovs3d_ros.ros.demo_client import SPIN_PERIOD, DemoClient
from ovs3d_ros.ros.environment import child_environment, free_domain_id
from ovs3d_ros.warm_up import warm_up

FIRST = 2  # mapped frames before the measurement begins: the page has come by then
ASKED = "blue chair"
START = 900.0  # seconds until the node maps
COUNTS = ("frames_received", "frames_mapped", "frames_skipped", "frames_dropped")


@contextmanager
def visited(port: int, renderer: str | None) -> Iterator[list[Page]]:
    """A page that comes to a viewer as soon as its port (0: none) is open, and looks until the block ends.

    With a `renderer` it says that this draws it, and moves.
    """
    pages: list[Page] = []
    ended = threading.Event()

    def visit() -> None:
        while port and not pages and not ended.wait(0.2):
            with suppress(OSError):
                pages.append(Page(port, renderer=renderer).arrive())
        if pages:
            pages[0].set("Find", ASKED)
        for number in itertools.count():
            if renderer is None or ended.wait(0.1):
                break
            angle = 0.02 * number
            pages[0].look((np.cos(angle), 0.0, 0.0, np.sin(angle)), (0.0, 0.0, 1.0))

    thread = threading.Thread(target=visit)
    thread.start()
    try:
        yield pages
    finally:
        ended.set()
        thread.join()
        for page in pages:
            page.close()


def measure_run(rate: float, port: int, renderer: str | None, folder: Path) -> dict[str, float]:
    """One walk of the demo: counts of frames, and what a mapped frame took after the first `FIRST`."""
    settings = {name: value for name, value in DEFAULTS.items() if name != "input.inbox"}
    parameters, domain = folder / "parameters.yaml", free_domain_id()
    write_text(parameters, to_yaml(override(Config(), settings | {"viewer.port": port})))
    environment = child_environment(domain) | {"ROS_LOG_DIR": str(folder)}
    rclpy.init(domain_id=domain)
    client = DemoClient()
    words = [str(SHIPPED), "--rate", f"{rate:g}", "--holdout", str(HOLDOUT), "--wait", f"{START:g}"]
    node_words = ["--ros-args", "--params-file", str(parameters)]
    try:
        with (
            running(NODE, node_words, environment, folder / "node.log") as node,
            visited(port, renderer) as pages,
            running(PLAYER, words, environment, folder / "player.log") as player,
        ):
            marks = []  # seconds, processor seconds of the node, and frames, whenever one more was mapped
            deadline = time.monotonic() + START
            while not player.has_ended():
                node.has_ended()
                rclpy.spin_once(client, timeout_sec=SPIN_PERIOD)
                mapped = int(client.mapping.get("frames_mapped", 0))
                if mapped > (marks[-1][2] if marks else 0):
                    marks.append((time.monotonic(), processor_seconds(node.process.pid), mapped))
                if not marks and time.monotonic() > deadline:
                    sys.exit(f"viewer_mapping: nothing was mapped; see {node.log}")
            figures = client.figures()
            seen = pages and (pages[0].pictures if renderer else pages[0].splats())
            looked = bool(seen and ASKED in pages[0].words())
    finally:
        client.destroy_node()
        rclpy.shutdown()
    if bool(port) != looked:
        sys.exit("viewer_mapping: the page did not see the map")
    first = next(mark for mark in marks if mark[2] >= FIRST)
    seconds, processor, frames = (marks[-1][i] - first[i] for i in range(3))
    counts: dict[str, float] = {name: round(figures[name]) for name in COUNTS}
    return counts | dict(
        mapped_per_minute=round(60 * frames / seconds, 2), processor_s_per_frame=round(processor / frames, 3)
    )


def main() -> None:
    """Runs the turns and prints one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=4, help="pairs of runs")
    parser.add_argument("--rate", type=float, default=1.0, help="frames per second")
    parser.add_argument("--pictures", action="store_true", help="the page has no graphics card")
    parser.add_argument("--json", type=Path, help="file for a copy of the output")
    options = parser.parse_args()
    warm_up(Ovs3d(override(Config(), DEFAULTS)))  # compiled kernels are cached on disk for the nodes
    runs: dict[str, list[dict]] = {"without": [], "with": []}
    loads = []
    for turn in range(2 * options.turns):
        way = ("without", "with")[(turn + turn // 2) % 2]  # neither is always first
        with tempfile.TemporaryDirectory() as folder:
            port = free_port() if way == "with" else 0
            renderer = SOFTWARE if options.pictures and port else None
            runs[way].append(measure_run(options.rate, port, renderer, Path(folder)))
        loads.append(round(os.getloadavg()[0], 1))
    ratios = {}
    for name in ("frames_mapped", "mapped_per_minute", "processor_s_per_frame"):
        pairs = [b[name] / a[name] for a, b in zip(runs["without"], runs["with"], strict=True)]
        ratios[name] = dict(mean=round(float(np.mean(pairs)), 3), pairs=[round(v, 3) for v in pairs])
    document = dict(rate=options.rate, cores=os.cpu_count(), load=loads, with_over_without=ratios, **runs)
    print_document(document, options.json)


if __name__ == "__main__":
    main()
