"""Camera paths for videos. They stay near the keyframes, because views far from all keyframes look bad."""

from __future__ import annotations

import numpy as np

from ovs3d_ros.geometry import matrix_to_quat, mean_up, quat_to_matrix, slerp

_FULL_TURN = np.radians(270.0)  # an arc of this length is extended to a circle
_MIN_SWING = np.radians(6.0)  # least amplitude, for a camera that never moved


def keyframe_path(camtoworlds: np.ndarray, count: int) -> np.ndarray:
    """`count` poses [count, 4, 4] along keyframes [F, 4, 4].

    Positions follow a Catmull-Rom spline through the keyframes in order; rotations are slerped.
    """
    last = len(camtoworlds) - 1
    quats = matrix_to_quat(np.asarray(camtoworlds)[:, :3, :3])
    path = np.tile(np.eye(4), (count, 1, 1))
    for row, t in enumerate(np.linspace(0, last, count)):
        i = min(int(t), max(last - 1, 0))
        u, j = t - i, min(i + 1, last)
        points = [camtoworlds[k][:3, 3] for k in (max(i - 1, 0), i, j, min(j + 1, last))]
        path[row, :3, :3] = quat_to_matrix(slerp(quats[i], quats[j], u))
        path[row, :3, 3] = _catmull_rom(*points, u)
    return path


def orbit_path(camtoworlds: np.ndarray, distance: float, count: int) -> np.ndarray:
    """A closed path [count, 4, 4] that stays near the keyframes [F, 4, 4].

    If most cameras look inwards, the path goes around the point they look at: on a full circle if they
    surround it, or back and forth on the arc they cover. If they look outwards, the path turns at their
    median position, over the directions they looked in.

    Args:
        camtoworlds: keyframe poses.
        distance: typical viewing distance in metres.
        count: number of poses.
    """
    centers, forwards = camtoworlds[:, :3, 3], camtoworlds[:, :3, 2]
    up = _unit(mean_up(camtoworlds), np.array([0.0, 0.0, 1.0]))
    focus = _focus(centers, forwards, distance)
    inward = np.einsum("fk,fk->f", focus - centers, forwards) > 0.25 * distance
    phase = np.linspace(0, 2 * np.pi, count, endpoint=False)
    if inward.mean() > 0.7:
        offsets = centers - focus
        radius = np.median(np.linalg.norm(offsets - np.outer(offsets @ up, up), axis=1))
        angles, right, ahead = _angles(offsets, up)
        turn = _turn(angles, phase)
        around = np.outer(np.cos(turn), ahead) + np.outer(np.sin(turn), right)
        eyes = focus + radius * around + np.median(offsets @ up) * up
        return np.stack([look_at(eye, focus, up) for eye in eyes])
    angles, right, ahead = _angles(forwards, up)
    turn = _turn(angles, phase)
    directions = np.outer(np.cos(turn), ahead) + np.outer(np.sin(turn), right) + np.median(forwards @ up) * up
    eye = np.median(centers, axis=0)
    return np.stack([look_at(eye, eye + direction, up) for direction in directions])


def look_at(eye: np.ndarray, target: np.ndarray, up: np.ndarray) -> np.ndarray:
    """The pose [4, 4] of a camera at `eye` that looks at `target` with `up` upwards in the image."""
    forward = _unit(target - eye, np.array([1.0, 0.0, 0.0]))
    right = _unit(np.cross(forward, up), np.array([1.0, 0.0, 0.0]))
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
    pose[:3, 3] = eye
    return pose


def _focus(centers: np.ndarray, forwards: np.ndarray, distance: float) -> np.ndarray:
    """The point nearest to all optical axes, with a slight pull to the points at `distance` on the axes.

    The pull keeps the system solvable if the axes are nearly parallel.
    """
    across = np.eye(3) - np.einsum("fi,fj->fij", forwards, forwards)
    pull = 0.02 * np.eye(3) * len(centers)
    targets = (centers + distance * forwards).mean(axis=0)
    return np.linalg.solve(
        across.sum(axis=0) + pull, np.einsum("fij,fj->i", across, centers) + pull @ targets
    )


def _angles(vectors: np.ndarray, up: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Angles [F] of vectors about `up` from their mean direction, and the directions of 90 and 0 degrees."""
    flat = vectors - np.outer(vectors @ up, up)
    flat = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-9)
    mean = flat.mean(axis=0)
    ahead = _unit(
        mean, _unit(np.cross(up, np.array([1.0, 0.0, 0.0])), np.cross(up, np.array([0.0, 1.0, 0.0])))
    )
    right = np.cross(up, ahead)
    return np.arctan2(flat @ right, flat @ ahead), right, ahead


def _turn(angles: np.ndarray, phase: np.ndarray) -> np.ndarray:
    """The angle at each phase: a full circle if `angles` cover `_FULL_TURN`, else back and forth."""
    ordered = np.sort(angles)
    gaps = np.diff(np.append(ordered, ordered[0] + 2 * np.pi))
    if 2 * np.pi - gaps.max() > _FULL_TURN:
        return phase
    low, high = np.percentile(angles, [5, 95])
    return (low + high) / 2 + max((high - low) / 2, _MIN_SWING) * np.sin(phase)


def _catmull_rom(before: np.ndarray, a: np.ndarray, b: np.ndarray, after: np.ndarray, u: float) -> np.ndarray:
    return 0.5 * (
        2 * a
        + (b - before) * u
        + (2 * before - 5 * a + 4 * b - after) * u**2
        + (3 * a - before - 3 * b + after) * u**3
    )


def _unit(vector: np.ndarray, default: np.ndarray) -> np.ndarray:
    """The vector at length 1, or `default` if it is too short."""
    norm = np.linalg.norm(vector)
    return vector / norm if norm > 1e-6 else default
