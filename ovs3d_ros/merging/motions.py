"""Rigid motions between clouds: candidates from matches, and their refinement on the surfaces."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ovs3d_ros.merging.clouds import Cloud

_TRIPLES = 200_000  # of matches, drawn at random
_MIN_EDGE = 0.4  # metres between the points of a triple
_EDGE_TOLERANCE = 0.12  # relative, plus as many metres
_MAX_SOLVED = 2000  # triples whose motion is computed
_MAX_VOTERS = 1000  # matches that vote on them
_INLIER = 0.2  # metres between matched points
_SAME_ANGLE, _SAME_SHIFT = 12.0, 0.3  # degrees and metres between motions that are one candidate
SHRINKING = tuple(np.geomspace(0.35, 0.08, 25))  # metres within which ICP pairs points
FINE = (0.08,) * 5 + (0.05,) * 10  # metres, between all points
_MIN_PAIRS = 30
_SAME_COLOR = 30.0  # CIELAB
_SAME_FEATURE = 0.2  # cosine


def propose_motions(
    first: Cloud, second: Cloud, matches: tuple[np.ndarray, np.ndarray], count: int, seed: int = 0
) -> list[np.ndarray]:
    """The motions [4, 4] of the second cloud onto the first that most matches agree with, best first.

    Triples of matches whose edges are equally long give a motion each (Fischler and Bolles 1981).

    Args:
        first: fixed cloud.
        second: moving cloud.
        matches: indices into both, see `match_clouds`.
        count: motions at most; all of them differ.
        seed: of the triples.
    """
    rng, (i, j) = np.random.default_rng(seed), matches
    if len(i) < 3:
        return []
    p, q = first.points[i], second.points[j]
    triples = rng.integers(len(p), size=(_TRIPLES, 3))
    edges = [np.linalg.norm(x[triples] - x[np.roll(triples, 1, axis=1)], axis=2) for x in (p, q)]
    alike = np.abs(edges[0] - edges[1]) < _EDGE_TOLERANCE * np.minimum(1.0, edges[0])
    triples = triples[alike.all(1) & (np.minimum(*edges) > _MIN_EDGE).all(1)][:_MAX_SOLVED]
    if not len(triples):
        return []
    motions = fit_motions(q[triples], p[triples])
    voters = rng.permutation(len(p))[:_MAX_VOTERS]
    moved = np.einsum("nij,mj->nmi", motions[:, :3, :3], q[voters]) + motions[:, None, :3, 3]
    votes = (np.square(moved - p[voters]).sum(-1) < _INLIER**2).sum(1)
    chosen: list[np.ndarray] = []
    for index in np.argsort(-votes, kind="stable"):
        if not any(is_same_motion(motions[index], other, second.points) for other in chosen):
            chosen.append(motions[index])
        if len(chosen) == count:
            break
    return chosen


def fit_motions(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Least-squares rigid motions [N, 4, 4] of points [N, K, 3] onto others (Kabsch 1976)."""
    centers = source.mean(1, keepdims=True), target.mean(1, keepdims=True)
    covariance = (source - centers[0]).transpose(0, 2, 1) @ (target - centers[1])
    u, _, vt = np.linalg.svd(covariance)
    flip = np.linalg.det(u @ vt)
    u[:, :, 2] *= flip[:, None]
    motions = np.tile(np.eye(4), (len(source), 1, 1))
    motions[:, :3, :3] = (u @ vt).transpose(0, 2, 1)
    motions[:, :3, 3] = centers[1][:, 0] - np.einsum("nij,nj->ni", motions[:, :3, :3], centers[0][:, 0])
    return motions


def is_same_motion(motion: np.ndarray, other: np.ndarray, points: np.ndarray) -> bool:
    """Whether two motions turn alike and bring the centre of the points [N, 3] to the same place."""
    cosine = (np.trace(motion[:3, :3].T @ other[:3, :3]) - 1) / 2
    center = np.append(points.mean(0), 1.0)
    shift = np.linalg.norm((motion @ center - other @ center)[:3])
    return bool(cosine > np.cos(np.radians(_SAME_ANGLE)) and shift < _SAME_SHIFT)


def refine_motion(
    first: Cloud, second: Cloud, motion: np.ndarray, reaches: Sequence[float] = SHRINKING
) -> tuple[np.ndarray, float]:
    """ICP, point to plane (Chen and Medioni 1992), between points that look alike.

    Args:
        first: fixed cloud.
        second: moving cloud.
        motion: [4, 4] to begin with.
        reaches: metres within which points are paired, for each iteration.

    Returns:
        The motion, and how firmly the surfaces hold it, 0 to 1/3: the mean square distance along the normals
        by which the least determined movement of unit size parts the pairs. It is 0 for a single wall.
    """
    from scipy.spatial import cKDTree
    from scipy.spatial.transform import Rotation

    tree, firmness = cKDTree(first.points), 0.0
    for reach in reaches:
        moved = apply_motion(motion, second.points)
        distances, index = tree.query(moved, distance_upper_bound=reach)
        rows = np.flatnonzero(np.isfinite(distances))
        index = index[rows]
        rows, index = (x[looks_alike(first, second, index, rows)] for x in (rows, index))
        if len(rows) < _MIN_PAIRS:
            return motion, 0.0
        normals, center = first.normals[index], moved[rows].mean(0)
        errors = ((first.points[index] - moved[rows]) * normals).sum(1)
        arms = moved[rows] - center
        rates = np.concatenate([np.cross(arms, normals), normals], axis=1)
        unit = rates / np.repeat([np.sqrt(np.square(arms).sum(1).mean()), 1.0], 3)
        firmness = float(np.linalg.eigvalsh(unit.T @ unit / len(unit))[0])
        step = np.linalg.lstsq(rates.T @ rates + 1e-6 * np.eye(6), rates.T @ errors, rcond=None)[0]
        turn = np.eye(4)
        turn[:3, :3] = Rotation.from_rotvec(step[:3]).as_matrix()
        turn[:3, 3] = center + step[3:] - turn[:3, :3] @ center
        motion = turn @ motion
    return motion, firmness


def looks_alike(first: Cloud, second: Cloud, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """Whether points i [M] of one cloud and j [M] of the other have similar colours and features."""
    near = np.linalg.norm(first.lab[i] - second.lab[j], axis=1) < _SAME_COLOR
    return near & ((first.features[i] * second.features[j]).sum(1) > _SAME_FEATURE)


def apply_motion(motion: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points [N, 3] after a motion [4, 4]."""
    return points @ motion[:3, :3].T + motion[:3, 3]
