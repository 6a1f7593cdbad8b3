"""Keys of `transforms.json` that other programs write are used, or the user is told that they are not."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import datasets_on_disk as disk
from PIL import Image

from ovs3d_ros.datasets import open_dataset


def write_depth(root, **keys):
    """The nerfstudio scene with 16-bit depth of 2500 units for image a, under the key of instant-ngp."""
    disk.write_nerfstudio(root)
    Image.fromarray(np.full((48, 64), 2500, np.uint16)).save(root / "d.png")
    document = disk.transforms()
    document["frames"][0]["depth_path"] = "d.png"
    disk.write_transforms(root, {**document, **keys})
    return root


@pytest.mark.parametrize(
    "keys, metres",
    [({"integer_depth_scale": 0.0004}, 1.0), ({"depth_unit_m": 0.002}, 5.0), ({}, 2.5)],
)
def test_depth_path_of_instant_ngp_is_read(tmp_path, keys, metres):
    dataset = open_dataset(write_depth(tmp_path, **keys))
    assert dataset[0].depth[7, 9] == pytest.approx(metres) and dataset[1].depth is None


def test_depth_path_is_off_without_depth_loading(tmp_path):
    assert not open_dataset(write_depth(tmp_path, enable_depth_loading=False)).has_depth


def test_integer_depth_scale_of_zero_is_refused(tmp_path):
    assert "integer_depth_scale is 0" in disk.refusal(write_depth(tmp_path, integer_depth_scale=0))
