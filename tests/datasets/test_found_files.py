"""Photographs and models are found where other systems and tools put them, and missing ones are counted."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
from helpers import datasets_on_disk as disk

from ovs3d_ros.datasets import open_dataset
from ovs3d_ros.types import UserError


def rename_frames(root, names):
    document = disk.transforms()
    for frame, name in zip(document["frames"], names, strict=True):
        frame["file_path"] = name
    disk.write_transforms(root, document)
    return root


def test_missing_images_are_counted_and_can_be_left_out(tmp_path, caplog):
    for writer in ("nerfstudio", "colmap_text", "colmap_binary"):
        root = disk.WRITERS[writer](tmp_path / writer)
        (root / "images" / "a.png").unlink()
        message = disk.refusal(root)
        assert "images/a.png: no such file" in message and "1 of 2 images are missing" in message
        assert "--skip-missing" in message and "--images DIR" in message
        caplog.clear()
        dataset = open_dataset(root, skip_missing=True)
        assert dataset.names == ["b"] and len(list(dataset)) == 1
        np.testing.assert_allclose(dataset.camtoworlds, disk.CAMTOWORLDS[1:], atol=1e-12)
        assert "1 of 2 images are missing and left out" in caplog.text


def test_dataset_without_any_image_is_refused(tmp_path):
    root = disk.write_nerfstudio(tmp_path)
    (root / "images").rename(root / "pictures")
    with pytest.raises(UserError, match="none of the images is there; give their folder with --images"):
        open_dataset(root, skip_missing=True)


def test_missing_images_stay_in_the_lists_of_a_split(tmp_path):
    root = disk.write_nerfstudio(tmp_path)
    (root / "images" / "a.png").unlink()
    disk.write_transforms(root, {**disk.transforms(), "train_filenames": ["images/a.png", "images/b.png"]})
    assert open_dataset(root, skip_missing=True).splits == ["training"]


@pytest.mark.parametrize("writer", disk.WRITERS)
def test_images_are_read_from_another_folder(tmp_path, writer):
    root = disk.WRITERS[writer](tmp_path / "scene")
    (root / "images").rename(tmp_path / "elsewhere")
    assert "--images DIR" in disk.refusal(root)
    dataset = open_dataset(root, images=tmp_path / "elsewhere")
    assert dataset.names == ["a", "b"] and dataset[0].image[11, 57].tolist() == list(disk.POINT_COLOR)
    with pytest.raises(UserError, match="nowhere: no"):
        open_dataset(root, images=tmp_path / "nowhere")


def test_two_names_for_one_image_are_refused(tmp_path):
    root = disk.write_two_cameras(tmp_path)
    folder = root / "images" / "left"
    with pytest.raises(UserError, match=r"by images/left/a\.png and by images/right/a\.png"):
        open_dataset(root, images=folder)
    assert len(open_dataset(root, images=root / "images")) == 2


@pytest.mark.parametrize(
    "names",
    [
        ("images\\a.png", ".\\images\\b.png"),
        ("images/a", "images/b"),
        ("images/A.PNG", "Images/b.png"),
        ("C:\\me\\scan\\images\\a.png", "C:\\me\\scan\\images\\b.png"),
    ],
)
def test_names_from_other_systems_are_understood(tmp_path, names):
    root = rename_frames(disk.write_nerfstudio(tmp_path), names)
    images = root / "images" if names[1][0] in "CI" else None
    assert [path.name for path in open_dataset(root, images=images).image_paths] == ["a.png", "b.png"]


def test_image_suffix_in_capitals_may_be_left_out(tmp_path):
    root = rename_frames(disk.write_nerfstudio(tmp_path), ("images/a", "images/b"))
    for name in "ab":
        (root / "images" / f"{name}.png").rename(root / "images" / f"{name}.PNG")
    assert [path.name for path in open_dataset(root).image_paths] == ["a.PNG", "b.PNG"]
    shutil.copy(root / "images" / "a.PNG", root / "images" / "a.JPG")
    assert "images/a: no such file" in disk.refusal(root)


def test_colmap_names_with_backslashes_are_understood(tmp_path):
    root = disk.write_colmap_text(tmp_path)
    (root / "images" / "cam0").mkdir()
    for name in "ab":
        (root / "images" / f"{name}.png").rename(root / "images" / "cam0" / f"{name}.png")
    path = root / "sparse" / "0" / "images.txt"
    path.write_text(path.read_text().replace("a.png", "cam0\\a.png").replace("b.png", "cam0\\b.png"))
    assert open_dataset(root).names == ["a", "b"]


@pytest.mark.parametrize("writer", ["colmap_text", "colmap_binary"])
def test_names_that_are_not_utf8_are_read(tmp_path, writer):
    root = disk.WRITERS[writer](tmp_path)
    name = b"\xcd\xbc\xc6\xac.png"
    os.rename(root / "images" / "a.png", os.fsencode(root / "images") + b"/" + name)
    path = next(root.rglob("images.bin" if writer == "colmap_binary" else "images.txt"))
    path.write_bytes(path.read_bytes().replace(b"a.png", name))
    dataset = open_dataset(root)
    assert len(list(dataset)) == 2
    for frame_name in dataset.names:
        frame_name.encode("utf-8")


@pytest.mark.parametrize(
    "model, images",
    [
        ("sparse/0", "images"),
        ("sparse/1", "images"),
        ("colmap/sparse/0", "images"),
        ("dense/0/sparse", "dense/0/images"),
        ("dense/sparse", "dense/images"),
        ("distorted/sparse/0", "input"),
    ],
)
def test_layouts_of_other_tools_are_found(tmp_path, model, images):
    root = disk.write_colmap_text(tmp_path / "scene")
    for old, new in (("sparse/0", model), ("images", images)):
        (tmp_path / "moved").mkdir(exist_ok=True)
        (root / old).rename(tmp_path / "moved" / "x")
        (root / new).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "moved" / "x").rename(root / new)
    dataset = open_dataset(root)
    assert dataset.format == "colmap" and dataset.image_paths[0] == root / images / "a.png"


def test_dense_model_is_taken_if_only_it_has_images(tmp_path):
    root = disk.write_colmap_text(tmp_path)
    (root / "dense" / "0").mkdir(parents=True)
    shutil.copytree(root / "sparse" / "0", root / "dense" / "0" / "sparse")
    assert open_dataset(root).image_paths[0] == root / "images" / "a.png"
    (root / "images").rename(root / "dense" / "0" / "images")
    assert open_dataset(root).image_paths[0] == root / "dense" / "0" / "images" / "a.png"


def test_second_model_can_be_given_by_its_folder(tmp_path):
    root = disk.write_colmap_text(tmp_path)
    shutil.copytree(root / "sparse" / "0", root / "sparse" / "1")
    assert open_dataset(root / "sparse" / "1").names == ["a", "b"]


def test_nerfstudio_data_keeps_its_colmap_model_aside(tmp_path):
    root = disk.write_colmap_text(tmp_path)
    (root / "colmap").mkdir()
    (root / "sparse").rename(root / "colmap" / "sparse")
    disk.write_transforms(root, disk.transforms())
    assert open_dataset(root).format == "nerfstudio"


def test_hidden_files_are_no_data(tmp_path):
    root = disk.write_llff(tmp_path / "llff")
    (root / "images" / "._a.png").write_bytes(b"\0\x05\x16\x07")
    disk.write_segmentations(root)
    (root / "segmentations" / ".ipynb_checkpoints").mkdir()
    assert open_dataset(root).names == ["a", "b"]
    scene = disk.write_lerf(tmp_path)
    (scene.parent / "label" / "table" / "._a.json").write_bytes(b"\0\x05\x16\x07")
    assert open_dataset(scene).annotated == [0, 1]


def test_resized_dataset_has_the_same_frames(tmp_path):
    dataset = open_dataset(disk.write_nerfstudio(tmp_path))
    small = dataset.resized(32)
    assert small[0].image.shape == (24, 32, 3) and dataset[0].image.shape == (48, 64, 3)
    assert json.dumps(small.names) == json.dumps(dataset.names)


@pytest.mark.parametrize(
    ("name", "words"),
    [("a.heic", "convert HEIC to JPEG"), ("a.exr", "EXR is not read"), ("a.mp4", "a video is no image")],
)
def test_formats_that_are_not_read_say_what_to_convert(tmp_path, name, words):
    root = rename_frames(disk.write_nerfstudio(tmp_path), [f"images/{name}", "images/b.png"])
    (root / "images" / name).write_bytes(b"\0\0\0\x18ftyp" + bytes(50))
    assert words in disk.refusal(root) and name in disk.refusal(root)
    llff = disk.WRITERS["llff"](tmp_path / "llff")
    (llff / "images" / "a.png").rename(llff / "images" / name)
    assert words in disk.refusal(llff)


def test_huge_image_says_how_to_shrink_it(tmp_path, monkeypatch):
    root = disk.write_nerfstudio(tmp_path)
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 1000)
    document = disk.transforms()
    del document["w"], document["h"]
    disk.write_transforms(root, document)
    message = disk.refusal(root)
    assert "megapixels" in message and "mogrify -resize" in message


@pytest.mark.parametrize(("name", "words"), [("room.mp4", "ns-process-data"), ("scan.sens", "SensReader")])
def test_file_that_is_no_dataset_says_how_to_make_one(tmp_path, name, words):
    (tmp_path / name).write_bytes(b"x")
    assert words in disk.refusal(tmp_path / name)
