"""Lifecycle and runtime parameters of the node over DDS, and its end when the mapping thread fails.

One node serves the module; its tests run in order.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("ovs3d_interfaces.action")

from action_msgs.msg import GoalStatus
from helpers.ros_env import Process, use_child_environment, wait_until, write_dataset
from helpers.ros_session import FRAMES, SETTINGS, Goal, Session, start_node
from helpers.ros_wire import needs_tf
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.msg import ParameterType
from rcl_interfaces.srv import DescribeParameters, GetParameters, SetParameters
from rclpy.parameter import Parameter

from ovs3d_interfaces.action import Refine
from ovs3d_interfaces.srv import QueryText
from ovs3d_ros.config import leaves
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.ros import conversions
from ovs3d_ros.ros.environment import free_domain_id
from ovs3d_ros.ros.outputs.publishers import LATCHED

pytestmark = [pytest.mark.ros, pytest.mark.slow, needs_tf]
INPUTS = ("/image", "/camera_info", "/depth", "/pose")


@pytest.fixture(scope="module")
def session(tmp_path_factory) -> Iterator[Session]:
    with pytest.MonkeyPatch.context() as patch:
        use_child_environment(patch)
        folder = tmp_path_factory.mktemp("node")
        patch.setenv("WEIGHTS", str(folder / "weights"))
        session = Session(
            folder,
            {
                "autostart": "false",
                "clip.model": "helpers.color_encoder:LateEncoder",
                "output.vocabulary": "[blue ball, red ball]",
                "output.camera_tf": "true",
            },
        )
        try:
            session.node.wait_for("waiting to be configured", 120)
            yield session
        finally:
            session.close()


def state(session) -> str:
    return session.client.call(GetState, "get_state").current_state.label


def change(session, transition: int) -> bool:
    return session.client.call(
        ChangeState, "change_state", 180.0, transition=Transition(id=transition)
    ).success


def listened_to(session) -> list[str]:
    return [topic for topic in INPUTS if session.client.node.count_subscribers(topic)]


def services(session) -> set[str]:
    offered = dict(session.client.node.get_service_names_and_types_by_node("ovs3d", "/"))
    return {
        name.rpartition("/")[2]
        for name, kinds in offered.items()
        if kinds[0].startswith(("ovs3d", "std_srvs")) and "/_action/" not in name
    }


def set_parameters(session, **values) -> list:
    parameters = [
        Parameter(name.replace("__", "."), value=value).to_parameter_msg() for name, value in values.items()
    ]
    return session.client.call(SetParameters, "set_parameters", parameters=parameters).results


def test_without_autostart_node_waits_to_be_configured(session):
    assert state(session) == "unconfigured"
    assert not listened_to(session) and not services(session)
    status, result = Goal(session, ["red ball"]).end()
    assert (status, result.error_code) == (GoalStatus.STATUS_ABORTED, Refine.Result.NO_MAP)
    assert "not configured" in result.error_msg
    wait_until(lambda: "ros2 lifecycle set /ovs3d configure" in session.client.diagnostic(": mapping")[0], 20)
    wait_until(lambda: "ros2 lifecycle set /ovs3d activate" in session.client.diagnostic(": input")[0], 20)


def test_failed_configure_gives_reason_and_can_be_repeated(session):
    assert not change(session, Transition.TRANSITION_CONFIGURE)
    assert state(session) == "unconfigured"
    wait_until(
        lambda: "the weights are not there; fetch them" in session.client.diagnostic(": mapping")[0], 20
    )
    assert "Traceback" not in session.node.output()
    (session.folder / "weights").touch()
    assert change(session, Transition.TRANSITION_CONFIGURE)
    assert state(session) == "inactive"
    assert {"query", "save_map", "reset"} <= services(session) and not listened_to(session)
    assert session.client.query("red ball").error_code == QueryText.Response.NO_MAP


def test_active_node_maps(session):
    assert change(session, Transition.TRANSITION_ACTIVATE)
    assert state(session) == "active"
    wait_until(lambda: len(listened_to(session)) == len(INPUTS), 20)
    session.client.listen("/tf", conversions.tf_message_type(), 10)
    session.play("--rate", "4")
    session.settle(FRAMES)
    assert session.client.query("red ball").found == [True]
    (transform,) = session.client.newest["/tf"].transforms
    assert (transform.header.frame_id, transform.child_frame_id) == ("map", "camera_optical_frame")


def test_configured_vocabulary_is_labelled_without_a_query(session):
    def labels() -> list[tuple[str, bool]]:
        message = session.client.receive("/ovs3d/label_map", conversions.String, LATCHED)
        return [(entry["prompt"], entry["found"]) for entry in json.loads(message.data)["labels"]]

    wait_until(lambda: labels() == [("blue ball", True), ("red ball", True)], 30, lambda: str(labels()))


def test_every_parameter_is_described_and_marked_read_only(session):
    specs = [spec for spec, _ in leaves()]
    answer = session.client.call(DescribeParameters, "describe_parameters", names=[s.path for s in specs])
    for spec, told in zip(specs, answer.descriptors, strict=True):
        assert spec.doc in told.description and told.read_only == (not spec.runtime), spec.path
    assert {s.path for s in specs if s.runtime} >= {"query.threshold", "query.presence", "map.max_gaussians"}


def test_runtime_parameters_act_at_once(session):
    assert session.client.query("red ball").objects
    (result,) = set_parameters(session, query__min_instance=100_000)
    assert result.successful, result.reason
    assert not session.client.query("red ball").objects
    (result,) = set_parameters(session, query__min_instance=12)
    assert result.successful and session.client.query("red ball").objects
    for presence, found in ((1.0, False), (0.5, True)):
        assert set_parameters(session, query__presence=presence)[0].successful
        assert session.client.query("red ball").found == [found]
    (result,) = set_parameters(session, query__negatives=["wall", "floor"])
    assert result.successful, result.reason
    stored = session.client.call(GetParameters, "get_parameters", names=["query.negatives"]).values[0]
    assert stored.type == ParameterType.PARAMETER_STRING_ARRAY and stored.string_array_value == [
        "wall",
        "floor",
    ]


@pytest.mark.parametrize(
    "name, value, reason",
    [
        ("query.presence", 1.5, "query.presence out of range"),
        ("query.presence", float("nan"), "query.presence"),
        ("query.presence", "high", "type"),
        ("query.min_instance", 0, "query.min_instance out of range"),
        ("query.negatives", [""], "negative 1 is empty"),
        ("query.negatives", ["x" * 10_000], "10000 characters"),
        ("query.negatives", [], "Wrong parameter type"),
        ("map.max_gaussians", 5, "map.max_gaussians out of range"),
        ("map.directory", "/", "read-only parameter: map.directory"),
        ("output.save_on_exit", "/etc/passwd", "read-only"),
        ("clip.model", "os:system", "read-only"),
        ("pose_source", "gps", "read-only"),
    ],
)
def test_bad_parameter_values_are_refused_with_a_reason(session, name, value, reason):
    before = session.client.call(GetParameters, "get_parameters", names=[name]).values[0]
    (result,) = set_parameters(session, **{name: value})
    assert not result.successful and reason in result.reason
    assert session.client.call(GetParameters, "get_parameters", names=[name]).values[0] == before
    assert session.client.query("red ball").found == [True]


def test_inactive_node_ignores_images_and_still_answers(session):
    assert change(session, Transition.TRANSITION_DEACTIVATE)
    assert state(session) == "inactive"
    wait_until(lambda: not listened_to(session), 20)
    assert session.client.query("red ball").found == [True]
    assert change(session, Transition.TRANSITION_ACTIVATE)
    received = int(session.client.value(": mapping", "frames_received"))
    session.play("--rate", "4")
    session.settle(received + FRAMES)


def test_cleanup_writes_the_map_and_frees_it(session):
    assert not change(session, Transition.TRANSITION_CLEANUP)  # active: not allowed
    assert change(session, Transition.TRANSITION_DEACTIVATE)
    assert change(session, Transition.TRANSITION_CLEANUP)
    assert state(session) == "unconfigured"
    wait_until(lambda: not services(session), 20)
    assert list(Ovs3d.load(session.saved).query(["red ball"]).found) == [True]
    assert change(session, Transition.TRANSITION_CONFIGURE)
    assert session.client.query("red ball").error_code == QueryText.Response.NO_MAP


def test_shutdown_ends_the_process(session):
    assert change(session, Transition.TRANSITION_INACTIVE_SHUTDOWN)
    assert session.node.wait(60) == 0
    assert "Traceback" not in session.node.output()


def test_failing_mapping_thread_ends_node_and_saves_map(tmp_path):
    domain_id = free_domain_id()
    settings = {
        **SETTINGS,
        "clip.model": "helpers.color_encoder:FragileEncoder",
        "map.directory": tmp_path / "maps",
    }
    node = start_node(settings, domain_id, tmp_path / "node.log")
    player = Process(
        "ovs3d_ros.ros.play",
        [str(write_dataset(tmp_path / "tiny", 8)), "--wait", "120", "--loop"],
        domain_id,
        tmp_path / "play.log",
    )
    try:
        assert node.wait(180) == 1
        assert "the mapping thread failed: the encoder wore out" in node.output()
        rescued = Ovs3d.load(
            tmp_path / "maps" / "rescued.ovs3d", {"clip.model": "helpers.color_encoder:ColorEncoder"}
        )
        # Three have features. The fourth has colours, and so may others that the encoder did not come to.
        assert rescued.stats["num_gaussians"] > 500 and 4 <= len(rescued.snapshot().stamps) <= 6
    finally:
        player.stop(signal.SIGKILL)
