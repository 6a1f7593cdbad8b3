"""The viewer over its WebSocket: what visitors get, and what strangers cannot do."""

from __future__ import annotations

import gc
import json
import logging
import threading
import time
import weakref
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from helpers import synthetic

pytest.importorskip("viser", reason="viser not installed; pip install -e '.[view]'")

from helpers.web_page import Page
from viser import _messages
from websockets.exceptions import ConnectionClosed

from ovs3d_ros import Ovs3d
from ovs3d_ros.config import ViewerConfig
from ovs3d_ros.types import MapFrame
from ovs3d_ros.viewer import guard
from ovs3d_ros.viewer.files import VisitorFiles
from ovs3d_ros.viewer.guard import MAX_TEXT
from ovs3d_ros.viewer.requests import COOLDOWN
from ovs3d_ros.viewer.server import MapViewer
from ovs3d_ros.viewer.source import MapSource, in_map_frame, keyframe_photo
from ovs3d_ros.viewer.visitor import Visitor


@pytest.fixture
def page(viewer) -> Iterator[Page]:
    page = Page(viewer.port).arrive()
    yield page
    page.close()
    page.wait_for(lambda: viewer.num_visitors == 0)


def labels(page: Page) -> list[str]:
    return sorted(props["text"] for props in page.scene("LabelMessage").values())


def centers(buffer: bytes) -> np.ndarray:
    return np.frombuffer(buffer, np.float32).reshape(-1, 8)[:, :3]


def colors(buffer: bytes) -> np.ndarray:
    return np.frombuffer(buffer, np.uint8).reshape(-1, 32)[:, 28:31]


def assert_floor_is_one_part(buffer: bytes) -> None:
    """The floor has one colour, which the red box, whose sides are parts of their own, has not."""
    drawn, shown = centers(buffer), colors(buffer)
    floor = shown[np.abs(drawn[:, 2]) < 0.02]
    box = shown[(np.abs(drawn - synthetic.RED.center) < 0.5 * np.array(synthetic.RED.size)).all(axis=1)]
    values, counts = np.unique(floor, axis=0, return_counts=True)
    assert counts.max() > 0.8 * len(floor) and len(box) > 50
    assert (box == values[counts.argmax()]).all(axis=1).mean() < 0.1


