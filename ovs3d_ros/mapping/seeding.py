"""Seeds of new Gaussians from depth, point clouds or image matches (docs/method.md, "Online mapping")."""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from ovs3d_ros.config import SeedConfig
from ovs3d_ros.geometry import invert_rigid, project, transform_points, unproject
from ovs3d_ros.mapping.pose_check import PoseCheck
from ovs3d_ros.types import Frame, Keyframe

Seeds = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # means [M, 3] m, colors [M, 3] 0..1, scales [M] m

_SCALE = 0.65  # grid spacings; smaller seeds leave gaps that later views seed again, larger ones blur edges
_MAX_RAY_COSINE = np.cos(np.radians(1.0))  # rays at a smaller angle give no usable depth
_MAX_REPROJECTION = 2.0  # px
# OpenCV's SIFT doubles the image first: its keypoints shift by +0.25 px. Our pixel centres lie at +0.5.
_SIFT_TO_PIXEL = 0.25
# FLANN's single k-d tree is exact; its randomised trees draw from a generator that cannot be seeded.
_KD_TREE = dict(algorithm=4)
_MAX_ANGLE = 0.05  # radians; the scale of a seed from a point cloud, as the nearest camera sees it
_MAX_MEDIANS = 4.0  # the scale of a seed from a point cloud without cameras, in medians of all of them
_MIN_MATCHES = 8  # fewer triangulated points do not describe the rest of the image


def seed_from_depth(
    keyframe: Keyframe, alpha: torch.Tensor, depth: torch.Tensor, config: SeedConfig, slack: int = 0
) -> Seeds:
    """Seeds on a pixel grid where the map does not explain the measured depth yet.

    Args:
        keyframe: with depth.
        alpha: [H, W] alpha of the map, rendered from the keyframe.
        depth: [H, W] depth of the map in metres, rendered from the keyframe.
        config: spacing and thresholds.
        slack: pixels by which the map may show a thing beside its place. At an edge, the rendered depth is
            that of both sides, so what is there seems to stand in front of it.
    """
    assert keyframe.depth is not None, "seed_from_depth needs a keyframe with depth"
    measured = keyframe.depth.cpu().numpy()
    shown = torch.where(depth > 0, depth, torch.inf)[None, None]
    nearest = -F.max_pool2d(-shown, 2 * slack + 1, stride=1, padding=slack)[0, 0]
    missing = (alpha < config.alpha_below) | (keyframe.depth < (1 - config.depth_margin) * nearest)
    return _seed_grid(keyframe, measured, missing.cpu().numpy() & (measured > 0), config.spacing)


def _seed_grid(keyframe: Keyframe, depth: np.ndarray, mask: np.ndarray, spacing: float) -> Seeds:
    """Seeds at every `spacing`-th pixel inside `mask` [H, W] and the keyframe's, at `depth` [H, W] metres."""
    if keyframe.mask is not None:
        mask = mask & keyframe.mask.cpu().numpy()
    height, width = depth.shape
    rows = np.arange(spacing / 2, height, spacing).astype(int)
    columns = np.arange(spacing / 2, width, spacing).astype(int)
    v, u = (g.ravel() for g in np.meshgrid(rows, columns, indexing="ij"))
    chosen = mask[v, u]
    v, u = v[chosen], u[chosen]
    points = unproject(depth, keyframe.camera)[v, u]
    means = transform_points(points, keyframe.camtoworld)
    scales = points[:, 2] / keyframe.camera.K[0, 0] * spacing * _SCALE
    return _to_seeds(means, keyframe.rgb[v, u], scales)


def _to_seeds(means: np.ndarray, colors: torch.Tensor | np.ndarray, scales: np.ndarray) -> Seeds:
    return (
        torch.as_tensor(means, dtype=torch.float32),
        torch.as_tensor(colors, dtype=torch.float32),
        torch.as_tensor(scales, dtype=torch.float32),
    )


def seed_from_points(xyz: np.ndarray, rgb: np.ndarray, centers: np.ndarray | None = None) -> Seeds:
    """Seeds at given points, as large as the distance to their neighbours, but never filling a view.

    Where points are sparse, their distance says nothing of the surface: large seeds would hide that the space
    between them is unexplained, and nothing else would be seeded there.

    Args:
        xyz: [P, 3] metres.
        rgb: [P, 3] uint8.
        centers: positions of the cameras [C, 3], which limit the seeds by their distance to the nearest one;
            None: the median of all seeds limits them.
    """
    scales = _neighbour_distance(xyz)
    if centers is not None and len(centers) and len(xyz):
        scales = np.minimum(scales, _MAX_ANGLE * _nearest_distance(xyz, centers))
    elif len(xyz):
        scales = np.minimum(scales, _MAX_MEDIANS * np.median(scales))
    return _to_seeds(xyz, rgb.astype(np.float32) / 255.0, scales)


