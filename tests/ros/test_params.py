"""The configuration as ROS parameters: declaration, overrides, empty lists and the shipped file."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("rclpy")
pytestmark = pytest.mark.ros

import rclpy  # noqa: E402
from rclpy.context import Context  # noqa: E402
from rclpy.node import Node  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402

from ovs3d_ros.config import Config, leaves, override  # noqa: E402
from ovs3d_ros.config.yaml_io import load, to_yaml  # noqa: E402
from ovs3d_ros.ros import params  # noqa: E402
from ovs3d_ros.ros.environment import free_domain_id  # noqa: E402
from ovs3d_ros.types import UserError  # noqa: E402

REPOSITORY = Path(__file__).resolve().parents[2]


class ParameterNode(params.EmptyLists, Node):
    """A node that takes empty lists, as the mapping node does."""


@pytest.fixture
def make_node():
    """Makes nodes in a context of their own, with parameter overrides as on the command line."""
    context, nodes = Context(), []
    rclpy.init(context=context, args=[], domain_id=free_domain_id())

    def make(*overrides: str) -> Node:
        arguments = ["--ros-args"] + [word for text in overrides for word in ("-p", text)]
        nodes.append(
            ParameterNode(
                "ovs3d",
                context=context,
                cli_args=arguments if overrides else None,
                automatically_declare_parameters_from_overrides=True,
            )
        )
        return nodes[-1]

    yield make
    for node in nodes:
        node.destroy_node()
    rclpy.shutdown(context=context)


def test_every_leaf_is_a_described_parameter(make_node):
    node = make_node()
    assert params.declare_config(node) == Config()
    for spec, value in leaves():
        descriptor = node.describe_parameter(spec.path)
        assert descriptor.read_only != spec.runtime
        assert spec.doc in descriptor.description
        if spec.low is not None and spec.type is not tuple:
            bounds = (descriptor.integer_range or descriptor.floating_point_range)[0]
            assert bounds.from_value == spec.low
        stored = node.get_parameter(spec.path).value
        assert (tuple(stored) if spec.type is tuple else stored) == value


def test_overrides_become_the_configuration(make_node):
    node = make_node(
        "map.max_gaussians:=5000",
        "train.ssim_weight:=1",
        "query.negatives:=[wall, floor]",
        "clip.crop_divisors:=[2.0, 4.0]",
        "pose_source:=tf",
        "train.exposure:=false",
    )
    expected = override(
        Config(),
        {
            "map.max_gaussians": 5000,
            "train.ssim_weight": 1.0,
            "query.negatives": ["wall", "floor"],
            "clip.crop_divisors": [2.0, 4.0],
            "pose_source": "tf",
            "train.exposure": False,
        },
    )
    assert params.declare_config(node) == expected


@pytest.mark.parametrize(
    "override_text, problem",
    [
        ("map.max_gaussians:=-1", "map.max_gaussians: -1 is outside"),
        ("pose_source:=gps", "'gps' is none of"),
        ("map.max_gausians:=1000", "map.max_gausians: no such parameter"),
        ("train.exposure:=5", "train.exposure: expected true or false"),
        ("input.silence:=.nan", "is outside"),
        ("query.negatives:=[]", "query.negatives: must not be empty; give at least one"),
        ("use_sim_time:=1", "use_sim_time: expected true or false, got 1"),
        ("map.max_gaussians:=[]", "map.max_gaussians: expected a whole number"),
    ],
)
def test_bad_parameters_are_one_clear_error(make_node, override_text, problem):
    with pytest.raises(UserError, match=problem):
        params.declare_config(make_node(override_text))


@pytest.mark.parametrize("text", ["clip.crop_metres:=[]", "clip.crop_metres:=[0.0]", "clip.crop_metres:=[0]"])
@pytest.mark.parametrize("names", ["input.cameras:=[]", "input.cameras:=['']"])
def test_empty_lists_and_placeholders_are_accepted(make_node, text, names):
    node = make_node(text, names, "output.vocabulary:=[red mug]")
    config = params.declare_config(node)
    assert config.clip.crop_metres == config.input.cameras == () and config.output.vocabulary == ("red mug",)
    parameter = node.get_parameter("clip.crop_metres")
    assert (parameter.type_, list(parameter.value)) == (Parameter.Type.DOUBLE_ARRAY, [])
    descriptor = node.describe_parameter("input.cameras")
    assert descriptor.read_only and "write ['']" in descriptor.description


def test_unknown_parameters_of_other_groups_are_ignored(make_node):
    assert params.declare_config(make_node("robot_name:=anna", "use_sim_time:=true")) == Config()


def test_world_frame_may_start_with_a_slash(make_node):
    assert params.declare_config(make_node("input.world_frame:=/odom")).input.world_frame == "odom"


def test_shipped_yaml_is_the_configuration():
    path = REPOSITORY / "config" / "ovs3d.yaml"
    assert path.read_text(encoding="utf-8") == to_yaml(), "run: ovs3d config > config/ovs3d.yaml"
    assert load(path) == Config()


def test_shipped_yaml_is_read_by_ros():
    context = Context()
    rclpy.init(
        context=context,
        args=["--ros-args", "--params-file", str(REPOSITORY / "config" / "ovs3d.yaml")],
        domain_id=free_domain_id(),
    )
    node = ParameterNode("ovs3d", context=context, automatically_declare_parameters_from_overrides=True)
    try:
        assert params.declare_config(node) == Config()
    finally:
        node.destroy_node()
        rclpy.shutdown(context=context)


def test_whole_numbers_set_float_parameters(make_node):
    node = make_node()
    params.declare_config(node)
    node.add_pre_set_parameters_callback(params.widen_integers)
    for name, value in (("query.threshold", 1), ("query.presence", 1), ("map.max_gaussians", 5000)):
        (result,) = node.set_parameters([Parameter(name, value=value)])
        assert result.successful, result.reason
    assert node.get_parameter("query.threshold").type_ == Parameter.Type.DOUBLE
    assert node.get_parameter("map.max_gaussians").type_ == Parameter.Type.INTEGER
    assert not node.set_parameters([Parameter("map.max_gaussians", value=5000.0)])[0].successful


def test_lists_of_whole_numbers_become_floats():
    (widened,) = params.widen_integers([Parameter("clip.crop_metres", value=[1, 2])])
    assert (widened.type_, list(widened.value)) == (Parameter.Type.DOUBLE_ARRAY, [1.0, 2.0])


def test_empty_list_in_a_file_is_one_clear_error(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("/**:\n  ros__parameters:\n    query:\n      negatives: []\n", encoding="utf-8")
    context = Context()
    rclpy.init(context=context, args=["--ros-args", "--params-file", str(path)], domain_id=free_domain_id())
    node = ParameterNode("ovs3d", context=context, automatically_declare_parameters_from_overrides=True)
    try:
        with pytest.raises(UserError, match=r"query\.negatives: must not be empty"):
            params.declare_config(node)
    finally:
        node.destroy_node()
        rclpy.shutdown(context=context)


def test_runtime_changes_are_checked():
    config = params.apply_parameters(Config(), [Parameter("map.max_gaussians", value=5000)])
    assert config == override(Config(), {"map.max_gaussians": 5000})
    with pytest.raises(UserError, match=r"map\.max_gaussians: 1 is outside the range; give 100 to"):
        params.apply_parameters(config, [Parameter("map.max_gaussians", value=1)])
    with pytest.raises(UserError, match=r"query\.negatives: must not be empty"):
        params.apply_parameters(config, [Parameter("query.negatives", Parameter.Type.STRING_ARRAY, [])])
