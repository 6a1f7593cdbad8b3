"""Measures between two clicks of a visitor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.types import MapSnapshot
from ovs3d_ros.viewer import views
from ovs3d_ros.viewer.scene import VisitorScene

_RULER_HINTS = "Click the first point", "Click the second point"


class Ruler:
    """Takes clicks while it is switched on; each pair of points gives a distance."""

    def __init__(self, client: Any, scene: VisitorScene, show: Callable[[str], None]) -> None:
        """Starts switched off.

        Args:
            client: of viser.
            scene: shows the points.
            show: shows a text in the panel; an empty one hides it.
        """
        self._client = client
        self._scene = scene
        self._show = show
        self._points: list[np.ndarray] = []
        self._clicked: Any = None

    def switch(self, on: bool, clicked: Callable[[np.ndarray, np.ndarray], None]) -> None:
        """Starts or ends measuring.

        Args:
            on: whether clicks are taken from now on.
            clicked: called on the event loop with origin [3] and direction [3] of the ray of a click.
        """
        if self._clicked is not None:
            self._client.scene.remove_click_callback(self._clicked)
        self._clicked, self._points = None, []
        self._scene.show_ruler([])
        self._show(_RULER_HINTS[0] if on else "")
        if on:

            async def react(event: Any) -> None:
                clicked(np.array(event.ray_origin, float), np.array(event.ray_direction, float))

            self._client.scene.on_click()(react)
            self._clicked = react

    def pick(self, pipeline: Ovs3d, snapshot: MapSnapshot, ray: tuple[np.ndarray, np.ndarray]) -> None:
        """Takes the point that a ray meets; the second one of a pair shows the distance."""
        point = views.pick_point(pipeline, snapshot, *ray)
        if point is None:
            self._show("There is no surface; click another point")
            return
        self._points = [*self._points, point] if len(self._points) == 1 else [point]
        self._scene.show_ruler(self._points)
        if len(self._points) == 1:
            self._show(_RULER_HINTS[1])
        else:
            self._show(f"{np.linalg.norm(self._points[1] - self._points[0]):.3f} m")
