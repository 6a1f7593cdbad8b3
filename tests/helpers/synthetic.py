"""A small coloured room, ray cast in numpy with exact images, depth and labels: ground truth for tests."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ovs3d_ros.config import Config, override
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.types import Camera, Frame

torch.set_num_threads(1)  # the tensors are tiny: more threads only slow each other down
ENCODER = "helpers.color_encoder:ColorEncoder"  # knows red, green, blue and grey


@dataclass(frozen=True)
class Box:
    """An upright box; `label` is a class index, 0 = background."""

    center: tuple[float, float, float]  # metres
    size: tuple[float, float, float]  # metres
    color: tuple[int, int, int]
    label: int = 0
    yaw: float = 0.0  # radians about the world's z axis

    @property
    def rotation(self) -> np.ndarray:
        c, s = np.cos(self.yaw), np.sin(self.yaw)
        return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])


RED = Box((-0.55, 0.0, 0.25), (0.5, 0.4, 0.5), (215, 40, 35), 1)
GREEN = Box((0.55, 0.1, 0.2), (0.4, 0.4, 0.4), (45, 190, 50), 2, yaw=0.5)
BLUE = Box((0.1, 0.7, 0.35), (0.3, 0.3, 0.7), (40, 60, 205), 3)
ROOM = Box((0.0, 0.0, 1.0), (5.0, 5.0, 2.0), (125, 125, 125))  # seen from inside: z = 0 is the floor
SCENE = (ROOM, RED, GREEN, BLUE)


def make_camera(width: int = 64, height: int = 48) -> Camera:
    """A camera with a 60 degree field of view, an off-centre principal point and unequal focal lengths."""
    focal = 0.5 * width / np.tan(np.radians(30))
    K = np.array([[focal, 0, 0.51 * width], [0, 1.02 * focal, 0.48 * height], [0, 0, 1]])
    return Camera(K, width, height)


def look_at(eye, target) -> np.ndarray:
    """camtoworld [4, 4] in OpenCV axes of a camera at `eye` that looks at `target`, world z up."""
    eye, target = np.asarray(eye, np.float64), np.asarray(target, np.float64)
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
    pose[:3, 3] = eye
    return pose


def orbit(count: int, radius: float = 1.8, height: float = 0.9, arc: float = np.pi) -> list[np.ndarray]:
    """Poses on an arc in front of the boxes, looking at them."""
    angles = -np.pi / 2 + (np.arange(count) / max(count - 1, 1) - 0.5) * arc
    return [look_at([radius * np.cos(a), radius * np.sin(a), height], [0, 0.2, 0.2]) for a in angles]


def ray_cast(
    camera: Camera, camtoworld: np.ndarray, scene=SCENE
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ray casts pixel centres: RGB uint8 [H, W, 3], z-depth float32 [H, W] in metres, labels [H, W]."""
    u, v = np.meshgrid(np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5)
    rays = np.stack(
        [(u - camera.K[0, 2]) / camera.K[0, 0], (v - camera.K[1, 2]) / camera.K[1, 1], np.ones_like(u)], -1
    )
    rays = rays @ camtoworld[:3, :3].T  # the z component in camera axes is 1, so t is the z-depth
    depth = np.full(u.shape, np.inf)
    rgb, labels = np.zeros((*u.shape, 3)), np.zeros(u.shape, np.int64)
    for box in scene:
        origin = (camtoworld[:3, 3] - box.center) @ box.rotation
        direction = rays @ box.rotation
        direction = np.where(np.abs(direction) < 1e-9, 1e-9, direction)
        a, b = (-np.array(box.size) / 2 - origin) / direction, (np.array(box.size) / 2 - origin) / direction
        near, far = np.minimum(a, b), np.maximum(a, b)
        outside = near.max(-1) > 0
        t = np.where(outside, near.max(-1), far.min(-1))
        axis = np.where(outside, near.argmax(-1), far.argmin(-1))
        hit = (near.max(-1) < far.min(-1)) & (t > 0) & (t < depth)
        shade = np.array([0.8, 0.9, 1.0])[axis]  # each face its own brightness
        depth[hit], labels[hit] = t[hit], box.label
        rgb[hit] = (np.array(box.color) * shade[..., None])[hit]
    return rgb.round().astype(np.uint8), depth.astype(np.float32), labels


def make_frame(
    camtoworld: np.ndarray,
    stamp: float = 0.0,
    *,
    depth: bool = True,
    camera: Camera | None = None,
    scene=SCENE,
) -> Frame:
    """A frame of the scene from a pose."""
    camera = camera or make_camera()
    rgb, z, labels = ray_cast(camera, camtoworld, scene)
    return Frame(
        stamp=stamp,
        image=rgb,
        camera=camera,
        camtoworld=camtoworld,
        depth=z if depth else None,
        labels=labels,
        name=f"frame_{stamp:g}",
    )


def make_frames(count: int, **options) -> list[Frame]:
    """Frames along the orbit, one second apart."""
    return [make_frame(pose, float(index), **options) for index, pose in enumerate(orbit(count))]


def make_config(**values) -> Config:
    """Settings for tiny scenes on a CPU; `map__sh_degree=1` sets `map.sh_degree`."""
    base = {
        "compute.device": "cpu",
        "compute.threads": 1,
        "clip.model": ENCODER,
        "map.image_size": 0,
        "lift.image_size": 64,
        "seed.spacing": 1.5,
        "train.steps_per_keyframe": 5,
        "query.min_instance": 5,
        "query.instance_gap": 0.12,
        "keyframe.translation": 0.02,
        "keyframe.rotation": 1.0,
    }
    return override(Config(), base | {key.replace("__", "."): value for key, value in values.items()})


def textured_plane(camera: Camera, camtoworld: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """RGB and z-depth of the plane z = 0, covered with smooth random blobs and seen from above or below."""
    u, v = np.meshgrid(np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5)
    rays = np.stack(
        [(u - camera.K[0, 2]) / camera.K[0, 0], (v - camera.K[1, 2]) / camera.K[1, 1], np.ones_like(u)], -1
    )
    rays = rays @ camtoworld[:3, :3].T
    depth = -camtoworld[2, 3] / rays[..., 2]
    points = camtoworld[:3, 3] + depth[..., None] * rays
    rng = np.random.default_rng(seed)
    centers, widths = rng.uniform(-1.5, 1.5, (300, 2)), rng.uniform(0.03, 0.12, 300)
    colors = rng.uniform(-1, 1, (300, 3))
    rgb = np.full((*u.shape, 3), 0.5)
    for center, width, color in zip(centers, widths, colors, strict=True):
        distance = ((points[..., :2] - center) ** 2).sum(-1) / width**2
        rgb += np.exp(-0.5 * distance)[..., None] * color
    return (rgb.clip(0, 1) * 255).astype(np.uint8), depth.astype(np.float32)


def build_map(frames: list[Frame], steps: int = 20, **settings) -> Ovs3d:
    """Maps frames, all of which must become keyframes, with settings of `make_config`."""
    pipeline = Ovs3d(make_config(**settings))
    for frame in frames:
        assert pipeline.add_frame(frame)
    pipeline.optimize(steps)
    for _ in pipeline.relift():
        pass
    return pipeline
