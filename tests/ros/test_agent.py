"""`ovs3d mcp --node` over a real node, beside `ovs3d mcp` over the map that this node saved."""

from __future__ import annotations

import base64
import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("mcp", reason="the MCP SDK is not installed; pip install -e '.[agent]'")
interfaces = pytest.importorskip("ovs3d_interfaces.srv")
if not hasattr(interfaces, "ShowView"):
    pytest.skip("older ovs3d_interfaces; pip install ./ovs3d_interfaces", allow_module_level=True)
pytestmark = [pytest.mark.ros, pytest.mark.slow]

from helpers.agent import ask_server  # noqa: E402
from helpers.ros_env import SPHERES  # noqa: E402
from helpers.ros_session import Session, session  # noqa: E402, F401
from PIL import Image  # noqa: E402

from ovs3d_interfaces.srv import GetNames, GetObjects, QueryText, SaveMap, SetVocabulary, ShowView  # noqa: E402
from ovs3d_ros.datasets import open_dataset  # noqa: E402
from ovs3d_ros.ros import conversions  # noqa: E402
from ovs3d_ros.ros.environment import child_environment, free_domain_id  # noqa: E402

BALLS = ["red ball", "blue ball", "green ball"]
QUESTIONS = {
    "find": ("find_things", {"names": ["red ball", "bicycle", "red ball near the blue ball"]}),
    "apart": ("find_things", {"names": ["red ball on the blue ball"]}),
    "list": ("list_objects", {"names": [*BALLS, "bicycle"]}),
    "common": ("list_objects", {}),
    "describe": ("describe_place", {"name": "red ball", "others": ["blue ball", "green ball"]}),
    "view": ("show_view", {"names": ["red ball"]}),
    "goal": ("goal_pose", {"name": "red ball"}),
    "no goal": ("goal_pose", {"name": "bicycle"}),
    "no name": ("find_things", {"names": [""]}),
    "no names": ("find_things", {"names": []}),
}


def environment(domain_id: int) -> dict[str, str]:
    tests = Path(__file__).resolve().parents[1]
    path = os.pathsep.join([str(tests.parent), str(tests)])
    return child_environment(domain_id) | {"PYTHONPATH": path}


@pytest.fixture(scope="module")
def answers(session: Session) -> tuple[dict, dict]:
    """What the node and the map file answer."""
    saved = session.client.call(SaveMap, "save_map", name="agent.ovs3d")
    assert saved.error_code == SaveMap.Response.OK, saved.error_msg
    env = environment(session.domain_id)
    node = ask_server(["mcp", "--node", "/ovs3d"], env, QUESTIONS)
    return node, ask_server(["mcp", saved.path, "--set", "compute.device=cpu"], env, QUESTIONS)


def test_both_offer_the_same_tools(answers) -> None:
    described = [
        [(tool.name, tool.description, tool.input_schema) for tool in side["tools"]] for side in answers
    ]
    assert described[0] == described[1] and len(described[0]) == 5


@pytest.mark.parametrize("question", ["find", "apart", "list", "common", "describe"])
def test_both_give_the_same_answers(answers, question) -> None:
    node, file = (side[question].structured_content for side in answers)
    assert strip(node) == strip(file)
    for ours, theirs in zip(numbers(node), numbers(file), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=0.01)


def strip(value):
    """A value without its numbers, which the file holds in less precision."""
    if isinstance(value, dict):
        return {key: strip(item) for key, item in value.items()}
    if isinstance(value, list):
        return [strip(item) for item in value]
    return None if isinstance(value, float) else value


def numbers(value) -> list[float]:
    if isinstance(value, (dict, list)):
        items = value.values() if isinstance(value, dict) else value
        return [number for item in items for number in numbers(item)]
    return [value] if isinstance(value, float) else []


def test_node_says_what_is_true(answers) -> None:
    node = answers[0]
    red, bicycle, near = node["find"].structured_content["things"]
    assert (red["verdict"], bicycle["verdict"], near["verdict"]) == ("yes", "no", "yes")
    assert np.linalg.norm(np.subtract(red["objects"][0]["center"], SPHERES[0][0])) < 0.15
    (apart,) = node["apart"].structured_content["things"]
    assert apart["note"] == "red ball and blue ball are here, but no red ball is on blue ball"
    relations = node["describe"].structured_content["relations"]["red ball 1"]
    assert {words.split(" ", 1)[1] for words in relations} == {"blue ball 1", "green ball 1"}


def test_view_shows_the_thing(answers) -> None:
    (content,) = answers[0]["view"].content
    assert content.mime_type == "image/jpeg"
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(content.data)))).astype(int)
    assert picture.shape[1] == 768 and np.ptp(picture, axis=-1).max() > 100


def test_goal_faces_the_thing(answers) -> None:
    goals = [side["goal"].structured_content for side in answers]
    for key in ("x", "y", "yaw"):
        assert abs(goals[0][key] - goals[1][key]) < 0.02
    away = np.array(SPHERES[0][0][:2]) - [goals[0]["x"], goals[0]["y"]]
    off = goals[0]["yaw"] - np.arctan2(away[1], away[0])
    assert 0.35 < np.linalg.norm(away) < 4 and abs((off + np.pi) % (2 * np.pi) - np.pi) < 0.15


