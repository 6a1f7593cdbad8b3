"""A real Chromium without a screen, driven over its DevTools protocol."""

from __future__ import annotations

import base64
import itertools
import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--remote-debugging-port=0",
    "--disable-gpu",  # as without a graphics card: the processor draws pages, and SwiftShader their WebGL
    "--enable-unsafe-swiftshader",
    "--hide-scrollbars",
    "--mute-audio",
    "--disable-dev-shm-usage",
)
_START = 60.0  # seconds
_PATIENCE = 300.0  # seconds for one answer, on a machine under load


class Browser:
    """One page in a browser of its own."""

    def __init__(self, folder: Path, width: int = 1280, height: int = 800) -> None:
        """Starts Chromium with an empty profile in `folder`."""
        from websockets.sync.client import connect

        assert CHROMIUM is not None
        self._errors = folder / "chromium.log"
        self._process = subprocess.Popen(
            [CHROMIUM, *_FLAGS, f"--user-data-dir={folder / 'profile'}", f"--window-size={width},{height}"],
            stdout=subprocess.DEVNULL,
            stderr=self._errors.open("wb"),
        )
        self._numbers = itertools.count(1)
        self._socket: Any = None
        try:
            self._socket = connect(self._wait_for_address(), max_size=2**28, open_timeout=30)
            target = self._send("Target.createTarget", url="about:blank")["targetId"]
            self._session = self._send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            self.call("Page.enable")
            self.resize(width, height)
        except BaseException:
            self.close()
            raise

    def _wait_for_address(self) -> str:
        end = time.monotonic() + _START
        while time.monotonic() < end:
            found = re.search(r"ws://\S+", self._errors.read_text(errors="replace"))
            if found:
                return found[0]
            time.sleep(0.1)
        raise AssertionError(f"Chromium did not start:\n{self._errors.read_text(errors='replace')}")

    def _send(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        self._socket.send(json.dumps(message | ({"sessionId": session} if session else {})))
        while True:
            answer = json.loads(self._socket.recv(timeout=_PATIENCE))
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Calls a method of the DevTools protocol on the page."""
        return self._send(method, self._session, **params)

    def resize(self, width: int, height: int, phone: bool = False) -> None:
        """Sets the size of the page in pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if phone else 1,
            mobile=phone,
        )

    def open(self, address: str) -> None:
        """Loads a page."""
        self.call("Page.navigate", url=address)

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait_for(self, condition: str | Callable[[], object], seconds: float = 60.0) -> None:
        """Waits until a JavaScript expression, or a function, is true."""
        end = time.monotonic() + seconds
        while not (self.run(condition) if isinstance(condition, str) else condition()):
            assert time.monotonic() < end, f"not within {seconds} s: {condition}\n{self.text()}"
            time.sleep(0.1)

    def text(self) -> str:
        """The words on the page."""
        return self.run("document.body ? document.body.innerText : ''")

    def press(self, x: float, y: float) -> None:
        """Clicks at a place in pixels."""
        for kind, buttons in (("mouseMoved", 0), ("mousePressed", 1), ("mouseReleased", 0)):
            self.call(
                "Input.dispatchMouseEvent",
                type=kind,
                x=x,
                y=y,
                button="left" if kind != "mouseMoved" else "none",
                buttons=buttons,
                clickCount=1,
            )
            time.sleep(0.05)

    def input(self, label: str) -> str:
        """A JavaScript expression for the input beside a label of viser's panel."""
        return (
            "(() => {let e = [...document.querySelectorAll('label')].find("
            f"l => l.innerText.trim() == {json.dumps(label)});"
            "while (e && !e.querySelector('input:not([type=hidden])')) e = e.parentElement;"
            "return e && e.querySelector('input:not([type=hidden])')})()"
        )

    def button(self, text: str) -> str:
        """A JavaScript expression for the innermost element with a text."""
        return (
            "[...document.querySelectorAll('*')].filter("
            f"e => e.innerText && e.innerText.trim() == {json.dumps(text)} && e.offsetParent).pop()"
        )

    def press_on(self, script: str) -> None:
        """Clicks on the middle of the element that a JavaScript expression gives."""
        x, y = self.run(
            f"(() => {{const b = ({script}).getBoundingClientRect();"
            "return [b.x + b.width / 2, b.y + b.height / 2]})()"
        )
        self.press(x, y)

    def type_into(self, script: str, text: str) -> None:
        """Clicks on the input that a JavaScript expression gives until it has the focus, and types."""

        def is_ready() -> bool:
            self.press_on(script)  # misses while the page still moves it
            return self.run(f"document.activeElement === ({script})")

        self.wait_for(is_ready)
        for letter in text:
            self.call("Input.insertText", text=letter)

    def screenshot(self, path: Path) -> Path:
        """Writes what the page shows as a PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))
        return path

    def processor_seconds(self) -> dict[str, float]:
        """Processor time of the browser's processes by kind, e.g. of all "renderer"."""
        processes = self._send("SystemInfo.getProcessInfo")["processInfo"]
        kinds = {entry["type"] for entry in processes}
        return {kind: sum(e["cpuTime"] for e in processes if e["type"] == kind) for kind in kinds}

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the browser."""
        if self._socket is not None:
            self._socket.close()
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
