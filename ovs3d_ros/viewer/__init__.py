"""The web viewer: a map in the browser, live or from a file. It needs viser, see the extra `view`."""

from __future__ import annotations

from ovs3d_ros.viewer.server import MapViewer, check_viewer
from ovs3d_ros.viewer.source import MapSource, keyframe_photo

__all__ = ["MapSource", "MapViewer", "check_viewer", "keyframe_photo"]
