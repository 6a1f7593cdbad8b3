"""The newest camera view: masks and segmentations are rendered in it."""

from __future__ import annotations

from dataclasses import dataclass

from ovs3d_ros.ros import conversions
from ovs3d_ros.types import Frame


@dataclass(frozen=True, slots=True)
class CameraView:
    """A frame and the header of its image."""

    frame: Frame
    header: conversions.Header


class LatestView:
    """Holds the newest view; one thread sets it, any thread may read it."""

    def __init__(self) -> None:
        self._view: CameraView | None = None

    def set(self, frame: Frame, header: conversions.Header) -> None:
        """Replaces the view."""
        self._view = CameraView(frame, header)

    def get(self) -> CameraView | None:
        """The newest view, None before the first frame."""
        return self._view
