"""The warm-up compiles every kernel a session needs and leaves the pipeline empty."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import synthetic

from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.rasterize import (
    kernels_backward,
    kernels_forward,
    kernels_project,
    kernels_shade,
    kernels_tiles,
)
from ovs3d_ros.warm_up import warm_up


def compiled() -> dict[str, int]:
    """Number of compiled or loaded signatures of each Numba kernel."""
    modules = (kernels_backward, kernels_forward, kernels_project, kernels_shade, kernels_tiles)
    return {
        f"{m.__name__}.{n}": len(k.signatures)
        for m in modules
        for n, k in vars(m).items()
        if hasattr(k, "signatures")
    }


def test_session_compiles_nothing_after_warm_up():
    pipeline = Ovs3d(synthetic.make_config())
    warm_up(pipeline)
    assert pipeline.stats["num_gaussians"] == pipeline.stats["keyframes"] == pipeline.stats["steps"] == 0
    assert np.isnan(pipeline.stats["psnr"]) and pipeline.map.lifter.codec is None
    before = compiled()
    assert sum(before.values()) > 5
    frames = synthetic.make_frames(3)
    for frame in frames:
        pipeline.add_frame(frame)
        pipeline.optimize(3)
    list(pipeline.relift())
    snapshot = pipeline.snapshot()
    things = ["red box", "green box", "blue box", "grey wall", *(f"thing {number}" for number in range(9))]
    for names in (things[:1], things[:3], things[:5], things):
        result = pipeline.query(names, mode="argmax", snapshot=snapshot)
        pipeline.render_labels(result, frames[0].camera, frames[0].camtoworld, snapshot)
    pipeline.render(frames[0].camera, frames[0].camtoworld, snapshot)
    assert compiled() == before
    with pytest.raises(ValueError, match="empty"):
        warm_up(pipeline)


def test_warm_up_without_encoder():
    pipeline = Ovs3d(synthetic.make_config(), encode=False)
    warm_up(pipeline)
    assert pipeline.stats["num_gaussians"] == 0
