"""Converts the messages of one camera to frames."""

from __future__ import annotations

from typing import Any

from ovs3d_ros.config import InputConfig
from ovs3d_ros.ros import conversions
from ovs3d_ros.sensors.calibration import Rectifier, describe_doubt, is_rectified, make_rectifier
from ovs3d_ros.sensors.pixels import BitDepth
from ovs3d_ros.sensors.sync import Match
from ovs3d_ros.types import Frame, UserError


class FrameConverter:
    """Decodes and rectifies images and depth with the newest calibration of a camera.

    Attributes:
        problem: why the newest calibration cannot be used; empty if it can, and before the first.
    """

    def __init__(self, camera: str, topics: dict[str, str], options: InputConfig, log: Any):
        """Takes the settings of a camera.

        Args:
            camera: name of the camera; may be empty.
            topics: resolved topics by role, for error messages.
            options: rectification (see `is_rectified`), the scale of depth and the frame of the camera.
            log: logger of the node.
        """
        self.problem = ""
        self._camera = camera
        self._topics = topics
        self._options = options
        self._rectified = is_rectified(options.rectification, topics["image"])
        self._log = log
        self._bit_depth = BitDepth()
        self._calibration: object = None
        self._rectifier: Rectifier | None = None
        self._warned_frames: set[tuple[str, str]] = set()

    @property
    def calibrated(self) -> bool:
        """Whether images can be converted."""
        return self._rectifier is not None

    def set_calibration(self, message: conversions.CameraInfo) -> None:
        """Uses a camera_info message for all images from now on.

        Raises:
            UserError: the calibration cannot be used.
        """
        calibration = conversions.from_camera_info(message)
        if calibration == self._calibration:
            return
        self._calibration, self._rectifier, self.problem = calibration, None, ""
        try:
            self._rectifier = make_rectifier(calibration, self._rectified, self._topics["camera_info"])
        except UserError as error:
            self.problem = str(error)
            raise
        camera = self._rectifier.camera
        treatment = "undistorted" if self._rectifier.maps is not None else "used without undistortion"
        self._log.info(f"camera {camera.width}x{camera.height}: images are {treatment}")
        if doubt := describe_doubt(calibration, self._rectified, self._topics["image"]):
            self._log.warning(doubt)

    def convert(self, match: Match) -> Frame:
        """The frame of an image message, its depth message and its pose.

        Raises:
            UserError: an image that cannot be decoded or contradicts the calibration.
        """
        rectifier, topic = self._rectifier, self._topics["image"]
        assert rectifier is not None, "images wait until there is a calibration"
        image = rectifier.rectify_color(conversions.from_image(match.image, topic, self._bit_depth), topic)
        depth = None
        if match.depth is not None:
            topic = self._topics["depth"]
            depth = conversions.from_depth(match.depth, topic, self._options.depth_scale)
            depth = rectifier.rectify_depth(depth, topic)
            self._compare_frames(match.image.header.frame_id, match.depth.header.frame_id)
        return Frame(
            stamp=match.stamp,
            image=image,
            camera=rectifier.camera,
            camtoworld=match.camtoworld,
            depth=depth,
            name=f"{self._camera}{'/' if self._camera else ''}{match.stamp:.6f}",
            sensor=self._camera,
        )

    def _compare_frames(self, image_frame: str, depth_frame: str) -> None:
        """Warns once if depth may be of another camera than the image."""
        if self._options.camera_frame:  # the user knows the headers to be wrong
            return
        pair = (image_frame, depth_frame)
        if image_frame and depth_frame and image_frame != depth_frame and pair not in self._warned_frames:
            self._warned_frames.add(pair)
            self._log.warning(
                f"depth is in frame '{depth_frame}', images are in '{image_frame}'; unless both are the same "
                "camera, use depth registered to the colour camera (aligned_depth_to_color or "
                "depth_image_proc)"
            )
