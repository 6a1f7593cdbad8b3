"""Asks a page what draws it: a graphics card, or the processor."""

from __future__ import annotations

from collections.abc import Callable
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


class RendererQuestion:
    """Asks a page for the name of its WebGL renderer.

    A page answers before its next frame, a sleeping one when it wakes. Used on the event loop alone.
    """

    def __init__(self, connection: Any) -> None:
        """Asks; takes a `WebsockClientConnection` of viser."""
        from viser import _messages

        self._answer: tuple[str | None] | None = None
        self._tell: Callable[[str | None], None] | None = None
        kind = _messages.LocalStorageGetItemResponseMessage

        def hear(_: Any, message: Any) -> None:
            if message.request_uuid == _KEY:
                connection.unregister_handler(kind, hear)
                self._hear(message.value if isinstance(message.value, str) else None)

        connection.register_handler(kind, hear)
        connection.queue_message(_messages.RunJavascriptMessage(f"try {{{_ASK}}} catch (error) {{}}"))
        connection.queue_message(_messages.LocalStorageGetItemRequestMessage(_KEY, _KEY))
        connection.queue_message(_messages.LocalStorageRemoveItemMessage(_KEY))

    def _hear(self, renderer: str | None) -> None:
        self._answer = (renderer,)
        if self._tell is not None:
            self._tell(renderer)

    def call_when_answered(self, tell: Callable[[str | None], None]) -> None:
        """Calls `tell` with the name; None: the page does not say."""
        self._tell = tell
        if self._answer is not None:
            tell(*self._answer)
