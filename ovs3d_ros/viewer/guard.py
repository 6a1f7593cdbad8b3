"""Keeps foreign web pages out of the viewer, and bounds what a visitor can send.

A browser lets any page open a WebSocket to this machine, and says in the header Origin which page it is.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

log = logging.getLogger(__name__)

MAX_VISITORS = 64
MAX_MESSAGE = 16 * 2**20  # bytes; a picture of a large screen fits
MAX_TEXT = 40_000  # characters that an input of the panel takes: 128 prompts of 256 and their commas
MESSAGES = 120.0  # per second and visitor; a browser sends its camera at most 60 times a second
BYTES = 8 * 2**20  # per second and visitor
BURST = 2.0  # seconds of these rates that may come at once
PATIENCE = 10.0  # seconds without a pause that a visitor may send too fast; then the connection is closed
# What the viewer's own page sends. Uploads, a public tunnel and others of viser are not offered.
_KINDS = {
    "ViewerCameraMessage",
    "GuiUpdateMessage",
    "SceneNodeClickMessage",
    "ScenePointerMessage",
    "GetRenderResponseMessage",
    "FileTransferPartAck",
    "LocalStorageGetItemResponseMessage",
}
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_REFUSED, _TOO_MANY, _UNREADABLE = 1008, 1013, 1003  # close codes of RFC 6455


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine alone."""
    return host in _LOOPBACK or host.startswith("127.")


def is_own_page(host: str, origin: str | None, loopback: bool) -> bool:
    """Whether a connection comes from the viewer's own page, or from a program.

    Args:
        host: header Host, the address that the client asked for.
        origin: header Origin, the page that asked; None: no browser.
        loopback: the viewer only listens to this machine. Another name in Host is then one that a foreign
            page made point here.
    """
    try:
        name = urlsplit(f"//{host}").hostname or ""
        if loopback and not is_loopback(name):
            return False
        return origin is None or urlsplit(origin).netloc == host
    except ValueError:  # not an address
        return False


class Allowance:
    """A rate with a burst: how long the sender of something must wait."""

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Starts full.

        Args:
            rate: units per second.
            burst: units that may come at once.
            clock: seconds.
        """
        self._rate, self._burst, self._clock = rate, burst, clock
        self._left, self._last = burst, clock()

    def spend(self, amount: float) -> float:
        """Spends an amount and returns the seconds until it is paid for."""
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._last) * self._rate) - amount
        self._last = now
        return max(0.0, -self._left / self._rate)


def is_acceptable(raw: object, decode: Callable[[bytes], Any]) -> bool:
    """Whether a message is one that the viewer's page sends. Raises if it cannot be decoded."""
    if not isinstance(raw, bytes):
        raise ValueError("a text message")
    message = decode(raw)
    kind = type(message).__name__
    if kind != "GuiUpdateMessage":
        return kind in _KINDS
    value = message.updates.get("value")
    return set(message.updates) == {"value"} and isinstance(value, (str, int, float, bool))


def restrict(connection: Any, decode: Callable[[bytes], Any]) -> None:
    """Makes a WebSocket connection receive acceptable messages only, and no faster than allowed.

    While a sender waits, its further messages stay in its own machine. Who goes on is disconnected.

    Args:
        connection: a `websockets.asyncio.server.ServerConnection`.
        decode: turns bytes into a message of viser.
    """
    receive = connection.recv
    connection.protocol.max_message_size = MAX_MESSAGE
    messages, size = Allowance(MESSAGES, BURST * MESSAGES), Allowance(BYTES, BURST * BYTES)

    calm = time.monotonic()  # when the sender last kept to the rate

    async def recv(*args: Any, **options: Any) -> Any:
        nonlocal calm
        while True:
            raw = await receive(*args, **options)
            wait = max(messages.spend(1), size.spend(len(raw)))
            await asyncio.sleep(wait)
            if not wait:
                calm = time.monotonic()
            elif time.monotonic() > calm + PATIENCE:
                log.warning("the viewer disconnected a page that sent too much for %.0f s", PATIENCE)
                await connection.close(_REFUSED, "too many messages")
            try:
                if is_acceptable(raw, decode):
                    return raw
            except Exception as error:  # whatever the decoder makes of bytes that a stranger sent
                log.info("a visitor of the viewer sent something unreadable: %s", type(error).__name__)
                await connection.close(_UNREADABLE, "unreadable message")

    connection.recv = recv


class DoorKeeper:
    """Admits connections to a viser server.

    Args:
        loopback: the server only listens to this machine.
    """

    def __init__(self, server: Any, loopback: bool) -> None:
        from viser import _messages

        self._loopback = loopback
        self._decode = _messages.Message.deserialize
        self._sockets = server._websock_server
        for kind in (_messages.ShareUrlRequest, _messages.ShareUrlDisconnect):
            self._sockets.unregister_handler(kind)  # a visitor must not open a public tunnel
        self._sockets.on_client_connect(self._admit)
        server.get_event_loop().set_exception_handler(_log_quietly)

    async def _admit(self, client: Any) -> None:
        connection = self._sockets._live_connections.get(client.client_id)
        if connection is None:
            return
        headers = connection.request.headers
        if not is_own_page(headers.get("Host", ""), headers.get("Origin"), self._loopback):
            log.warning("the viewer refused a connection from the page %s", str(headers.get("Origin"))[:200])
            await connection.close(_REFUSED, "open the viewer's own address")
        elif len(self._sockets._live_connections) > MAX_VISITORS:
            await connection.close(_TOO_MANY, f"at most {MAX_VISITORS} visitors at once")
        else:
            restrict(connection, self._decode)


def _log_quietly(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Logs an exception that a message caused, in one line: a stranger can cause as many as he likes."""
    log.info("viewer: %s: %r", context.get("message"), context.get("exception"))
