"""`ovs3d mcp`: offers a map to a language agent, by the Model Context Protocol over standard streams."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from ovs3d_ros import __version__
from ovs3d_ros.agents.asked_map import AskedMap
from ovs3d_ros.agents.file_map import FileMap
from ovs3d_ros.agents.tools import MapTools
from ovs3d_ros.commands import common
from ovs3d_ros.commands.opening import load_semantic_map
from ovs3d_ros.types import UserError

_INSTRUCTIONS = (
    "A 3D map of a place, made from camera images. Ask for things by short English names; a name may say "
    "where, like 'mug on the table' (on, under, above, beside, near, in the). Verdicts are yes, unsure, no. "
    "Positions are x, y, z in the frame of the map, in metres, usually with z up."
)


def run(options: argparse.Namespace) -> int:
    """Serves the tools until the agent closes the stream.

    Raises:
        UserError: bad settings or map, no such node, or the SDK or ROS 2 is not installed.
    """
    if (options.map is None) == (options.node is None):
        raise UserError("give a map file, or --node NAME for a running node")
    require_sdk()
    if options.map is not None:
        pipeline = load_semantic_map(options.map, common.read_settings(options))
        make_server(FileMap(pipeline, options.map.stem)).run("stdio")
        return 0
    if options.set:
        raise UserError("--set is for a map file; a running node has its own parameters (`ros2 param set`)")
    with _connect(options.node, options.timeout) as asked:
        make_server(asked).run("stdio")
    return 0


def _connect(node: str, timeout: float) -> AbstractContextManager[AskedMap]:
    """The map of a running node."""
    if not timeout > 0:
        raise UserError(f"--timeout {timeout:g}: give a number of seconds above 0")
    return common.import_ros("node_map", "--node").connect(node, timeout)


def require_sdk() -> None:
    """Raises UserError unless the MCP SDK is installed."""
    try:
        import mcp.server.mcpserver  # noqa: F401
    except ImportError:
        raise UserError("the MCP SDK is not installed; pip install 'mcp>=2,<3'") from None


def make_server(asked: AskedMap) -> Any:
    """The `MCPServer` of one map."""
    from mcp.server.mcpserver import Image, MCPServer

    tools = MapTools(asked)
    server = MCPServer(
        f"ovs3d {asked.title}", instructions=_INSTRUCTIONS, version=__version__, log_level="WARNING"
    )

    def find_things(names: list[str]) -> dict[str, Any]:
        """Tells for each name whether such a thing is in the map, and where: center and size in metres."""
        return tools.find(names)

    def list_objects(names: list[str] | None = None) -> dict[str, Any]:
        """Lists things that are in the map, among the given names or else among common ones."""
        return tools.list_objects(names or [])

    def describe_place(name: str, others: list[str] | None = None) -> dict[str, Any]:
        """Describes where things of a name are in relation to others (given names, or else common ones)."""
        return tools.describe_place(name, others or [])

    def show_view(names: list[str]) -> Any:
        """Shows the camera view in which the named things are seen best, with the things in colour."""
        return Image(data=tools.view(names), format="jpeg")

    def goal_pose(name: str) -> dict[str, Any]:
        """Gives a pose on the ground, x and y in metres and yaw in radians, that faces the thing."""
        return tools.goal(name)

    for tool in (find_things, list_objects, describe_place, show_view, goal_pose):
        server.tool()(_report(tool))
    return server


def _report(tool: Callable[..., Any]) -> Callable[..., Any]:
    """The tool with bad input as an error that the agent reads."""
    from mcp.server.mcpserver.exceptions import ToolError

    @functools.wraps(tool)
    def call(**arguments: Any) -> Any:
        try:
            return tool(**arguments)
        except UserError as error:
            raise ToolError(str(error)) from None

    return call
