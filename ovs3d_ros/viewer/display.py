"""How one visitor is shown the map: as splats, or as pictures where no graphics card would draw these."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from typing import Any

from ovs3d_ros.viewer.drawing import Drawn
from ovs3d_ros.viewer.painter import Painter, read_look
from ovs3d_ros.viewer.renderer import is_software

_MAP = "/map"  # the node of the splats
_QUICK, _FINE = 640 * 360, 1280 * 720  # pixels of a picture while something changes, and at rest
_REST = 0.3  # seconds without a change until a fine picture follows
_JPEG_QUALITY = 85
Request = Callable[[Hashable, Callable[[], None], float], None]


class SplatDisplay:
    """Sends the Gaussians themselves, which the page draws."""

    def __init__(self, scene: Any, shown: Callable[[], None]) -> None:
        """Takes the scene of a viser client, and what `Display` takes."""
        self._scene = scene
        self._shown = shown
        self._node: Any = None

    def show(self, drawn: Drawn | None) -> None:
        """Shows these Gaussians instead of earlier ones; None: nothing."""
        if drawn is None:
            if self._node is not None:
                self._node.remove()
            self._node = None
        elif self._node is None:
            self._node = self._scene.add_gaussian_splats(_MAP, *drawn.splats)
        else:
            self._node.set_gaussians(*drawn.splats)
        if drawn is not None:
            self._shown()


class PictureDisplay:
    """Sends pictures of what the visitor sees, as background of the page.

    They are small after a change, and fine when nothing has changed for a while.
    """

    def __init__(self, client: Any, request: Request, painter: Painter, shown: Callable[[], None]) -> None:
        """Takes what `Display` takes; the painter must be ready."""
        self._client = client
        self._request = request
        self._painter = painter
        self._shown = shown
        self._drawn: Drawn | None = None
        self._has_picture = False

        async def moved(_: Any) -> None:
            self._repaint()

        client.camera.on_update(moved)

    def show(self, drawn: Drawn | None) -> None:
        """Shows these Gaussians instead of earlier ones; None: nothing."""
        self._drawn = drawn
        self._repaint()

    def _repaint(self) -> None:
        def paint_quickly() -> None:
            self._paint(_QUICK)
            self._request("fine picture", lambda: self._paint(_FINE), _REST)

        self._request("picture", paint_quickly, 0.0)

    def _paint(self, pixels: int) -> None:
        look, drawn = read_look(self._client.camera), self._drawn
        picture = None if drawn is None or look is None else self._painter.paint(drawn, look, pixels)
        if picture is not None or self._has_picture:
            self._client.scene.set_background_image(picture, "jpeg", jpeg_quality=_JPEG_QUALITY)
            self._client.flush()
            self._has_picture = picture is not None
        if picture is not None:
            self._shown()


class Display:
    """Shows the map to one visitor, once his page has told what draws it.

    A page without a graphics card takes seconds to sort and draw splats, so it never gets any.
    """

    def __init__(
        self,
        client: Any,
        renderer: asyncio.Future[str | None],
        request: Request,
        painter: Painter,
        drawn: Drawn | None,
        shown: Callable[[], None],
    ) -> None:
        """Starts with the page's answer. Called on the event loop.

        Args:
            client: of viser.
            renderer: name of what draws the page, once it has told that.
            request: queues an action of a kind on the viewer's thread, to run after some seconds.
            painter: renders pictures.
            drawn: the Gaussians to show first; None: nothing.
            shown: called on the viewer's thread whenever something is shown.
        """
        self._drawn = drawn
        self._display: SplatDisplay | PictureDisplay | None = None

        def begin(display: SplatDisplay | PictureDisplay) -> None:
            self._display = display
            display.show(self._drawn)

        def begin_pictures() -> None:
            begin(PictureDisplay(client, request, painter, shown))

        def choose(renderer: asyncio.Future[str | None]) -> None:
            if is_software(renderer.result()):
                painter.call_when_ready(lambda: request("display", begin_pictures, 0.0))
            else:
                request("display", lambda: begin(SplatDisplay(client.scene, shown)), 0.0)

        renderer.add_done_callback(choose)

    def show(self, drawn: Drawn | None) -> None:
        """Shows these Gaussians instead of earlier ones; None: nothing. On the viewer's thread."""
        self._drawn = drawn
        if self._display is not None:
            self._display.show(drawn)
