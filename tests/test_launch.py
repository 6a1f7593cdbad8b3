"""The launch file and the CI workflow: their syntax everywhere, and a launch where `launch` is installed."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path

import yaml

from ovs3d_ros.config import Config, leaves, override

REPOSITORY = Path(__file__).resolve().parents[1]
LAUNCH_FILE = REPOSITORY / "launch" / "ovs3d.launch.py"
INPUTS = {"image", "camera_info", "depth", "pose", "odom", "transform", "keyframe_path"}


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
        assert all(value.startswith("/") for name, value in values.items() if name in INPUTS)
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


def test_launch_file_starts_node_player_and_rviz():
    if importlib.util.find_spec("launch_ros") is None:
        return  # there is no wheel of launch_ros; the tests above check the syntax tree
    from launch import LaunchContext

    spec = importlib.util.spec_from_file_location("ovs3d_launch", LAUNCH_FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    description = module.generate_launch_description()
    assert {a.name for a in description.get_launch_arguments()} == argument_names()
    context = LaunchContext()
    for name, (default, _) in module.ARGUMENTS.items():
        context.launch_configurations[name] = default if isinstance(default, str) else "params.yaml"
    context.launch_configurations.update({"preset": "gazebo", "depth": "/mine", "data": "somewhere"})
    assert [process.node_executable for process in module._make_nodes(context)] == ["node", "play", "rviz2"]


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
