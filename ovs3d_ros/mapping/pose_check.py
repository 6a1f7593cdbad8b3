"""Checks poses by image matches: poses of another convention give a worse map, and nothing else tells."""

from __future__ import annotations

import logging

import cv2
import numpy as np

from ovs3d_ros.geometry import invert_rigid
from ovs3d_ros.types import Keyframe

logger = logging.getLogger(__name__)

_MIN_PAIR = 30  # matches of two views; fewer may agree with any geometry by chance
_MIN_AGREEMENT = 0.5  # share of matches of one epipolar geometry; fewer: the views do not overlap
_MAX_ERROR = 0.0125  # image sides; 2 px of 160
_MIN_MATCHES = 150  # over all pairs, before the poses are judged
_MAX_PAIRS = 60  # then the poses are trusted: the check costs up to 40 ms a pair
_MIN_FIT = 0.7  # right poses fit 0.92 to 0.97 of the matches of three scenes, wrong ones 0.10 to 0.56


class PoseCheck:
    """Counts image matches that fit the poses of their views, and warns once if too few do.

    Attributes:
        matches: number of matches that agree among themselves.
        fitting: number of those that also fit the poses.
    """

    def __init__(self) -> None:
        self.matches = 0
        self.fitting = 0
        self._pairs = 0
        self._warned = False

    def add(self, keyframe: Keyframe, pixels: np.ndarray, other: Keyframe, other_pixels: np.ndarray) -> None:
        """Takes matched pixels [M, 2] of two views."""
        if self._pairs == _MAX_PAIRS or len(pixels) < _MIN_PAIR:
            return
        self._pairs += 1
        side = max(keyframe.camera.width, keyframe.camera.height)
        _, mask = cv2.findFundamentalMat(pixels, other_pixels, cv2.FM_RANSAC, _MAX_ERROR * side, 0.99)
        if mask is None or mask.mean() < _MIN_AGREEMENT:
            return
        agreeing = mask.ravel() > 0
        errors = _epipolar_errors(keyframe, pixels[agreeing], other, other_pixels[agreeing])
        self.matches += len(errors)
        self.fitting += int((errors < _MAX_ERROR * side).sum())
        if self.matches >= _MIN_MATCHES and self.fitting < _MIN_FIT * self.matches and not self._warned:
            self._warned = True
            logger.warning(
                "only %.0f %% of the image matches fit the poses: the map will be poor. Check the convention "
                "of the poses (camera to world; OpenGL axes in transforms.json, OpenCV axes elsewhere), the "
                "intrinsics and the clock",
                100 * self.fitting / self.matches,
            )


def _epipolar_errors(a: Keyframe, pixels_a: np.ndarray, b: Keyframe, pixels_b: np.ndarray) -> np.ndarray:
    """Sampson distances [M] in pixels of matches to the epipolar geometry of the poses (Sampson 1982)."""
    relative = invert_rigid(b.camtoworld) @ a.camtoworld
    x, y, z = relative[:3, 3]
    essential = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ relative[:3, :3]
    fundamental = np.linalg.inv(b.camera.K).T @ essential @ np.linalg.inv(a.camera.K)
    ones = np.ones((len(pixels_a), 1))
    points_a, points_b = np.hstack([pixels_a, ones]), np.hstack([pixels_b, ones])
    lines_b, lines_a = points_a @ fundamental.T, points_b @ fundamental
    squared = (lines_a[:, :2] ** 2).sum(1) + (lines_b[:, :2] ** 2).sum(1)
    return np.abs((points_b * lines_b).sum(1)) / np.sqrt(squared.clip(1e-300))
