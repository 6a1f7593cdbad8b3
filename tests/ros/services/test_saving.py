"""The map is saved however the node ends, to another folder if the configured one is not writable."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from helpers import synthetic

pytest.importorskip("rclpy")
pytest.importorskip("ovs3d_interfaces")
pytestmark = pytest.mark.ros

from helpers.ros_wire import wire  # noqa: E402, F401
from lifecycle_msgs.msg import Transition  # noqa: E402
from lifecycle_msgs.srv import ChangeState  # noqa: E402
from rclpy.executors import MultiThreadedExecutor  # noqa: E402
from rclpy.lifecycle import TransitionCallbackReturn  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402

from ovs3d_ros.config import leaves, override  # noqa: E402
from ovs3d_ros.pipeline import Ovs3d  # noqa: E402
from ovs3d_ros.ros import session as session_module  # noqa: E402
from ovs3d_ros.ros.node import MappingNode, serve  # noqa: E402
from ovs3d_ros.ros.session import MappingSession  # noqa: E402
from ovs3d_ros.types import UserError  # noqa: E402

WAIT = 60.0  # seconds; generous, for machines under load
SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


@pytest.fixture(autouse=True)
def no_warm_up(monkeypatch) -> None:
    """Skips the compilation of kernels, which takes long."""
    monkeypatch.setattr(session_module, "warm_up", lambda pipeline: None)


def settings(folder: Path, save_on_exit: str):
    changes = {"output.save_on_exit": save_on_exit, "map.directory": str(folder / "maps"), "autostart": False}
    return override(synthetic.make_config(), changes)


def feed(mapping: MappingSession) -> None:
    for frame in synthetic.make_frames(3)[:2]:
        mapping.worker.submit(frame)
    assert mapping.worker.wait_idle(WAIT)


@pytest.fixture
def make_node(wire, monkeypatch):
    def make(folder: Path, save_on_exit: str) -> MappingNode:
        config = settings(folder, save_on_exit)
        overrides = [
            Parameter(leaf.path, value=list(v) if isinstance(v, tuple) else v) for leaf, v in leaves(config)
        ]
        node = MappingNode(context=wire.context, parameter_overrides=overrides)
        wire.nodes.append(node)
        return node

    return make


def keyframes(path: Path) -> int:
    return len(Ovs3d.load(path).snapshot().stamps)


@pytest.mark.parametrize(
    "place, problem",
    [
        ("nowhere/room.ovs3d", "the folder .*nowhere does not exist; create it"),
        ("", "is a folder; give a file name"),
    ],
)
def test_unwritable_target_is_refused_at_start(wire, tmp_path, place, problem):
    with pytest.raises(UserError, match=f"output.save_on_exit: .*{problem}"):
        MappingSession(wire.node("mapper"), settings(tmp_path, f"{tmp_path}/{place}"))


def test_unwritable_target_saves_map_to_map_directory(wire, tmp_path):
    (tmp_path / "out").mkdir()
    mapping = MappingSession(wire.node("mapper"), settings(tmp_path, f"{tmp_path}/out/room.ovs3d"))
    feed(mapping)
    (tmp_path / "out").rmdir()
    assert mapping.close() is False
    assert keyframes(tmp_path / "maps" / "rescued.ovs3d") == 2


def test_close_waits_for_a_slow_frame_before_saving(wire, tmp_path, monkeypatch):
    for name in ("STOP_TIMEOUT", "STOP_NOTICE"):
        monkeypatch.setattr(session_module, name, 0.05, raising=False)
    mapping = MappingSession(wire.node("mapper"), settings(tmp_path, f"{tmp_path}/room.ovs3d"))
    feed(mapping)
    entered, opened, intake = threading.Event(), threading.Event(), mapping.pipeline.intake
    insert_frame = intake.insert_frame

    def slow(frame):
        entered.set()
        assert opened.wait(WAIT)
        return insert_frame(frame)

    monkeypatch.setattr(intake, "insert_frame", slow)
    mapping.worker.submit(synthetic.make_frames(3)[2])
    assert entered.wait(WAIT)
    threading.Timer(0.5, opened.set).start()
    mapping.close()
    assert keyframes(tmp_path / "room.ovs3d") == 3


def test_cleanup_can_be_repeated_after_failed_save(make_node, tmp_path):
    (tmp_path / "out").mkdir()
    node = make_node(tmp_path, f"{tmp_path}/out/room.ovs3d")
    assert node.trigger_configure() == SUCCESS
    feed(node.session)
    (tmp_path / "out").rmdir()
    (tmp_path / "maps").touch()  # map.directory is not writable either
    assert node.trigger_cleanup() == FAILURE
    assert "the map could not be saved" in str(node.failure)
    assert node.trigger_activate() == FAILURE  # a new map would not be saved
    (tmp_path / "out").mkdir()
    assert node.trigger_cleanup() == SUCCESS
    assert keyframes(tmp_path / "out" / "room.ovs3d") == 2 and node.session is None


@pytest.mark.parametrize("save_on_exit", ["room.ovs3d", ""])
def test_failing_callback_ends_node_and_saves_map(wire, make_node, tmp_path, save_on_exit):
    node = make_node(tmp_path, save_on_exit and f"{tmp_path}/{save_on_exit}")
    assert node.trigger_configure() == SUCCESS
    feed(node.session)
    executor = MultiThreadedExecutor(num_threads=2, context=wire.context)
    executor.add_node(node)
    node.create_timer(0.01, lambda: [][0])
    assert serve(node, executor, threading.Event()) == 1
    executor.shutdown()
    assert keyframes(tmp_path / (save_on_exit or "maps/rescued.ovs3d")) == 2


@pytest.mark.parametrize("under_way", ["trigger_deactivate", "trigger_shutdown"])
def test_transition_under_way_ends_before_the_node(wire, make_node, tmp_path, monkeypatch, under_way):
    node = make_node(tmp_path, f"{tmp_path}/room.ovs3d")
    node.start()
    feed(node.session)
    entered, opened, deactivate = threading.Event(), threading.Event(), node._deactivate

    def slow():
        entered.set()
        assert opened.wait(WAIT)
        deactivate()

    monkeypatch.setattr(node, "_deactivate", slow)
    transition = threading.Thread(target=getattr(node, under_way))
    transition.start()
    assert entered.wait(WAIT)
    threading.Timer(0.5, opened.set).start()
    stopping = threading.Event()
    if under_way == "trigger_deactivate":
        stopping.set()
    executor = MultiThreadedExecutor(num_threads=2, context=wire.context)
    executor.add_node(node)
    assert serve(node, executor, stopping) == 0
    assert keyframes(tmp_path / "room.ovs3d") == 2 and node.session is None
    transition.join(WAIT)
    executor.shutdown()


def test_shutdown_is_answered_before_the_node_ends(wire, make_node, tmp_path, monkeypatch):
    node = make_node(tmp_path, f"{tmp_path}/room.ovs3d")
    change = node._LifecycleNodeMixin__change_state

    def slow(transition_id):
        answer = change(transition_id)
        time.sleep(1.0)  # the state has changed, and the answer is not sent yet
        return answer

    monkeypatch.setattr(node, "_LifecycleNodeMixin__change_state", slow)
    executor = MultiThreadedExecutor(num_threads=4, context=wire.context)
    executor.add_node(node)
    client = wire.node("client").create_client(ChangeState, "/ovs3d/change_state")
    ended: list[int] = []
    serving = threading.Thread(target=lambda: ended.append(serve(node, executor, threading.Event())))
    serving.start()
    assert client.wait_for_service(WAIT)
    request = ChangeState.Request(transition=Transition(id=Transition.TRANSITION_UNCONFIGURED_SHUTDOWN))
    asked = client.call_async(request)
    deadline = time.monotonic() + WAIT
    while not asked.done() and not ended and time.monotonic() < deadline:
        wire.executor.spin_once(timeout_sec=0.1)
    assert asked.done() and asked.result().success, "the node ended without an answer"
    serving.join(WAIT)
    assert ended == [0]
    executor.shutdown()
