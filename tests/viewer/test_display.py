"""What a page without a graphics card gets instead of splats: pictures of its view."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("viser", reason="viser not installed; pip install -e '.[view]'")

from helpers.web_page import Page

from ovs3d_ros.config import ViewerConfig
from ovs3d_ros.geometry import matrix_to_quat
from ovs3d_ros.types import Camera
from ovs3d_ros.viewer import server, views
from ovs3d_ros.viewer.painter import Painter, read_look
from ovs3d_ros.viewer.renderer import is_software
from ovs3d_ros.viewer.server import MapViewer
from ovs3d_ros.viewer.source import MapSource, keyframe_photo
from ovs3d_ros.viewer.splats import make_splats
from ovs3d_ros.viewer.stage import Stage

SWIFTSHADER = "ANGLE (Google, Vulkan 1.3.0 (SwiftShader Device (Subzero) (0x0000C0DE)), SwiftShader driver)"
ORANGE = (228, 87, 46)  # the colour of the first name
WIDTH, HEIGHT = 800, 600  # px of `Page`


@pytest.fixture
def page(viewer, pipeline) -> Iterator[Page]:
    page = Page(viewer.port, renderer=SWIFTSHADER)
    stand(page, pipeline.snapshot().camtoworlds[1])
    yield page
    page.close()
    page.wait_for(lambda: viewer.num_visitors == 0)


def stand(page: Page, pose: np.ndarray) -> None:
    """Looks from a pose."""
    page.look(matrix_to_quat(pose[:3, :3]), pose[:3, 3])


def rendered(pipeline, pose: np.ndarray, height: int = HEIGHT) -> np.ndarray:
    """What the page must show, RGB [H, W, 3] floats, by the renderer of queries."""
    focal, width = height / (2 * np.tan(0.5)), height * WIDTH // HEIGHT
    camera = Camera(np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]]), width, height)
    view = pipeline.render(camera, pose, pipeline.snapshot())
    return 255 * (view.rgb + 1 - view.alpha[..., None]).clip(0, 1).numpy()


def off(page: Page, expected: np.ndarray) -> float:
    """The mean difference of the newest picture from another; infinite if their sizes differ."""
    newest = page.pictures[-1] if page.pictures else None
    if newest is None or newest.shape != expected.shape:
        return np.inf
    return float(np.abs(newest - expected).mean())


def marked(picture: np.ndarray | None) -> int:
    """Pixels in the colour of the first name."""
    return 0 if picture is None else int((np.abs(picture.astype(int) - ORANGE).max(axis=-1) < 70).sum())


def test_page_gets_its_view_as_a_small_picture_and_then_a_fine_one(page, pipeline):
    expected = rendered(pipeline, pipeline.snapshot().camtoworlds[1])
    page.wait_for(lambda: off(page, expected) < 6)
    small = page.pictures[0]
    assert small is not None and small.size < 0.7 * expected.size
    assert small.shape[1] / small.shape[0] == pytest.approx(WIDTH / HEIGHT, abs=0.01)
    assert not page.splats(), "which it could not draw in time"


def test_picture_follows_the_camera(page, pipeline):
    poses = pipeline.snapshot().camtoworlds
    page.wait_for(lambda: off(page, rendered(pipeline, poses[1])) < 6)
    before = len(page.pictures)
    for _ in range(50):  # it moves
        stand(page, poses[0])
        time.sleep(0.02)
    assert len(page.pictures) < before + 10, "not one for each movement"
    target = rendered(pipeline, poses[3])
    stand(page, poses[3])
    page.wait_for(lambda: off(page, target) < 6)
    count = len(page.pictures)
    time.sleep(1.0)
    assert len(page.pictures) == count, "it rests"


def test_answer_modes_and_opacity_are_in_the_picture(page, pipeline):
    plain = rendered(pipeline, pipeline.snapshot().camtoworlds[1])
    page.wait_for(lambda: off(page, plain) < 6)
    before = marked(page.pictures[-1])
    page.set("Find", "red box, purple box")
    page.wait_for(lambda: "found" in page.words() and marked(page.pictures[-1]) > before + 500)
    assert any(props["text"].startswith("red box") for props in page.scene("LabelMessage").values())
    page.set("Find", "")
    page.wait_for(lambda: off(page, plain) < 6)
    for name, value, usual in (
        ("Show", "depth", "colour"),
        ("Show", "parts", "colour"),
        ("Opacity", 0.3, 1.0),
    ):
        page.set(name, value)
        page.wait_for(lambda: 12 < off(page, plain) < np.inf)
        page.set(name, usual)
        page.wait_for(lambda: off(page, plain) < 6)


def test_other_pages_get_splats_and_no_picture(viewer, page):
    for renderer in (None, "ANGLE (Intel, Mesa Intel(R) UHD Graphics 620 (KBL GT2), OpenGL 4.6)"):
        other = Page(viewer.port, renderer=renderer).arrive()
        other.wait_for(other.splats)
        other.close()
        assert not other.pictures
    page.wait_for(lambda: page.pictures)


@pytest.mark.parametrize(
    "renderer, software",
    [
        (SWIFTSHADER, True),
        ("llvmpipe (LLVM 15.0.6, 256 bits)", True),
        ("llvmpipe, or similar", True),
        (
            "ANGLE (Microsoft, Microsoft Basic Render Driver (0x0000008C) Direct3D11 vs_5_0)",
            True,
        ),
        ("Apple Software Renderer", True),
        ("ANGLE (NVIDIA, NVIDIA GeForce RTX 3060 (0x00002504) Direct3D11 vs_5_0 ps_5_0, D3D11)", False),
        ("Apple GPU", False),
        ("Mali-G78", False),
        (None, False),
    ],
)
def test_renderers_are_told_apart(renderer, software):
    assert is_software(renderer) == software


def test_growing_map_is_painted_and_taken_away(pipeline, monkeypatch):
    monkeypatch.setattr(server, "LIVE_PERIOD", 0.1)
    whole, pose = pipeline.snapshot(), pipeline.snapshot().camtoworlds[1]
    shown: list = [None]
    source = MapSource(pipeline, lambda: shown[0], keyframe_photo(pipeline), live=True)
    viewer = MapViewer(source, ViewerConfig(), "live")
    try:
        page = Page(viewer.port, renderer=SWIFTSHADER)
        stand(page, pose)
        time.sleep(0.5)
        assert not any(picture is not None for picture in page.pictures)
        shown[0] = whole
        page.wait_for(lambda: off(page, rendered(pipeline, pose)) < 6)
        shown[0] = None
        page.wait_for(lambda: page.pictures[-1] is None)
        shown[0] = replace(whole, version=whole.version + 1)
        page.wait_for(lambda: off(page, rendered(pipeline, pose)) < 6)
        page.close()
    finally:
        viewer.close()


def test_picture_comes_before_the_map_is_loaded(pipeline):
    snapshot = pipeline.snapshot()
    drawn = make_splats(snapshot, 1_000_000).drawn
    stage = Stage(ViewerConfig(), "early", drawn, views.overview(snapshot))
    try:
        page = Page(stage.port, renderer=SWIFTSHADER)
        stand(page, snapshot.camtoworlds[1])
        stage.wait_for_visitor(60.0)
        page.wait_for(lambda: off(page, rendered(pipeline, snapshot.camtoworlds[1])) < 6)
        stand(page, snapshot.camtoworlds[3])
        page.wait_for(lambda: off(page, rendered(pipeline, snapshot.camtoworlds[3])) < 6)
        page.close()
    finally:
        stage.close()


def test_first_picture_is_for_those_who_come_before_the_map(pipeline):
    snapshot = pipeline.snapshot()
    stage = Stage(ViewerConfig(), "early", make_splats(snapshot, 1000).drawn, views.overview(snapshot))
    try:
        early = Page(stage.port).arrive()
        early.wait_for(early.splats)
        stage.hand_over(lambda started: None)
        late = Page(stage.port).arrive()
        late.wait_for(lambda: len(stage._displays) == 2)
        time.sleep(1.0)
        assert not late.splats(), "the map sends its own"
        for page in (early, late):
            page.close()
    finally:
        stage.close()


def camera(**changes) -> SimpleNamespace:
    """What viser tells of a camera."""
    values = dict(image_width=800, image_height=600, fov=1.0, wxyz=(1.0, 0, 0, 0), position=(0.0, 0, 0))
    return SimpleNamespace(**values | changes)


@pytest.mark.parametrize(
    "changes",
    [
        dict(image_width=0),
        dict(image_height=10**9),
        dict(image_width=float("nan")),
        dict(image_width="wide"),
        dict(fov=0.0),
        dict(fov=4.0),
        dict(fov=float("nan")),
        dict(wxyz=(0.0, 0, 0, 0)),
        dict(wxyz=(1.0, 0)),
        dict(position=(float("inf"), 0, 0)),
        dict(position=(1e30, 0, 0)),
        dict(position=None),
    ],
)
def test_impossible_cameras_see_nothing(changes):
    assert read_look(camera()) is not None
    assert read_look(camera(**changes)) is None


def test_picture_is_as_large_as_the_page_but_not_larger_than_asked(pipeline):
    drawn, painter, ready = make_splats(pipeline.snapshot(), 1000).drawn, Painter(), []
    painter.call_when_ready(lambda: ready.append(1))
    while not ready:
        time.sleep(0.01)
    for width, height, pixels, shape in (
        (800, 600, 10**6, (600, 800, 3)),
        (1600, 400, 10_000, (50, 200, 3)),
        (1, 1, 99, (16, 16, 3)),
    ):
        look = read_look(camera(image_width=width, image_height=height))
        assert look is not None
        assert painter.paint(drawn, look, pixels).shape == shape
