"""Broken datasets are refused with one line that names the file and the reason."""

from __future__ import annotations

import json

import numpy as np
import pytest
from helpers import datasets_on_disk as disk
from PIL import Image


def frame(document: dict, **keys) -> dict:
    document["frames"][1].update(keys)
    return document


def pose(document: dict, row: int, column: int, value: object) -> dict:
    matrix = [list(line) for line in document["frames"][1]["transform_matrix"]]
    matrix[row][column] = value
    return frame(document, transform_matrix=matrix)


TRANSFORMS = {
    "not JSON": (lambda d: "{", "transforms.json: not valid JSON"),
    "a list": (lambda d: [], "transforms.json: expected a JSON object"),
    "no frames": (lambda d: {**d, "frames": []}, "transforms.json: 'frames' is missing or empty"),
    "missing image": (lambda d: frame(d, file_path="images/c.png"), "images/c.png: no such file"),
    "the root as image": (lambda d: frame(d, file_path="/"), "no such file (named by"),
    "endless image name": (lambda d: frame(d, file_path="x" * 300), "x: no such file (named by"),
    "endless focal": (lambda d: {**d, "fl_x": 10**400}, "fl_x is inf; expected a finite number"),
    "endless number": (
        lambda d: json.dumps(d)[:-1] + ', "k1": ' + "9" * 5000 + "}",
        "transforms.json: not valid JSON",
    ),
    "endless pose": (lambda d: pose(d, 0, 3, 10**400), "frame 1 (b.png): transform_matrix is not"),
    "no file_path": (lambda d: frame(d, file_path=None), "frame 1: file_path is None"),
    "NaN pose": (lambda d: pose(d, 0, 3, float("nan")), "frame 1 (b.png): pose has NaN"),
    "text in pose": (lambda d: pose(d, 0, 3, "x"), "frame 1 (b.png): transform_matrix is not"),
    "no pose": (
        lambda d: {**d, "frames": [{"file_path": "images/a.png"}]},
        "frame 0 has no transform_matrix",
    ),
    "scaled pose": (lambda d: pose(d, 0, 0, 1.1), "frame 1 (b.png): the upper left 3 x 3 block"),
    "mirrored pose": (lambda d: pose(d, 0, 0, -1), "frame 1 (b.png): the upper left 3 x 3 block"),
    "last row": (lambda d: pose(d, 3, 0, 1), "frame 1 (b.png): the last row"),
    "no focal": (lambda d: {k: v for k, v in d.items() if k != "fl_x"}, "neither fl_x nor camera_angle_x"),
    "zero focal": (lambda d: {**d, "fl_x": 0}, "transforms.json: frame 0 (a.png): focal length"),
    "negative focal": (lambda d: {**d, "fl_y": -100}, "transforms.json: frame 0 (a.png): focal length"),
    "text focal": (lambda d: {**d, "fl_x": "100"}, "fl_x is '100'"),
    "NaN focal": (lambda d: {**d, "fl_x": float("nan")}, "fl_x is nan"),
    "wide field of view": (lambda d: {"camera_angle_x": 4.0, "frames": d["frames"]}, "camera_angle_x is 4"),
    "centre outside": (lambda d: {**d, "cx": 900}, "principal point (900, 24)"),
    "other aspect": (
        lambda d: {**d, "w": 100},
        "images/a.png: the image is 64x48 but its camera says 100x48",
    ),
    "turned": (lambda d: {**d, "w": 48, "h": 64}, "turned by its EXIF orientation"),
    "half a pixel": (lambda d: {**d, "w": 64.5}, "expected whole pixels"),
    "fisheye": (
        lambda d: {**d, "camera_model": "EQUIRECTANGULAR"},
        "camera model EQUIRECTANGULAR is not supported",
    ),
    "k4": (lambda d: {**d, "k4": 0.1}, "k4 = 0.1 belongs to OPENCV_FISHEYE"),
    "some timestamps": (lambda d: frame(d, timestamp=1.0), "only 1 of 2 frames have a timestamp"),
    "text timestamp": (lambda d: frame(d, timestamp="now"), "timestamp is 'now'"),
    "missing depth": (lambda d: frame(d, depth_file_path="depth/b.png"), "depth/b.png: no such file"),
    "depth unit": (lambda d: {**d, "depth_unit_m": 0}, "depth_unit_m is 0"),
    "missing label": (lambda d: frame(d, label_file_path="b_label.png"), "b_label.png: no such file"),
    "labels unnamed": (lambda d: frame(d, label_file_path="images/b.png"), "labels need a classes.txt"),
    "missing points": (lambda d: {**d, "ply_file_path": "p.ply"}, "p.ply: no such file"),
    "points no PLY": (lambda d: {**d, "ply_file_path": "transforms.json"}, "transforms.json: not a PLY file"),
}


@pytest.mark.parametrize("case", TRANSFORMS)
def test_broken_transforms_are_refused(tmp_path, case):
    change, reason = TRANSFORMS[case]
    root = disk.write_nerfstudio(tmp_path)
    document = change(disk.transforms())
    (root / "transforms.json").write_text(document if isinstance(document, str) else json.dumps(document))
    message = disk.refusal(root)
    assert reason in message and str(tmp_path) in message


