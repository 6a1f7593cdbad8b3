"""The viewer's page without a browser: a WebSocket client that speaks viser's protocol."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import zstandard
from PIL import Image
from viser import __version__, _messages
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect


class Page:
    """A visitor of the viewer that keeps the newest state of panel and scene."""

    def __init__(
        self, port: int, origin: str | None = "", host: str = "localhost", renderer: str | None = None
    ) -> None:
        """Connects.

        Args:
            port: of the viewer.
            origin: the page that connects; "": the viewer's own; None: no browser.
            host: of the viewer.
            renderer: what the page says of its WebGL; None: it does not say.
        """
        address = f"http://{host}:{port}" if origin == "" else origin
        self.gui: dict[str, dict] = {}  # by uuid
        self.nodes: dict[str, dict] = {}  # by name
        self.kinds: list[str] = []
        self.camera: dict[str, np.ndarray] = {}  # "position" and "look_at" as the viewer last set them
        self.closed = ""
        self.pictures: list[np.ndarray | None] = []  # RGB [H, W, 3] backgrounds; None: taken away
        self._renderer = renderer
        self._socket = connect(
            f"ws://{host}:{port}",
            origin=address,
            subprotocols=[f"viser-v{__version__}"],
            max_size=None,
            ping_interval=None,  # as a browser, which leaves pings to the server
        )
        self._thread = threading.Thread(target=self._receive, daemon=True)
        self._thread.start()

    def _receive(self) -> None:
        try:
            while True:
                self._read(self._socket.recv())
        except ConnectionClosed as error:
            self.closed = str(error)

    def _read(self, raw: bytes) -> None:
        size, length = (int.from_bytes(raw[i : i + 8], "little") for i in (0, 8))
        content = zstandard.ZstdDecompressor().decompress(raw[16 : 16 + length], max_output_size=size)
        window = msgspec.msgpack.decode(content)
        buffers, start = [], 16 + length
        for count in window["binaryBufferLengths"]:
            start += -start % 8
            buffers.append(raw[start : start + count])
            start += count
        for message in window["messages"]:
            self._apply(message, buffers)

    def _apply(self, message: dict, buffers: list[bytes]) -> None:
        kind = message["type"]
        self.kinds.append(kind)
        for part in (message.get("props"), message.get("updates")):
            for name, value in (part or {}).items():
                if isinstance(value, dict) and "__binary_index" in value:
                    part[name] = buffers[value["__binary_index"]]
        if kind == "GuiUpdateMessage":
            entry = self.gui.get(message["uuid"])
            if entry is not None:
                entry["props"].update(message["updates"])
        elif kind.startswith("Gui") and "uuid" in message and "props" in message:
            self.gui[message["uuid"]] = message
        elif kind in ("SetCameraPositionMessage", "SetCameraLookAtMessage"):
            self.camera |= {
                name: np.array(message[name]) for name in ("position", "look_at") if name in message
            }
        elif kind == "RemoveSceneNodeMessage":
            self.nodes.pop((message["name"], message.get("owner")), None)
        elif kind == "SceneNodeUpdateMessage":
            self.nodes[message["name"], message.get("owner")]["props"].update(message["updates"])
        elif kind == "LocalStorageGetItemRequestMessage":
            answer = _messages.LocalStorageGetItemResponseMessage(
                self._renderer, None, message["request_uuid"]
            )
            self.send(answer)
        elif kind == "BackgroundImageMessage":
            data = message["rgb_data"]
            if data is not None:
                self.pictures.append(np.asarray(Image.open(io.BytesIO(data))))
            elif self.pictures:  # viser begins without a background
                self.pictures.append(None)
        elif "name" in message and "props" in message:
            self.nodes[message["name"], message.get("owner")] = message

    def send(self, message: Any) -> None:
        """Sends a message of viser."""
        self.send_raw(msgspec.msgpack.encode(message.as_serializable_dict()))

    def send_raw(self, raw: bytes | str) -> None:
        """Sends anything."""
        self._socket.send(raw)

    def arrive(self, position=(2.0, 2.0, 1.0)) -> Page:
        """Sends the first camera, with which viser takes a page for a visitor."""
        self.look((1.0, 0.0, 0.0, 0.0), position)
        return self

    def look(self, wxyz, position) -> None:
        """Sends another camera."""
        self.send(
            _messages.ViewerCameraMessage(
                wxyz=tuple(wxyz),
                position=tuple(position),
                fov=1.0,
                near=0.01,
                far=100.0,
                image_height=600,
                image_width=800,
                look_at=(0.0, 0.0, 0.0),
                up_direction=(0.0, 0.0, 1.0),
            )
        )

    def find(self, label: str) -> str | None:
        """The uuid of the input with a label."""
        return next((uuid for uuid, m in list(self.gui.items()) if m["props"].get("label") == label), None)

    def set(self, label: str, value: Any) -> None:
        """Sets an input, as a visitor does."""
        self.wait_for(lambda: self.find(label))
        self.send(_messages.GuiUpdateMessage(self.find(label), {"value": value}))

    def words(self) -> str:
        """All HTML of the panel."""
        return "\n".join(
            m["props"]["content"] for m in list(self.gui.values()) if m["type"] == "GuiHtmlMessage"
        )

    def scene(self, kind: str) -> dict[str, dict]:
        """The properties of the nodes of a type, e.g. "LabelMessage", by name."""
        return {name: m["props"] for (name, _), m in list(self.nodes.items()) if m["type"] == kind}

    def splats(self) -> list[dict]:
        """The properties of the splats."""
        return [m["props"] for m in list(self.nodes.values()) if m["type"] == "GaussianSplatsMessage"]

    def wait_for(self, condition: Callable[[], object], seconds: float = 60.0) -> None:
        """Waits until a condition holds."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"not within {seconds} s; closed: {self.closed}\n{self.words()}"
            time.sleep(0.02)

    def close(self) -> None:
        """Closes the page."""
        self._socket.close()
        self._thread.join(5)
