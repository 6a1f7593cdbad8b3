"""Output topics while answers, maps and settings change concurrently; real topics in one process."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest
from helpers import synthetic

pytest.importorskip("rclpy")
pytest.importorskip("ovs3d_interfaces")
pytestmark = pytest.mark.ros

import numpy as np  # noqa: E402
from helpers.ros_wire import needs_tf, wire  # noqa: E402, F401
from std_srvs.srv import Trigger  # noqa: E402

from ovs3d_ros.config import override  # noqa: E402
from ovs3d_ros.ros import conversions  # noqa: E402
from ovs3d_ros.ros.outputs import goal, messages, publishers  # noqa: E402
from ovs3d_ros.ros.outputs.answers import Answer, AnswerStore  # noqa: E402
from ovs3d_ros.ros.outputs.publishers import LATCHED, Outputs  # noqa: E402
from ovs3d_ros.ros.outputs.view import LatestView  # noqa: E402
from ovs3d_ros.ros.services.asking import Asking  # noqa: E402
from ovs3d_ros.ros.services.maps import MapServices  # noqa: E402
from ovs3d_ros.ros.services.vocabulary import Vocabulary  # noqa: E402
from ovs3d_ros.worker import MappingWorker  # noqa: E402

WAIT = 60.0  # seconds; generous, for machines under load


@pytest.fixture(scope="module")
def pipeline():
    return synthetic.build_map(synthetic.make_frames(2), steps=1)


class OutputRig:
    """Outputs of a pipeline whose snapshot the test sets, and the messages that a listener receives."""

    def __init__(self, wire, pipeline):
        self.wire, self.pipeline = wire, pipeline
        self.worker = MappingWorker(pipeline, pipeline.config)
        self.worker._snapshot = pipeline.snapshot()
        node, listener = wire.node("shown"), wire.node("listener")
        self.answers = AnswerStore()
        config = override(pipeline.config, {"output.rate": 20.0})
        self.outputs = Outputs(node, config, pipeline, self.worker, self.answers, LatestView())
        self.newest: dict[str, object] = {}
        topics = {"label_map": conversions.String, "map_cloud": conversions.PointCloud2}
        for topic, kind in topics.items():
            listener.create_subscription(
                kind,
                f"/shown/{topic}",
                lambda message, topic=topic: self.newest.__setitem__(topic, message),
                LATCHED,
            )

    def publish_anew(self) -> None:
        """Publishes the map under a newer version, as if it had changed."""
        snapshot = self.pipeline.snapshot()
        self.worker._snapshot = replace(snapshot, version=self.worker._snapshot.version + 1)

    def answer(self, prompt: str) -> Answer:
        snapshot = self.worker.snapshot
        return Answer(self.pipeline.query([prompt], snapshot=snapshot), snapshot)

    def prompts(self) -> list[str]:
        message = self.newest.get("label_map")
        return [entry["prompt"] for entry in json.loads(message.data)["labels"]] if message else []


def test_answer_set_during_publication_is_shown(wire, pipeline):
    rig = OutputRig(wire, pipeline)
    first, second = rig.answer("red box"), rig.answer("blue box")
    rig.answers.add(first)
    wire.spin_until(lambda: rig.prompts() == ["red box"])
    cloud = rig.outputs._map_topics[0]
    build = cloud._build

    def build_meanwhile(
        snapshot, header, config
    ):  # as if the query service finished on its thread in between
        cloud._build = build
        rig.answers.add(second)
        return build(snapshot, header, config)

    cloud._build = build_meanwhile
    rig.publish_anew()
    wire.spin_until(lambda: rig.prompts() == ["blue box"], 5.0, lambda: str(rig.prompts()))


def test_answer_from_replaced_map_is_not_shown(wire, pipeline):
    rig = OutputRig(wire, pipeline)
    rig.answers.add(rig.answer("red box"))
    wire.spin_until(lambda: rig.prompts() == ["red box"])
    late = rig.answer("blue box")
    rig.answers.discard_map(rig.worker.snapshot)
    rig.publish_anew()
    rig.answers.add(late)
    assert rig.answers.query is None
    wire.spin_until(lambda: rig.prompts() == [])
    rig.answers.add(rig.answer("green box"))
    wire.spin_until(lambda: rig.prompts() == ["green box"])


def test_output_parameters_act_on_an_unchanged_map(wire, pipeline):
    rig = OutputRig(wire, pipeline)
    wire.spin_until(lambda: "map_cloud" in rig.newest)
    assert rig.newest["map_cloud"].width > 100
    rig.outputs.configure(override(pipeline.config, {"output.max_points": 100}))
    wire.spin_until(lambda: rig.newest["map_cloud"].width <= 100, 5.0)


def test_messages_of_an_old_map_are_stamped_now(wire, pipeline):
    rig = OutputRig(wire, pipeline)
    rig.answers.add(rig.answer("red box"))
    wire.spin_until(lambda: "map_cloud" in rig.newest and rig.prompts())
    newest = rig.worker.snapshot.stamps.max()
    assert newest < 1e6  # seconds since 1970: decades ago
    assert abs(conversions.to_seconds(rig.newest["map_cloud"].header.stamp) - time.time()) < 30
    assert json.loads(rig.newest["label_map"].data)["keyframe_stamp"] == newest


def test_late_subscriber_gets_a_stamp_that_tf_remembers(wire, pipeline, monkeypatch):
    monkeypatch.setattr(publishers, "MAX_AGE", 0.2)
    rig = OutputRig(wire, pipeline)
    wire.spin_until(lambda: "map_cloud" in rig.newest)
    first = conversions.to_seconds(rig.newest["map_cloud"].header.stamp)
    wire.spin(0.5)
    assert conversions.to_seconds(rig.newest["map_cloud"].header.stamp) == first  # nobody is disturbed
    late: list[float] = []
    wire.node("late").create_subscription(
        conversions.PointCloud2,
        "/shown/map_cloud",
        lambda m: late.append(conversions.to_seconds(m.header.stamp)),
        LATCHED,
    )
    wire.spin_until(lambda: late and late[-1] > first + 0.4)


def test_goal_waits_for_a_subscriber_but_not_for_ever(wire, pipeline, monkeypatch, capfd):
    monkeypatch.setattr(goal, "PATIENCE", 0.5)
    rig, goals = OutputRig(wire, pipeline), []
    rig.answers.add(rig.answer("red box"))
    wire.spin_until(lambda: "nobody subscribes to ~/goal_pose" in capfd.readouterr().err)
    planner = wire.node("planner")
    monkeypatch.setattr(goal, "PATIENCE", 30.0)
    rig.answers.add(rig.answer("red box"))
    wire.spin(0.3)
    planner.create_subscription(conversions.PoseStamped, "/shown/goal_pose", goals.append, 1)
    wire.spin_until(lambda: goals)
    wire.spin(0.3)
    assert len(goals) == 1


def test_output_continues_after_an_exception(wire, pipeline, monkeypatch, caplog):
    rig = OutputRig(wire, pipeline)
    config = override(pipeline.config, {"output.rate": 20.0, "output.vocabulary": ["red box"]})
    node = wire.node("vocabulary")
    asking = Asking(node, config, pipeline, rig.answers, LatestView())
    Vocabulary(node, config, pipeline, rig.worker, rig.answers, rig.outputs, asking)
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "answer", lambda *_, **__: [][0])
        patch.setattr(rig.outputs._map_topics[0], "_build", lambda *_: 1 / 0)
        wire.spin_until(lambda: "IndexError" in caplog.text and "ZeroDivisionError" in caplog.text)
    assert "vocabulary: IndexError" in caplog.text and "outputs: ZeroDivisionError" in caplog.text
    rig.publish_anew()
    wire.spin_until(lambda: rig.prompts() == ["red box"] and "map_cloud" in rig.newest)


def test_reset_discards_answers_from_the_old_map(wire):
    pipeline = synthetic.build_map(synthetic.make_frames(2), steps=1)
    rig = OutputRig(wire, pipeline)
    worker = MappingWorker(pipeline, pipeline.config)
    worker.start()
    rig.worker._snapshot = worker.snapshot
    late = rig.answer("red box")
    services = MapServices(wire.node("services"), pipeline.config, pipeline, worker, rig.answers)
    assert services._reset(Trigger.Request(), Trigger.Response()).success
    for frame in synthetic.make_frames(2):
        worker.submit(frame)
    assert worker.wait_idle(WAIT)
    rig.worker._snapshot = worker.snapshot
    rig.answers.add(late)
    assert rig.answers.query is None
    rig.answers.add(rig.answer("blue box"))
    assert rig.answers.query.prompts == ("blue box",)
    assert worker.stop(WAIT)


@needs_tf
def test_clouds_of_a_far_map_are_in_a_near_frame_that_tf_knows(wire):
    utm = np.array([449_000.0, 4_158_000.0, 0.0])
    frames = synthetic.make_frames(2)
    for frame in frames:
        frame.camtoworld[:3, 3] += utm
    far = synthetic.build_map(frames, steps=1)
    rig, transforms = OutputRig(wire, far), []
    wire.node("transforms").create_subscription(
        conversions.tf_message_type(), "/tf_static", transforms.append, LATCHED
    )
    wire.spin_until(lambda: "map_cloud" in rig.newest and transforms)
    cloud = conversions.from_cloud(rig.newest["map_cloud"])
    (transform,) = transforms[0].transforms
    assert transform.header.frame_id == "map"
    assert transform.child_frame_id == rig.newest["map_cloud"].header.frame_id == "map_ovs3d"
    origin = transform.transform.translation
    means = far.snapshot().gaussians["means"].double().numpy() + far.snapshot().frame.origin
    assert len(np.unique(cloud["y"])) > 0.9 * len(cloud)
    assert abs(np.median(cloud["y"]) + origin.y - np.median(means[:, 1])) < 0.2
    answer, header = rig.answer("red box"), rig.newest["map_cloud"].header
    goal = rig.outputs.goals.find(answer, answer.result.objects[0], far.config)
    assert (np.abs(goal[:2, 3] - utm[:2]) < 3).all()
    grid = messages.build_grid(answer, header, far.config).info.origin.position
    assert abs(grid.y - utm[1]) < 4
    assert messages.build_query_cloud(answer, header, far.config).header.frame_id == "map_ovs3d"
