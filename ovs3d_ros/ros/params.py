"""The configuration tree as ROS parameters: each leaf once, with description, unit and range."""

from __future__ import annotations

from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import InvalidParameterTypeException
from rclpy.node import Node
from rclpy.parameter import Parameter

from ovs3d_ros.config import Config, leaves, override
from ovs3d_ros.config.leaf import Leaf, drop_placeholder
from ovs3d_ros.query.request import check_prompts
from ovs3d_ros.types import UserError

INT_LIMIT = 2**63 - 1
FLOAT_LIMIT = 1.7976931348623157e308
LIST_TYPES = {
    str: Parameter.Type.STRING_ARRAY,
    float: Parameter.Type.DOUBLE_ARRAY,
    int: Parameter.Type.INTEGER_ARRAY,
}
_EMPTY_LIST = " In a launch file, which refuses empty lists, write {} for an empty list."
_FOREIGN = "qos_overrides.", "start_type_description_service"  # parameters that rclpy declares


class EmptyLists:
    """Mixin of a node class: an empty list in a parameter file is no error.

    Such a list reaches the node without value and type, and rclpy declares it only with dynamic typing.
    """

    def declare_parameters(
        self, namespace: str, parameters: list[tuple], ignore_override: bool = False
    ) -> list[Parameter]:
        """As `rclpy.node.Node.declare_parameters`."""
        dynamic = ParameterDescriptor(dynamic_typing=True)
        parameters = [(p[0], None, dynamic) if len(p) > 1 and p[1] is None else p for p in parameters]
        return super().declare_parameters(namespace, parameters, ignore_override)


def declare_config(node: Node) -> Config:
    """Declares every parameter of the configuration on `node` and returns the configuration they hold.

    The node must be of a class with `EmptyLists` and made with
    `automatically_declare_parameters_from_overrides=True`, so that misspelt names are found. Parameters
    without the policy RUNTIME are read-only: the map is built with them.

    Raises:
        UserError: a value of the wrong type or out of range, or a misspelt name in one of our groups.
    """
    specs = {spec.path: spec for spec, _ in leaves()}
    groups = {path.partition(".")[0] for path in specs}
    given = {}
    for name, parameter in node.get_parameters_by_prefix("").items():
        if name == "use_sim_time" and not isinstance(parameter.value, bool):  # rclpy would take it for false
            raise UserError(f"use_sim_time: expected true or false, got {parameter.value!r}")
        if name in specs or name.partition(".")[0] in groups:
            given[name] = _to_config(specs.get(name), parameter.value)
            node.undeclare_parameter(name)
        elif name != "use_sim_time" and not name.startswith(_FOREIGN):
            node.get_logger().warning(
                f"parameter {name} is unknown to ovs3d_ros and has no effect; `ovs3d config` lists all "
                "parameters"
            )
    config = override(Config(), given)
    # Frames are compared without the leading slash that ROS 1 had.
    config = override(config, {"input.world_frame": config.input.world_frame.lstrip("/")})
    for spec, value in leaves(config):
        _declare(node, spec, value)
    return config


def apply_parameters(config: Config, parameters: list[Parameter]) -> Config:
    """The configuration with the values a client wants to set; parameters of other packages are ignored.

    Raises:
        UserError: a value of the wrong type or out of range.
    """
    specs = {spec.path: spec for spec, _ in leaves()}
    values = {p.name: _to_config(specs[p.name], p.value) for p in parameters if p.name in specs}
    config = override(config, values)
    check_prompts(list(config.query.negatives), "negative")
    if config.navigation.keep_out:
        check_prompts(list(config.navigation.keep_out), "name to keep out of")
    return config


def widen_integers(parameters: list[Parameter]) -> list[Parameter]:
    """The parameters a client wants to set, with whole numbers as floats where the configuration has floats;
    rclpy compares the types before it asks the node.
    """
    floats = {spec.path for spec, _ in leaves() if spec.type is float}
    lists = {spec.path for spec, _ in leaves() if spec.item is float}
    widened = []
    for parameter in parameters:
        if parameter.name in floats and parameter.type_ == Parameter.Type.INTEGER:
            parameter = Parameter(parameter.name, value=float(parameter.value))
        elif parameter.name in lists and parameter.type_ == Parameter.Type.INTEGER_ARRAY:
            values = [float(value) for value in parameter.value]
            parameter = Parameter(parameter.name, Parameter.Type.DOUBLE_ARRAY, values)
        widened.append(parameter)
    return widened


def describe(spec: Leaf) -> ParameterDescriptor:
    """The ROS descriptor of a configuration leaf."""
    text = f"{spec.doc} [{spec.unit}]" if spec.unit else spec.doc
    if spec.may_be_empty:
        text += _EMPTY_LIST.format("['']" if spec.item is str else "[0.0]")
    descriptor = ParameterDescriptor(name=spec.path, description=text, read_only=not spec.runtime)
    if spec.choices:
        descriptor.additional_constraints = "one of " + ", ".join(spec.choices)
    elif spec.item and spec.allowed:
        descriptor.additional_constraints = f"each element {spec.allowed}"
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


def _declare(node: Node, spec: Leaf, value: Any) -> None:
    """Declares one parameter with its value."""
    descriptor = describe(spec)
    if value != ():
        stored = list(value) if spec.item else value
        try:
            node.declare_parameter(spec.path, stored, descriptor, ignore_override=True)
        except InvalidParameterTypeException as error:
            raise UserError(f"{spec.path}: {error}") from None
        return
    # rclpy takes a list's type from its first element, so an empty list is declared by type and then set.
    kind = LIST_TYPES[spec.item]
    node.declare_parameter(spec.path, kind, ignore_override=True)
    node.set_parameters([Parameter(spec.path, kind, [])])
    descriptor.type = kind.value
    node.set_descriptor(spec.path, descriptor)


def _to_config(spec: Leaf | None, value: Any) -> Any:
    """A ROS value for the configuration: array.array becomes a list, None or a placeholder an empty list."""
    if value is None:
        return []
    if spec is None or spec.item is None or isinstance(value, (str, bool, int, float)):
        return value
    return drop_placeholder(spec, list(value))
