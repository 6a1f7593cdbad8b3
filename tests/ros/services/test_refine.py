"""`~/refine` over DDS: feedback, result, refusals and cancellation, also while the node maps.

One node serves the module; its tests run in order. A gate file stops a refinement in its check on demand.
"""

from __future__ import annotations

import signal

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("ovs3d_interfaces.action")
pytestmark = [pytest.mark.ros, pytest.mark.slow]

from action_msgs.msg import GoalStatus  # noqa: E402
from helpers.ros_env import SPHERES, use_child_environment, wait_until  # noqa: E402
from helpers.ros_session import FRAMES, Goal, Session, documented, session, timeless  # noqa: E402, F401
from rclpy.action import get_action_server_names_and_types_by_node  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402

from ovs3d_interfaces.action import Refine  # noqa: E402
from ovs3d_interfaces.srv import GetNames, GetObjects, LoadMap, SaveMap  # noqa: E402
from ovs3d_ros.ros import conversions  # noqa: E402

NAMES = ["red ball", "blue ball", "green ball", "grey floor"]
WAIT = 60.0  # seconds


@pytest.fixture
def gate(session):
    """A gate file that stops a refinement in its check until the test unlinks it."""
    path = session.folder / "gate"
    path.touch()
    yield path
    path.unlink(missing_ok=True)


def test_documentation_lists_actions_of_running_node(session):
    offered = dict(get_action_server_names_and_types_by_node(session.client.node, "ovs3d", "/"))
    assert (
        offered
        == {
            row[0].strip("`").replace("~", "/ovs3d"): [row[1].strip("`").replace("/", "/action/")]
            for row in documented("action")
        }
        != {}
    )


@pytest.mark.parametrize(
    "names, problem",
    [
        ([], "no name"),
        ([""], "name 1 is empty"),
        (["a"] * 129, "129 names"),
        (["x" * 10_000], "10000 characters"),
    ],
)
def test_refine_aborts_with_reason_for_bad_names(session, names, problem):
    status, result = Goal(session, names).end()
    assert (status, result.error_code) == (GoalStatus.STATUS_ABORTED, Refine.Result.BAD_REQUEST)
    assert problem in result.error_msg and "\n" not in result.error_msg and not result.accepted
    assert session.node.child.poll() is None


def test_cancelled_refinement_changes_nothing_and_blocks_nobody(session, gate):
    before = session.client.query(*NAMES)
    goal = Goal(session, NAMES)
    goal.wait_for_stage("aligning")
    status, result = Goal(session, ["red ball"]).end()
    assert (status, result.error_code) == (GoalStatus.STATUS_ABORTED, Refine.Result.BUSY)
    assert "another refinement runs" in result.error_msg
    again = session.client.query(*NAMES)
    assert (again.map_version, again.cloud.data) == (before.map_version, before.cloud.data)
    received = int(session.client.value(": mapping", "frames_received"))
    session.play("--rate", "8")
    session.settle(received + FRAMES)
    grown = session.client.query(*NAMES)
    assert grown.map_version > before.map_version, "the node maps while the refinement waits"
    assert goal.cancel() == 1
    gate.unlink()
    status, result = goal.end()
    assert (status, result.error_code) == (GoalStatus.STATUS_CANCELED, Refine.Result.CANCELLED)
    assert not result.accepted and "keeps its labels" in result.error_msg
    after = session.client.query(*NAMES)
    assert (after.map_version, after.cloud.data) == (grown.map_version, grown.cloud.data)


