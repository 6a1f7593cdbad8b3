"""The scale of data without depth follows their typical depth."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from helpers import synthetic

from ovs3d_ros.datasets import Dataset
from ovs3d_ros.offline.scale import TYPICAL_DEPTH, check_depth_unit, estimate_unit
from ovs3d_ros.types import Frame

EYES = [(-0.3, -0.2, 1.5), (0.0, -0.25, 1.5), (0.3, -0.2, 1.4), (0.1, 0.1, 1.6)]
CAMERA = synthetic.make_camera(240, 180)


@functools.cache
def photograph(index: int) -> tuple[np.ndarray, np.ndarray]:
    return synthetic.textured_plane(CAMERA, synthetic.look_at(EYES[index], (0, 0.1, 0)))


class Plane(Dataset):
    """Views of a textured plane 1.5 m below, in a unit of one's own; depth is `depth_factor` metres."""

    depth_factor = 1.0

    def __init__(self, factor: float, format: str = "nerfstudio", has_depth: bool = False) -> None:
        super().__init__(
            name="plane",
            format=format,
            cameras=[CAMERA] * len(EYES),
            max_image_size=0,
            camtoworlds=np.stack([synthetic.look_at(eye, (0, 0.1, 0)) for eye in EYES]),
            stamps=np.arange(len(EYES), dtype=np.float64),
            names=[str(index) for index in range(len(EYES))],
            has_depth=has_depth,
        )
        self.camtoworlds[:, :3, 3] *= factor

    def __getitem__(self, index: int) -> Frame:
        camera = self.cameras[index]
        rgb, depth = photograph(index)
        depth = depth * np.float32(self.depth_factor) if self.has_depth else None
        return Frame(self.stamps[index], rgb, camera, self.camtoworlds[index], depth)


ALL = range(len(EYES))


@pytest.mark.parametrize("factor", [0.002, 100.0, 3e5])
def test_image_matches_tell_the_unit(factor: float) -> None:
    unit = estimate_unit(Plane(factor), ALL)
    assert unit * factor * 1.5 == pytest.approx(TYPICAL_DEPTH, rel=0.1)


def test_image_matches_tell_the_unit_far_from_the_origin() -> None:
    plane = Plane(100.0)
    plane.camtoworlds[:, :3, 3] += [449_000e2, 4_158_000e2, 0]
    assert estimate_unit(plane, ALL) * 150 == pytest.approx(TYPICAL_DEPTH, rel=0.1)


def test_sparse_points_tell_the_unit(monkeypatch) -> None:
    plane = Plane(100.0)
    points = np.random.default_rng(0).uniform(-100, 100, (500, 3)) * [1, 1, 0]
    plane.points = points, np.zeros((500, 3), np.uint8)
    monkeypatch.setattr(Plane, "__getitem__", None)  # no image is read
    assert estimate_unit(plane, ALL) * 150 == pytest.approx(TYPICAL_DEPTH, rel=0.1)


def test_data_in_metres_stay_in_metres() -> None:
    assert estimate_unit(Plane(1.0), ALL) == 1, "its typical depth is one of metres"
    assert estimate_unit(Plane(100.0, has_depth=True), ALL) == 1
    assert estimate_unit(Plane(100.0, format="bag"), ALL) == 1


def test_unknown_depth_is_taken_as_metres() -> None:
    plane = Plane(100.0)
    plane.camtoworlds[:, :3, 3] = plane.camtoworlds[0, :3, 3]  # cameras at one place: no parallax
    assert estimate_unit(plane, ALL) == 1


@pytest.mark.parametrize(("factor", "words"), [(5.0, ["5 times"]), (0.001, ["0.001 times"]), (1.0, [])])
def test_depth_in_another_unit_than_the_poses_is_reported(factor: float, words: list[str], caplog) -> None:
    """TUM's 5000 units a metre, read as millimetres, pass every other check."""
    plane = Plane(1.0, has_depth=True)
    plane.depth_factor = factor
    check_depth_unit(plane, ALL)
    assert len(caplog.records) == len(words) and all(word in caplog.text for word in words)
