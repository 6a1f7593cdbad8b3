"""Turns a ROS calibration into a pinhole camera, and rectifies images for it.

ROS, like OpenCV, puts pixel centres at integers; this package puts them at +0.5 (see `geometry`). The half
pixel is added here and subtracted in `conversions.to_camera_info`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import cv2
import numpy as np

from ovs3d_ros.geometry import check_camera
from ovs3d_ros.sensors.undistortion import (
    Distortion,
    Maps,
    remap_color,
    remap_nearest,
    undistorted_camera,
    undistortion_maps,
)
from ovs3d_ros.types import Camera, UserError

_RECTIFIED = frozenset(("rect", "rectified"))  # parts of topic names, as image_proc and the drivers use them


@dataclass(frozen=True, slots=True)
class CameraCalibration:
    """The content of a camera_info message; hashable, so that derived tables can be cached.

    Attributes:
        K: 9 intrinsics of the raw image, row-major, pixels, pixel centres at integers.
        P: 12 entries of the rectified projection, row-major; all 0: not given.
        D: distortion coefficients, in OpenCV's order.
        model: ROS name of the distortion model.
        size: width, height of the full sensor image, pixels.
        offset: x, y of the region of interest on the full image, pixels.
        roi: width, height of that region, pixels; 0: full image.
        binning: number of sensor pixels per image pixel in x and y.
        frame_id: the optical frame.
    """

    K: tuple[float, ...]
    P: tuple[float, ...]
    D: tuple[float, ...]
    model: str
    size: tuple[int, int]
    offset: tuple[int, int] = (0, 0)
    roi: tuple[int, int] = (0, 0)
    binning: tuple[int, int] = (1, 1)
    frame_id: str = ""


@dataclass(frozen=True, slots=True)
class Rectifier:
    """Rectifies the images of one camera.

    Attributes:
        camera: the pinhole camera of the rectified image.
        maps: source x and y [H, W] float32 for `cv2.remap`; None: the images are pinhole images already.
    """

    camera: Camera
    maps: Maps | None

    def rectify_color(self, image: np.ndarray, topic: str) -> np.ndarray:
        """The rectified image [H, W, 3] uint8, bilinear.

        Raises:
            UserError: the size of the image differs from that of the calibration.
        """
        height, width = image.shape[:2]
        if (width, height) != (self.camera.width, self.camera.height):
            raise UserError(
                f"{topic}: image of {width}x{height} contradicts camera_info of {self.camera.width}x"
                f"{self.camera.height}; remap camera_info to the one of this image"
            )
        if self.maps is None:
            return image
        return remap_color(image, self.maps)

    def rectify_depth(self, depth: np.ndarray, topic: str) -> np.ndarray:
        """The rectified depth [H, W] float32 metres at the size of the camera, by nearest neighbour.

        Depth of another resolution with the same aspect ratio is resized first.

        Raises:
            UserError: the aspect ratio of the depth differs from that of the camera.
        """
        height, width = depth.shape
        camera = self.camera
        if width * camera.height != height * camera.width:
            raise UserError(
                f"{topic}: depth of {width}x{height} cannot belong to images of {camera.width}x"
                f"{camera.height}; register depth to the colour camera (depth_image_proc register)"
            )
        if (width, height) != (camera.width, camera.height):
            size = (camera.width, camera.height)
            depth = cv2.resize(depth, size, interpolation=cv2.INTER_NEAREST_EXACT)
        if self.maps is None:
            return depth
        return remap_nearest(depth, self.maps)


def is_rectified(rectification: str, topic: str) -> bool:
    """Whether the images of a topic arrive rectified.

    Args:
        rectification: `input.rectification`. With "auto" the name decides: a part of it, between slashes and
            underscores, is "rect" or "rectified", as in /camera/image_rect_color. Words that only contain
            these letters, such as /direct_cam, do not count.
        topic: of the images.
    """
    if rectification == "auto":
        return not _RECTIFIED.isdisjoint(re.split(r"[/_]", topic.lower()))
    return rectification == "rectified"


def describe_doubt(calibration: CameraCalibration, rectified: bool, topic: str) -> str:
    """Why the images of a topic may not be rectified although their name says so; empty if there is no doubt.

    image_proc publishes rectified images beside the camera_info of the raw ones: their distortion is not
    zero, and P differs from K. Otherwise a distortion contradicts the name.
    """
    if not rectified or not Distortion(calibration.D, calibration.model):
        return ""
    projection = np.array(calibration.P, dtype=np.float64).reshape(3, 4)[:, :3].ravel()
    if projection[0] > 0 and not np.allclose(projection, calibration.K, atol=1e-3):
        return ""
    return (
        f"images on {topic} are taken for rectified, but their camera_info has distortion and no other "
        "projection P; if they are raw, set input.rectification=raw"
    )


def make_rectifier(calibration: CameraCalibration, rectified: bool, topic: str) -> Rectifier:
    """Makes the rectifier for a calibration.

    Args:
        calibration: from camera_info.
        rectified: whether the images are already rectified: intrinsics of P and no distortion.
        topic: the camera_info topic to name in errors.

    Raises:
        UserError: the camera is uncalibrated, lacks a size, or has absurd intrinsics or unknown distortion.
    """
    raw = np.array(calibration.K, dtype=np.float64).reshape(3, 3)
    projection = np.array(calibration.P, dtype=np.float64).reshape(3, 4)[:, :3]
    K = projection if rectified and projection[0, 0] > 0 else raw
    if K[0, 0] == 0:
        raise UserError(
            f"{topic}: the focal length is 0, so the camera is not calibrated; run camera_calibration "
            "or give the driver a camera_info_url"
        )
    camera = check_camera(_region_camera(K, calibration, topic), topic)
    distortion = Distortion(calibration.D, calibration.model)
    if rectified or not distortion:
        return Rectifier(camera, None)
    target = check_camera(undistorted_camera(camera, distortion, topic), topic)
    return Rectifier(target, undistortion_maps(camera, distortion, target))


def _region_camera(K: np.ndarray, calibration: CameraCalibration, topic: str) -> Camera:
    """The camera of the region of interest after binning; exact with pixel centres at +0.5."""
    K = K.copy()
    K[:2, 2] += 0.5 - np.array(calibration.offset)
    width, height = calibration.roi if all(calibration.roi) else calibration.size
    across, down = (max(1, factor) for factor in calibration.binning)
    if not (width // across and height // down):
        raise UserError(
            f"{topic}: an image of {width}x{height} pixels, binned by {across}x{down}, is empty; the driver "
            "must fill in width and height"
        )
    return Camera(K, width, height).scaled(width // across, height // down)