def test_refinement_reports_progress_and_its_labels_are_used(session):
    before = session.client.query(*NAMES)
    goal = Goal(session, NAMES)
    status, result = goal.end()
    assert (status, result.error_code, result.error_msg) == (
        GoalStatus.STATUS_SUCCEEDED,
        Refine.Result.OK,
        "",
    )
    stages = list(dict.fromkeys(f.stage for f in goal.feedback))
    assert stages == ["sharpening", "aligning", "checking", "done"]
    for told in goal.feedback:
        assert told.step <= told.steps and told.elapsed > 0 and told.psnr > 15
        assert not told.eta < 0 and (told.step == 0 or np.isfinite(told.eta))
    assert [f.elapsed for f in goal.feedback] == sorted(f.elapsed for f in goal.feedback)
    assert np.isnan(goal.feedback[0].loss) and goal.feedback[-1].loss == result.after
    assert result.accepted == (result.after < result.before) and result.checked_views >= 4
    assert result.accepted, result.message
    refined = session.client.query(*NAMES)
    assert refined.map_version >= result.map_version > before.map_version
    assert list(refined.found) == [True] * 4 and refined.cloud.data != before.cloud.data
    (ball,) = [item for item in refined.objects if item.label == "red ball"]
    center = np.array([ball.pose.position.x, ball.pose.position.y, ball.pose.position.z])
    assert np.linalg.norm(center - SPHERES[0][0]) < SPHERES[0][1]
    objects = session.client.call(GetObjects, "get_objects", prompts=NAMES).objects
    assert timeless(objects) == timeless(refined.objects) != timeless(before.objects)
    assert list(session.client.call(GetNames, "get_names").refined) == NAMES


def test_training_tells_its_losses(tmp_path, monkeypatch):
    use_child_environment(monkeypatch)
    training = Session(tmp_path, {"refine.train_steps": 5, "refine.check_views": 4})
    try:
        training.run()
        goal = Goal(training, NAMES)
        status, result = goal.end()
    finally:
        training.close()
    assert (status, result.error_code) == (GoalStatus.STATUS_SUCCEEDED, Refine.Result.OK), result.error_msg
    losses = [told.loss for told in goal.feedback if told.stage == "training"]
    assert len(losses) == 5 and np.isfinite(losses).all() and len(set(losses)) > 1


def test_other_names_are_not_refined(session):
    answer = session.client.query("red ball", "purple elephant")
    assert list(answer.found) == [True, False]
    assert timeless(session.client.call(GetObjects, "get_objects").objects) == timeless(answer.objects)


def test_refined_labels_are_drawn_and_survive_mapping_and_saving(session):
    def drawn() -> set[int]:
        image = session.client.receive("/ovs3d/segmentation/label", conversions.Image, 1)
        return set(np.unique(np.frombuffer(image.data, np.uint8)).tolist())

    session.client.query(*NAMES)
    wait_until(lambda: drawn() >= {1, 4}, 30, lambda: str(drawn()))
    received = int(session.client.value(": mapping", "frames_received"))
    session.play("--rate", "4")
    session.settle(received + FRAMES)
    assert session.client.call(SaveMap, "save_map", name="refined.ovs3d").error_code == 0
    scores = {item.label: item.score for item in session.client.query(*NAMES).objects}
    assert session.client.call(LoadMap, "load_map", name="refined.ovs3d").error_code == 0
    for item in session.client.query(*NAMES).objects:  # the file contains the refined labels
        assert item.score == pytest.approx(scores[item.label], abs=0.01)


def test_refinement_of_loaded_map_is_not_checked(session):
    status, result = Goal(session, NAMES).end()
    assert (status, result.error_code, result.accepted) == (
        GoalStatus.STATUS_SUCCEEDED,
        Refine.Result.OK,
        True,
    )
    assert result.checked_views == 0 and np.isnan([result.before, result.after]).all()
    assert "not checked" in result.message


def test_refined_labels_are_discarded_when_map_is_replaced(session, gate):
    session.play("--rate", "8")  # adds images to check on; a loaded map has none
    goal = Goal(session, NAMES)
    goal.wait_for_stage("aligning")
    assert session.client.call(Trigger, "reset").success
    gate.unlink()
    status, result = goal.end()
    assert not result.accepted and result.map_version == 0
    if status == GoalStatus.STATUS_ABORTED:
        assert (result.error_code, "replaced" in result.error_msg) == (Refine.Result.BAD_REQUEST, True)
    status, result = Goal(session, NAMES).end()
    assert (status, result.error_code) == (GoalStatus.STATUS_ABORTED, Refine.Result.NO_MAP)
    assert session.client.call(LoadMap, "load_map", name="refined.ovs3d").error_code == 0


def test_sigint_ends_the_node_during_a_refinement(session):
    goal = Goal(session, NAMES)
    wait_until(lambda: goal.feedback, WAIT)
    assert session.node.stop(signal.SIGINT, WAIT) == 0, session.node.output()
    assert "Traceback" not in session.node.output()
