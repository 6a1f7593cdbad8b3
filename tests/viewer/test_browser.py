"""The viewer in a real Chromium: what people see and click."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers import synthetic

pytest.importorskip("viser", reason="viser not installed; pip install -e '.[view]'")

from helpers.browser import CHROMIUM, Browser

from ovs3d_ros.config import ViewerConfig
from ovs3d_ros.geometry import quat_to_matrix
from ovs3d_ros.types import Camera
from ovs3d_ros.viewer.painter import read_look
from ovs3d_ros.viewer.server import MapViewer
from ovs3d_ros.viewer.source import MapSource, keyframe_photo

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium not installed; apt install chromium"),
]
WIDTH, HEIGHT = 900, 640
ORANGE = (228, 87, 46)  # the colour of the first name


@pytest.fixture(scope="module")
def viewer() -> Iterator[MapViewer]:
    pipeline = synthetic.build_map(synthetic.make_frames(6), steps=40)
    snapshot = pipeline.snapshot()
    viewer = MapViewer(
        MapSource(pipeline, lambda: snapshot, keyframe_photo(pipeline)), ViewerConfig(), "room"
    )
    yield viewer
    viewer.close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory, viewer) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("chromium"), WIDTH, HEIGHT) as browser:
        browser.open(viewer.address)
        browser.wait_for("document.body && document.body.innerText.includes('Find')", 180.0)
        yield browser


def picture(browser: Browser, folder: Path) -> np.ndarray:
    """What the page shows, RGB [H, W, 3]."""
    return cv2.imread(str(browser.screenshot(folder / "page.png")))[..., ::-1]


def share(pixels: np.ndarray, color: tuple[int, int, int], off: int = 60) -> float:
    """The share of pixels near a colour, left of the panel."""
    scene = pixels[:, : WIDTH // 2].astype(int)
    return float((np.abs(scene - color).max(axis=-1) < off).mean())


def off(browser: Browser, viewer: MapViewer, folder: Path) -> float:
    """The median difference between the left third of the page and the map as its camera sees it."""
    (client,) = viewer._server.get_clients().values()
    look, shown = read_look(client.camera), picture(browser, folder)
    assert look is not None
    height, width = shown.shape[:2]
    focal = height / (2 * np.tan(look.fov / 2))
    camera = Camera(np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]]), width, height)
    view = viewer._source.pipeline.render(camera, look.pose, viewer._newest())
    expected = 255 * (view.rgb + 1 - view.alpha[..., None]).clip(0, 1).numpy()
    return float(np.median(np.abs(shown - expected)[:, : width // 3]))


def test_room_appears_in_its_colours(browser, tmp_path):
    browser.wait_for(lambda: share(picture(browser, tmp_path), (255, 255, 255), 8) < 0.8)
    red = picture(browser, tmp_path)[:, : WIDTH // 2].astype(int)
    assert ((red[..., 0] > 120) & (red[..., 1] < 80)).mean() > 0.005, "the red box"


def test_page_without_a_graphics_card_shows_a_picture_of_its_view(browser, viewer, tmp_path):
    browser.wait_for(lambda: off(browser, viewer, tmp_path) < 3)
    nodes = browser.run("Object.keys(window.__viserSceneTree.getState())")
    assert "/keyframes/0" in nodes and "/map" not in nodes, "no splats, which it draws too slowly"


def test_typed_question_shows_answer_and_colours(browser, tmp_path):
    browser.type_into(browser.input("Find"), "red box, purple box")
    browser.wait_for("document.body.innerText.includes('not here')")
    words = browser.text()
    assert "found" in words and "Fly to" in words
    browser.wait_for(lambda: share(picture(browser, tmp_path), ORANGE) > 0.002)


def test_clicked_keyframe_takes_the_visitor_there(browser, viewer, tmp_path):
    (client,) = viewer._server.get_clients().values()
    poses = viewer._newest().camtoworlds
    frustums = {
        index: node.position
        for (index, (node, _)) in next(iter(viewer._visitors.values()))._scene._frustums.items()
    }

    def place(index: int) -> tuple[float, float] | None:
        """Where a frustum is on the screen, if it is there and not below the panel."""
        tip = frustums[index] + 0.04 * poses[index][:3, 2]
        local = quat_to_matrix(client.camera.wxyz).T @ (tip - client.camera.position)
        focal = HEIGHT / 2 / np.tan(client.camera.fov / 2)
        x, y = focal * local[:2] / local[2] + [WIDTH / 2, HEIGHT / 2]
        return (x, y) if local[2] > 0.1 and 20 < x < WIDTH * 0.6 and 20 < y < HEIGHT - 20 else None

    places = {index: place(index) for index in frustums}
    index, spot = next((i, p) for i, p in places.items() if p is not None)
    browser.press(*spot)
    browser.wait_for("document.body.innerText.includes('Keyframe')")
    browser.wait_for(lambda: np.linalg.norm(client.camera.position - poses[index][:3, 3]) < 0.01)


def test_panel_and_picture_fit_a_phone(browser, viewer, tmp_path):
    browser.resize(390, 844, phone=True)
    browser.wait_for(f"({browser.input('Find')}).getBoundingClientRect().right <= 390")
    left = browser.run(f"({browser.input('Find')}).getBoundingClientRect().left")
    assert 0 <= left < 290, "it is on the page and wide enough to type"
    browser.wait_for(lambda: off(browser, viewer, tmp_path) < 3)
    browser.resize(WIDTH, HEIGHT)
