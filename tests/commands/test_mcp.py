"""`ovs3d mcp` as a process, asked by the client of the official SDK over standard streams."""

from __future__ import annotations

import base64
import io
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import synthetic
from helpers.agent import ask_server
from helpers.command_line import assert_one_line, ovs3d
from helpers.synthetic import Box
from PIL import Image

pytest.importorskip("mcp", reason="the MCP SDK is not installed; pip install -e '.[agent]'")

from ovs3d_ros import Ovs3d

BLUE_LOW = Box((-0.5, 0.0, 0.2), (0.6, 0.5, 0.4), (40, 60, 205), 3)
RED_ON_BLUE = Box((-0.5, 0.0, 0.5), (0.25, 0.25, 0.2), (215, 40, 35), 1)
GREEN_BESIDE = Box((0.2, 0.0, 0.15), (0.3, 0.3, 0.3), (45, 190, 50), 2)
SCENE = (synthetic.ROOM, BLUE_LOW, RED_ON_BLUE, GREEN_BESIDE)


@pytest.fixture(scope="module")
def room(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("map") / "room.ovs3d"
    synthetic.build_map(synthetic.make_frames(8, scene=SCENE)).save(path)
    return path


@pytest.fixture(scope="module")
def answers(room, repository) -> dict:
    """The tools, and the answers to questions of one session, by their names."""
    questions = {
        "find": ("find_things", {"names": ["red box", "red box on the blue box", "blue box on the red box"]}),
        "list": ("list_objects", {"names": ["red box", "yellow box", "green box"]}),
        "common": ("list_objects", {}),
        "describe": ("describe_place", {"name": "red box", "others": ["blue box", "green box", "box"]}),
        "beside": ("describe_place", {"name": "green box", "others": ["blue box"]}),
        "view": ("show_view", {"names": ["red box"]}),
        "goal": ("goal_pose", {"name": "green box"}),
        "no goal": ("goal_pose", {"name": "yellow box"}),
        "no name": ("find_things", {"names": [""]}),
    }
    arguments = ["mcp", str(room), "--set", "compute.device=cpu"]
    path = os.pathsep.join([str(repository), str(repository / "tests")])
    return ask_server(arguments, os.environ | {"PYTHONPATH": path}, questions)


def test_tools_say_what_they_do(answers):
    names = {tool.name: tool for tool in answers["tools"]}
    assert set(names) == {"find_things", "list_objects", "describe_place", "show_view", "goal_pose"}
    assert all(tool.description for tool in names.values())
    assert names["describe_place"].input_schema["required"] == ["name"]


def test_things_are_found_where_they_are(answers):
    red, on_blue, wrong = answers["find"].structured_content["things"]
    assert (red["verdict"], on_blue["verdict"], wrong["verdict"]) == ("yes", "yes", "no")
    np.testing.assert_allclose(on_blue["objects"][0]["center"], RED_ON_BLUE.center, atol=0.08)
    assert wrong["note"] == "blue box and red box are here, but no blue box is on red box"


def test_only_things_that_are_there_are_listed(answers):
    things = answers["list"].structured_content["things"]
    assert [thing["name"] for thing in things] == ["red box", "green box"]
    assert not answers["common"].is_error and len(answers["common"].structured_content["looked_for"]) > 10


def test_place_is_described_by_its_strongest_relations(answers):
    described = answers["describe"].structured_content
    assert described["relations"] == {"red box 1": ["on blue box 1", "near green box 1"]}
    assert answers["beside"].structured_content["relations"] == {"green box 1": ["beside blue box 1"]}


def test_view_shows_the_thing_in_colour(answers):
    (content,) = answers["view"].content
    assert content.mime_type == "image/jpeg"
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(content.data))))
    assert picture.shape[1] == 768 and np.ptp(picture.astype(int), axis=-1).max() > 100


def test_goal_faces_the_thing_at_a_distance(answers):
    goal = answers["goal"].structured_content
    away = np.array(GREEN_BESIDE.center[:2]) - [goal["x"], goal["y"]]
    assert 0.3 < np.linalg.norm(away) < 2
    off = goal["yaw"] - np.arctan2(away[1], away[0])
    assert abs((off + np.pi) % (2 * np.pi) - np.pi) < 0.1


def test_bad_input_is_an_error_that_the_agent_reads(answers):
    for name, text in (("no goal", "yellow box: no, so there is no place"), ("no name", "prompt 1 is empty")):
        assert answers[name].is_error and text in answers[name].content[0].text


def test_map_without_language_is_refused(tmp_path, capsys):
    path = tmp_path / "plain.ovs3d"
    Ovs3d(synthetic.make_config()).save(path)
    assert ovs3d("mcp", path) == 2
    assert_one_line(capsys.readouterr().err, "plain.ovs3d")


def test_map_and_node_exclude_each_other(room, capsys):
    for arguments, words in (
        ((), "give a map file, or --node NAME"),
        ((room, "--node", "/ovs3d"), "give a map file, or --node NAME"),
        (("--node", "/ovs3d", "--set", "compute.device=cpu"), "a running node has its own parameters"),
        (("--node", "/ovs3d", "--timeout", "0"), "above 0"),
    ):
        assert ovs3d("mcp", *arguments) == 2
        assert_one_line(capsys.readouterr().err, words)


def test_node_without_ros_is_refused(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "rclpy", None)
    monkeypatch.delitem(sys.modules, "ovs3d_ros.ros.node_map", raising=False)
    monkeypatch.delitem(sys.modules, "ovs3d_ros.ros.client", raising=False)
    assert ovs3d("mcp", "--node", "/ovs3d") == 2
    assert_one_line(capsys.readouterr().err, "--node needs ROS 2", "pip install")
