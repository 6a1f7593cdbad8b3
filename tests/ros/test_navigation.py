"""Goals on a costmap and masks for nav2, from a real node that has mapped a small scene."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("ovs3d_interfaces")
pytestmark = [pytest.mark.ros, pytest.mark.slow]

from helpers.ros_env import ROOM, SPHERES, has_messages, use_child_environment, wait_until  # noqa: E402
from helpers.ros_session import Session  # noqa: E402
from rcl_interfaces.srv import SetParameters  # noqa: E402
from rclpy.action import ActionClient  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy  # noqa: E402

from ovs3d_interfaces.action import FindObject  # noqa: E402
from ovs3d_ros.query.navigation import Grid  # noqa: E402
from ovs3d_ros.ros import conversions  # noqa: E402
from ovs3d_ros.ros.environment import child_environment  # noqa: E402

CELL = 0.05
NAV2 = QoSProfile(  # rclcpp::QoS(KeepLast(1)).transient_local().reliable() of nav2's filters and costmaps
    depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
)
ASK = Path(__file__).resolve().parents[2] / "scripts" / "ask"
ORIGIN = ROOM[0, :2]


@pytest.fixture(scope="module")
def session(tmp_path_factory) -> Iterator[Session]:
    with pytest.MonkeyPatch.context() as patch:
        use_child_environment(patch)
        settings = {"navigation.keep_out": "[blue ball]", "output.stand_off": 0.8}
        session = Session(tmp_path_factory.mktemp("node"), settings)
        try:
            session.run()
            session.costmaps = session.client.node.create_publisher(
                conversions.OccupancyGrid, "/costmap", NAV2
            )
            session.client.listen("/goal_pose", conversions.PoseStamped, 1)
            yield session
        finally:
            session.close()


def make_room() -> np.ndarray:
    """Costs [rows, columns] of the ground: walls around it, and the balls."""
    cells = np.zeros((160, 160), np.int8)
    cells[[0, -1]] = cells[:, [0, -1]] = 100
    for center, radius, _ in SPHERES:
        cells[distances(np.array(center[:2]), cells) < radius] = 100
    return cells


def distances(place: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Of the centres of all cells from a place, metres."""
    rows, columns = np.indices(cells.shape)
    return np.linalg.norm(ORIGIN + (np.stack([columns, rows], -1) + 0.5) * CELL - place, axis=-1)


def send_costmap(session: Session, cells: np.ndarray, frame: str = "map") -> None:
    header = conversions.to_header(1.0, frame)
    session.costmaps.publish(conversions.to_grid(Grid(ORIGIN, CELL, cells), header))


def search(session: Session, name: str) -> FindObject.Result:
    run = session.client.in_executor
    client = run(ActionClient, session.client.node, FindObject, "/ovs3d/find_object")
    assert client.wait_for_server(30)
    sent = run(client.send_goal_async, FindObject.Goal(prompts=[name], timeout=0.0))
    wait_until(sent.done, 30)
    done = run(sent.result().get_result_async)
    wait_until(done.done, 60)
    run(client.destroy)
    return done.result().result


def place(pose) -> np.ndarray:
    return np.array([pose.position.x, pose.position.y])


def ask(session: Session, *arguments: str) -> tuple[int, str]:
    run = subprocess.run(
        [sys.executable, str(ASK), *arguments],
        env=child_environment(session.domain_id),
        capture_output=True,
        text=True,
        timeout=120,
    )
    return run.returncode, run.stderr


def test_goal_lies_on_free_ground_and_faces_the_thing(session):
    blind = place(search(session, "red ball").approach.pose)
    cells = make_room()
    cells[distances(blind, cells) < 0.4] = 100  # something stands there that the map does not know
    send_costmap(session, cells)
    wait_until(lambda: np.linalg.norm(place(search(session, "red ball").approach.pose) - blind) > 0.3, 30)
    code, said = ask(session, "red ball", "--go")
    assert code == 0 and "sent (" in said, said
    goal = session.client.receive("/goal_pose", conversions.PoseStamped, 1)
    assert goal.header.frame_id == "map"
    spot, heading = place(goal.pose), conversions.from_pose(goal.pose, "goal")[:2, 0]
    assert distances(spot, cells)[cells == 100].min() > 0.3  # navigation.robot_radius
    np.testing.assert_allclose(heading, -spot / np.linalg.norm(spot), atol=0.1)  # the ball is at the origin
    assert 0.35 < np.linalg.norm(spot) < 0.35 + 0.8 + 1.0


def test_without_a_place_there_is_no_goal_and_a_reason(session):
    cells = make_room()
    around = distances(np.zeros(2), cells)
    cells[(around > 2.2) & (around < 2.3)] = 100  # a fence between the balls and the camera
    send_costmap(session, cells)
    wait_until(lambda: search(session, "red ball").approach.header.frame_id == "", 30)
    result = search(session, "red ball")
    assert (result.error_code, result.prompt) == (FindObject.Result.OK, "red ball")
    code, said = ask(session, "red ball", "--go")
    assert code == 1 and "the node sent no goal; its log says why" in said
    assert "no goal: no free ground within 1.8 m of 'red ball' can be reached" in session.node.output()


