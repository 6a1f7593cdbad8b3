"""Removes lens distortion: every image that enters the map is a pinhole image."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ovs3d_ros.types import Camera, UserError

POLYNOMIAL_MODELS = ("plumb_bob", "rational_polynomial", "")
FISHEYE = "fisheye"
FISHEYE_MODELS = ("equidistant", FISHEYE)
_GRID = 33  # points along each side of the grid on which the mapping is checked
_MAX_OVERHANG = 0.02  # of the longer image side: how far the pinhole image may extend beyond the photograph
_FOCAL_RATIO = (0.2, 5.0)  # focal lengths of the pinhole image over those of the photograph

Maps = tuple[np.ndarray, np.ndarray]  # x and y in the photograph, each [H, W] float32, for `cv2.remap`


@dataclass(frozen=True, slots=True)
class Distortion:
    """The distortion of a lens, hashable so that derived tables can be cached.

    Attributes:
        coefficients: in OpenCV's order: k1, k2, p1, p2, k3, ... of polynomials, k1, k2, k3, k4 of fisheye
            lenses. Empty or all 0: none, except for `FISHEYE`.
        model: one of `POLYNOMIAL_MODELS` or `FISHEYE_MODELS`, by its ROS name.
    """

    coefficients: tuple[float, ...] = ()
    model: str = "plumb_bob"

    def __bool__(self) -> bool:
        # With all coefficients 0, a fisheye lens still maps angles to pixels. ROS drivers write "equidistant"
        # with zeros for images that are rectified already.
        return any(self.coefficients) or (self.model == FISHEYE and len(self.coefficients) > 0)


NO_DISTORTION = Distortion()


def undistorted_camera(camera: Camera, distortion: Distortion, name: str) -> Camera:
    """The pinhole camera of the same size whose image has no empty borders.

    Args:
        camera: intrinsics of the distorted photograph.
        distortion: of its lens.
        name: the file or topic to name in errors.

    Raises:
        UserError: the model is unknown, or the coefficients are not finite or not usable.
    """
    if not distortion:
        return camera
    if not np.isfinite(distortion.coefficients).all():
        raise UserError(
            f"{name}: distortion coefficients {list(distortion.coefficients)} are not finite; calibrate the "
            "camera again"
        )
    if distortion.model not in (*POLYNOMIAL_MODELS, *FISHEYE_MODELS):
        raise UserError(
            f"{name}: distortion model '{distortion.model}' is not known; publish rectified images "
            "(image_proc) and set input.rectification=rectified"
        )
    try:
        return Camera(_target_K(camera, distortion), camera.width, camera.height)
    except cv2.error as error:
        raise UserError(
            f"{name}: distortion {list(distortion.coefficients)} of model '{distortion.model}' is not usable "
            f"({error.err}); calibrate the camera again"
        ) from None


def is_invertible(camera: Camera, distortion: Distortion, target: Camera) -> bool:
    """Whether all pixels of `target` lie in the photograph, in the same order; a fold changes their order.

    Args:
        camera: intrinsics of the distorted photograph.
        distortion: of its lens.
        target: the camera from `undistorted_camera`.
    """
    ratios = np.diagonal(target.K)[:2] / np.diagonal(camera.K)[:2]
    if not (
        np.isfinite(target.K).all() and (_FOCAL_RATIO[0] < ratios).all() and (ratios < _FOCAL_RATIO[1]).all()
    ):
        return False
    columns, rows = np.linspace(0, target.width - 1, _GRID), np.linspace(0, target.height - 1, _GRID)
    grid = np.stack(np.meshgrid(columns, rows), axis=-1)
    K = _opencv_K(target.K)
    rays = np.concatenate([(grid - K[:2, 2]) / K[[0, 1], [0, 1]], np.ones((_GRID, _GRID, 1))], axis=-1)
    project = cv2.fisheye.projectPoints if distortion.model in FISHEYE_MODELS else cv2.projectPoints
    pixels, _ = project(
        rays.reshape(-1, 1, 3), np.zeros(3), np.zeros(3), _opencv_K(camera.K), _opencv_D(distortion)
    )
    pixels = pixels.reshape(_GRID, _GRID, 2)
    overhang = _MAX_OVERHANG * max(camera.width, camera.height)
    size = np.array([camera.width - 1, camera.height - 1])
    ordered = (np.diff(pixels[:, :, 0], axis=1) > 0).all() and (np.diff(pixels[:, :, 1], axis=0) > 0).all()
    return bool(ordered and (pixels >= -overhang).all() and (pixels <= size + overhang).all())


def undistortion_maps(camera: Camera, distortion: Distortion, target: Camera) -> Maps:
    """Where each pixel of `target` lies in the photograph of `camera`.

    Args:
        camera: intrinsics of the distorted photograph.
        distortion: of its lens, not none.
        target: the camera from `undistorted_camera`.
    """
    source, K = _opencv_K(camera.K), _opencv_K(target.K)
    D, size = _opencv_D(distortion), (target.width, target.height)
    if distortion.model in FISHEYE_MODELS:
        return cv2.fisheye.initUndistortRectifyMap(source, D, np.eye(3), K, size, cv2.CV_32FC1)
    return cv2.initUndistortRectifyMap(source, D, None, K, size, cv2.CV_32FC1)


def remap_color(image: np.ndarray, maps: Maps) -> np.ndarray:
    """Samples an image [H, W, 3] uint8 at `maps`, bilinear."""
    return cv2.remap(image, *maps, interpolation=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def remap_nearest(array: np.ndarray, maps: Maps) -> np.ndarray:
    """Samples depth, labels or a mask [H, W] at the pixels nearest to `maps`; 0 outside."""
    pixels = array.view(np.uint8) if array.dtype == bool else array
    sampled = cv2.remap(pixels, *maps, interpolation=cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT)
    return sampled.view(array.dtype)


def _opencv_K(K: np.ndarray) -> np.ndarray:
    """OpenCV puts pixel centres at integers; this project, like COLMAP, puts them at +0.5."""
    shifted = np.array(K, dtype=np.float64)
    shifted[:2, 2] -= 0.5
    return shifted


def _opencv_D(distortion: Distortion) -> np.ndarray:
    D = np.array(distortion.coefficients, dtype=np.float64)
    return D[:4] if distortion.model in FISHEYE_MODELS else D


def _target_K(camera: Camera, distortion: Distortion) -> np.ndarray:
    """Intrinsics [3, 3] of the largest pinhole image without empty borders."""
    source, D, size = _opencv_K(camera.K), _opencv_D(distortion), (camera.width, camera.height)
    if distortion.model in FISHEYE_MODELS:
        K = cv2.fisheye.estimateNewCameraMatrixForUndistortRectify(source, D, size, np.eye(3), balance=0.0)
    else:
        K, _ = cv2.getOptimalNewCameraMatrix(source, D, size, 0, size)
    K = np.array(K, dtype=np.float64)
    K[:2, 2] += 0.5
    return K