def count_calls(instance: object, method: str, monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """The positional arguments of each call of a method from now on."""
    calls, original = [], getattr(instance, method)

    def call(*arguments, **options):
        calls.append(arguments)
        return original(*arguments, **options)

    monkeypatch.setattr(instance, method, call)
    return calls


def show_without_models(pipeline: Ovs3d) -> MapViewer:
    """A viewer of the map that waits for its models."""
    colours = Ovs3d(pipeline.config, encode=False)
    params = {name: p.detach() for name, p in pipeline.map.params().items()}
    colours.restore(params, replace(pipeline.snapshot(), gaussians={}), "map")
    early = colours.snapshot()
    source = MapSource(colours, lambda: early, keyframe_photo(colours), ready=False)
    return MapViewer(source, ViewerConfig(), "room")


def shown_map(page: Page) -> bytes:
    """The splats that the visitor gets."""
    page.wait_for(page.splats)
    return page.splats()[0]["buffer"]


def test_models_may_be_loaded_while_a_visitor_arrives(pipeline, monkeypatch, caplog):
    snapshot, start = pipeline.snapshot(), Visitor.start
    viewer = show_without_models(pipeline)

    def arrive_late(visitor: Visitor, *arguments) -> None:
        viewer.take_source(MapSource(pipeline, lambda: snapshot, keyframe_photo(pipeline)))
        time.sleep(1.0)  # the viewer's thread takes it meanwhile
        start(visitor, *arguments)

    monkeypatch.setattr(Visitor, "start", arrive_late)
    page = Page(viewer.port).arrive()
    page.set("Find", "red box")
    page.wait_for(lambda: "found" in page.words())
    page.close()
    viewer.close()
    assert not caplog.records


def test_map_is_shown_while_the_models_are_loaded_and_the_answer_follows(pipeline, monkeypatch):
    snapshot = pipeline.snapshot()
    viewer = show_without_models(pipeline)
    page = Page(viewer.port).arrive()
    page.wait_for(page.splats)
    page.set("Find", "red box")
    page.wait_for(lambda: "being loaded" in page.words())
    asked = count_calls(pipeline, "query", monkeypatch)
    viewer.take_source(MapSource(pipeline, lambda: snapshot, keyframe_photo(pipeline)))
    page.wait_for(lambda: "found" in page.words() and labels(page))
    threshold = page.gui[page.find("Threshold")]["props"]
    page.wait_for(lambda: threshold["value"] == round(pipeline.label_threshold(), 2))
    time.sleep(2 * COOLDOWN)  # the new threshold is no question of the visitor
    assert asked.count((["red box"],)) == 1
    page.close()
    viewer.close()


def test_visitor_sees_the_map_and_its_keyframes(page, pipeline):
    page.wait_for(lambda: page.splats() and len(page.scene("CameraFrustumMessage")) == 4)
    (whole,) = page.splats()
    means = pipeline.snapshot().gaussians["means"].numpy()
    np.testing.assert_allclose(np.median(centers(whole["buffer"]), 0), np.median(means, 0), atol=0.1)


def test_question_is_answered_with_colours_boxes_and_names(page):
    plain = shown_map(page)
    page.set("Find", "red box, purple box")
    page.wait_for(lambda: "found" in page.words() and labels(page))
    words = page.words()
    assert "red box" in words and "not here" in words
    assert labels(page)[0].startswith("red box") and not any("purple" in text for text in labels(page))
    page.wait_for(lambda: page.splats()[0]["buffer"] != plain)
    own = colors(page.splats()[0]["buffer"])
    assert (np.abs(own.astype(int) - (228, 87, 46)).max(axis=1) < 66).sum() > 20, "tinted in its colour"
    page.set("Boxes", False)
    page.wait_for(lambda: not labels(page))
    page.set("Find", "")
    page.wait_for(lambda: page.splats()[0]["buffer"] == plain and "found" not in page.words())


def test_modes_recolour_the_map_for_one_visitor_alone(viewer, page):
    other = Page(viewer.port).arrive()
    plain = shown_map(page)
    seen = {plain}
    for mode in ("depth", "parts", "features", "labels"):
        page.set("Show", mode)
        page.wait_for(lambda: page.splats()[0]["buffer"] not in seen)
        seen.add(page.splats()[0]["buffer"])
        if mode == "parts":
            assert_floor_is_one_part(page.splats()[0]["buffer"])
    assert shown_map(other) == plain
    page.set("Show", "colour")
    page.wait_for(lambda: page.splats()[0]["buffer"] == plain)
    other.close()


def test_opacity_fades_the_map(page):
    plain = shown_map(page)
    page.set("Opacity", 0.5)
    page.wait_for(lambda: page.splats()[0]["buffer"] != plain)
    faded = page.splats()[0]["buffer"]
    full, faded = (np.frombuffer(buffer, np.uint8).reshape(-1, 32)[:, 31] for buffer in (plain, faded))
    np.testing.assert_allclose(faded, full / 2, atol=1)


def test_threshold_labels_fewer_gaussians(page):
    def count() -> int:
        own = page.splats()[0]["buffer"]
        return int((colors(own) == (228, 87, 46)).all(axis=1).sum())

    page.set("Show", "labels")
    page.set("Find", "red box")
    page.wait_for(lambda: page.splats() and count() > 20)
    before = count()
    page.set("Threshold", 0.98)
    page.wait_for(lambda: count() < before)


def test_clicked_keyframe_shows_photograph_and_render(page, pipeline):
    page.wait_for(lambda: len(page.scene("CameraFrustumMessage")) == 4)
    (name, owner) = next(key for key in page.nodes if key[0] == "/keyframes/2")
    page.send(
        _messages.SceneNodeClickMessage(
            name=name,
            instance_index=None,
            ray_origin=(0.0, 0.0, 0.0),
            ray_direction=(0.0, 0.0, 1.0),
            screen_pos=(0.5, 0.5),
            modifier=None,
            owner=owner or "",
        )
    )
    pose = pipeline.snapshot().camtoworlds[2]
    page.wait_for(lambda: np.allclose(page.camera["position"], pose[:3, 3], atol=1e-5))
    page.wait_for(lambda: np.allclose(page.camera["look_at"], pose[:3, 3] + pose[:3, 2], atol=1e-5))
    folder = page.find("Keyframe")
    page.wait_for(lambda: page.gui[folder]["props"]["visible"])


def test_two_clicks_measure(page):
    page.set("Measure", True)
    page.wait_for(lambda: "first point" in page.words() and "ScenePointerEnableMessage" in page.kinds)
    eye = np.array([-0.55, -1.8, 0.9])
    for number, x in enumerate((-0.7, -0.4), start=1):
        ray = tuple(np.array([x, -0.2, 0.25]) - eye)
        page.send(_messages.ScenePointerMessage("click", tuple(eye), ray, ((0.5, 0.5),), None))
        page.wait_for(lambda number=number: len(page.scene("IcosphereMessage")) == number)
    page.wait_for(lambda: any(text.endswith(" m") for text in labels(page)))
    (text,) = [text for text in labels(page) if text.endswith(" m")]
    assert float(text.removesuffix(" m")) == pytest.approx(0.3, abs=0.05)
    page.set("Measure", False)
    page.wait_for(lambda: not page.scene("IcosphereMessage") and not labels(page))


def press(page: Page, label: str) -> None:
    page.wait_for(lambda: page.find(label))
    page.send(_messages.GuiUpdateMessage(page.find(label), {"value": True}))


def download(viewer, monkeypatch) -> list[tuple[str, bytes]]:
    """The files that are sent to visitors from now on."""
    sent: list[tuple[str, bytes]] = []
    monkeypatch.setattr(VisitorFiles, "send", lambda self, name, content: sent.append((name, content)))
    return sent


def test_answer_and_camera_path_are_saved(viewer, page, monkeypatch):
    files = download(viewer, monkeypatch)
    page.set("Find", "blue box")
    page.wait_for(lambda: "found" in page.words())
    press(page, "Answer")
    page.wait_for(lambda: files)
    name, content = files.pop()
    (entry,) = json.loads(content)
    assert (name, entry["prompt"], entry["found"]) == ("objects.json", "blue box", True)
    np.testing.assert_allclose(entry["objects"][0]["center"], synthetic.BLUE.center, atol=0.2)
    press(page, "Camera path")  # there is none yet
    press(page, "Add view to path (0)")
    page.wait_for(lambda: page.find("Add view to path (1)"))
    time.sleep(0.3)
    press(page, "Camera path")
    page.wait_for(lambda: files)
    assert len(json.loads(files[0][1])["camera_path"]) == 1


def test_flight_to_an_object(page):
    def offered() -> list[str]:
        return list(page.gui[page.find("Fly to")]["props"]["options"]) if page.find("Fly to") else []

    page.set("Find", "red box, blue box")
    page.wait_for(lambda: any("blue" in name for name in offered()))
    page.set("Fly to", next(name for name in offered() if "blue" in name))
    page.wait_for(lambda: np.allclose(page.camera["look_at"], synthetic.BLUE.center, atol=0.15))
    page.wait_for(lambda: page.kinds.count("SetCameraLookAtMessage") >= 10)


@pytest.mark.parametrize("text, problem", [("x" * 300, "300 characters"), ("a," * 200, "200 prompts")])
def test_bad_names_are_refused_with_a_reason(page, text, problem):
    page.set("Find", text)
    page.wait_for(lambda: problem in page.words())
    page.set("Find", "red box")
    page.wait_for(lambda: "found" in page.words())


def test_huge_text_is_refused_and_forgotten(viewer, page):
    page.set("Find", "x" * 10_000_000)
    page.wait_for(lambda: f"longer than {MAX_TEXT}" in page.words())
    page.set("Find", "red box")
    page.wait_for(lambda: "found" in page.words())


def test_names_are_no_markup(page):
    page.set("Find", "<img src=x onerror=alert(1)>")
    page.wait_for(lambda: "&lt;img" in page.words())
    assert "<img" not in page.words()


def test_flood_of_questions_keeps_others_waiting_no_longer(viewer, page):
    attacker = Page(viewer.port).arrive()
    attacker.wait_for(lambda: attacker.find("Find"))
    uuid = attacker.find("Find")

    def flood() -> None:
        end = time.monotonic() + 3
        while time.monotonic() < end:
            for number in range(50):
                attacker.send(_messages.GuiUpdateMessage(uuid, {"value": f"thing {number}"}))

    thread = threading.Thread(target=flood)
    thread.start()
    page.set("Find", "red box")
    page.wait_for(lambda: "found" in page.words())
    thread.join()
    attacker.close()
    # The viewer reads on at its rate for ten seconds, and then waits as long for the closing handshake.
    page.wait_for(lambda: viewer.num_visitors == 1, 120.0)


def test_unreadable_messages_close_the_page_and_no_other(viewer, page, caplog):
    for raw in (b"\x00garbage", "text", b""):
        stranger = Page(viewer.port).arrive()
        stranger.wait_for(lambda stranger=stranger: stranger.find("Find"))
        stranger.send_raw(raw)
        stranger.wait_for(lambda stranger=stranger: stranger.closed)
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR and r.name.startswith("ovs3d")]
    page.set("Find", "red box")
    page.wait_for(lambda: "found" in page.words())