def _nearest_distance(xyz: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """Distance [P] of each point to the nearest camera, at least a millimetre."""
    index = cv2.flann.Index(np.ascontiguousarray(centers, dtype=np.float32), _KD_TREE)
    _, squared = index.knnSearch(np.ascontiguousarray(xyz, dtype=np.float32), 1, params={})
    return np.sqrt(squared[:, 0]).clip(1e-3, None)


def _neighbour_distance(xyz: np.ndarray) -> np.ndarray:
    """Root mean square distance [P] to the three nearest neighbours (Kerbl et al. 2023, §5.1)."""
    points = np.ascontiguousarray(xyz, dtype=np.float32)
    if len(points) < 4:
        return np.full(len(points), 0.05)
    index = cv2.flann.Index(points, _KD_TREE)
    _, squared = index.knnSearch(points, 4, params={})
    return np.sqrt(squared[:, 1:].mean(1)).clip(1e-4, None)


class ImageMatcher:
    """Seeds from images alone: SIFT matches with earlier keyframes, triangulated with the known poses.

    Args:
        neighbours: number of earlier keyframes to match with.
    """

    def __init__(self, neighbours: int = 3) -> None:
        self.neighbours = neighbours
        self._history: list[tuple[Keyframe, np.ndarray, np.ndarray]] = []
        self._pose_check = PoseCheck()

    def seed(self, keyframe: Keyframe, alpha: torch.Tensor, config: SeedConfig) -> Seeds | None:
        """Seeds where the map is still transparent, or None while too few matches have usable parallax.

        Triangulated points are sparse. Depth between them is interpolated; the optimiser corrects it.

        Args:
            keyframe: the view to fill.
            alpha: [H, W] alpha of the map, rendered from the keyframe.
            config: spacing and threshold.
        """
        mask = None if keyframe.mask is None else keyframe.mask.cpu().numpy()
        pixels, descriptors = find_features(keyframe.image.cpu().numpy(), mask)
        if len(pixels) < _MIN_MATCHES:
            return None
        found = []
        for other, other_pixels, other_descriptors in self._history[-self.neighbours :]:
            a, b = match_features(pixels, descriptors, other_pixels, other_descriptors)
            self._pose_check.add(keyframe, a, other, b)
            found.append(triangulate(keyframe, a, other, b))
        self._history.append((keyframe, pixels, descriptors))
        del self._history[: -self.neighbours]
        xyz = np.concatenate(found) if found else np.zeros((0, 3))
        if len(xyz) < _MIN_MATCHES:
            return None
        depth = _interpolate_depth(keyframe, xyz)
        empty = (alpha < config.alpha_below).cpu().numpy() & (depth > 0)
        return _seed_grid(keyframe, depth, empty, config.spacing)


def find_features(image: np.ndarray, mask: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Pixels [M, 2] and SIFT descriptors of the features of an image [H, W, 3] uint8 inside `mask` [H, W]."""
    sift = cv2.SIFT_create(nfeatures=3000, contrastThreshold=0.01)
    where = None if mask is None else mask.astype(np.uint8)
    points, descriptors = sift.detectAndCompute(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), where)
    return np.array([p.pt for p in points], dtype=np.float64).reshape(-1, 2) + _SIFT_TO_PIXEL, descriptors


def match_features(
    pixels: np.ndarray, descriptors: np.ndarray, other_pixels: np.ndarray, other_descriptors: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The pixels [M, 2] of mutual nearest descriptors in two views."""
    matches = cv2.BFMatcher(cv2.NORM_L2, crossCheck=True).match(descriptors, other_descriptors)
    return pixels[[m.queryIdx for m in matches]], other_pixels[[m.trainIdx for m in matches]]


def triangulate(
    keyframe: Keyframe | Frame, a: np.ndarray, other: Keyframe | Frame, b: np.ndarray
) -> np.ndarray:
    """World points [M, 3] of matched pixels that reproject well in both views and have parallax."""
    if len(a) == 0:
        return np.zeros((0, 3))
    projections = [k.camera.K @ invert_rigid(k.camtoworld)[:3] for k in (keyframe, other)]
    homogeneous = cv2.triangulatePoints(*projections, a.T, b.T)
    with np.errstate(divide="ignore", invalid="ignore"):
        xyz = (homogeneous[:3] / homogeneous[3]).T
    good = np.isfinite(xyz).all(1)
    xyz = np.where(good[:, None], xyz, 0.0)
    rays = []
    for view, observed in ((keyframe, a), (other, b)):
        reprojected, z = project(xyz, view.camera, view.camtoworld)
        good &= (z > 0) & (np.linalg.norm(reprojected - observed, axis=1) < _MAX_REPROJECTION)
        ray = xyz - view.camtoworld[:3, 3]
        rays.append(ray / np.linalg.norm(ray, axis=1, keepdims=True).clip(1e-9))
    good &= (rays[0] * rays[1]).sum(1) < _MAX_RAY_COSINE
    return xyz[good]


def _interpolate_depth(keyframe: Keyframe, xyz: np.ndarray) -> np.ndarray:
    """Depth [H, W] between sparse world points [M, 3]: the median of the five nearest ones in the image."""
    camera = keyframe.camera
    pixels, z = project(xyz, camera, keyframe.camtoworld)
    inside = (z > 0) & (pixels >= 0).all(1) & (pixels < [camera.width, camera.height]).all(1)
    if inside.sum() < _MIN_MATCHES:
        return np.zeros((camera.height, camera.width), np.float32)
    index = cv2.flann.Index(np.ascontiguousarray(pixels[inside], np.float32), _KD_TREE)
    u, v = np.meshgrid(np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5)
    queries = np.stack([u.ravel(), v.ravel()], axis=1).astype(np.float32)
    nearest, _ = index.knnSearch(queries, 5, params={})
    return np.median(z[inside][nearest], axis=1).reshape(camera.height, camera.width).astype(np.float32)


def seed_random(
    keyframe: Keyframe, median_depth: float, config: SeedConfig, rng: np.random.Generator
) -> Seeds:
    """Seeds on a pixel grid at random depths, log-uniform within a factor of 3 of a guess: the last resort.

    Args:
        keyframe: the view to fill.
        median_depth: the guess, metres.
        config: spacing.
        rng: source of the depths.
    """
    shape = tuple(keyframe.image.shape[:2])
    depth = (median_depth * np.exp(rng.uniform(-np.log(3), np.log(3), shape))).astype(np.float32)
    return _seed_grid(keyframe, depth, np.ones(shape, bool), config.spacing)
