"""Takes docs/images/viewer.jpg and viewer_phone.jpg: the web viewer in Chromium, which answers a question.

    ovs3d demo
    export PYTHONPATH=.:tests
    python tools/picture_of_viewer.py out/demo/demo.ovs3d docs/images/viewer.jpg
    python tools/picture_of_viewer.py out/demo/demo.ovs3d docs/images/viewer_phone.jpg --phone

It needs Chromium (apt install chromium) and the extra `view`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from helpers.browser import Browser
from PIL import Image

from ovs3d_ros import Ovs3d
from ovs3d_ros.config import ViewerConfig
from ovs3d_ros.viewer.server import MapViewer
from ovs3d_ros.viewer.source import MapSource, keyframe_photo

QUESTION = "blue chair, red clock, yellow teapot, zebra"
SIZE, PHONE = (1280, 720), (390, 844)  # px
WAIT = 300.0  # seconds
SETTLE = 10.0  # seconds until the fine picture with boxes and names is drawn
QUALITY = 82  # of the JPEG


def main() -> None:
    """Opens the viewer, asks, and writes the picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("map", type=Path, help="map of the demo")
    parser.add_argument("picture", type=Path, help="JPEG to write")
    parser.add_argument("--phone", action="store_true", help="as wide as a phone")
    options = parser.parse_args()
    size = PHONE if options.phone else SIZE
    room = Ovs3d.load(options.map)
    snapshot = room.snapshot()
    viewer = MapViewer(
        MapSource(room, lambda: snapshot, keyframe_photo(room)), ViewerConfig(), options.map.stem
    )
    with tempfile.TemporaryDirectory() as folder, Browser(Path(folder), *size) as browser:
        browser.resize(*size, phone=options.phone)
        browser.open(viewer.address)
        browser.wait_for("document.body && document.body.innerText.includes('Find')", WAIT)
        browser.type_into(browser.input("Find"), QUESTION)
        browser.wait_for("document.body.innerText.includes('not here')", WAIT)
        time.sleep(SETTLE)
        browser.run("document.querySelectorAll('.mantine-Notification-root').forEach(e => e.remove())")
        browser.press(size[0] / 4, size[1] - 5)  # the hint at the input disappears
        time.sleep(1)
        shot = browser.screenshot(Path(folder) / "viewer.png")
        image = Image.open(shot).convert("RGB").resize(size, Image.Resampling.LANCZOS)
        image.save(options.picture, quality=QUALITY, optimize=True)
    viewer.close()


if __name__ == "__main__":
    main()
