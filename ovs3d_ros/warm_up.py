"""Compiles the kernels of mapping and queries before the first frame arrives.

Numba keeps compiled kernels on disk. Where they are missing, two processes compile most of them, because
Numba compiles one after the other within a process. Refinement renders one channel per name, and kernels for
a new number of channels are compiled when it first occurs.
"""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ovs3d_ros.config import Config, QueryConfig
from ovs3d_ros.config.resolve import resolve_threads
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.query.engine import QueryEngine
from ovs3d_ros.query.instances import find_objects
from ovs3d_ros.query.relations import make_shape
from ovs3d_ros.query.strays import Judge, drop_strays
from ovs3d_ros.rasterize.kernel_cache import cache_folder
from ovs3d_ros.semantics.codec import make_codec
from ovs3d_ros.semantics.lift import pack_levels
from ovs3d_ros.types import Camera, CropTable, Frame, MapSnapshot, QueryResult

_WIDTH, _HEIGHT = 96, 72  # pixels
_STEPS = 2
_PROMPT = "thing"
_LARGE = 8  # points of a thing, of which one point is a fragment
_DIM = 64  # of the features of `_NoiseEncoder`
_COMPILED = "compiled"  # file in the cache folder: what `PARTS` compile is there
_PACKAGE = Path(__file__).resolve().parent

_log = logging.getLogger(__name__)


def warm_up(pipeline: Ovs3d) -> None:
    """Maps one frame, trains, queries and renders with an empty pipeline, then empties it again.

    Raises:
        ValueError: the pipeline holds a map, which the warm-up would delete.
    """
    if pipeline.stats["num_gaussians"]:
        raise ValueError("the pipeline holds a map; warm up an empty pipeline")
    folder = cache_folder() if pipeline.device == "cpu" else None
    if folder is not None and not (folder / _COMPILED).exists() and _compile_in_processes():
        with contextlib.suppress(OSError):  # a full disk costs time alone
            (folder / _COMPILED).touch()
    _exercise(pipeline)


def compile_kernels() -> Path | None:
    """Compiles all kernels of the warm-up without loading a model.

    Returns:
        The folder that keeps them; None if none can be written, which is logged.
    """
    warm_up(Ovs3d(Config(), clip=_NoiseEncoder()))
    return cache_folder()


def _exercise(pipeline: Ovs3d) -> None:
    """Does what a session does, on one frame."""
    frame = _frame()
    pipeline.add_frame(frame)
    pipeline.optimize(_STEPS)
    for _ in pipeline.relift():
        pass
    snapshot = pipeline.snapshot()
    pipeline.render(frame.camera, frame.camtoworld, snapshot)
    if pipeline.clip is not None:
        result = _ask(pipeline.queries, snapshot)
        pipeline.render_labels(result, frame.camera, frame.camtoworld, snapshot)
        _group_pieces(snapshot, pipeline.config.query)
    pipeline.reset()


def _ask(queries: QueryEngine, snapshot: MapSnapshot) -> QueryResult:
    """Asks by relevancy, and by argmax, which labels every Gaussian, so that objects are found."""
    queries.answer(queries.make_query([_PROMPT]), snapshot, None)
    return queries.answer(queries.make_query([_PROMPT], mode="argmax"), snapshot, None)


def _group_pieces(snapshot: MapSnapshot, config: QueryConfig) -> None:
    """Groups two things and a fragment between them, judges them and measures a shape: a wall needs none."""
    places = np.repeat([0.5, 2.5, 4.5], [_LARGE, 1, _LARGE])  # voxels that do not touch
    means = np.zeros((len(places), 3), np.float32)
    means[:, 0] = config.instance_gap * places
    ones, views = np.ones(len(places), np.float32), snapshot.views.cpu().numpy()[:1].repeat(len(places))
    settings = replace(config, min_instance=1)
    things, numbers = find_objects(means, ones > 0, ones, views, [_PROMPT], settings, 0)
    labels = np.ones(len(things), np.int64)
    drop_strays(labels, numbers, Judge(ones, lambda labels, rows: np.ones(len(labels)), 0.0), 0)
    make_shape(means, np.array([0.0, 0.0, 1.0]))  # for a prompt that says where a thing is


