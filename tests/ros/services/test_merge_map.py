"""`~/merge_map` puts a file into the map of a real node, which goes on mapping."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")
interfaces = pytest.importorskip("ovs3d_interfaces.srv")
if not hasattr(interfaces, "MergeMap"):
    pytest.skip("older ovs3d_interfaces; pip install ./ovs3d_interfaces", allow_module_level=True)
pytestmark = [pytest.mark.ros, pytest.mark.slow]

from helpers import synthetic  # noqa: E402
from helpers.ros_env import SPHERES, write_dataset  # noqa: E402
from helpers.ros_session import FRAMES, SETTINGS, Session, session  # noqa: E402, F401
from helpers.stored_maps import move, random_motion  # noqa: E402

from ovs3d_interfaces.srv import GetObjects, MergeMap, SaveMap  # noqa: E402
from ovs3d_ros import Config, Ovs3d  # noqa: E402
from ovs3d_ros.datasets import open_dataset  # noqa: E402
from ovs3d_ros.map_file import load_map, save_map  # noqa: E402
from ovs3d_ros.merging.merge import StoredMap  # noqa: E402
from ovs3d_ros.ros import conversions  # noqa: E402
from ovs3d_ros.types import Frame  # noqa: E402

OK, BAD_REQUEST, NO_MAP = MergeMap.Response.OK, MergeMap.Response.BAD_REQUEST, MergeMap.Response.NO_MAP
BALLS = ["red ball", "blue ball", "green ball"]
MAPPED = 8  # frames of the file, which follow those of the node on the walk


def build(frames: list[Frame], target: Path, **settings) -> None:
    """A map as another robot would make it."""
    values = {key: value for key, value in SETTINGS.items() if not key.startswith(("qos", "input", "output"))}
    room = Ovs3d(Config.from_settings(values | {"compute.device": "cpu"} | settings))
    for frame in frames:
        room.add_frame(frame)
    room.optimize(60)
    for _ in room.relift():
        pass
    target.parent.mkdir(exist_ok=True)
    room.save(target)


@pytest.fixture(scope="module")
def frames(tmp_path_factory) -> list[Frame]:
    """The second half of the walk, whose first half the node has mapped."""
    dataset = open_dataset(write_dataset(tmp_path_factory.mktemp("other") / "data", FRAMES + MAPPED))
    return [dataset[index] for index in range(FRAMES, FRAMES + MAPPED)]


@pytest.fixture(scope="module")
def other(session: Session, frames: list[Frame]) -> str:
    build(frames, session.maps / "other.ovs3d")
    return "other.ovs3d"


def merge(session: Session, name: str, **fields) -> MergeMap.Response:
    return session.client.call(MergeMap, "merge_map", seconds=180.0, name=name, **fields)


def count(session: Session) -> int:
    """Gaussians of the node's map."""
    saved = session.client.call(SaveMap, "save_map", name="count.ovs3d", overwrite=True)
    assert saved.error_code == SaveMap.Response.OK, saved.error_msg
    return saved.num_gaussians


def test_what_does_not_fit_is_refused_and_changes_nothing(session: Session, other: str, frames) -> None:
    before = count(session)
    build(frames, session.maps / "degree.ovs3d", **{"map.sh_degree": 1})
    Ovs3d.load(session.maps / other, {"input.world_frame": "hall"}).save(session.maps / "hall.ovs3d")
    zero = conversions.Transform()
    zero.rotation.w = 0.0
    for name, fields, words in (
        ("../other.ovs3d", {}, "plain file name"),
        ("nobody.ovs3d", {}, "no such file"),
        ("degree.ovs3d", {}, "map.sh_degree"),
        ("hall.ovs3d", {}, "'hall', this node maps in 'map'; give place TRANSFORM (1) and"),
        (other, dict(place=9), "place 9"),
        (other, dict(place=MergeMap.Request.TRANSFORM, transform=zero), "rotation"),
    ):
        answer = merge(session, name, **fields)
        assert answer.error_code == BAD_REQUEST and words in answer.error_msg, answer.error_msg
        assert "\n" not in answer.error_msg and "--" not in answer.error_msg, "no options of a command"
    assert count(session) == before
    assert session.client.query("red ball").found[0]


def test_another_place_is_refused_as_unsure(session: Session) -> None:
    before = count(session)
    build(synthetic.make_frames(8), session.maps / "elsewhere.ovs3d")
    answer = merge(session, "elsewhere.ovs3d", place=MergeMap.Request.ALIGN)
    assert answer.error_code == BAD_REQUEST and "not sure" in answer.error_msg, answer.error_msg
    assert "--" not in answer.error_msg, "no options of a command"
    assert count(session) == before


def test_map_is_put_in_and_the_node_goes_on(session: Session, other: str) -> None:
    before, version = count(session), session.client.query("red ball").map_version
    answers: list = []
    ends = threading.Event()

    def ask() -> None:
        while not ends.is_set():
            answers.append(session.client.query("red ball"))

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        merged = merge(session, other)
    finally:
        ends.set()
        asking.join(60)
    assert merged.error_code == OK, merged.error_msg
    assert all(answer.found[0] for answer in answers) and answers, "it answers meanwhile"
    assert merged.num_gaussians > before and merged.num_fused > 0 and merged.map_version > version
    assert merged.num_keyframes == FRAMES + MAPPED and merged.confidence == 1
    assert merged.transform.rotation.w == 1
    found = session.client.call(GetObjects, "get_objects", prompts=BALLS)
    assert all(found.found)
    for item in found.objects:
        center, radius, _ = SPHERES[BALLS.index(item.label)]
        place = np.array([item.pose.position.x, item.pose.position.y, item.pose.position.z])
        assert np.linalg.norm(place - center) < 0.6 * radius
    report = session.play("--rate", "4")
    session.settle(session.sent + report)
    assert "the mapping thread failed" not in session.node.output()
    assert session.client.query(*BALLS).found == [True] * 3
    saved = session.client.call(SaveMap, "save_map", name="both.ovs3d")
    room = Ovs3d.load(saved.path, {"compute.device": "cpu"})
    assert len(room.snapshot().names) >= FRAMES + MAPPED
    assert "merged: " in session.node.output()


def test_place_of_another_frame_is_found(session: Session, other: str) -> None:
    motion = random_motion(2)
    moved = move(StoredMap(*load_map(session.maps / other), other), motion)
    save_map(session.maps / "moved.ovs3d", moved.params, moved.snapshot)
    merged = merge(session, "moved.ovs3d", place=MergeMap.Request.ALIGN)
    assert merged.error_code == OK, merged.error_msg
    found = conversions.from_transform(merged.transform, "transform")
    assert 0.5 <= merged.confidence <= 1
    np.testing.assert_allclose(found[:3, :3], motion[:3, :3], atol=0.03)
    np.testing.assert_allclose(found[:3, 3], motion[:3, 3], atol=0.15)
    assert session.client.query(*BALLS).found == [True] * 3


def test_empty_map_takes_no_other(session: Session, other: str) -> None:
    from std_srvs.srv import Trigger

    assert session.client.call(Trigger, "reset").success
    answer = merge(session, other)
    assert answer.error_code == NO_MAP and "~/load_map" in answer.error_msg
