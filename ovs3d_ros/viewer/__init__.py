"""The web viewer: a map in the browser, live or from a file. It needs viser, see the extra `view`."""

from __future__ import annotations

from ovs3d_ros.viewer.server import MapViewer
from ovs3d_ros.viewer.source import MapSource

__all__ = ["MapSource", "MapViewer"]