def test_bad_input_is_the_same_error(answers) -> None:
    for question in ("no goal", "no name", "no names"):
        node, file = (side[question] for side in answers)
        assert node.is_error and node.content[0].text == file.content[0].text


def test_asking_leaves_the_topics_of_the_node_alone(session: Session) -> None:
    session.client.listen("/ovs3d/goal_pose", conversions.PoseStamped, 1)
    assert session.client.query("blue ball").error_code == QueryText.Response.OK
    session.client.receive("/ovs3d/goal_pose", conversions.PoseStamped, 1)
    session.client.newest.pop("/ovs3d/goal_pose")
    ask_server(["mcp", "--node", "/ovs3d"], environment(session.domain_id), QUESTIONS)
    shown = session.client.call(GetObjects, "get_objects")
    assert list(shown.prompts) == ["blue ball"]
    assert "/ovs3d/goal_pose" not in session.client.newest, "a robot that follows goals stays where it is"


def test_services_answer_other_clients_too(session: Session) -> None:
    client = session.client
    client.call(SetVocabulary, "set_vocabulary", names=["red ball"])
    names = client.call(GetNames, "get_names")
    assert list(names.vocabulary) == ["red ball"] and len(names.common) > 5
    client.call(SetVocabulary, "set_vocabulary", names=[])
    refused = client.call(ShowView, "show_view", prompts=["red ball"], width=1)
    assert refused.error_code == ShowView.Response.BAD_REQUEST and "width 1" in refused.error_msg
    related = client.call(GetObjects, "get_objects", prompts=BALLS, relate=["red ball"])
    pairs = {
        (related.objects[r.thing].label, r.relation, related.objects[r.place].label)
        for r in related.relations
    }
    assert ("red ball", "near", "blue ball") in pairs and all(thing == "red ball" for thing, _, _ in pairs)
    assert not client.call(GetObjects, "get_objects", prompts=BALLS).relations
    unknown = client.call(GetObjects, "get_objects", prompts=BALLS, relate=["red bal"])
    assert unknown.error_code == GetObjects.Response.BAD_REQUEST
    assert unknown.error_msg == "relate: 'red bal' is none of the prompts; add it to them"


@pytest.mark.parametrize("name", ["blue ball", "green ball"])
def test_picture_is_the_view_of_the_keyframe_that_shows_the_thing_best(session: Session, name: str) -> None:
    frames = open_dataset(session.data)
    color = int(np.argmax(SPHERES[BALLS.index(name)][2]))
    areas = [int((thing_pixels(frame.image)[color]).sum()) for frame in frames]
    answer = session.client.call(ShowView, "show_view", prompts=[name], width=200)
    assert answer.error_code == ShowView.Response.OK and answer.header.frame_id == "map"
    pose = conversions.from_pose(answer.view, "view")
    shown = int(np.argmin([np.abs(frame.camtoworld - pose).max() for frame in frames]))
    np.testing.assert_allclose(pose, frames[shown].camtoworld, atol=1e-3)
    assert areas[shown] > 0.9 * max(areas) > 1.5 * min(areas), areas
    picture = np.asarray(Image.open(io.BytesIO(bytes(answer.picture.data)))).astype(float)
    assert picture.shape[1] == 200 and answer.picture.format == "jpeg"
    views = [np.asarray(Image.fromarray(frame.image).resize((200, 150))).mean(-1) for frame in frames]
    agreement = [np.corrcoef(picture[:150].mean(-1).ravel(), view.ravel())[0, 1] for view in views]
    assert shown == np.argmax(agreement) and max(agreement) > 0.7, agreement


def thing_pixels(image: np.ndarray) -> list[np.ndarray]:
    """Where an image [H, W, 3] is red, green and blue: three masks [H, W]."""
    channels = np.moveaxis(image.astype(float), -1, 0)
    return [c > 1.4 * np.delete(channels, n, axis=0).max(0) + 20 for n, c in enumerate(channels)]


def test_missing_node_is_one_clear_error() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "ovs3d_ros.cli", "mcp", "--node", "/nobody", "--timeout", "3"],
        env=environment(free_domain_id()),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 2 and not ended.stdout and "Traceback" not in ended.stderr
    (line,) = [line for line in ended.stderr.splitlines() if line.startswith("ovs3d: error:")]
    assert "no node offers /nobody/get_names" in line


def test_node_that_hangs_is_an_error_and_answers_again(session: Session) -> None:
    def before(name: str) -> None:
        number = {"hangs": signal.SIGSTOP, "awake": signal.SIGCONT}[name]
        session.node.child.send_signal(number)

    question = ("find_things", {"names": ["red ball"]})
    arguments = ["mcp", "--node", "/ovs3d", "--timeout", "8"]
    try:
        questions = {"hangs": question, "awake": question}
        answers = ask_server(arguments, environment(session.domain_id), questions, before)
    finally:
        session.node.child.send_signal(signal.SIGCONT)
    assert answers["hangs"].is_error and "gave no answer within 8 s" in answers["hangs"].content[0].text
    assert answers["awake"].structured_content["things"][0]["verdict"] == "yes"
