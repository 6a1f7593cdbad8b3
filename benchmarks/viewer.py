"""Measures the web viewer: first picture, answers, moves, memory and large maps. Prints JSON.

Run: PYTHONPATH=.:tests python benchmarks/viewer.py out/demo/demo.ovs3d [--only start] [--million 1000000]

Browser and viewer share the machine. Chromium draws without a graphics card (SwiftShader). It needs Chromium
and the extra `view`. `benchmarks/viewer_mapping.py` measures mapping beside a viewer.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from documents import map_folder, print_document
from helpers.browser import Browser
from helpers.web_page import Page
from PIL import Image
from query import enlarge

from ovs3d_ros import Ovs3d
from ovs3d_ros.geometry import matrix_to_quat
from ovs3d_ros.map_file import load_map, save_map
from ovs3d_ros.viewer.preview import read_preview
from ovs3d_ros.viewer.views import look_along

SIZE = 1280, 720  # px of the page
FILLED = 0.1  # share of the pixels beside the panel that are not white, from which the map counts as shown
# What is not there follows something that is, so that each answer changes the picture.
NAMES = ("blue chair", "red clock", "yellow teapot", "brown table", "green plant", "grey sofa", "white lamp")
SOFTWARE = "SwiftShader"  # what a page without a graphics card says of itself
BACKGROUND = "window.__viserMutable.backgroundMaterial.uniforms.colorMap.value?.uuid"  # of the shown picture
MOVES = 20
PATIENCE = 600.0  # seconds
VISITS, AT_ONCE = 30, 5


@contextmanager
def served(path: Path, *words: str) -> Iterator[tuple[subprocess.Popen, int, float, float]]:
    """`ovs3d view` as a process: itself, its port, when it was started, and when it told its address."""
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "ovs3d_ros.cli", "view", str(path), *words], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        address = re.search(r"http://localhost:(\d+)", process.stdout.readline())
        if address is None:
            sys.exit(f"viewer: `ovs3d view {path}` told no address")
        yield process, int(address[1]), started, time.monotonic()
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def shown(browser: Browser) -> float:
    """The share of the pixels beside the panel that are not white."""
    if not browser.run("document.querySelector('canvas') !== null"):
        return 0.0
    clip = dict(x=0, y=0, width=SIZE[0] * 0.6, height=SIZE[1], scale=0.25)
    picture = browser.call("Page.captureScreenshot", format="jpeg", clip=clip)["data"]
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB"))
    return float((pixels.min(axis=-1) < 240).mean())


def wait_for(condition: Callable[[], object], pause: float = 0.03) -> float:
    """Waits until a condition holds, and returns when it did."""
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            sys.exit("viewer: nothing was shown in time")
        time.sleep(pause)
    return time.monotonic()


def measure_start(path: Path, repeats: int) -> dict:
    """Seconds from the start of `ovs3d view` until its address is told, and until a picture is on the page.

    The browser runs already, with an empty page. On a busy machine the processor time says more: of the
    viewer until it tells its address, and of Chromium from then until the picture, for the page's own
    program (renderer) and for the drawing that a graphics card would do (GPU).
    """
    rows = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder, Browser(Path(folder), *SIZE) as browser:
            browser.run("1")
            time.sleep(2.0)  # Chromium's own start
            before = browser.processor_seconds()
            with served(path) as (process, port, started, address):
                row = dict(address_s=address - started, address_processor_s=processor_seconds(process.pid))
                browser.open(f"http://localhost:{port}")
                row["picture_s"] = wait_for(lambda browser=browser: shown(browser) > FILLED, 0.3) - started
                row["page_loaded_s"] = browser.run("performance.timing.loadEventEnd / 1000") - (
                    time.time() - time.monotonic() + address
                )
                spent = browser.processor_seconds()
                row |= {f"{kind}_processor_s": spent[kind] - before[kind] for kind in ("renderer", "GPU")}
                rows.append(row)
    return {name: spread([row[name] for row in rows]) for name in rows[0]}


def measure_answers(path: Path) -> dict:
    """Seconds from a name until its row is shown: over the WebSocket, and in Chromium.

    There also until Chromium has the picture with the colours of the answer.
    """
    client, rows, pictures = [], [], []
    with served(path) as (_, port, _, _), tempfile.TemporaryDirectory() as folder:
        page = Page(port).arrive()
        page.set("Find", "thing")
        page.wait_for(lambda: "<td>thing" in strip(page.words()), PATIENCE)
        for name in NAMES:
            started = time.monotonic()
            page.set("Find", name)
            client.append(wait_for(lambda name=name: f"<td>{name}" in strip(page.words()), 0.002) - started)
        page.close()
        with Browser(Path(folder), *SIZE) as browser:
            browser.open(f"http://localhost:{port}")
            browser.wait_for("document.body && document.body.innerText.includes('Find')", PATIENCE)
            wait_for(lambda: shown(browser) > FILLED, 0.3)
            row = "[...document.querySelectorAll('td')].some(e => e.innerText.trim() == {})"
            for name in NAMES:
                browser.run(f"{browser.input('Find')}.select()") if rows else None
                browser.type_into(browser.input("Find"), "") if not rows else None
                time.sleep(3.0)  # the fine picture of the last answer comes
                earlier = browser.run(BACKGROUND)
                browser.call("Input.insertText", text=name)
                started = time.monotonic()
                script = row.format(json.dumps(name))
                rows.append(wait_for(lambda script=script: browser.run(script), 0.01) - started)
                wait_for(lambda earlier=earlier: browser.run(BACKGROUND) != earlier, 0.01)
                pictures.append(time.monotonic() - started)
    figures = dict(websocket_s=client, chromium_s=rows, chromium_picture_s=pictures)
    return {name: spread(values) for name, values in figures.items()}


def measure_moves(page: Page, path: Path) -> dict:
    """Seconds from a movement of a page without a graphics card until its picture, over the WebSocket.

    It looks at the room as visitors do at first. Each picture is the small one that comes first.
    """
    preview = read_preview(path, 1_000_000)
    assert preview is not None
    _, eye, target = preview.outlook
    rotation = matrix_to_quat(look_along(eye, target - eye)[:3, :3])
    page.wait_for(lambda: page.pictures, PATIENCE)
    seconds = []
    for number in range(MOVES):
        time.sleep(0.3)
        count, started = len(page.pictures), time.monotonic()
        page.look(rotation, eye + [0.01 * number, 0, 0])
        seconds.append(wait_for(lambda count=count: len(page.pictures) > count, 0.002) - started)
    return spread(seconds)


def measure_pictures(path: Path) -> dict:
    """See `measure_moves`."""
    with served(path) as (_, port, _, _):
        page = Page(port, renderer=SOFTWARE).arrive()
        page.wait_for(lambda: page.find("Find"), PATIENCE)
        time.sleep(10.0)  # models are loaded
        figures = measure_moves(page, path)
        page.close()
    return dict(moved_s=figures)


def strip(text: str) -> str:
    """HTML without the swatches of colour."""
    return re.sub(r"<span[^>]*></span>", "", text)


def measure_visitors(path: Path) -> dict:
    """Resident memory of the viewer in MiB: after the first visitors, and after `VISITS` more have left."""
    sizes = []
    with served(path) as (process, port, _, _):
        for _ in range(3):
            for _ in range(VISITS // AT_ONCE):
                pages = [Page(port, renderer=(None, SOFTWARE)[n % 2]).arrive() for n in range(AT_ONCE)]
                for page in pages:
                    page.set("Show", "labels")
                    page.set("Find", NAMES[0])
                for page in pages:
                    page.wait_for(
                        lambda page=page: (
                            (page.splats() or page.pictures) and f"<td>{NAMES[0]}" in strip(page.words())
                        ),
                        PATIENCE,
                    )
                    page.close()
            time.sleep(1.0)
            sizes.append(round(resident_mib(process.pid), 1))
    return dict(visitors=VISITS, mib_after_each_round=sizes)


def measure_large(path: Path, count: int, folder: Path) -> dict:
    """Bytes and seconds of a map of `count` Gaussians, over the WebSocket.

    Chromium is left out: without a graphics card it takes minutes for a picture of a million.
    """
    large = folder / "large.ovs3d"
    enlarge_file(path, large, count)
    with served(large) as (process, port, started, address):
        opened = time.monotonic()
        page = Page(port).arrive()
        page.wait_for(lambda: page.splats(), PATIENCE)
        received = time.monotonic() - opened
        size = len(page.splats()[0]["buffer"])
        page.set("Find", NAMES[0])
        page.wait_for(lambda: f"<td>{NAMES[0]}" in strip(page.words()), PATIENCE)
        asked = time.monotonic()
        page.set("Find", NAMES[2])
        answer = wait_for(lambda: f"<td>{NAMES[2]}" in strip(page.words()), 0.002) - asked
        page.close()
        opened = time.monotonic()
        page = Page(port, renderer=SOFTWARE).arrive()
        page.wait_for(lambda: page.pictures, PATIENCE)
        picture = time.monotonic() - opened
        moved = measure_moves(page, large)
        page.close()
        memory = resident_mib(process.pid)
    return dict(
        gaussians=count,
        address_s=round(address - started, 2),
        splats_mib=round(size / 2**20, 1),
        websocket_s=round(received, 2),
        answer_s=round(answer, 2),
        picture_s=round(picture, 2),
        moved_s=moved,
        viewer_mib=round(memory),
    )


def free_port() -> int:
    """A port that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def enlarge_file(path: Path, target: Path, count: int) -> None:
    """Writes a map that is repeated side by side up to `count` Gaussians."""
    room = Ovs3d.load(path, encode=False)
    snapshot, (params, _) = room.snapshot(), load_map(path)
    rows = torch.arange(count) % snapshot.num_gaussians
    span = params["means"][:, 0].amax() - params["means"][:, 0].amin() + 0.5
    params = {name: value[rows].clone() for name, value in params.items()}
    params["means"][:, 0] += span * (torch.arange(count) // snapshot.num_gaussians)
    save_map(target, params, enlarge(snapshot, count))


def processor_seconds(pid: int) -> float:
    """Processor time that a process has taken, of its own and of the system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mib(pid: int) -> float:
    """Resident memory of a process in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024


def spread(values: list[float]) -> dict:
    """Median, least and most."""
    return dict(
        median=round(float(np.median(values)), 2), least=round(min(values), 2), most=round(max(values), 2)
    )


def main() -> None:
    """Runs the measurements and prints one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("map", type=Path)
    parser.add_argument("--only", choices=("start", "answers", "pictures", "visitors", "large"), nargs="*")
    parser.add_argument("--repeats", type=int, default=5, help="starts")
    parser.add_argument("--million", type=int, default=1_000_000, help="Gaussians of the large map")
    options = parser.parse_args()
    parts: dict[str, Callable[[], dict]] = dict(
        start=lambda: measure_start(options.map, options.repeats),
        answers=lambda: measure_answers(options.map),
        pictures=lambda: measure_pictures(options.map),
        visitors=lambda: measure_visitors(options.map),
    )
    with map_folder(None) as folder:
        parts["large"] = lambda: measure_large(options.map, options.million, folder)
        figures = {name: part() for name, part in parts.items() if name in (options.only or parts)}
    print_document(dict(cores=os.cpu_count(), **figures), None)


if __name__ == "__main__":
    main()
