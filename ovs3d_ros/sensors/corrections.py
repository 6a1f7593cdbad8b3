"""From the path of a loop closure to the poses of keyframes. Pure Python: no ROS here."""

from __future__ import annotations

import numpy as np

from ovs3d_ros.geometry import invert_rigid, rotation_angle
from ovs3d_ros.sensors.sync import interpolate_pose

_MOVED = 1e-4  # metres, and radians: SLAM publishes its path again and again, most of the time unchanged


def correct_poses(
    stamps: np.ndarray, camtoworlds: np.ndarray, path_stamps: np.ndarray, path: np.ndarray, slop: float
) -> dict[int, np.ndarray]:
    """The poses that change.

    A keyframe with a pose of the path at its stamp takes it. The others move with their neighbours: the motions of the
    keyframes that were matched before and after them are interpolated in time, and go on unchanged beyond the first
    and the last, since a loop closure bends the whole trajectory and a map must not be torn between two poses.

    Args:
        stamps: [K] of the keyframes, seconds.
        camtoworlds: [K, 4, 4] as they are.
        path_stamps: [P] of the path, seconds.
        path: [P, 4, 4] camera poses as they should be.
        slop: keyframe and pose this close in time belong together, seconds.

    Returns:
        keyframe index to new pose [4, 4], without those that stay where they are.
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
