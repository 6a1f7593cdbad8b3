"""Asking by topic, events of objects, masks of full size, and the action `~/find_object`.

One real node maps a scene for the module, see helpers/ros_session.py.
"""

from __future__ import annotations

import time

import numpy as np
import pytest

pytest.importorskip("rclpy")
interfaces = pytest.importorskip("ovs3d_interfaces.action")
if not hasattr(interfaces, "FindObject"):
    pytest.skip("older ovs3d_interfaces; pip install ./ovs3d_interfaces", allow_module_level=True)
pytestmark = [pytest.mark.ros, pytest.mark.slow]

from action_msgs.msg import GoalStatus  # noqa: E402
from helpers.ros_env import HEIGHT, SPHERES, WIDTH, wait_until  # noqa: E402
from helpers.ros_session import session  # noqa: E402, F401
from rclpy.action import ActionClient  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402

from ovs3d_interfaces.action import FindObject  # noqa: E402
from ovs3d_interfaces.msg import ObjectEvent  # noqa: E402
from ovs3d_interfaces.srv import GetObjects  # noqa: E402
from ovs3d_ros.ros import conversions  # noqa: E402
from ovs3d_ros.ros.outputs.publishers import LATCHED  # noqa: E402

WAIT = 60.0  # seconds


class Search:
    """A goal sent to the node, and its feedback."""

    def __init__(self, session, *prompts: str, timeout: float):
        self.feedback: list[FindObject.Feedback] = []
        run = self._run = session.client.in_executor
        self.client = run(ActionClient, session.client.node, FindObject, "/ovs3d/find_object")
        assert self.client.wait_for_server(WAIT)
        goal = FindObject.Goal(prompts=list(prompts), timeout=timeout)
        sent = run(self.client.send_goal_async, goal, lambda m: self.feedback.append(m.feedback))
        wait_until(sent.done, WAIT)
        self.handle = sent.result()
        self.done = run(self.handle.get_result_async)

    def end(self) -> tuple[int, FindObject.Result]:
        wait_until(self.done.done, WAIT, lambda: str(self.feedback))
        self._run(self.client.destroy)
        return self.done.result().status, self.done.result().result


def place(pose) -> np.ndarray:
    return np.array([pose.position.x, pose.position.y, pose.position.z])


def test_prompt_is_answered_on_the_topics(session):
    publisher = session.client.node.create_publisher(conversions.String, "/ovs3d/prompt", 10)
    wait_until(publisher.get_subscription_count, 30)
    publisher.publish(conversions.String(data="blue ball, purple elephant"))
    wait_until(
        lambda: (
            '"prompt": "purple elephant"'
            in session.client.receive("/ovs3d/label_map", conversions.String, LATCHED).data
        ),
        20,
    )
    labels = session.client.newest["/ovs3d/label_map"].data
    assert '"prompt": "blue ball", "found": true' in labels and '"found": false' in labels
    publisher.publish(conversions.String(data=" , "))
    wait_until(lambda: "~/prompt: prompt 1 is empty" in session.node.output(), 20, session.node.output)
    assert session.client.query("blue ball").found == [True]


def test_object_keeps_its_number_from_query_to_query(session):
    first = session.client.query("red ball", "blue ball").objects
    time.sleep(0.1)
    again = session.client.call(GetObjects, "get_objects", prompts=["blue ball", "red ball"]).objects
    assert {item.label: item.id for item in first} == {item.label: item.id for item in again}
    assert all(item.id > 0 for item in first) and len({item.id for item in first}) == 2
    by_label = {item.label: item for item in again}
    for item in first:
        later = by_label[item.label]
        assert later.first_seen == item.first_seen and later.age >= item.age + 0.09
    newest = session.client.query("red ball").keyframe_stamp
    (red,) = [item for item in first if item.label == "red ball"]
    assert conversions.to_seconds(red.last_seen) >= conversions.to_seconds(newest) - 1e-3