@pytest.mark.parametrize("keep", [0, 2, 30, 0.3, 0.9, -3])
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_truncated_images_are_refused(tmp_path, suffix, keep):
    root = disk.write_nerfstudio(tmp_path)
    noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3)).astype(np.uint8)
    path = root / "images" / f"b.{suffix}"
    Image.fromarray(noise).save(path)
    disk.write_transforms(root, frame(disk.transforms(), file_path=f"images/b.{suffix}"))
    disk.read_all(root)
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    if (suffix, keep) == ("png", -3):
        return  # only the checksum of the empty closing chunk is cut: no pixel is lost
    assert f"images/b.{suffix}: " in disk.refusal(root)


def test_damaged_png_is_found_by_its_checksum(tmp_path):
    root = disk.write_nerfstudio(tmp_path)
    data = bytearray((root / "images" / "b.png").read_bytes())
    data[data.index(b"IDAT") + 8] ^= 255
    (root / "images" / "b.png").write_bytes(data)
    assert "images/b.png: " in disk.refusal(root)


@pytest.mark.parametrize(
    "array, reason",
    [
        (np.full((48, 64), 100, np.uint8), "depth has dtype uint8"),
        (np.full((48, 64, 3), 100, np.uint8), "depth has shape (48, 64, 3)"),
        (np.full((48, 80), 100, np.uint16), "80x48 does not match its image b.png of 64x48"),
    ],
)
def test_wrong_depth_is_refused(tmp_path, array, reason):
    root = disk.write_nerfstudio(tmp_path)
    Image.fromarray(array).save(root / "depth.png")
    disk.write_transforms(root, frame(disk.transforms(), depth_file_path="depth.png"))
    message = disk.refusal(root)
    assert "depth.png: " in message and reason in message


@pytest.mark.parametrize(
    "array, reason",
    [
        (np.array(["x"] * 4), "depth has shape (4,)"),
        (np.full((48, 64), 1, np.int64), "depth has dtype int64"),
        (np.array([None]), "not a readable .npy array"),
        (np.full((48, 64), 1500.0), "float depth is taken as metres, but its median is 1500; give the unit"),
    ],
)
def test_wrong_npy_depth_is_refused(tmp_path, array, reason):
    root = disk.write_nerfstudio(tmp_path)
    np.save(root / "depth.npy", array, allow_pickle=True)
    disk.write_transforms(root, frame(disk.transforms(), depth_file_path="depth.npy"))
    message = disk.refusal(root)
    assert "depth.npy: " in message and reason in message


@pytest.mark.parametrize(
    "classes, label, reason",
    [
        ("1 wall\n", 2, "labels/b.png: label 2 has no line in classes.txt"),
        ("1 wall\n3 door\n", 2, "labels/b.png: label 2 has no line in classes.txt"),
        ("wall\n", 1, "classes.txt:1: 'wall' is not 'index name'"),
        ("1 wall\n1 door\n", 1, "classes.txt:2: index 1 or name 'door' occurs twice"),
        ("1 wall\n2 wall\n", 1, "classes.txt:2: index 2 or name 'wall' occurs twice"),
        ("0 wall\n1 door\n", 1, "classes.txt: index 0 means unlabelled but is named 'wall'"),
        ("-1 wall\n", 1, "classes.txt:1: '-1 wall' is not 'index name'"),
        ("99999999 wall\n", 1, "classes.txt:1: '99999999 wall' is not 'index name'"),
        ("\n", 1, "classes.txt: lists no classes"),
    ],
)
def test_wrong_labels_are_refused(tmp_path, classes, label, reason):
    root = disk.write_nerfstudio(tmp_path)
    (root / "labels").mkdir()
    Image.fromarray(np.full((48, 64), label, dtype=np.uint8)).save(root / "labels" / "b.png")
    (root / "classes.txt").write_text(classes)
    assert reason in disk.refusal(root)


def test_wrong_label_images_are_refused(tmp_path):
    root = disk.write_nerfstudio(tmp_path)
    (root / "labels").mkdir()
    (root / "labels" / "classes.txt").write_text("1 wall\n")
    Image.fromarray(np.zeros((48, 64, 3), dtype=np.uint8)).save(root / "labels" / "b.png")
    assert "labels/b.png: labels are uint8 of shape (48, 64, 3)" in disk.refusal(root)
    Image.fromarray(np.zeros((64, 48), dtype=np.uint8)).save(root / "labels" / "b.png")
    assert "labels/b.png: 48x64 does not match its image b.png" in disk.refusal(root)
    (root / "segmentations").mkdir()
    assert "has both labels and segmentations/" in disk.refusal(root)


