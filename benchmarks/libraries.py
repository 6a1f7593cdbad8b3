"""Compares routines of this package with those of SciPy that do the same. Prints one JSON document.

    python benchmarks/libraries.py [--sizes 20000 150000 1000000] [--map room.ovs3d]
                                   [--threads 1] [--repeats 3]

Points are the means of the Gaussians of a map, or lie as those do: on the walls of a room and on furniture,
with 3 mm of noise, and 1 % float anywhere. Both contestants of a comparison run in turn, so that a busy
machine slows them alike. Times are the least of the repeats, in milliseconds: `_ms` wall-clock, `_cpu_ms`
processor time of all threads. Each `ratio` is SciPy's time over ours: above 1, ours is faster. More than one
thread inflates our processor time on a busy machine, where torch's threads spin while they wait.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy
import scipy.sparse
import torch
from scipy.sparse.csgraph import connected_components as scipy_components
from scipy.sparse.linalg import LinearOperator, cg
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation, Slerp

from ovs3d_ros.config import RefineConfig
from ovs3d_ros.geometry import matrix_to_quat, quat_to_matrix
from ovs3d_ros.map_file import load_map
from ovs3d_ros.query.components import connected_components
from ovs3d_ros.query.voxels import sort_into_voxels
from ovs3d_ros.rasterize.thread_pool import shared_pool
from ovs3d_ros.semantics.affinity import align_distributions, compute_affinities
from ovs3d_ros.semantics.surface_graph import make_surface_graph
from ovs3d_ros.sensors.sync import interpolate_pose

GAP = 0.06  # metres, the default of query.instance_gap
CLASSES = 20


def room_points(count: int) -> np.ndarray:
    """Points [count, 3] float32 in metres on the surfaces of a room with thirty boxes."""
    rng = np.random.default_rng(0)
    sizes = np.concatenate([[[5.0, 4.0, 2.5]], rng.uniform(0.1, 1.0, (30, 3))])
    corners = np.concatenate([np.zeros((1, 3)), rng.uniform(0, 1, (30, 3)) * ([5.0, 4.0, 2.5] - sizes[1:])])
    areas = sizes[:, [1, 0, 0]] * sizes[:, [2, 2, 1]]  # [B, 3] of the faces across x, y and z
    face = rng.choice(areas.size, count, p=areas.ravel() / areas.sum())
    box, axis = np.divmod(face, 3)
    inside = rng.uniform(0, 1, (count, 3))
    inside[np.arange(count), axis] = rng.integers(0, 2, count)
    points = corners[box] + inside * sizes[box] + rng.normal(0, 0.003, (count, 3))
    floating = rng.random(count) < 0.01
    points[floating] = rng.uniform(0, 1, (floating.sum(), 3)) * [5.0, 4.0, 2.5]
    return points.astype(np.float32)


def race(ours: Callable, theirs: Callable, repeats: int) -> dict[str, Any]:
    """Least milliseconds of both, run in turn, and their results."""
    times, results = {"ours": [], "scipy": []}, {}
    for _ in range(repeats):
        for name, run in (("ours", ours), ("scipy", theirs)):
            start = np.array([time.perf_counter(), time.process_time()])
            results[name] = run()
            times[name].append(1e3 * (np.array([time.perf_counter(), time.process_time()]) - start))
    best = {name: np.min(rows, axis=0) for name, rows in times.items()}
    return dict(
        ours_ms=round(best["ours"][0], 4),
        scipy_ms=round(best["scipy"][0], 4),
        ours_cpu_ms=round(best["ours"][1], 4),
        scipy_cpu_ms=round(best["scipy"][1], 4),
        ratio=round(best["scipy"][0] / best["ours"][0], 2),
        ratio_cpu=round(best["scipy"][1] / best["ours"][1], 2),
        results=results,
    )


def joined_by_tree(points: np.ndarray) -> tuple[np.ndarray, int]:
    """Components of points closer than `GAP`, from all pairs that a k-d tree finds."""
    pairs = cKDTree(points).query_pairs(GAP, output_type="ndarray")
    graph = scipy.sparse.coo_matrix((np.ones(len(pairs), bool), pairs.T), (len(points),) * 2)
    count, labels = scipy_components(graph, directed=False)
    return labels, count


def joined_by_us(points: np.ndarray) -> tuple[np.ndarray, int]:
    """Our components. The grid, which a map keeps from query to query, is made anew."""
    grid = sort_into_voxels(points, GAP).fine
    found = connected_components(np.ones(len(points), np.int16), grid, shared_pool(1))
    return found.number, len(found.labels)


def joined_by_voxels(points: np.ndarray) -> tuple[np.ndarray, int]:
    """Components of voxels of side `GAP` that touch, as `connected_components` defines them."""
    voxels, inverse = np.unique(np.floor(points / GAP).astype(np.int64), axis=0, return_inverse=True)
    pairs = cKDTree(voxels).query_pairs(1.8, output_type="ndarray")  # beyond the diagonal of a voxel
    graph = scipy.sparse.coo_matrix((np.ones(len(pairs), bool), pairs.T), (len(voxels),) * 2)
    count, labels = scipy_components(graph, directed=False)
    return labels[inverse.ravel()], count


def components(points: np.ndarray, repeats: int) -> dict[str, Any]:
    """Connected components of every tenth point, as many as a query labels."""
    some = np.ascontiguousarray(points[::10])
    by_voxels = race(lambda: joined_by_us(some), lambda: joined_by_voxels(some), repeats)
    results = by_voxels.pop("results")
    by_pairs = race(lambda: None, lambda: joined_by_tree(some), 1)
    return dict(
        by_voxels,
        points=len(some),
        scipy_pairs_ms=by_pairs["scipy_ms"],
        components={name: int(found[1]) for name, found in results.items()},
    )


def alignment(points: np.ndarray, repeats: int) -> dict[str, Any]:
    """Times the linear system of refinement for `CLASSES` classes: all at once, and one by one in SciPy."""
    rng = np.random.default_rng(0)
    config = RefineConfig()
    means, colors = torch.from_numpy(points), torch.from_numpy(np.float32(rng.uniform(0, 1, points.shape)))
    affinity = compute_affinities(make_surface_graph(means, colors * 0.1, config.neighbours), config)
    # Classes come in patches, as in a room.
    regions = np.floor(points / 0.3).astype(np.int64) @ [7, 11, 13] % CLASSES
    noise = rng.dirichlet(np.ones(CLASSES), len(points))
    prior = torch.from_numpy((0.7 * np.eye(CLASSES)[regions] + 0.3 * noise).astype(np.float32))
    mass = torch.from_numpy(rng.uniform(0, 20, len(points)).astype(np.float32))
    indices = affinity.indices().numpy()
    matrix = scipy.sparse.csr_matrix((affinity.values().numpy(), indices), affinity.shape)
    m = np.maximum(mass.numpy() / np.median(mass.numpy()), 1e-3)
    diagonal = m + config.strength * np.asarray(matrix.sum(axis=1)).ravel()
    system = (scipy.sparse.diags(diagonal) - config.strength * matrix).tocsr()
    jacobi = LinearOperator(system.shape, lambda x: x.ravel() / diagonal, dtype=system.dtype)

    start = m[:, None] * prior.numpy() - system @ prior.numpy()
    residuals = np.linalg.norm(start, axis=0)  # [V] of the initial guess, to which our tolerance refers

    def solve(tolerance: float) -> np.ndarray:
        columns = [
            cg(system, m * q, x0=q, rtol=0, atol=tolerance * residual, maxiter=300, M=jacobi)[0]
            for q, residual in zip(prior.numpy().T, residuals, strict=True)
        ]
        x = np.maximum(np.stack(columns, axis=1), 0)
        return x / x.sum(axis=1, keepdims=True)

    row = race(
        lambda: align_distributions(prior, mass, affinity, config.strength).numpy(),
        lambda: solve(1e-3),
        repeats,
    )
    results, exact = row.pop("results"), solve(1e-7)
    errors = {name: round(float(np.abs(found - exact).max()), 6) for name, found in results.items()}
    csr = affinity.to_sparse_csr()
    product = race(lambda: csr @ prior, lambda: matrix @ prior.numpy(), 3 * repeats)
    product.pop("results")
    return dict(row, errors=errors, product=product)


def single_calls(repeats: int) -> dict[str, Any]:
    """Poses one at a time, as they arrive: the milliseconds of one call, mean of a thousand."""
    turns = Rotation.from_rotvec([[0.1, 0.2, 0.3], [0.2, -0.3, 0.5]])
    poses = np.tile(np.eye(4), (2, 1, 1))
    poses[:, :3, :3], poses[1, :3, 3] = turns.as_matrix(), [0.1, 0.0, 0.2]
    quat = turns.as_quat(scalar_first=True)[0]

    def interpolated() -> np.ndarray:
        pose = np.eye(4)
        pose[:3, :3] = Slerp([0, 1], Rotation.from_matrix(poses[:, :3, :3]))(0.3).as_matrix()
        pose[:3, 3] = 0.7 * poses[0, :3, 3] + 0.3 * poses[1, :3, 3]
        return pose

    calls = dict(
        interpolate_pose=(lambda: interpolate_pose(*poses, 0.3), interpolated),
        quat_to_matrix=(
            lambda: quat_to_matrix(quat),
            lambda: Rotation.from_quat(quat, scalar_first=True).as_matrix(),
        ),
        matrix_to_quat=(
            lambda: matrix_to_quat(poses[0, :3, :3]),
            lambda: Rotation.from_matrix(poses[0, :3, :3]).as_quat(canonical=True, scalar_first=True),
        ),
    )
    rows = {}
    for name, pair in calls.items():
        np.testing.assert_allclose(pair[0](), pair[1](), atol=1e-12)
        many = [lambda call=call: [call() for _ in range(1000)] for call in pair]
        row = race(*many, repeats)
        rows[name] = {
            "ours_ms": round(row["ours_ms"] / 1000, 5),
            "scipy_ms": round(row["scipy_ms"] / 1000, 5),
            "ratio": row["ratio"],
        }
    return rows


def main() -> None:
    """Runs every comparison and prints one JSON document."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[20_000, 150_000, 1_000_000])
    parser.add_argument("--map", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    joined_by_us(room_points(1000))  # compiles the kernels
    document: dict[str, Any] = dict(
        scipy=scipy.__version__,
        processors=os.cpu_count(),
        threads=args.threads,
        load=[round(v, 1) for v in os.getloadavg()],
        single_calls=single_calls(args.repeats),
    )
    scenes = {str(count): room_points(count) for count in args.sizes}
    if args.map:
        scenes[args.map.name] = load_map(args.map)[0]["means"].numpy()
    for name, points in scenes.items():
        repeats = args.repeats if len(points) <= 200_000 else 1
        document[name] = dict(
            points=len(points),
            components=components(points, args.repeats),
            **({"alignment": alignment(points, repeats)} if len(points) <= 200_000 else {}),
        )
    sys.stdout.write(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
