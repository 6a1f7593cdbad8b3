"""Corrects keyframe poses by the path of a loop closure, without ROS."""

from __future__ import annotations

import numpy as np

from ovs3d_ros.geometry import invert_rigid, rotation_angle
from ovs3d_ros.sensors.sync import interpolate_pose

_MOVED = 1e-4  # metres, and radians: SLAM publishes its path repeatedly, mostly unchanged


def correct_poses(
    stamps: np.ndarray, camtoworlds: np.ndarray, path_stamps: np.ndarray, path: np.ndarray, slop: float
) -> dict[int, np.ndarray]:
    """Finds the keyframe poses that the path changes.

    A keyframe takes the pose of the path at its stamp, if there is one. Each other keyframe moves with its
    neighbours: its motion is interpolated in time between the motions of the matched keyframes before and
    after it. Before the first and after the last matched keyframe, the motion stays constant. A loop closure
    bends the whole trajectory, and the map must not tear between two poses.

    Args:
        stamps: [K] stamps of the keyframes, seconds.
        camtoworlds: [K, 4, 4] current poses of the keyframes.
        path_stamps: [P] stamps of the path, seconds.
        path: [P, 4, 4] corrected camera poses.
        slop: greatest time difference between a keyframe and its pose on the path, seconds.

    Returns:
        New poses [4, 4] by keyframe index; keyframes that do not move are left out.
    """
    motions: dict[int, np.ndarray] = {}
    for k in range(len(stamps) if len(path_stamps) else 0):
        nearest = int(np.abs(path_stamps - stamps[k]).argmin())
        if abs(path_stamps[nearest] - stamps[k]) <= slop:
            motions[k] = path[nearest] @ invert_rigid(camtoworlds[k])
    matched = sorted(motions, key=lambda k: stamps[k])
    if not matched:
        return {}
    known = stamps[matched]
    corrected = {}
    for k in range(len(stamps)):
        after = int(np.searchsorted(known, stamps[k]))
        if k in motions:
            motion = motions[k]
        elif after == 0 or after == len(matched):
            motion = motions[matched[min(after, len(matched) - 1)]]
        else:
            fraction = (stamps[k] - known[after - 1]) / (known[after] - known[after - 1])
            motion = interpolate_pose(motions[matched[after - 1]], motions[matched[after]], fraction)
        pose = motion @ camtoworlds[k]
        shift = np.linalg.norm(pose[:3, 3] - camtoworlds[k][:3, 3])
        if shift > _MOVED or rotation_angle(pose[:3, :3], camtoworlds[k][:3, :3]) > _MOVED:
            corrected[k] = pose
    return corrected