def test_wrong_segmentations_are_refused(tmp_path):
    root = disk.write_llff(tmp_path)
    disk.write_segmentations(root)
    folder = root / "segmentations"
    (folder / "01" / "wall.png").rename(folder / "01" / "Wall.png")
    assert "01/wall.png: no such file" in disk.refusal(root)
    (folder / "01" / "Wall.png").rename(folder / "01" / "wall.png")
    Image.fromarray(np.zeros((24, 32), dtype=np.uint8)).save(folder / "01" / "wall.png")
    assert "01/wall.png: mask is 32x24" in disk.refusal(root)
    (folder / "01").rename(folder / "07")
    assert "segmentations/07: there is no view 7" in disk.refusal(root)
    (folder / "07").rename(folder / "first")
    assert "segmentations/first: folder names" in disk.refusal(root)
    (folder / "classes.txt").write_text("wall\nwall\n")
    assert "classes.txt: expected one distinct class name per line" in disk.refusal(root)
    (folder / "classes.txt").unlink()
    assert "classes.txt: no such file" in disk.refusal(root)


@pytest.mark.parametrize(
    "change, reason",
    [
        (lambda t: t[:, :15], "has shape (2, 15)"),
        (lambda t: t[:0], "has shape (0, 17)"),
        (lambda t: t[:1], "has 2 images but poses_bounds.npy has 1 poses"),
        (lambda t: t * np.nan, "row 0 (a.png): has NaN"),
        (lambda t: t + 0.5, "row 0 (a.png): image size"),
        (lambda t: t * np.where(np.arange(17) == 5, 2, 1), "row 1 (b.png): the upper left"),
        (lambda t: t * np.where(np.arange(17) == 14, -1, 1), "row 0 (a.png): focal length"),
        (lambda t: t.astype(str), "dtype <U"),
    ],
)
def test_wrong_poses_bounds_are_refused(tmp_path, change, reason):
    root = disk.write_llff(tmp_path)
    np.save(root / "poses_bounds.npy", change(np.load(root / "poses_bounds.npy")))
    message = disk.refusal(root)
    assert "poses_bounds.npy" in message and reason in message


def test_truncated_poses_bounds_are_refused(tmp_path):
    path = disk.write_llff(tmp_path) / "poses_bounds.npy"
    data = path.read_bytes()
    for length in (0, 5, 60, len(data) - 1):
        path.write_bytes(data[:length])
        assert "poses_bounds.npy: not a readable .npy array" in disk.refusal(tmp_path)


def test_error_names_missing_files_and_folders(tmp_path):
    assert "nowhere: no such file or folder" in disk.refusal(tmp_path / "nowhere")
    assert f"{tmp_path}: no dataset found; expected transforms.json" in disk.refusal(tmp_path)
    (tmp_path / "notes.md").write_text("")
    assert "notes.md: a dataset is a folder or" in disk.refusal(tmp_path / "notes.md")
    root = disk.write_colmap_text(tmp_path / "colmap")
    assert "dataset format 'ply' is unknown" in disk.refusal(root, format="ply")
    assert "transforms.json: no such file" in disk.refusal(root, format="nerfstudio")
    assert "poses_bounds.npy: no such file" in disk.refusal(root, format="llff")
    assert "no COLMAP model" in disk.refusal(disk.write_llff(tmp_path / "llff"), format="colmap")
    (root / "sparse" / "0" / "images.txt").unlink()
    assert "images.txt: no such file" in disk.refusal(root)
    root = disk.write_llff(tmp_path / "empty")
    (root / "images").rename(root / "pictures")
    assert f"{root}: no images folder" in disk.refusal(root)


def test_label_image_of_several_images_is_refused(tmp_path):
    root = disk.write_two_cameras(tmp_path)
    (root / "labels").mkdir()
    (root / "classes.txt").write_text("1 wall\n")
    Image.fromarray(np.full((48, 64), 1, np.uint8)).save(root / "labels" / "a.png")
    assert "labels/a.png: several images are named a; put their labels into the subfolders" in disk.refusal(
        root
    )


def test_label_image_belongs_to_one_image_only(tmp_path):
    """`images/a.png` and `images/right/a.png`: the label of the first one is no label of the second."""
    root = disk.write_two_cameras(tmp_path)
    (root / "images" / "left" / "a.png").rename(root / "images" / "a.png")
    document = disk.transforms()
    for entry, name in zip(document["frames"], ("a.png", "right/a.png"), strict=True):
        entry["file_path"] = f"images/{name}"
    disk.write_transforms(root, document)
    (root / "labels" / "right").mkdir(parents=True)
    (root / "classes.txt").write_text("1 wall\n")
    Image.fromarray(np.full((48, 64), 1, np.uint8)).save(root / "labels" / "a.png")
    assert "several images are named a" in disk.refusal(root)
    Image.fromarray(np.full((48, 64), 1, np.uint8)).save(root / "labels" / "right" / "a.png")
    disk.read_all(root)


def test_annotation_of_several_images_is_refused(tmp_path):
    root = disk.write_two_cameras(tmp_path)
    disk.write_annotation(root / "label", "a.jpg", (disk.WIDTH, disk.HEIGHT), [])
    assert "several images are named a" in disk.refusal(root)
