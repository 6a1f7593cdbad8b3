"""Outputs for planners and RViz, and their description in the documentation and the RViz configuration.

One real node maps a scene for the module, see helpers/ros_session.py.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

import numpy as np
import pytest
import yaml

pytest.importorskip("rclpy")
pytest.importorskip("ovs3d_interfaces")
pytestmark = [pytest.mark.ros, pytest.mark.slow]

from helpers.ros_env import SPHERES, has_messages, wait_until  # noqa: E402
from helpers.ros_session import FRAMES, Client, documented, session  # noqa: E402, F401
from rclpy.qos import DurabilityPolicy, ReliabilityPolicy  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402
from visualization_msgs.msg import Marker  # noqa: E402

from ovs3d_interfaces.srv import GetObjects, SetVocabulary  # noqa: E402
from ovs3d_ros.config import Config  # noqa: E402
from ovs3d_ros.datasets import open_dataset  # noqa: E402
from ovs3d_ros.ros import conversions  # noqa: E402
from ovs3d_ros.ros.outputs.goal import PATIENCE  # noqa: E402
from ovs3d_ros.ros.outputs.publishers import LATCHED  # noqa: E402

MISSING = [name for name in ("vision_msgs", "nav2_msgs") if not has_messages(name)]
REPOSITORY = Path(__file__).resolve().parents[3]
# Display class of rviz_default_plugins -> message type; None for displays without a topic.
DISPLAYS = {
    "PointCloud2": conversions.PointCloud2,
    "Marker": conversions.Marker,
    "MarkerArray": conversions.MarkerArray,
    "PoseArray": conversions.PoseArray,
    "Map": conversions.OccupancyGrid,
    "Path": conversions.Path,
    "Image": conversions.Image,
    "Grid": None,
    "TF": None,
}


def position(pose) -> np.ndarray:
    return np.array([pose.position.x, pose.position.y, pose.position.z])


def test_documentation_lists_outputs_of_running_node(session):
    node = session.client.node
    rows = [row for row in documented("output") if not any(name in row[1] for name in MISSING)]
    offered = dict(node.get_publisher_names_and_types_by_node("ovs3d", "/"))
    ours = {
        name: kinds[0]
        for name, kinds in offered.items()
        if "rcl_interfaces" not in kinds[0] and "lifecycle_msgs" not in kinds[0] and "/_action/" not in name
    }
    package_type = {
        row[0].strip("`").replace("~", "/ovs3d"): row[1].strip("`").replace("/", "/msg/") for row in rows
    }
    assert package_type == ours
    for row in rows:
        (info,) = [
            i
            for i in node.get_publishers_info_by_topic(row[0].strip("`").replace("~", "/ovs3d"))
            if i.node_name == "ovs3d"
        ]
        latched = info.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL
        assert info.qos_profile.reliability == ReliabilityPolicy.RELIABLE
        assert row[2] == ("reliable, latched" if latched else "reliable"), row[0]


def test_documentation_lists_inputs_of_running_node(session):
    kinds = {}
    for row in documented("input"):
        names, types = (re.findall(r"`([~\w/]+)`", cell) for cell in row[:2])
        types += types[-1:] * (len(names) - len(types))  # one type for all names of the row
        package = types[0].partition("/")[0]
        kinds |= {
            name.replace("~", "ovs3d"): f"{package}/msg/{kind.rpartition('/')[2]}"
            for name, kind in zip_longest(names, types, fillvalue=types[-1])
        }
    taken = dict(session.client.node.get_subscriber_names_and_types_by_node("ovs3d", "/"))
    ours = {
        name: types[0]
        for name, types in taken.items()
        if not name.startswith(("/parameter_events", "/clock"))
    }
    assert {name: kinds[name.lstrip("/")] for name in ours} == ours
    assert {"/image", "/camera_info", "/depth", "/pose"} <= set(ours)


def test_late_subscribers_get_markers_poses_and_keyframes(session):
    answer = session.client.query("red ball", "blue ball", "purple elephant")
    markers = session.client.receive("/ovs3d/markers", conversions.MarkerArray, LATCHED).markers
    assert (markers[0].action, markers[0].header.frame_id) == (Marker.DELETEALL, "map")
    boxes = [m for m in markers if m.ns == "boxes"]
    texts = [m for m in markers if m.ns == "labels"]
    assert len(markers) == 1 + 2 * len(answer.objects)
    for box, text, item in zip(boxes, texts, answer.objects, strict=True):
        assert (box.type, text.type) == (Marker.CUBE, Marker.TEXT_VIEW_FACING)
        assert (box.pose, box.scale, box.id) == (item.pose, item.size, item.instance)
        assert text.text == f"{item.label} {item.score:.2f}" and text.scale.z > 0 and text.color.a == 1
        assert text.scale.x == pytest.approx(0.6 * text.scale.z)  # RViz spaces letters by it
        assert text.pose.position.z > item.pose.position.z
    poses = session.client.receive("/ovs3d/object_poses", conversions.PoseArray, LATCHED)
    assert poses.poses == [item.pose for item in answer.objects] and poses.header.frame_id == "map"
    path = session.client.receive("/ovs3d/keyframes", conversions.Path, LATCHED)
    truth = [frame.camtoworld for frame in open_dataset(session.data)]
    assert len(path.poses) >= 4 and path.header.frame_id == "map"
    np.testing.assert_allclose(conversions.from_pose(path.poses[0].pose, "path"), truth[0], atol=1e-6)
    stamps = [conversions.to_seconds(p.header.stamp) for p in path.poses]
    assert stamps == sorted(stamps) and stamps[0] > 1e9


@pytest.mark.skipif(
    "vision_msgs" in MISSING, reason="vision_msgs not installed; pip install ./tests/vision_msgs"
)
def test_detections_match_objects(session):
    from vision_msgs.msg import Detection3DArray, LabelInfo

    answer = session.client.query("red ball", "blue ball", "purple elephant")
    message = session.client.receive("/ovs3d/detections", Detection3DArray, LATCHED)
    assert (
        message.header.frame_id == answer.header.frame_id
        and len(message.detections) == len(answer.objects) == 2
    )
    for found, item in zip(message.detections, answer.objects, strict=True):
        (result,) = found.results
        assert (result.hypothesis.class_id, found.id) == (item.label, str(item.id))
        assert result.hypothesis.score == pytest.approx(item.score) and found.header == message.header
        assert (found.bbox.center, found.bbox.size, result.pose.pose) == (item.pose, item.size, item.pose)
    info = session.client.receive("/ovs3d/label_info", LabelInfo, LATCHED)
    assert [(c.class_id, c.class_name) for c in info.class_map] == [
        (1, "red ball"),
        (2, "blue ball"),
        (3, "purple elephant"),
    ]


@pytest.fixture
def late_client(session) -> Iterator[Client]:
    """A client of its own, so that the other tests still find no subscriber on their topics."""
    client = Client(session.domain_id)
    yield client
    client.close()


def test_rviz_shows_what_the_node_publishes(session, late_client):
    tree = yaml.safe_load((REPOSITORY / "config/ovs3d.rviz").read_text(encoding="utf-8"))[
        "Visualization Manager"
    ]
    assert tree["Global Options"]["Fixed Frame"] == Config().input.world_frame
    session.client.query("red ball")
    shown = set()
    for display in tree["Displays"]:
        package, _, kind = display["Class"].partition("/")
        assert package == "rviz_default_plugins" and kind in DISPLAYS
        if DISPLAYS[kind] is None:
            continue
        topic = display["Topic"]
        (info,) = session.client.node.get_publishers_info_by_topic("/" + topic["Value"])
        package, name = DISPLAYS[kind].__module__.partition(".")[0], DISPLAYS[kind].__name__
        assert (info.node_name, info.topic_type) == ("ovs3d", f"{package}/msg/{name}"), display["Name"]
        latched = info.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL
        assert topic["Durability Policy"] == ("Transient Local" if latched else "Volatile")
        assert topic["Reliability Policy"] == "Reliable"
        message = late_client.receive("/" + topic["Value"], DISPLAYS[kind], LATCHED if latched else 1)
        if kind == "MarkerArray":
            assert set(display["Namespaces"]) == {m.ns for m in message.markers if m.action == Marker.ADD}
        elif kind == "Marker":
            assert (set(display["Namespaces"]), message.action) == ({message.ns}, Marker.ADD)
        elif kind == "PointCloud2":
            assert display["Color Transformer"] == "RGB8" and "rgb" in [f.name for f in message.fields]
            assert message.width > 0
        shown.add(topic["Value"].removeprefix("ovs3d/"))
    assert shown == {
        "map_cloud",
        "query_cloud",
        "markers",
        "object_poses",
        "goal_marker",
        "query_grid",
        "keyframes",
        "segmentation/overlay",
    }


def test_foxglove_shows_what_the_node_publishes(session):
    layout = json.loads((REPOSITORY / "config/ovs3d_foxglove.json").read_text(encoding="utf-8"))
    panels, text = layout["configById"], json.dumps(layout["layout"])
    assert all(f'"{name}"' in text for name in panels), "a panel has no place in the layout"
    scene = panels["3D!map"]
    assert scene["followTf"] == Config().input.world_frame
    shown = {
        **dict.fromkeys(scene["topics"], None),
        panels["Image!answer"]["imageMode"]["imageTopic"]: "sensor_msgs/msg/Image",
        panels["RawMessages!labels"]["topicPath"]: "std_msgs/msg/String",
        panels["DiagnosticSummary!state"]["topicToRender"]: "diagnostic_msgs/msg/DiagnosticArray",
    }
    drawn = {
        f"{kind.__module__.partition('.')[0]}/msg/{kind.__name__}"
        for kind in DISPLAYS.values()
        if kind is not None
    }
    for topic, kind in shown.items():
        (info,) = session.client.node.get_publishers_info_by_topic(topic)
        assert info.node_name == "ovs3d" and info.topic_type in ({kind} if kind else drawn), topic
    find = panels["Publish!find"]
    (info,) = session.client.node.get_subscriptions_info_by_topic(find["topicName"])
    assert (info.node_name, info.topic_type) == ("ovs3d", find["datatype"])
    assert conversions.String(**json.loads(find["value"])).data


def test_query_cloud_holds_labelled_points_alone(session, late_client):
    """Points without a label are those of ~/map_cloud; published twice they darken it in RViz."""
    answer = session.client.query("red ball", "purple elephant")
    topic = "/ovs3d/query_cloud"
    late_client.listen(topic, conversions.PointCloud2, LATCHED)

    def labels() -> list[int]:
        cloud = late_client.newest.get(topic)
        return conversions.from_cloud(cloud)["label"].tolist() if cloud else []

    wait_until(lambda: 0 < len(labels()) == answer.cloud.width, 20, lambda: f"{len(labels())} points")
    assert set(labels()) == {1}


def test_query_grid_is_high_at_the_object(session):
    session.client.query("red ball")
    wait_until(
        lambda: session.client.receive("/ovs3d/query_grid", conversions.OccupancyGrid, LATCHED).data, 20
    )
    grid = session.client.newest["/ovs3d/query_grid"]
    cells = np.array(grid.data, np.int8).reshape(grid.info.height, grid.info.width)
    assert set(np.sign(np.unique(cells))) == {-1, 0, 1} and cells.max() <= 100
    rows, columns = np.nonzero(cells > 50)
    center = np.array([columns.mean(), rows.mean()]) + 0.5
    found = center * grid.info.resolution + [grid.info.origin.position.x, grid.info.origin.position.y]
    (x, y, _), radius, _ = SPHERES[0]
    assert np.linalg.norm(found - [x, y]) < radius
    assert (grid.info.resolution, grid.header.frame_id) == (pytest.approx(0.05), "map")


def test_goal_faces_the_object_and_is_not_latched(session):
    topic = "/ovs3d/goal_pose"
    session.client.query("green ball")
    wait_until(
        lambda: "green ball" in session.client.receive("/ovs3d/label_map", conversions.String, LATCHED).data,
        20,
    )
    time.sleep(PATIENCE + 0.5)  # so long the goal waits for a subscriber
    session.client.listen(topic, conversions.PoseStamped, 1)
    wait_until(lambda: session.client.node.count_publishers(topic), 20)
    time.sleep(1.0)  # ten times the delay of an answer: no goal may arrive
    assert topic not in session.client.newest

    def asked() -> bool:
        session.client.query("blue ball")
        return topic in session.client.newest

    wait_until(asked, 30)
    assert abs(conversions.to_seconds(session.client.newest[topic].header.stamp) - time.time()) < 30
    goal = session.client.newest[topic].pose
    (x, y, _), _radius, _ = SPHERES[1]
    away = np.array([goal.position.x - x, goal.position.y - y])
    assert 0.5 < np.linalg.norm(away) < 2.0 and goal.position.z == 0
    facing = conversions.from_pose(goal, topic)[:2, 0]
    np.testing.assert_allclose(facing, -away / np.linalg.norm(away), atol=0.2)


def read_label_map(session) -> tuple[list[str], int]:
    """The prompts and the map version on `~/label_map`."""
    labels = json.loads(session.client.receive("/ovs3d/label_map", conversions.String, LATCHED).data)
    return [entry["prompt"] for entry in labels["labels"]], labels["map_version"]


def test_vocabulary_is_labelled_again_as_the_map_grows(session):
    names = ["blue ball", "red ball"]
    assert session.client.call(SetVocabulary, "set_vocabulary", names=names).error_code == 0
    answer = session.client.call(GetObjects, "get_objects")
    wait_until(lambda: read_label_map(session)[0] == names, 20, lambda: str(read_label_map(session)))
    assert answer.prompts == names and list(answer.found) == [True, True]
    before, received = read_label_map(session)[1], int(session.client.value(": mapping", "frames_received"))
    session.play("--rate", "4")
    session.settle(received + FRAMES)
    newest = session.client.query("green ball").map_version  # answered, but not shown on the topics
    wait_until(lambda: read_label_map(session) == (names, newest), 20, lambda: str(read_label_map(session)))
    assert newest > before
    markers = session.client.receive("/ovs3d/markers", conversions.MarkerArray, LATCHED).markers
    assert {m.text.rpartition(" ")[0] for m in markers if m.text} == set(names)


@pytest.mark.parametrize(
    "fields, problem",
    [
        ({"names": ["a"] * 129}, "129 names"),
        ({"names": [""]}, "name 1 is empty"),
        ({"names": ["x" * 10_000]}, "10000 characters"),
        ({"names": ["a"], "mode": 9}, "mode 9"),
    ],
)
def test_bad_vocabulary_is_refused_and_the_old_one_stays(session, fields, problem):
    before = read_label_map(session)
    answer = session.client.call(SetVocabulary, "set_vocabulary", **fields)
    assert answer.error_code == SetVocabulary.Response.BAD_REQUEST and problem in answer.error_msg
    assert read_label_map(session) == before and before[0]


def test_without_vocabulary_topics_show_the_last_query(session):
    assert (
        session.client.call(SetVocabulary, "set_vocabulary", mode=SetVocabulary.Request.ARGMAX).error_code
        == 0
    )
    wait_until(lambda: read_label_map(session)[0] == [], 20, lambda: str(read_label_map(session)))
    session.client.query("green ball")
    wait_until(lambda: read_label_map(session)[0] == ["green ball"], 20, lambda: str(read_label_map(session)))


def test_reset_clears_the_output_topics(session):
    def arrow() -> int | None:
        message = session.client.newest.get("/ovs3d/goal_marker")
        return None if message is None else message.action

    def newest(name: str, kind: type):
        return session.client.receive(f"/ovs3d/{name}", kind, LATCHED)

    session.client.query("red ball")
    session.client.listen("/ovs3d/goal_marker", conversions.Marker, LATCHED)
    wait_until(lambda: arrow() == Marker.ADD, 20)
    assert session.client.call(Trigger, "reset").success
    wait_until(lambda: arrow() == Marker.DELETE, 20)
    wait_until(lambda: len(newest("markers", conversions.MarkerArray).markers) == 1, 20)
    wait_until(lambda: not newest("object_poses", conversions.PoseArray).poses, 20)
    wait_until(lambda: list(newest("query_grid", conversions.OccupancyGrid).data) == [-1], 20)
    wait_until(lambda: not newest("keyframes", conversions.Path).poses, 20)
