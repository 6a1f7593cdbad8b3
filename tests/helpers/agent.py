"""A language agent's side of `ovs3d mcp`: the client of the official SDK, over standard streams."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import anyio


def ask_server(
    arguments: list[str],
    environment: dict[str, str],
    questions: dict[str, tuple[str, dict]],
    before: Callable[[str], object] = str,
) -> dict[str, Any]:
    """The tools of a server, as `tools`, and the answers to questions of one session, by their names.

    Args:
        arguments: of `ovs3d`.
        environment: of the server.
        questions: tool and arguments by name.
        before: called with the name of each question before it is asked.
    """
    from mcp import Client, StdioServerParameters, stdio_client

    server = StdioServerParameters(
        command=sys.executable, args=["-m", "ovs3d_ros.cli", *arguments], env=environment
    )

    async def ask() -> dict[str, Any]:
        async with Client(stdio_client(server)) as client:
            listed = await client.list_tools()
            answers: dict[str, Any] = {"tools": listed.tools}
            for name, question in questions.items():
                before(name)
                answers[name] = await client.call_tool(*question)
        return answers

    return anyio.run(ask)
