"""Asks a page what draws it: a graphics card, or the processor."""

from __future__ import annotations

import asyncio
from typing import Any

# As browsers name them: Chromium, Mesa (also in Firefox), Windows, macOS.
_SOFTWARE = ("swiftshader", "llvmpipe", "softpipe", "basic render", "software")
_KEY = "renderer"  # in the storage of the page, under the prefix of viser
_ASK = f"""
const canvas = document.querySelector("canvas[data-engine]");
const gl = canvas.getContext("webgl2");
const names = gl.getExtension("WEBGL_debug_renderer_info");
const name = gl.getParameter(names ? names.UNMASKED_RENDERER_WEBGL : gl.RENDERER);
localStorage.setItem("viser-user:{_KEY}", name);
"""


def is_software(renderer: str | None) -> bool:
    """Whether a WebGL renderer of this name draws on the processor; an unknown one (None) does not."""
    return renderer is not None and any(name in renderer.lower() for name in _SOFTWARE)


def ask_renderer(connection: Any) -> asyncio.Future[str | None]:
    """Asks a page for the name of its WebGL renderer; None: it does not say. Called on the event loop.

    A page answers before its next frame, a sleeping one when it wakes.

    Args:
        connection: a `WebsockClientConnection` of viser.
    """
    from viser import _messages

    kind, answer = _messages.LocalStorageGetItemResponseMessage, asyncio.get_running_loop().create_future()

    def hear(_: Any, message: Any) -> None:
        if message.request_uuid == _KEY:
            connection.unregister_handler(kind, hear)
            answer.set_result(message.value if isinstance(message.value, str) else None)

    connection.register_handler(kind, hear)
    connection.queue_message(_messages.RunJavascriptMessage(f"try {{{_ASK}}} catch (error) {{}}"))
    connection.queue_message(_messages.LocalStorageGetItemRequestMessage(_KEY, _KEY))
    connection.queue_message(_messages.LocalStorageRemoveItemMessage(_KEY))
    return answer