def test_masks_have_the_resolution_that_is_set(session):
    from rcl_interfaces.srv import SetParameters
    from rclpy.parameter import Parameter

    stamp = session.client.query("red ball").keyframe_stamp
    for size, shape in ((80, (HEIGHT // 2, WIDTH // 2)), (0, (HEIGHT, WIDTH))):
        parameter = Parameter("output.mask_size", value=size).to_parameter_msg()
        assert (
            session.client.call(SetParameters, "set_parameters", parameters=[parameter]).results[0].successful
        )
        for stamps in ([], [stamp]):
            (mask,) = session.client.query("red ball", mask_stamps=stamps).masks
            assert (mask.height, mask.width) == shape


def test_search_succeeds_at_once_for_what_is_there(session):
    status, result = Search(session, "purple elephant", "red ball", timeout=10.0).end()
    assert (status, result.error_code, result.prompt) == (GoalStatus.STATUS_SUCCEEDED, 0, "red ball")
    center, radius, _ = SPHERES[0]
    assert np.linalg.norm(place(result.object.pose) - center) < radius and result.object.id > 0
    away = place(result.approach.pose)[:2] - np.array(center[:2])
    assert 0.5 < np.linalg.norm(away) < 2.0 and result.approach.header.frame_id == "map"
    assert result.presence > 0.5 and result.map_version > 0


def test_search_ends_with_its_reason(session):
    search = Search(session, "purple elephant", timeout=1.0)
    status, result = search.end()
    assert (status, result.error_code) == (GoalStatus.STATUS_ABORTED, FindObject.Result.NOT_FOUND)
    assert "purple elephant was found within" in result.error_msg
    asked = [f for f in search.feedback if f.presence]
    assert len(asked) == 1 and asked[0].presence[0] < 0.5  # the map did not change: one answer is enough
    assert search.feedback[-1].elapsed >= 0.9
    for prompts, timeout, problem in (([], 1.0, "no prompt"), (["a"], float("nan"), "timeout is not")):
        status, result = Search(session, *prompts, timeout=timeout).end()
        assert (status, result.error_code) == (GoalStatus.STATUS_ABORTED, FindObject.Result.BAD_REQUEST)
        assert problem in result.error_msg


def test_search_can_be_cancelled_and_only_one_runs(session):
    search = Search(session, "purple elephant", timeout=-1.0)
    wait_until(lambda: search.feedback, 20)
    _, second = Search(session, "red ball", timeout=0.0).end()
    assert second.error_code == FindObject.Result.BUSY
    asked = session.client.in_executor(search.handle.cancel_goal_async)
    wait_until(asked.done, 20)
    status, result = search.end()
    assert (status, result.error_code) == (GoalStatus.STATUS_CANCELED, FindObject.Result.CANCELLED)


def test_search_waits_until_the_object_is_mapped_and_events_tell_of_it(session):
    events: list[ObjectEvent] = []
    session.client.node.create_subscription(ObjectEvent, "/ovs3d/object_events", events.append, 10)
    wait_until(lambda: session.client.node.count_publishers("/ovs3d/object_events"), 20)
    before = session.client.query("red ball").objects[0].id
    assert session.client.call(Trigger, "reset").success
    search = Search(session, "red ball", timeout=120.0)
    wait_until(lambda: search.feedback, 20)
    assert not search.done.done() and search.feedback[-1].map_version == 0
    session.play("--rate", "4")
    status, result = search.end()
    assert (status, result.prompt) == (GoalStatus.STATUS_SUCCEEDED, "red ball")
    assert result.object.id > before  # another map, another object
    wait_until(lambda: any(e.event == ObjectEvent.APPEARED for e in events), 20, lambda: str(events))
    (event,) = [e for e in events if e.object.id == result.object.id and e.event == ObjectEvent.APPEARED]
    assert event.object.label == "red ball" and event.header.frame_id == "map"