def test_public_tunnel_cannot_be_asked_for(viewer, page, monkeypatch):
    asked: list = []
    monkeypatch.setattr(type(viewer._server), "request_share_url", lambda self: asked.append(1))
    page.send(_messages.ShareUrlRequest())
    page.set("Find", "red box")
    page.wait_for(lambda: "found" in page.words())
    assert not asked


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:1"])
def test_foreign_pages_are_refused(viewer, origin):
    try:
        stranger = Page(viewer.port, origin=origin)
        stranger.wait_for(lambda: stranger.closed)
    except ConnectionClosed:
        return
    assert "1008" in stranger.closed and not stranger.gui


def test_visitors_beyond_the_limit_are_turned_away(viewer, page, monkeypatch):
    monkeypatch.setattr(guard, "MAX_VISITORS", 2)
    second, third = Page(viewer.port).arrive(), Page(viewer.port)
    third.wait_for(lambda: third.closed)
    assert "1013" in third.closed and not third.gui
    second.wait_for(lambda: second.find("Find"))
    second.close()


def test_program_without_a_browser_may_connect(viewer):
    program = Page(viewer.port, origin=None).arrive()
    program.wait_for(lambda: program.find("Find"))
    program.close()


def test_visitors_who_leave_free_what_they_took(viewer):
    seen: list[weakref.ref[Visitor]] = []

    def visit() -> None:
        pages = [Page(viewer.port).arrive() for _ in range(10)]
        for visitor in pages:
            visitor.set("Show", "labels")
        for visitor in pages:
            visitor.wait_for(visitor.splats)
        seen.extend(map(weakref.ref, viewer._visitors.values()))
        for visitor in pages:
            visitor.close()
        pages[0].wait_for(lambda: viewer.num_visitors == 0)

    gc.disable()  # by itself it comes late: a visitor has few objects, though some are large
    try:
        for _ in range(3):
            visit()
        end = time.monotonic() + 60
        while (
            sum(reference() is not None for reference in seen) > 1
        ):  # the thread may still hold the last one
            assert time.monotonic() < end, f"{sum(r() is not None for r in seen)} visitors are still held"
            time.sleep(0.1)
    finally:
        gc.enable()
    assert len(seen) == 30
    assert len(viewer._requests) == 0 and not viewer._server._websock_server._live_connections


def test_map_far_from_the_origin_is_drawn_in_its_own_frame(pipeline):
    snapshot = pipeline.snapshot()
    origin = np.array([500_000.0, 4_000_000.0, 100.0])
    poses = snapshot.camtoworlds.copy()
    poses[:, :3, 3] += origin
    far = replace(snapshot, frame=MapFrame(origin), camtoworlds=poses)
    near = in_map_frame(far)
    np.testing.assert_allclose(near.camtoworlds, snapshot.camtoworlds, atol=1e-6)
    assert not near.frame.origin.any() and in_map_frame(snapshot) is snapshot


def test_saved_answer_of_a_far_map_is_in_the_world(pipeline):
    files, sent, snapshot = VisitorFiles(None), [], pipeline.snapshot()
    files.send = lambda name, content: sent.append(json.loads(content))
    origin = np.array([500_000.0, 4_000_000.0, 100.0])
    result = pipeline.query(["blue box"], snapshot=snapshot)
    files.save_answer(result, snapshot, pipeline.config.query, MapFrame(origin))
    center = sent[0][0]["objects"][0]["center"]
    np.testing.assert_allclose(center - origin, synthetic.BLUE.center, atol=0.2)
