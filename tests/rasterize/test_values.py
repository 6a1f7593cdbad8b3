"""The two values that rasterizers take."""

from __future__ import annotations

import numpy as np
import torch
from helpers import synthetic
from helpers.rasterize_oracle import EYES, make_scene

from ovs3d_ros.rasterize import Splats, Views


def test_views_hold_the_inverse_pose() -> None:
    camera, camtoworld = synthetic.make_camera(), synthetic.orbit(3)[0]
    views = Views.from_camera(camera, camtoworld, "cpu")
    assert views.viewmats.shape == (1, 4, 4) and views.Ks.shape == (1, 3, 3)
    assert views.viewmats.dtype == views.Ks.dtype == torch.float32
    assert (views.width, views.height) == (camera.width, camera.height)
    np.testing.assert_allclose(views.viewmats[0].numpy() @ camtoworld, np.eye(4), atol=1e-6)
    np.testing.assert_allclose(views.Ks[0].numpy(), camera.K, rtol=1e-6)


def test_iteration_over_views_yields_one_camera_each() -> None:
    views = make_scene(eyes=EYES).views
    singles = list(views)
    assert len(views) == len(singles) == 2 and all(len(single) == 1 for single in singles)
    assert torch.equal(torch.cat([single.viewmats for single in singles]), views.viewmats)
    assert all((single.width, single.height) == (64, 48) for single in singles)


def test_splats_take_their_tensors_by_name() -> None:
    splats = make_scene(count=7).splats
    names = ("opacities", "scales", "quats", "means")
    again = Splats.from_dict({name: getattr(splats, name) for name in names} | {"sh": torch.zeros(7, 1, 3)})
    assert len(again) == 7
    assert all(a is b for a, b in zip(again.tensors, splats.tensors, strict=True))
