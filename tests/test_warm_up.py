"""The warm-up compiles every kernel a session needs and leaves the pipeline empty."""

from __future__ import annotations

import logging
import multiprocessing
import shutil
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import synthetic

from ovs3d_ros.config import QueryConfig
from ovs3d_ros.mapping import adam
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
from ovs3d_ros.rasterize.kernel_cache import cache_folder
from ovs3d_ros.types import MapSnapshot
from ovs3d_ros.warm_up import PARTS, warm_up

MAPPING = (adam, kernels_backward, kernels_forward, kernels_project, kernels_shade, kernels_tiles)
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


def run_parts() -> tuple[dict[str, int], dict[str, int]]:
    """Kernels after the parts that are compiled in processes, and after the warm-up of a session."""
    for part in PARTS.values():
        part()
    parts = compiled()
    warm_up(Ovs3d(synthetic.make_config()))
    return parts, compiled()


def test_processes_compile_most_kernels():
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        parts, all_kernels = pool.submit(run_parts).result()
    missing = {name.split(".")[-1] for name in parts if parts[name] < all_kernels[name]}
    assert missing <= {"composite", "lift_tiles"}  # other numbers of channels; lifting follows mapping
    assert sum(parts.values()) > 20  # helpers count only where they are compiled anew


@pytest.fixture
def no_marker():
    """The folder of compiled kernels as an update leaves it: nothing says that all are there."""
    marker = cache_folder() / "compiled"
    marker.unlink(missing_ok=True)
    return marker


def test_a_failed_process_costs_time_alone(no_marker, monkeypatch, caplog):
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    pipeline = Ovs3d(synthetic.make_config())
    with caplog.at_level(logging.WARNING):
        warm_up(pipeline)
    assert [record.args for record in caplog.records] == [(part, 1) for part in PARTS]
    assert pipeline.stats["num_gaussians"] == 0 and not no_marker.exists()


def test_no_process_starts_where_all_is_compiled(monkeypatch, caplog):
    warm_up(Ovs3d(synthetic.make_config()))
    monkeypatch.setattr(sys, "executable", "/nonexistent")
    warm_up(Ovs3d(synthetic.make_config()))
    assert not caplog.records


def test_the_command_compiles_and_tells_where(no_marker):
    done = subprocess.run([sys.executable, "-m", "ovs3d_ros.cli", "compile"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert Path(done.stdout.split()[-1]) == no_marker.parent and no_marker.exists()
