"""The configuration tree as ROS parameters: each leaf once, with description, unit and range."""

from __future__ import annotations

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import InvalidParameterTypeException
from rclpy.node import Node
from rclpy.parameter import Parameter

from ovs3d_ros.config import Config, leaves, override
from ovs3d_ros.config.leaf import Leaf
from ovs3d_ros.query.request import check_prompts
from ovs3d_ros.types import UserError

INT_LIMIT = 2**63 - 1
FLOAT_LIMIT = 1.7976931348623157e308


def declare_config(node: Node) -> Config:
    """Declares every parameter of the configuration on `node` and returns the configuration they hold.

    The node must have been made with `automatically_declare_parameters_from_overrides=True`, so that misspelt
    names are seen. Those that are not `runtime` are read-only: the map is built with them.

    Raises:
        UserError: a value of the wrong type or out of range, or a misspelt name in one of our groups.
    """
    specs = {spec.path: spec for spec, _ in leaves()}
    groups = {path.partition(".")[0] for path in specs}
    given = {}
    for name, parameter in node.get_parameters_by_prefix("").items():
        if name in specs or name.partition(".")[0] in groups:
            given[name] = parameter.value
            node.undeclare_parameter(name)
        elif name != "use_sim_time" and not name.startswith(
            ("qos_overrides.", "start_type_description_service")
        ):
            node.get_logger().warning(
                f"parameter {name} is not one of ours and does nothing; `ovs3d config` lists all parameters"
            )
    config = override(Config(), {name: _plain(value) for name, value in given.items()})
    # Frames are compared without the leading slash that ROS 1 had.
    config = override(config, {"input.world_frame": config.input.world_frame.lstrip("/")})
    for spec, value in leaves(config):
        stored = list(value) if isinstance(value, tuple) else value
        try:
            node.declare_parameter(spec.path, stored, describe(spec), ignore_override=True)
        except InvalidParameterTypeException as error:
            raise UserError(f"{spec.path}: {error}") from None
    return config


def changed(config: Config, parameters: list[Parameter]) -> Config:
    """The configuration with the values a client wants to set; parameters of others are passed over.

    Raises:
        UserError: a value of the wrong type or out of range.
    """
    specs = {spec.path for spec, _ in leaves()}
    config = override(config, {p.name: _plain(p.value) for p in parameters if p.name in specs})
    check_prompts(list(config.query.negatives), "negative")
    return config


def _plain(value: object) -> object:
    """ROS gives sequences as array.array; the configuration wants lists."""
    return value if value is None or isinstance(value, (str, bool, int, float)) else list(value)


def describe(spec: Leaf) -> ParameterDescriptor:
    """The ROS descriptor of a configuration leaf."""
    unit = f" ({spec.unit})" if spec.unit else ""
    descriptor = ParameterDescriptor(name=spec.path, description=spec.doc + unit, read_only=not spec.runtime)
    if spec.choices:
        descriptor.additional_constraints = "one of " + ", ".join(spec.choices)
    bounded = spec.low is not None or spec.high is not None
    if bounded and spec.type is int:
        low = -INT_LIMIT if spec.low is None else int(spec.low)
        high = INT_LIMIT if spec.high is None else int(spec.high)
        descriptor.integer_range = [IntegerRange(from_value=low, to_value=high, step=0)]
    elif bounded and spec.type is float:
        low = -FLOAT_LIMIT if spec.low is None else float(spec.low)
        high = FLOAT_LIMIT if spec.high is None else float(spec.high)
        descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high, step=0.0)]
    return descriptor
