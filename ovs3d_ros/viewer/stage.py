"""The open port of the viewer, and the room that all visitors see. Imports no torch."""

from __future__ import annotations

import contextlib
import io
import socket
import warnings
from typing import Any

from ovs3d_ros.config import ViewerConfig
from ovs3d_ros.types import UserError
from ovs3d_ros.viewer import coarse
from ovs3d_ros.viewer.drawing import Drawn
from ovs3d_ros.viewer.guard import DoorKeeper, is_loopback
from ovs3d_ros.viewer.views import Outlook

MAP = "/map"  # the shared node, which a visitor's own variant of the same name hides
_PIP = "pip install 'ovs3d_ros[view]'"


class Stage:
    """A viser server with one shared node, the map."""

    def __init__(self, config: ViewerConfig, title: str) -> None:
        """Opens the port.

        Args:
            config: port and host.
            title: of the panel.

        Raises:
            UserError: see `check_viewer`.
        """
        self._host = config.host
        self.server = _open_server(config, title)
        self._guard = DoorKeeper(self.server, is_loopback(config.host))
        self.port: int = self.server.get_port()
        self.server.gui.configure_theme(show_logo=False, show_share_button=False, brand_color=(23, 163, 152))
        # Splats, lines and names have colours of their own. Without a graphics card, a surrounding photograph
        # and shadows cost a page seconds, and it hides the map until it has them.
        self.server.scene.configure_environment_map(None)
        self.server.scene.configure_default_lights(cast_shadow=False)
        self._map: Any = None
        self.is_coarse = False  # visitors get the whole map on their own

    @property
    def address(self) -> str:
        """Where a browser finds the viewer."""
        shown = "localhost" if is_loopback(self._host) or self._host in ("0.0.0.0", "::") else self._host
        return f"http://{shown}:{self.port}"

    @property
    def is_set(self) -> bool:
        """Whether a map is shown."""
        return self._map is not None

    def show_coarse(self, drawn: Drawn, outlook: Outlook) -> None:
        """As `show`, with few Gaussians for a large map, which pages without a graphics card draw sooner."""
        is_coarse = coarse.is_large(drawn)
        self.show(coarse.merge(drawn) if is_coarse else drawn, outlook)
        self.is_coarse = is_coarse

    def show(self, drawn: Drawn, outlook: Outlook) -> None:
        """Shows a map to everybody; visitors who come to the first one stand at `outlook`."""
        self.is_coarse = False
        if self._map is not None:
            self._map.set_gaussians(*drawn)
            return
        self.server.scene.set_up_direction(tuple(outlook.up))
        camera = self.server.initial_camera
        camera.position, camera.look_at = outlook.eye, outlook.target
        self._map = self.server.scene.add_gaussian_splats(MAP, *drawn)

    def clear(self) -> None:
        """Takes the map away."""
        if self._map is not None:
            self._map.remove()
            self._map = None

    def close(self) -> None:
        """Disconnects all visitors."""
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
