"""A ray-cast table top with three coloured boxes, written as a labelled RGB-D nerfstudio dataset.

World: x and y on the table, z up, metres. Sizes and positions are known exactly, so tests can check answers
in centimetres.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

WIDTH, HEIGHT, FOCAL = 128, 96, 120.0
LIGHT = np.array([0.3, 0.5, 0.81])
FLOOR_RGB, FLOOR_CLASS, FLOOR_HALF = (150, 150, 150), "grey floor", 0.8


@dataclass(frozen=True)
class Box:
    name: str
    rgb: tuple[int, int, int]
    center: tuple[float, float, float]
    size: tuple[float, float, float]

    @property
    def low(self) -> np.ndarray:
        return np.array(self.center) - np.array(self.size) / 2

    @property
    def high(self) -> np.ndarray:
        return np.array(self.center) + np.array(self.size) / 2


BOXES = (
    Box("red box", (205, 40, 35), (0.35, 0.05, 0.10), (0.20, 0.36, 0.20)),
    Box("green box", (45, 170, 60), (-0.25, 0.30, 0.07), (0.30, 0.20, 0.14)),
    Box("blue box", (40, 70, 200), (-0.20, -0.30, 0.15), (0.22, 0.16, 0.30)),
)
CLASSES = (*(box.name for box in BOXES), FLOOR_CLASS)
Boxes = tuple[Box, ...]


def camera_ring(count: int) -> np.ndarray:
    """camtoworlds [count, 4, 4] on a circle around the table; all cameras look down at its middle."""
    poses = []
    for angle in np.linspace(0, 2 * np.pi, count, endpoint=False):
        eye = np.array([1.25 * np.cos(angle), 1.25 * np.sin(angle), 0.95])
        forward = np.array([0, 0, 0.08]) - eye
        forward /= np.linalg.norm(forward)
        right = np.cross(forward, [0, 0, 1])
        right /= np.linalg.norm(right)
        pose = np.eye(4)
        pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
        pose[:3, 3] = eye
        poses.append(pose)
    return np.array(poses)


def ray_cast(pose: np.ndarray, boxes: Boxes = BOXES) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """RGB uint8 [H, W, 3], z-depth in metres [H, W] and labels uint8 [H, W] at pixel centres."""
    x, y = np.meshgrid(
        (np.arange(WIDTH) + 0.5 - WIDTH / 2) / FOCAL, (np.arange(HEIGHT) + 0.5 - HEIGHT / 2) / FOCAL
    )
    # z is 1 in camera axes, so ray lengths are z-depths.
    rays = np.stack([x, y, np.ones_like(x)], axis=-1) @ pose[:3, :3].T
    eye = pose[:3, 3]
    depth = -eye[2] / np.minimum(rays[..., 2], -1e-9)
    floor = eye + depth[..., None] * rays
    on_floor = np.abs(floor[..., :2]).max(axis=-1) < FLOOR_HALF
    depth = np.where(on_floor, depth, np.inf)
    labels = np.where(on_floor, len(boxes) + 1, 0)
    checker = 0.9 + 0.1 * ((np.floor(floor[..., 0] / 0.2) + np.floor(floor[..., 1] / 0.2)) % 2)
    rgb = np.where(on_floor[..., None], checker[..., None] * FLOOR_RGB, 25.0)
    for label, box in enumerate(boxes, start=1):
        with np.errstate(divide="ignore"):
            near, far = np.sort([(box.low - eye) / rays, (box.high - eye) / rays], axis=0)
        entry, leave = near.max(axis=-1), far.min(axis=-1)
        hit = (entry < leave) & (entry > 0) & (entry < depth)
        axis = near.argmax(axis=-1)
        shade = (0.55 + 0.55 * LIGHT[axis])[..., None]
        rgb = np.where(hit[..., None], shade * box.rgb, rgb)
        depth, labels = np.where(hit, entry, depth), np.where(hit, label, labels)
    depth = np.where(np.isfinite(depth), depth, 0.0)
    return np.clip(rgb, 0, 255).astype(np.uint8), depth.astype(np.float32), labels.astype(np.uint8)


def write_scene(root: Path, count: int, boxes: Boxes = BOXES) -> Path:
    """Writes `count` views with depth and labels; returns `root`."""
    for folder in ("images", "depth", "labels"):
        (root / folder).mkdir(parents=True)
    frames = []
    for i, pose in enumerate(camera_ring(count)):
        rgb, depth, labels = ray_cast(pose, boxes)
        Image.fromarray(rgb).save(root / "images" / f"{i:03d}.png")
        Image.fromarray((depth * 1000).round().astype(np.uint16)).save(root / "depth" / f"{i:03d}.png")
        Image.fromarray(labels).save(root / "labels" / f"{i:03d}.png")
        frames.append(
            {
                "file_path": f"images/{i:03d}.png",
                "depth_file_path": f"depth/{i:03d}.png",
                "transform_matrix": (pose @ np.diag([1.0, -1.0, -1.0, 1.0])).tolist(),
            }
        )
    names = (*(box.name for box in boxes), FLOOR_CLASS)
    (root / "classes.txt").write_text("".join(f"{i} {name}\n" for i, name in enumerate(names, start=1)))
    (root / "transforms.json").write_text(
        json.dumps(
            {
                "camera_model": "PINHOLE",
                "w": WIDTH,
                "h": HEIGHT,
                "fl_x": FOCAL,
                "fl_y": FOCAL,
                "cx": WIDTH / 2,
                "cy": HEIGHT / 2,
                "frames": frames,
            }
        )
    )
    return root
