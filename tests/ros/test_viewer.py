"""The node serves its growing map to browsers, and maps as well as without."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("ovs3d_interfaces")
pytest.importorskip("viser", reason="viser not installed; pip install -e '.[view]'")
pytestmark = [pytest.mark.ros, pytest.mark.slow]

from helpers.ros_env import use_child_environment, wait_until  # noqa: E402
from helpers.ros_session import FRAMES, Session, start_node  # noqa: E402
from helpers.web_page import Page  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402
from viser import _messages  # noqa: E402
from websockets.exceptions import ConnectionClosed  # noqa: E402

from ovs3d_ros.ros.environment import free_domain_id  # noqa: E402
from ovs3d_ros.viewer.requests import COOLDOWN  # noqa: E402


@pytest.fixture(scope="module")
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def session(tmp_path_factory, port) -> Iterator[Session]:
    with pytest.MonkeyPatch.context() as patch:
        use_child_environment(patch)
        session = Session(tmp_path_factory.mktemp("node"), {"viewer.port": port})
        try:
            yield session
        finally:
            session.close()


def test_room_grows_in_the_browser_and_answers(session, port):
    session.node.wait_for("ready", 180)
    assert f"the map is shown at http://localhost:{port}" in session.node.output()
    assert session.node.output().count(str(port)) == 1  # no library tells another one
    page, without_graphics_card = Page(port).arrive(), Page(port, renderer="llvmpipe").arrive()
    page.set("Find", "red ball")
    session.play("--rate", "4")
    page.wait_for(lambda: page.splats() and page.scene("CameraFrustumMessage"), 60)
    page.wait_for(lambda: "found" in page.words() and page.scene("LabelMessage"), 60)
    page.wait_for(lambda: without_graphics_card.pictures, 60)
    session.settle(FRAMES)
    assert session.client.value(": mapping", "frames_dropped") == 0
    page.wait_for(lambda: len(page.scene("CameraFrustumMessage")) >= 4, 60)
    assert session.client.call(Trigger, "reset").success
    page.wait_for(lambda: not page.splats() and not page.scene("CameraFrustumMessage"), 60)
    page.wait_for(lambda: without_graphics_card.pictures[-1] is None, 60)
    assert not without_graphics_card.splats()
    without_graphics_card.close()
    page.close()


def test_attack_on_the_viewer_does_not_stop_the_mapping(session, port):
    """A visitor sends a name of 10 MB, then 10,000 questions a second, or as many as he is let."""
    session.node.wait_for("ready", 180)
    wait_until(lambda: session.client.value(": mapping", "frames_dropped") >= 0, 30)
    before = {name: session.client.value(": mapping", f"frames_{name}") for name in ("received", "dropped")}
    attacker, stopping, sent = Page(port).arrive(), threading.Event(), []
    attacker.set("Find", "x" * 10_000_000)

    def flood() -> None:
        field = attacker.find("Find")
        with contextlib.suppress(ConnectionClosed):
            while not stopping.wait(0.01):
                for number in range(100):
                    attacker.send(_messages.GuiUpdateMessage(field, {"value": f"thing {number}"}))
                    sent.append(number)

    thread = threading.Thread(target=flood)
    started, shown = time.monotonic(), attacker.kinds.count("GuiUpdateMessage")
    thread.start()
    try:
        attacker.wait_for(lambda: len(sent) > 1000)
        assert session.play("--rate", "4") == FRAMES
        wait_until(
            lambda: (
                session.client.diagnostic(": mapping")[1].get("idle") == "True"
                and session.client.value(": mapping", "frames_received") - before["received"] == FRAMES
            ),
            90,
        )
        assert session.client.value(": mapping", "frames_dropped") == before["dropped"]
        assert list(session.client.query("red ball").found) == [True]
        answers = attacker.kinds.count("GuiUpdateMessage") - shown
        assert answers <= (time.monotonic() - started) / COOLDOWN + 10, f"{answers} answers"
    finally:
        stopping.set()
        attacker.close()
        thread.join()


def test_used_port_ends_a_second_node_with_one_line(session, port, tmp_path):
    node = start_node({"viewer.port": port}, free_domain_id(), tmp_path / "node.log")
    assert node.wait(180) == 2
    assert f"the viewer cannot use 127.0.0.1:{port}" in node.output() and "Traceback" not in node.output()
