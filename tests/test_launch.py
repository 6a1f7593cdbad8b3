"""The launch file, run with stand-ins for `launch`, and the CI workflow."""

from __future__ import annotations

import ast
import re

import pytest
import yaml
from helpers.launch_file import LAUNCH_FILE, REPOSITORY, launch_file, launched  # noqa: F401

from ovs3d_ros.config import Config, leaves, override

INPUTS = {
    "image",
    "camera_info",
    "depth",
    "pose",
    "odom",
    "transform",
    "pose_with_covariance",
    "keyframe_path",
    "costmap",
}


def constant(name: str):
    """The value of a literal that the launch file assigns."""
    tree = ast.parse(LAUNCH_FILE.read_text(encoding="utf-8"))
    (node,) = [n.value for n in tree.body if isinstance(n, ast.Assign) and n.targets[0].id == name]
    return ast.literal_eval(node)


def argument_names() -> set[str]:
    tree = ast.parse(LAUNCH_FILE.read_text(encoding="utf-8"))
    (node,) = [n.value for n in tree.body if isinstance(n, ast.Assign) and n.targets[0].id == "ARGUMENTS"]
    return {key.value for key in node.keys if key is not None} | set(constant("INPUTS"))


def test_launch_arguments_are_complete():
    assert set(constant("INPUTS")) == INPUTS
    assert argument_names() >= INPUTS | {
        "namespace",
        "params_file",
        "use_sim_time",
        "autostart",
        "log_level",
        "rviz",
        "preset",
        "data",
        "pose_source",
        "clip_model",
        "world_frame",
        "rate",
        "loop",
    }


def test_presets_use_existing_arguments_and_parameters():
    presets, overrides = constant("PRESETS"), constant("OVERRIDES")
    assert {"none", "realsense", "zed", "oak", "gazebo", "isaac", "bag"} == set(presets)
    for values in presets.values():
        assert set(values) <= argument_names()
        override(Config(), {overrides[name]: value for name, value in values.items() if name in overrides})
        assert not any(value.startswith(("/", "~")) for name, value in values.items() if name in INPUTS)
        assert values.get("use_sim_time", "true") == "true"
    assert set(overrides.values()) <= {spec.path for spec, _ in leaves()}


def test_launched_programs_are_installed():
    tree = ast.parse(LAUNCH_FILE.read_text(encoding="utf-8"))
    executables = {
        k.value.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        for k in node.keywords
        if k.arg == "executable"
    }
    assert executables == {"node", "play", "rviz2"}
    for name in executables - {"rviz2"}:
        assert (REPOSITORY / "scripts" / name).is_file(), (
            "setup.py installs what ros2 run starts from scripts/"
        )


def test_docs_explain_every_launch_argument():
    text = (REPOSITORY / "docs/robot.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| ", text[text.index("| launch argument |") :], re.MULTILINE)
    documented = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert argument_names() <= documented
    assert all(f"`{name}`" in text for name in constant("PRESETS"))


def test_launch_file_starts_node_player_and_rviz(launch_file):
    nodes = launched(launch_file, preset="gazebo", depth="/mine", data="somewhere")
    assert list(nodes) == ["node", "play", "rviz2"]
    assert ("depth", "/mine") in nodes["node"]["remappings"]
    assert nodes["node"]["parameters"][2] == {"use_sim_time": True}


def test_rviz_shows_the_frame_of_the_map(launch_file, tmp_path):
    def fixed_frame(**given: str) -> list[str]:
        return launched(launch_file, **given)["rviz2"]["arguments"][2:]

    own, bare = tmp_path / "own.yaml", tmp_path / "bare.yaml"
    own.write_text("/**:\n  ros__parameters:\n    input: {world_frame: odom}\n")
    bare.write_text("# nothing is set here\n")
    assert fixed_frame() == ["-f", Config().input.world_frame]
    assert fixed_frame(world_frame="world") == ["-f", "world"]
    assert fixed_frame(params_file=str(own)) == ["-f", "odom"]
    assert fixed_frame(params_file=str(own), world_frame="world") == ["-f", "world"]
    assert fixed_frame(params_file=str(bare)) == []


def test_dataset_is_received_reliably(launch_file):
    def quality(**given: str) -> str | None:
        return launched(launch_file, **given)["node"]["parameters"][1].get("qos.input")

    assert quality() is None
    assert quality(data="somewhere") == "reliable"
    assert quality(data="somewhere", qos_input="sensor_data") == "sensor_data"


def test_images_of_a_dataset_wait_longer(launch_file):
    def timeout(**given: str) -> float | None:
        return launched(launch_file, **given)["node"]["parameters"][1].get("tf.timeout_s")

    assert timeout() is None and timeout(data="somewhere") == 10.0
    assert timeout(data="somewhere", sync_timeout="3") == timeout(sync_timeout="3") == 3.0


def test_transforms_are_remapped_for_all_processes(launch_file):
    for options in launched(launch_file, data="somewhere", tf="tf").values():
        assert {("/tf", "tf"), ("/tf_static", "tf_static")} <= set(options["remappings"])
    assert ("/tf", "/tf") in launched(launch_file)["node"]["remappings"]  # a robot of its own


def test_shared_memory_sets_both_names_of_the_profile(launch_file):
    assert launched(launch_file)["node"]["additional_env"] == {}
    assert launched(launch_file, data="somewhere", shared_memory="false")["node"]["additional_env"] == {}
    explicit = launched(launch_file, shared_memory="true").values()
    for options in (*explicit, *launched(launch_file, data="somewhere").values()):
        environment = options["additional_env"]
        for name in ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"):
            assert environment[name].args[0][1] == "fastdds_shm.xml"


@pytest.mark.parametrize("name", ["use_sim_time", "autostart", "loop", "shared_memory"])
def test_words_other_than_true_and_false_are_refused(launch_file, name):
    with pytest.raises(RuntimeError, match=f"{name}:=1: write {name}:=true or {name}:=false"):
        launched(launch_file, **{name: "1", "data": "somewhere"})


def test_port_of_the_viewer_is_a_number(launch_file):
    def overrides(**given: str) -> dict:
        return launched(launch_file, **given)["node"]["parameters"][1]

    assert overrides(viewer_port="8080")["viewer.port"] == 8080 and "viewer.port" not in overrides()
    with pytest.raises(RuntimeError, match="viewer_port:=yes: write a number"):
        overrides(viewer_port="yes")


def test_missing_params_file_is_an_error(launch_file):
    with pytest.raises(RuntimeError, match=r"params_file:=/nowhere\.yaml: no such file"):
        launched(launch_file, params_file="/nowhere.yaml")


def test_workflow_covers_the_distributions():
    tree = yaml.safe_load((REPOSITORY / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    assert tree["jobs"]["distribution"]["strategy"]["matrix"]["distro"] == ["humble", "jazzy", "kilted"]
    assert tree["jobs"]["arm64"]["runs-on"].endswith("-arm")
    steps = " ".join(step.get("run", "") for job in tree["jobs"].values() for step in job["steps"])
    for word in (
        "rosdep install",
        "colcon build --base-paths src src/ovs3d_ros/ovs3d_interfaces",
        "pytest tests",
        "ros2 launch ovs3d_ros ovs3d.launch.py",
        "ros2 service call",
        ".ci/run",
        "make lint",
        "make docs",
    ):
        assert word in steps
