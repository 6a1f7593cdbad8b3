"""Camera poses: close and varied views for training, views across a room, and the path of a robot."""

from __future__ import annotations

import bpy
import numpy as np
from mathutils import Matrix, Vector
from room import Scene
from vocabulary import NOUNS

BACKGROUND = ("floor", "wall", "carpet")


def look_at(eye: np.ndarray, target: np.ndarray, roll: float = 0.0) -> Matrix:
    """OpenGL camera-to-world matrix (x right, y up, looking along -z); roll in radians."""
    rotation = Vector(target - eye).to_track_quat("-Z", "Y").to_matrix().to_4x4()
    return Matrix.Translation(Vector(eye)) @ rotation @ Matrix.Rotation(roll, 4, "Z")


def _clear(eye: np.ndarray, target: np.ndarray, index: int, scene: Scene) -> bool:
    """Whether the ray from the eye to the target first meets that instance, not closer than 0.3 m."""
    direction = Vector(target - eye).normalized()
    graph = bpy.context.evaluated_depsgraph_get()
    hit, point, _, _, obj, _ = bpy.context.scene.ray_cast(graph, Vector(eye), direction)
    return hit and obj.pass_index == index and (point - Vector(eye)).length > 0.3


def view_poses(scene: Scene, rng, focus: np.ndarray, count: int, field_of_view: float) -> list[Matrix]:
    """Poses that look at one instance each, at a distance where it spans 40 to 150 of 320 pixels."""
    bpy.context.view_layer.update()
    focal = 160 / np.tan(field_of_view / 2)
    subjects = [instance for instance in scene.instances if instance.noun not in BACKGROUND]
    weights = np.array([1.0 if NOUNS[instance.noun].places else 0.3 for instance in subjects])
    limit = np.array(scene.half) - 0.15
    poses = []
    for _attempt in range(count * 60):
        if len(poses) == count:
            break
        subject = subjects[int(rng.choice(len(subjects), p=weights / weights.sum()))]
        target = (subject.low + subject.high) / 2
        extent = float(np.max(subject.high - subject.low))
        distance = np.clip(focal * extent / rng.uniform(45, 140), 0.45, 3.0)
        azimuth = np.radians(rng.normal(-90, 50))
        elevation = np.radians(rng.uniform(8, 58))
        offset = distance * np.array(
            [np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)]
        )
        eye = target + offset
        if (np.abs(eye[:2]) > limit).any() or not _clear(eye, target, subject.index, scene):
            continue
        aim = target + rng.normal(0, 0.12 * distance, size=3) * [1, 1, 0.5]
        poses.append(look_at(eye, aim, rng.normal(0, 0.04)))
    while len(poses) < count:
        eye = focus + [rng.uniform(-0.8, 0.8), -1.6, rng.uniform(0.5, 1.0)]
        poses.append(look_at(eye, focus))
    return poses


def room_poses(scene: Scene, rng, focus: np.ndarray, count: int) -> list[Matrix]:
    """Poses 0.3 to 1.6 m high and 1.1 to 2.6 m from the focus, that look roughly there."""
    limit = np.array(scene.half) - 0.15
    poses = []
    while len(poses) < count:
        azimuth, distance = np.radians(rng.uniform(-160, -20)), rng.uniform(1.1, 2.6)
        eye = focus + [distance * np.cos(azimuth), distance * np.sin(azimuth), 0]
        eye[2] = rng.uniform(0.3, 1.6)
        inside = any(
            (instance.low < eye).all() and (eye < instance.high).all()
            for instance in scene.instances
            if instance.noun not in BACKGROUND
        )
        if (np.abs(eye[:2]) < limit).all() and not inside:
            poses.append(look_at(eye, focus + rng.normal(0, [0.5, 0.3, 0.25]), rng.normal(0, 0.04)))
    return poses


def walk_poses(rng, focus: np.ndarray, count: int) -> list[Matrix]:
    """A smooth arc around the focus, camera 0.9 to 1.15 m high, gaze drifting over the furnished area."""
    phase = rng.uniform(0, 2 * np.pi)
    poses = []
    for t in np.linspace(0, 1, count):
        azimuth = np.radians(-148 + 112 * t)
        radius = 1.45 + 0.1 * np.sin(2 * np.pi * t + phase)
        eye = np.array(
            [
                focus[0] + radius * np.cos(azimuth),
                focus[1] + radius * np.sin(azimuth),
                1.02 + 0.12 * np.sin(3 * np.pi * t + phase),
            ]
        )
        target = focus + [0.2 * np.sin(2 * np.pi * t - 0.5), 0.1 * np.cos(4 * np.pi * t), -0.1]
        poses.append(look_at(eye, target))
    return poses