def test_costmap_that_cannot_be_used_is_said_and_ignored(session):
    send_costmap(session, make_room())
    wait_until(lambda: search(session, "red ball").approach.header.frame_id == "map", 30)
    send_costmap(session, np.full((4, 4), 100, np.int8), "odom")
    wait_until(lambda: "/costmap is in frame 'odom', the map is in 'map'" in session.node.output(), 30)
    message = conversions.to_grid(Grid(ORIGIN, CELL, make_room()), conversions.to_header(1.0, "map"))
    message.info.width += 1
    session.costmaps.publish(message)
    wait_until(lambda: "/costmap: 25600 cells contradict 161 x 160" in session.node.output(), 30)
    message.info.width, message.info.origin.orientation.z = 160, 0.5
    session.costmaps.publish(message)
    wait_until(lambda: "/costmap: its origin is turned" in session.node.output(), 30)
    message.info.origin.orientation.z, message.info.resolution = 0.0, float("nan")
    session.costmaps.publish(message)
    wait_until(lambda: "and resolution nan are no grid" in session.node.output(), 30)
    assert search(session, "red ball").approach.header.frame_id == "map"


@pytest.mark.skipif(not has_messages("nav2_msgs"), reason="pip install ./tests/nav2_msgs")
def test_mask_is_found_and_read_as_nav2_does_it(session):
    from nav2_msgs.msg import CostmapFilterInfo

    info = session.client.receive("/ovs3d/mask/costmap_filter_info", CostmapFilterInfo, NAV2)
    assert (info.type, info.base, info.multiplier) == (0, 0.0, 1.0)  # filter_values.hpp: KEEPOUT_FILTER
    assert info.filter_mask_topic == "/ovs3d/mask"
    session.client.receive(info.filter_mask_topic, conversions.OccupancyGrid, NAV2)
    wait_until(lambda: covers(newest_mask(session), SPHERES[1]), 60, lambda: str(newest_mask(session)))
    mask = newest_mask(session)
    assert mask.header.frame_id == "map" and not covers(mask, SPHERES[0])
    assert set(mask.data) == {-1, 100}, "0 would make nav2 take unknown ground for free"


def test_names_to_keep_out_of_change_at_run_time(session):
    session.client.receive("/ovs3d/mask", conversions.OccupancyGrid, NAV2)
    for names, covered in ((["green ball", "red ball"], [0, 2]), ([""], [])):
        parameter = Parameter("navigation.keep_out", value=names).to_parameter_msg()
        (result,) = session.client.call(SetParameters, "set_parameters", parameters=[parameter]).results
        assert result.successful, result.reason
        wait_until(
            lambda expected=covered: (
                [i for i, ball in enumerate(SPHERES) if covers(newest_mask(session), ball)] == expected
            ),
            60,
            lambda: str(newest_mask(session)),
        )
    assert list(newest_mask(session).data) == [-1]
    parameter = Parameter("navigation.keep_out", value=["x" * 300]).to_parameter_msg()
    (result,) = session.client.call(SetParameters, "set_parameters", parameters=[parameter]).results
    assert not result.successful and "300 characters" in result.reason


def newest_mask(session: Session) -> conversions.OccupancyGrid:
    return session.client.newest["/ovs3d/mask"]


def covers(mask: conversions.OccupancyGrid, ball) -> bool:
    """Whether a mask forbids the middle of a ball."""
    (center, radius, _), info = ball, mask.info
    cells = np.array(mask.data, np.int8).reshape(info.height, info.width)
    rows, columns = np.indices(cells.shape)
    centers = place(info.origin) + (np.stack([columns, rows], -1) + 0.5) * info.resolution
    near = np.linalg.norm(centers - center[:2], axis=-1)
    return bool((cells[near < radius / 2] == 100).any())


@pytest.mark.skipif(not has_messages("vision_msgs"), reason="pip install ./tests/vision_msgs")
def test_labels_are_read_as_the_segmentation_layer_does_it(session):
    from vision_msgs.msg import LabelInfo

    latched = QoSProfile(depth=5, reliability=NAV2.reliability, durability=NAV2.durability)
    sensor_data = QoSProfile(depth=50, reliability=ReliabilityPolicy.BEST_EFFORT)
    session.client.query("blue ball", "red ball")
    image = session.client.receive("/ovs3d/segmentation/label", conversions.Image, sensor_data)
    info = session.client.receive("/ovs3d/label_info", LabelInfo, latched)
    numbers = {item.class_name: item.class_id for item in info.class_map}
    assert set(numbers) == {"blue ball", "red ball"} and 0 not in numbers.values()
    assert image.encoding == "mono8" and len(image.data) == image.width * image.height
    assert set(image.data) <= {0, *numbers.values()} and numbers["red ball"] in set(image.data)
