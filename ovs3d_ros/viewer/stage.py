"""The open port of the viewer, and how its visitors are shown Gaussians. Imports no torch."""

from __future__ import annotations

import asyncio
import contextlib
import io
import socket
import threading
import warnings
from collections.abc import Callable
from typing import Any

from ovs3d_ros.config import ViewerConfig
from ovs3d_ros.types import UserError
from ovs3d_ros.viewer.display import Display
from ovs3d_ros.viewer.drawing import Drawn
from ovs3d_ros.viewer.guard import DoorKeeper, is_loopback
from ovs3d_ros.viewer.painter import Painter
from ovs3d_ros.viewer.renderer import ask_renderer
from ovs3d_ros.viewer.requests import RequestThread
from ovs3d_ros.viewer.views import Outlook

_PIP = "pip install 'ovs3d_ros[view]'"


class Stage:
    """A viser server that shows Gaussians to its visitors, and a thread that computes for them.

    Attributes:
        server: of viser.
        port: on which it listens.
        thread: does what visitors ask for.
    """

    def __init__(
        self, config: ViewerConfig, title: str, first: Drawn | None = None, outlook: Outlook | None = None
    ) -> None:
        """Opens the port.

        Args:
            config: port and host.
            title: of the panel.
            first: Gaussians that visitors are shown before there is a map; None: nothing.
            outlook: where they stand at first, see `place_visitors`.

        Raises:
            UserError: see `check_viewer`.
        """
        self._host = config.host
        self._first = first
        # What draws the open pages, by their number.
        self._renderers: dict[int, asyncio.Future[str | None]] = {}
        self._displays: dict[int, Display] = {}  # of those that have sent a camera
        self._painter = Painter()
        self._is_placed = False
        self._seen = threading.Event()
        self.server = _open_server(config, title)
        self._guard = DoorKeeper(self.server, is_loopback(config.host))
        self.port: int = self.server.get_port()
        self.thread = RequestThread()
        self.server.gui.configure_theme(show_logo=False, show_share_button=False, brand_color=(23, 163, 152))
        # Splats, lines and names have colours of their own. Without a graphics card, a surrounding photograph
        # and shadows cost a page seconds, and it hides the map until it has them.
        self.server.scene.configure_environment_map(None)
        self.server.scene.configure_default_lights(cast_shadow=False)
        if outlook is not None:
            self.place_visitors(outlook)
        sockets = self.server._websock_server  # it knows pages before they send a camera
        sockets.on_client_connect(self._ask)
        sockets.on_client_disconnect(self._dismiss)
        self.server.on_client_connect(self._welcome)

    @property
    def address(self) -> str:
        """Where a browser finds the viewer."""
        shown = "localhost" if is_loopback(self._host) or self._host in ("0.0.0.0", "::") else self._host
        return f"http://{shown}:{self.port}"

    def prepare_pictures(self) -> None:
        """Loads or compiles what pictures need, on a thread of its own. Otherwise the first picture does."""
        self._painter.call_when_ready(lambda: None)

    def place_visitors(self, outlook: Outlook) -> None:
        """Where visitors stand at first. The first outlook counts."""
        if not self._is_placed:
            self.server.scene.set_up_direction(tuple(outlook.up))
            camera = self.server.initial_camera
            camera.position, camera.look_at = outlook.eye, outlook.target
        self._is_placed = True

    async def _ask(self, connection: Any) -> None:
        self._renderers[connection.client_id] = ask_renderer(connection)

    async def _welcome(self, client: Any) -> None:
        renderer = self._renderers.get(client.client_id)
        if renderer is None:  # it has left
            return
        self._displays[client.client_id] = Display(
            client,
            renderer,
            lambda kind, action, delay: self.thread.requests.put(client.client_id, kind, action, delay),
            self._painter,
            self._first,
            self._seen.set,
        )

    async def _dismiss(self, connection: Any) -> None:
        self._renderers.pop(connection.client_id, None)
        self._displays.pop(connection.client_id, None)
        self.thread.requests.forget(connection.client_id)

    def wait_for_visitor(self, timeout: float) -> bool:
        """Waits until the first visitor is sent something, at most `timeout` seconds; whether one was."""
        return self._seen.wait(timeout)

    def hand_over(self, between: Callable[[float], None]) -> None:
        """Shows new visitors nothing from now on: a map does. For `between` see `RequestThread`."""
        self._first, self.thread.between = None, between

    def display(self, visitor: int) -> Display | None:
        """The display of a visitor, by his number; None: he has left."""
        return self._displays.get(visitor)

    def close(self) -> None:
        """Ends the thread and disconnects all visitors."""
        self.thread.close()
        with _quiet():
            self.server.stop()


def check_viewer(config: ViewerConfig) -> None:
    """Raises UserError unless viser is installed and the address is free.

    viser itself would take another port, or wait forever.
    """
    try:
        import viser
    except ImportError:
        raise UserError(f"the viewer needs viser 1.1: {_PIP}") from None
    if not hasattr(viser.GaussianSplatHandle, "set_gaussians"):
        raise UserError(f"the viewer needs viser 1.1, and viser {viser.__version__} is installed: {_PIP}")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            config.host, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(
            f"the viewer cannot use {config.host}:{config.port} ({reason}); choose another viewer.port or "
            "viewer.host"
        ) from None


def _open_server(config: ViewerConfig, title: str) -> Any:
    """A viser server on the configured address. Raises UserError, see `check_viewer`."""
    check_viewer(config)
    import viser

    # A visitor may leave while his answer is under way, and viser would tell so on standard error.
    warnings.filterwarnings("ignore", "Queued a .* on a closed connection", UserWarning)
    with _quiet():
        return viser.ViserServer(config.host, config.port, label=title, verbose=False)


@contextlib.contextmanager
def _quiet() -> Any:
    """Keeps viser from printing on standard output, which may be for JSON."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
