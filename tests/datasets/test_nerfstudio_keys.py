"""Keys of `transforms.json` that other programs write are used, or the user is told that they are not."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import datasets_on_disk as disk
from PIL import Image

from ovs3d_ros.datasets import open_dataset, split_frames
from ovs3d_ros.types import UserError


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


def with_keys(root, **keys):
    disk.write_nerfstudio(root)
    disk.write_transforms(root, {**disk.transforms(), **keys})
    return root


@pytest.mark.parametrize(
    "keys, held_out, training",
    [
        (dict(train_filenames=["./images/b.png"], val_filenames=["images\\a.png"]), [0], [1]),
        (dict(test_filenames=["images/b.png"]), [1], [0]),
        (dict(train_filenames=["images/a.png"]), [], [0]),
        (dict(train_filenames=["images/a.png"], val_filenames=["images/a.png"]), [], [0]),
        ({}, [], [0, 1]),
    ],
)
def test_lists_of_file_names_divide_the_frames(tmp_path, caplog, keys, held_out, training):
    assert split_frames(open_dataset(with_keys(tmp_path, **keys)), 0) == (held_out, training)
    assert ("1 of 2 frames are in none of its lists" in caplog.text) == (len(held_out + training) < 2)


def test_holdout_replaces_the_split_of_the_dataset_and_says_so(tmp_path, caplog):
    dataset = open_dataset(with_keys(tmp_path, val_filenames=["images/a.png"]))
    assert split_frames(dataset, 2) == ([1], [0])
    assert "--holdout 2 replaces the dataset's own split" in caplog.text


@pytest.mark.parametrize(
    "keys, reason",
    [
        (
            dict(train_filenames=["images/z.png"]),
            "train_filenames lists images/z.png, which is the file_path of no",
        ),
        (dict(val_filenames="images/a.png"), "val_filenames is not a list of file names"),
        (dict(ftheta_p0=0.1), "ftheta_p0 belongs to a lens model of instant-ngp"),
    ],
)
def test_unusable_keys_are_refused(tmp_path, keys, reason):
    assert reason in disk.refusal(with_keys(tmp_path, **keys))


def test_split_without_frames_to_map_is_refused(tmp_path):
    dataset = open_dataset(with_keys(tmp_path, val_filenames=["images/a.png", "images/b.png"]))
    with pytest.raises(UserError, match="leaves no frame to map"):
        split_frames(dataset, 0)
