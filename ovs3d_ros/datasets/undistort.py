"""Undoing lens distortion: every frame that leaves this package is a plain pinhole image."""

from __future__ import annotations

import cv2
import numpy as np

from ovs3d_ros.types import Camera, UserError

Distortion = tuple[float, float, float, float, float]  # OpenCV's k1, k2, p1, p2, k3
NO_DISTORTION: Distortion = (0.0, 0.0, 0.0, 0.0, 0.0)
_MAX_OVERHANG = 0.02  # of the image's long side: how far the pinhole image may reach beyond the photograph


def undistorted_camera(camera: Camera, distortion: Distortion, name: str) -> Camera:
    """The pinhole camera of the same size that shows only pixels the photograph has.

    Args:
        camera: K of the distorted photograph.
        distortion: OpenCV's (k1, k2, p1, p2, k3).
        name: the file to name in errors.

    Raises:
        UserError: the coefficients are not finite or fold the image over itself.
    """
    if not any(distortion):
        return camera
    if not np.isfinite(distortion).all():
        raise UserError(
            f"{name}: distortion coefficients {distortion} are not finite; recalibrate the camera"
        )
    size = (camera.width, camera.height)
    K, _ = cv2.getOptimalNewCameraMatrix(_opencv_K(camera.K), np.array(distortion), size, 0, size)
    K[:2, 2] += 0.5
    target = Camera(K, *size)
    if not (np.isfinite(K).all() and _is_invertible(camera, distortion, target)):
        raise UserError(
            f"{name}: distortion {tuple(round(float(k), 4) for k in distortion)} cannot be undone over the whole "
            "image; undistort the images first (e.g. colmap image_undistorter)"
        )
    return target


def undistortion_maps(
    camera: Camera, distortion: Distortion, target: Camera
) -> tuple[np.ndarray, np.ndarray]:
    """For `cv2.remap`: the photograph's x and y [H, W] float32 for each pixel of `target`."""
    size = (target.width, target.height)
    return cv2.initUndistortRectifyMap(
        _opencv_K(camera.K), np.array(distortion), None, _opencv_K(target.K), size, cv2.CV_32FC1
    )


def remap_rgb(image: np.ndarray, maps: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Samples [H, W, 3] uint8 bilinearly at `maps`."""
    return cv2.remap(image, *maps, interpolation=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def remap_nearest(array: np.ndarray, maps: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Samples [H, W] at the nearest pixel of `maps`; 0 outside."""
    columns, rows = (np.rint(axis).astype(np.int64) for axis in maps)
    height, width = array.shape
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    sampled = np.zeros(columns.shape, dtype=array.dtype)
    sampled[inside] = array[rows[inside], columns[inside]]
    return sampled


def _opencv_K(K: np.ndarray) -> np.ndarray:
    """OpenCV puts pixel centres at integers, this project (with COLMAP) at +0.5."""
    shifted = np.array(K, dtype=np.float64)
    shifted[:2, 2] -= 0.5
    return shifted


def _is_invertible(camera: Camera, distortion: Distortion, target: Camera) -> bool:
    """Whether `target`'s pixels lie in the photograph and the mapping does not fold on the way there."""
    if not 0.2 < target.K[0, 0] / camera.K[0, 0] < 5.0 or not 0.2 < target.K[1, 1] / camera.K[1, 1] < 5.0:
        return False
    grid = np.stack(
        np.meshgrid(np.linspace(0, target.width - 1, 33), np.linspace(0, target.height - 1, 33)), -1
    )
    K = _opencv_K(target.K)
    rays = np.concatenate([(grid - K[:2, 2]) / K[[0, 1], [0, 1]], np.ones((33, 33, 1))], axis=-1)
    pixels, _ = cv2.projectPoints(
        rays.reshape(-1, 1, 3), np.zeros(3), np.zeros(3), _opencv_K(camera.K), np.array(distortion)
    )
    pixels = pixels.reshape(33, 33, 2)
    overhang = _MAX_OVERHANG * max(camera.width, camera.height)
    size = np.array([camera.width - 1, camera.height - 1])
    ordered = (np.diff(pixels[:, :, 0], axis=1) > 0).all() and (np.diff(pixels[:, :, 1], axis=0) > 0).all()
    return bool(ordered and (pixels >= -overhang).all() and (pixels <= size + overhang).all())
