"""The guard of the viewer: whose page may connect, what it may send, and how fast."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from ovs3d_ros.viewer import guard


@pytest.mark.parametrize(
    "host, origin, loopback, allowed",
    [
        ("localhost:8080", "http://localhost:8080", True, True),
        ("127.0.0.1:8080", "http://127.0.0.1:8080", True, True),
        ("[::1]:8080", "http://[::1]:8080", True, True),
        ("localhost:9999", "http://localhost:9999", True, True),  # through a tunnel
        ("localhost:8080", None, True, True),  # a program
        ("localhost:8080", "https://evil.example", True, False),
        ("localhost:8080", "http://localhost:3000", True, False),  # another server of this machine
        ("localhost:8080", "null", True, False),  # a file, or a frame in a sandbox
        ("evil.example:8080", "http://evil.example:8080", True, False),  # a name that points here
        ("robot.lan:8080", "http://robot.lan:8080", False, True),
        ("robot.lan:8080", "https://evil.example", False, False),
        ("[", "http://[", True, False),
    ],
)
def test_only_the_own_page_may_connect(host, origin, loopback, allowed):
    assert guard.is_own_page(host, origin, loopback) is allowed


def test_allowance_lets_a_burst_pass_and_then_holds_the_rate():
    now = [0.0]
    allowance = guard.Allowance(10.0, 20.0, lambda: now[0])
    assert [allowance.spend(1) for _ in range(20)] == [0.0] * 20
    assert allowance.spend(1) == pytest.approx(0.1) and allowance.spend(1) == pytest.approx(0.2)
    now[0] = 100.0
    assert [allowance.spend(1) for _ in range(20)] == [0.0] * 20, (
        "rest does not add up to more than the burst"
    )
    assert allowance.spend(5) == pytest.approx(0.5)


def message(kind: str, **fields) -> object:
    return type(kind, (), fields)()


@pytest.mark.parametrize(
    "sent, accepted",
    [
        (message("ViewerCameraMessage"), True),
        (message("GuiUpdateMessage", updates={"value": "red mug"}), True),
        (message("GuiUpdateMessage", updates={"value": 0.5}), True),
        (message("GuiUpdateMessage", updates={"value": [1, 2]}), False),
        (message("GuiUpdateMessage", updates={"update_cb": "x"}), False),
        (message("GuiUpdateMessage", updates={"value": "x", "removed": True}), False),
        (message("ShareUrlRequest"), False),
        (message("FileTransferStartUpload"), False),
        (message("RunJavascriptMessage"), False),
    ],
)
def test_only_what_the_page_sends_is_accepted(sent, accepted):
    assert guard.is_acceptable(b"...", lambda raw: sent) is accepted


class Connection:
    """Stands for a WebSocket connection that receives messages as fast as they are read."""

    def __init__(self, messages: list) -> None:
        self.protocol, self.closed, self._messages = SimpleNamespace(), 0, iter(messages)

    async def recv(self) -> object:
        if self.closed:
            raise ConnectionError
        return next(self._messages)

    async def close(self, code: int, reason: str) -> None:
        self.closed = code


def decode(raw: bytes) -> object:
    if raw == b"noise":
        raise KeyError("type")
    return message(raw.decode())


def test_unwanted_messages_are_skipped_and_unreadable_ones_close():
    connection = Connection([b"ShareUrlRequest", b"ViewerCameraMessage", b"noise"])
    guard.restrict(connection, decode)
    assert asyncio.run(connection.recv()) == b"ViewerCameraMessage"
    with pytest.raises(ConnectionError):
        asyncio.run(connection.recv())
    assert connection.closed == 1003


def test_text_frames_are_unreadable():
    connection = Connection(["hello"])
    guard.restrict(connection, decode)
    with pytest.raises(ConnectionError):
        asyncio.run(connection.recv())


def test_flood_is_slowed_to_the_rate():
    waits = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    connection = Connection([b"ViewerCameraMessage"] * 1000)

    async def read_all() -> None:
        for _ in range(1000):
            await connection.recv()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(guard.asyncio, "sleep", sleep)
        guard.restrict(connection, decode)
        asyncio.run(read_all())
    burst = guard.BURST * guard.MESSAGES
    assert sum(wait == 0 for wait in waits) <= burst + 20
    assert max(waits) == pytest.approx((1000 - burst) / guard.MESSAGES, rel=0.1)


def test_sender_who_never_pauses_is_disconnected():
    now = [0.0]

    async def sleep(seconds: float) -> None:
        now[0] += seconds

    async def read_all() -> None:
        while True:
            await connection.recv()

    connection = Connection([b"ViewerCameraMessage"] * 100_000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(guard.asyncio, "sleep", sleep)
        patch.setattr(guard.time, "monotonic", lambda: now[0])
        allowance = guard.Allowance
        patch.setattr(guard, "Allowance", lambda *args: allowance(*args, lambda: now[0]))
        guard.restrict(connection, decode)
        with pytest.raises(ConnectionError):
            asyncio.run(read_all())
    assert connection.closed == 1008 and now[0] == pytest.approx(guard.PATIENCE, abs=0.1)
