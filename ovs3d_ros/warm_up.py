"""Compiles the kernels of mapping and queries before the first frame arrives.

Compilation takes half a minute on a fresh machine; Numba caches the kernels on disk. Refinement renders one
channel per name, and kernels for a new number of channels are compiled when it first occurs.
"""

from __future__ import annotations

import numpy as np
import torch

from ovs3d_ros.config import QueryConfig
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.query.instances import find_objects
from ovs3d_ros.query.relations import make_shape
from ovs3d_ros.types import Camera, Frame, MapSnapshot

_WIDTH, _HEIGHT = 96, 72  # pixels
_STEPS = 2
_PROMPT = "thing"
_LARGE = 8  # points of a thing, of which one point is a fragment
_CHANNELS = (3, 4, 8, 16)  # of masks with up to 15 labels; more are rare, and compile in half a second


def warm_up(pipeline: Ovs3d) -> None:
    """Maps one frame, trains, queries and renders with an empty pipeline, then empties it again.

    Raises:
        ValueError: the pipeline holds a map, which the warm-up would delete.
    """
    if pipeline.stats["num_gaussians"]:
        raise ValueError("the pipeline holds a map; warm up an empty pipeline")
    frame = _frame()
    pipeline.add_frame(frame)
    pipeline.optimize(_STEPS)
    for _ in pipeline.relift():
        pass
    snapshot = pipeline.snapshot()
    pipeline.render(frame.camera, frame.camtoworld, snapshot)
    if pipeline.clip is not None:
        pipeline.query([_PROMPT], snapshot=snapshot)
        # By argmax every Gaussian gets a label, so that objects are found and a mask is drawn.
        result = pipeline.query([_PROMPT], mode="argmax", snapshot=snapshot)
        pipeline.render_labels(result, frame.camera, frame.camtoworld, snapshot)
        for count in _CHANNELS:
            channels = torch.zeros(snapshot.num_gaussians, count, device=snapshot.weight.device)
            pipeline.renderer.channels(channels, frame.camera, frame.camtoworld, snapshot)
        _group_pieces(snapshot, pipeline.config.query)
    pipeline.reset()


def _group_pieces(snapshot: MapSnapshot, config: QueryConfig) -> None:
    """Groups two things and a fragment between them, and measures a shape: a wall alone needs neither."""
    places = np.repeat([0.5, 2.5, 4.5], [_LARGE, 1, _LARGE])  # voxels that do not touch
    means = np.zeros((len(places), 3), np.float32)
    means[:, 0] = config.instance_gap * places
    ones, views = np.ones(len(places), np.float32), snapshot.views.cpu().numpy()[:1].repeat(len(places))
    find_objects(means, ones > 0, ones, views, [_PROMPT], config, 0)
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
