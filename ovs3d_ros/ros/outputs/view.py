"""The newest camera view: masks and segmentations are rendered in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ovs3d_ros.ros import conversions
from ovs3d_ros.types import Camera, Frame


@dataclass(frozen=True, slots=True)
class CameraView:
    """A frame and the header of its image."""

    frame: Frame
    header: conversions.Header


class LatestView:
    """Holds the newest view; one thread sets it, any thread may read it."""

    def __init__(self) -> None:
        self._view: CameraView | None = None
        self._cameras: dict[str, Camera] = {}  # the newest one of each sensor

    def set(self, frame: Frame, header: conversions.Header) -> None:
        """Replaces the view."""
        self._view = CameraView(frame, header)
        self._cameras[frame.sensor] = frame.camera

    def get(self) -> CameraView | None:
        """The newest view, None before the first frame."""
        return self._view

    def full_camera(self, camera: Camera) -> Camera:
        """The camera of a keyframe at the resolution of its images; as it is if they never arrived."""
        for full in list(self._cameras.values()):
            reduced = full.scaled(camera.width, camera.height)
            if full.width >= camera.width and np.allclose(reduced.K, camera.K):
                return full
        return camera
