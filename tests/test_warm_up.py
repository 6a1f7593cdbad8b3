"""The warm-up compiles every kernel a session needs and leaves the pipeline empty."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import synthetic

from ovs3d_ros.config import QueryConfig
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.query import boxes, components, instances, scan, voxels
from ovs3d_ros.query.instances import find_map_objects
from ovs3d_ros.rasterize import (
    kernels_backward,
    kernels_forward,
    kernels_project,
    kernels_shade,
    kernels_tiles,
)
from ovs3d_ros.types import MapSnapshot
from ovs3d_ros.warm_up import warm_up

MAPPING = (kernels_backward, kernels_forward, kernels_project, kernels_shade, kernels_tiles)
QUERIES = (boxes, components, instances, scan, voxels)


def compiled() -> dict[str, int]:
    """Number of compiled or loaded signatures of each Numba kernel."""
    return {
        f"{m.__name__}.{n}": len(k.signatures)
        for m in (*MAPPING, *QUERIES)
        for n, k in vars(m).items()
        if hasattr(k, "signatures")
    }


def run_session() -> tuple[dict[str, int], dict[str, int]]:
    """Kernels after the warm-up, and after a session: frames, queries of each kind, a thing in pieces."""
    pipeline = Ovs3d(synthetic.make_config())
    warm_up(pipeline)
    before = compiled()
    frames = synthetic.make_frames(3)
    for frame in frames:
        pipeline.add_frame(frame)
        pipeline.optimize(3)
    list(pipeline.relift())
    snapshot = pipeline.snapshot()
    things = ["red box", "green box", "blue box", "grey wall", *(f"thing {number}" for number in range(9))]
    for names in (things[:1], things[:3], things[:5], things):
        pipeline.query(names, snapshot=snapshot)
        result = pipeline.query(names, mode="argmax", snapshot=snapshot)
        pipeline.render_labels(result, frames[0].camera, frames[0].camtoworld, snapshot)
    pipeline.render(frames[0].camera, frames[0].camtoworld, snapshot)
    pipeline.query(["red box beside green box"], mode="argmax", snapshot=snapshot)
    config = pipeline.config.query
    pieces = replace(snapshot, gaussians=snapshot.gaussians | {"means": in_pieces(snapshot, config)})
    labels, scores = np.ones(snapshot.num_gaussians, np.int16), np.ones(snapshot.num_gaussians, np.float32)
    objects, _ = find_map_objects(pieces, labels, scores, things[:1], config, 0)
    assert len(objects) == 2
    return before, compiled()


def in_pieces(snapshot: MapSnapshot, config: QueryConfig) -> torch.Tensor:
    """Places [N, 3] of the Gaussians: two large heaps and a small one that is near both."""
    places = torch.zeros(snapshot.num_gaussians, 3)
    places[:, 0] = torch.where(torch.arange(len(places)) % 2 == 0, 0.5, 4.5) * config.instance_gap
    places[0, 0] = 2.5 * config.instance_gap
    return places


def test_session_compiles_nothing_after_warm_up():
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:  # where nothing is compiled
        before, after = pool.submit(run_session).result()
    assert sum(before.values()) > 5
    assert after == before


def test_warm_up_leaves_the_pipeline_empty():
    pipeline = Ovs3d(synthetic.make_config())
    warm_up(pipeline)
    assert pipeline.stats["num_gaussians"] == pipeline.stats["keyframes"] == pipeline.stats["steps"] == 0
    assert np.isnan(pipeline.stats["psnr"]) and pipeline.map.lifter.codec is None
    pipeline.add_frame(synthetic.make_frames(1)[0])
    pipeline.optimize(1)
    with pytest.raises(ValueError, match="empty"):
        warm_up(pipeline)


def test_warm_up_without_encoder():
    pipeline = Ovs3d(synthetic.make_config(), encode=False)
    warm_up(pipeline)
    assert pipeline.stats["num_gaussians"] == 0