def _frame() -> Frame:
    """A slanted wall of noise, 1 to 2 m away."""
    image = np.random.default_rng(0).integers(0, 256, (_HEIGHT, _WIDTH, 3), dtype=np.uint8)
    depth = np.linspace(1.0, 2.0, _WIDTH, dtype=np.float32)[None].repeat(_HEIGHT, axis=0)
    K = np.array([[_WIDTH, 0.0, _WIDTH / 2], [0.0, _WIDTH, _HEIGHT / 2], [0.0, 0.0, 1.0]])
    return Frame(
        stamp=0.0,
        image=image,
        camera=Camera(K, _WIDTH, _HEIGHT),
        camtoworld=np.eye(4),
        depth=depth,
        name="warm-up",
    )


class _NoiseEncoder:
    """Stands in for a model where kernels are compiled and nothing is kept: its features are noise."""

    name, dim, calibration = "noise", _DIM, {"query": {}}

    def encode_image(self, image: np.ndarray) -> CropTable:
        """One cell for the whole image."""
        box, level = torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.zeros(1, dtype=torch.long)
        return CropTable(box, level, _noise(1), 1, (1, 1))

    def encode_text(self, prompts: Sequence[str]) -> torch.Tensor:
        return _noise(len(prompts))


def _noise(count: int) -> torch.Tensor:
    """Unit features [count, D], the same at every call."""
    generator = torch.Generator().manual_seed(0)
    return torch.nn.functional.normalize(torch.randn(count, _DIM, generator=generator), dim=1)


def _train() -> None:
    """Compiles what mapping without features needs."""
    _exercise(Ovs3d(Config(), encode=False))


def _query() -> None:
    """Compiles what queries need, on a map that nothing was mapped for."""
    snapshot, config = _noise_map(), Config().query
    _ask(QueryEngine(_NoiseEncoder(), config), snapshot)
    _group_pieces(snapshot, config)


def _noise_map() -> MapSnapshot:
    """Gaussians in a row with features of noise."""
    means = torch.zeros(_LARGE, 3)
    means[:, 0] = torch.arange(_LARGE)
    gaussians = dict(
        means=means,
        quats=torch.eye(4)[:1].repeat(_LARGE, 1),
        scales=torch.ones(_LARGE, 3),
        opacities=torch.ones(_LARGE),
        sh=torch.zeros(_LARGE, 1, 3),
    )
    codec, ones = make_codec(torch.eye(_DIM), torch.zeros(_DIM)), torch.ones(_LARGE)
    levels = codec.encode(_noise(_LARGE))[:, None]
    return MapSnapshot(
        version=1,
        gaussians=gaussians,
        **pack_levels(levels, ones[:, None], codec),
        weight=ones,
        views=ones,
        selection=ones[:, None],
        codec=codec,
        camtoworlds=np.eye(4)[None],
        stamps=np.zeros(1),
        cameras=[_frame().camera],
        names=["noise"],
    )


PARTS = {"training": _train, "queries": _query}
"""What is compiled in a process of its own each: little of one is in the other."""


def _compile_in_processes() -> bool:
    """Compiles the parts at once, in a process each, if there are cores for that; whether all succeeded."""
    if resolve_threads(0) < len(PARTS):
        return False
    paths = filter(None, (str(_PACKAGE.parent), os.environ.get("PYTHONPATH")))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = sys.executable, "-m", __name__
    processes = {
        part: subprocess.Popen([*command, part], env=environment, stdin=subprocess.DEVNULL) for part in PARTS
    }
    try:
        for part, process in processes.items():
            if status := process.wait():
                _log.warning("the kernels of %s are compiled later: a process ended with %d", part, status)
        return not any(process.returncode for process in processes.values())
    finally:
        for process in processes.values():
            process.kill()  # does nothing to one that has ended
            process.wait()


if __name__ == "__main__":
    PARTS[sys.argv[1]]()
