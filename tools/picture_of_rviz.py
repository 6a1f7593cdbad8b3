"""Takes docs/images/rviz.jpg: RViz 2 with a map of the node, and its answer to a question.

    ovs3d demo
    python tools/picture_of_rviz.py out/demo/demo.ovs3d docs/images/rviz.jpg

It needs ROS 2, RViz 2 and Xvfb (apt install xvfb). RViz draws on a screen of its own, so that nothing of the
desktop gets into the picture, and reads config/ovs3d.rviz, as the launch file lets it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import rclpy
from PIL import Image, ImageGrab

from ovs3d_interfaces.srv import LoadMap, QueryText
from ovs3d_ros.config import Config, override
from ovs3d_ros.config.yaml_io import to_yaml
from ovs3d_ros.demo import DEFAULTS
from ovs3d_ros.demo.processes import NODE, running
from ovs3d_ros.io.atomic import write_text
from ovs3d_ros.ros.client import NodeClient
from ovs3d_ros.ros.environment import child_environment, find_config, free_domain_id

QUESTION = ["blue chair", "red clock", "yellow teapot"]
SHOWN = ("map_cloud", "query_cloud", "markers")  # topics that RViz subscribes to
SCREEN = 1400, 900  # px, the window of config/ovs3d.rviz
WIDTH = 1100  # px of the picture
WAIT = 300.0  # seconds
SETTLE = 30.0  # seconds that RViz takes to draw everything without a graphics card
QUALITY = 82  # of the JPEG


@contextmanager
def screen() -> Iterator[str]:
    """A virtual screen; gives its name for DISPLAY."""
    words = ["Xvfb", "-displayfd", "1", "-screen", "0", f"{SCREEN[0]}x{SCREEN[1]}x24"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    try:
        number = process.stdout.readline().strip()
        if not number:
            sys.exit("picture_of_rviz: Xvfb does not start")
        yield f":{number}"
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def rviz(program: str, environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen]:
    """RViz with the configuration of the package, until the block ends."""
    words = [program, "-d", str(find_config("ovs3d.rviz")), "-f", Config().input.world_frame]
    with log.open("wb") as stream:
        process = subprocess.Popen(words, env=environment, stdout=stream, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


def call(client: NodeClient, kind: type, service: str, request: object) -> None:
    """Calls the node; ends the program if it refuses."""
    answer = client.call(kind, service, request, WAIT)
    if answer.error_code != kind.Response.OK:
        sys.exit(f"picture_of_rviz: {answer.error_msg}")


def take(display: str, target: Path) -> None:
    """Writes what a screen shows as a JPEG; ends the program if that is nothing."""
    shot = ImageGrab.grab(xdisplay=display).convert("RGB")
    if np.asarray(shot).std() < 1.0:
        sys.exit("picture_of_rviz: RViz shows nothing")
    size = WIDTH, round(WIDTH * shot.height / shot.width)
    shot.resize(size, Image.Resampling.LANCZOS).save(target, quality=QUALITY, optimize=True)


def main() -> None:
    """Starts node and RViz, asks, and writes the picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("map", type=Path, help="map of the demo")
    parser.add_argument("picture", type=Path, help="JPEG to write")
    parser.add_argument("--rviz", default="rviz2", metavar="PROGRAM", help="where RViz 2 is (default rviz2)")
    options = parser.parse_args()
    for program in ("Xvfb", options.rviz):
        if shutil.which(program) is None:
            sys.exit(f"picture_of_rviz: {program} is not installed")
    domain = free_domain_id()
    rclpy.init(domain_id=domain)
    client = NodeClient("photographer", "ovs3d", threading.Event())
    with tempfile.TemporaryDirectory() as name, screen() as display:
        folder = Path(name)
        shutil.copy(options.map, folder / "room.ovs3d")
        settings = DEFAULTS | {"map.directory": name}
        write_text(folder / "parameters.yaml", to_yaml(override(Config(), settings)))
        environment = child_environment(domain) | {"ROS_LOG_DIR": name, "DISPLAY": display}
        words = ["--ros-args", "--params-file", str(folder / "parameters.yaml")]
        with running(NODE, words, environment, folder / "node.log") as node:
            call(client, LoadMap, "load_map", LoadMap.Request(name="room.ovs3d"))
            # RViz of the system must not find the libraries of wheels that Python has loaded.
            drawing = os.environ | {"ROS_DOMAIN_ID": str(domain), "DISPLAY": display}
            with rviz(options.rviz, drawing, folder / "rviz.log") as window:
                topics = [f"/ovs3d/{topic}" for topic in SHOWN]
                end = time.monotonic() + WAIT
                while not all(map(client.count_subscribers, topics)):
                    if time.monotonic() > end or window.poll() is not None or node.has_ended():
                        sys.exit(f"picture_of_rviz: RViz shows no map\n{(folder / 'rviz.log').read_text()}")
                    client.wait(lambda: False, 0.5)
                call(client, QueryText, "query", QueryText.Request(prompts=QUESTION))
                client.wait(lambda: False, SETTLE)
                take(display, options.picture)
    client.destroy_node()
    rclpy.shutdown()


if __name__ == "__main__":
    main()
