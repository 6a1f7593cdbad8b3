"""Maps as files hold them, for merging: built, moved and compared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from helpers import synthetic
from ovs3d_ros.map_file import load_map
from ovs3d_ros.mapping.gaussians import move_params
from ovs3d_ros.merging.merge import StoredMap
from ovs3d_ros.types import Frame, MapFrame


def store(frames: list[Frame], path: Path, steps: int = 30, **settings) -> StoredMap:
    """The map of frames, after a round trip through a file."""
    synthetic.build_map(frames, steps=steps, **settings).save(path)
    return StoredMap(*load_map(path), path.name)


def move(stored: StoredMap, motion: np.ndarray) -> StoredMap:
    """The map of the same place in a world that `motion` brings to the present one."""
    inverse = np.linalg.inv(motion)
    poses = inverse @ stored.snapshot.camtoworlds
    return replace(
        stored,
        params=move_params(stored.params, inverse),
        snapshot=replace(stored.snapshot, camtoworlds=poses),
    )


def in_unit(stored: StoredMap, unit: float, origin: np.ndarray) -> StoredMap:
    """The same map in a world of `unit` metres, with a map frame that begins at `origin` there."""
    poses = stored.snapshot.camtoworlds.copy()
    poses[:, :3, 3] = poses[:, :3, 3] / unit + origin
    return replace(stored, snapshot=replace(stored.snapshot, camtoworlds=poses, frame=MapFrame(origin, unit)))


def random_motion(seed: int, reach: float = 5.0) -> np.ndarray:
    """A rigid motion [4, 4] of any rotation."""
    rng = np.random.default_rng(seed)
    motion = np.eye(4)
    motion[:3, :3] = Rotation.random(random_state=seed).as_matrix()
    motion[:3, 3] = rng.uniform(-reach, reach, 3)
    return motion
