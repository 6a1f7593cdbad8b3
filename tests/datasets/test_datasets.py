"""Dataset readers give the poses computed by hand, and agree with real recordings."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from helpers import datasets_on_disk as disk
from PIL import Image

from ovs3d_ros import geometry
from ovs3d_ros.datasets import open_dataset
from ovs3d_ros.types import UserError

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
needs_office = pytest.mark.skipif(
    not (SHARED / "office").is_dir(), reason=f"{SHARED / 'office'} is not there"
)
needs_bird = pytest.mark.skipif(
    not (SHARED / "bird_llff").is_dir(), reason=f"{SHARED / 'bird_llff'} is not there"
)


@pytest.mark.parametrize("writer", disk.WRITERS)
def test_every_format_gives_the_expected_pose(tmp_path, writer):
    dataset = open_dataset(disk.WRITERS[writer](tmp_path))
    assert dataset.format == writer.partition("_")[0]
    assert (len(dataset), dataset.names) == (2, ["a", "b"])
    assert (dataset.classes, dataset.has_labels, dataset.has_depth) == (None, False, False)
    np.testing.assert_allclose(dataset.camtoworlds, disk.CAMTOWORLDS, atol=1e-12)
    for i, frame in enumerate(dataset):
        np.testing.assert_allclose(frame.camtoworld, disk.CAMTOWORLDS[i], atol=1e-12)
        assert frame.stamp == pytest.approx(0.1 * i)
        assert frame.image.dtype == np.uint8 and frame.image.shape == (48, 64, 3)
        np.testing.assert_allclose(frame.camera.K, [[100, 0, 32], [0, 100, 24], [0, 0, 1]])
    frame = dataset[0]
    pixels, depths = geometry.project(disk.POINT[None], frame.camera, frame.camtoworld)
    np.testing.assert_allclose(pixels[0], disk.POINT_PIXEL, atol=1e-9)
    assert depths[0] == pytest.approx(4.0)
    column, row = np.floor(pixels[0]).astype(int)
    assert tuple(frame.image[row, column]) == disk.POINT_COLOR


@pytest.mark.parametrize("writer", ["colmap_text", "colmap_binary"])
def test_colmap_points_are_read(tmp_path, writer):
    xyz, rgb = open_dataset(disk.WRITERS[writer](tmp_path)).points
    assert xyz.dtype == np.float64 and rgb.dtype == np.uint8
    np.testing.assert_allclose(xyz, [disk.POINT])
    assert rgb.tolist() == [list(disk.POINT_COLOR)]


@pytest.mark.parametrize("writer", disk.WRITERS)
@pytest.mark.parametrize("max_image_size", [32, 37, 1])
def test_shrinking_keeps_the_projection(tmp_path, writer, max_image_size):
    root = disk.WRITERS[writer](tmp_path)
    full, small = open_dataset(root)[0], open_dataset(root, max_image_size=max_image_size)[0]
    height, width = small.image.shape[:2]
    assert max(height, width) == max_image_size and (small.camera.width, small.camera.height) == (
        width,
        height,
    )
    pixels, _ = geometry.project(disk.POINT[None], full.camera, full.camtoworld)
    shrunk, _ = geometry.project(disk.POINT[None], small.camera, small.camtoworld)
    np.testing.assert_allclose(shrunk[0], pixels[0] * [width / 64, height / 48], rtol=1e-12)


def test_shrinking_averages_colour_but_not_depth_and_labels(tmp_path):
    root = disk.write_nerfstudio(tmp_path)
    depth = np.zeros((48, 64), dtype=np.uint16)
    depth[1::3, 1::3] = 2500  # the centre of every 3 x 3 block
    Image.fromarray(depth).save(root / "d.png")
    (root / "labels").mkdir()
    Image.fromarray((depth > 0).astype(np.uint8) * 3).save(root / "labels" / "a.png")
    (root / "classes.txt").write_text("0 unlabelled\n3 red mug\n\n1 chair\n")
    document = disk.transforms()
    document["frames"][0]["depth_file_path"] = "d.png"
    disk.write_transforms(root, {**document, "h": 48})
    Image.fromarray(np.tile(np.uint8([[0], [90], [180]]), (16, 64))).convert("RGB").save(
        root / "images" / "a.png"
    )
    with pytest.raises(UserError, match="max_image_size -1"):
        open_dataset(root, max_image_size=-1)
    frame = open_dataset(root, max_image_size=21)[0]  # 21 x 16: three rows to one, 64/21 columns to one
    assert frame.image.shape == (16, 21, 3) and (np.abs(frame.image.astype(int) - 90) <= 1).all()
    assert frame.depth.shape == frame.labels.shape == (16, 21)
    assert frame.depth[:, :10] == pytest.approx(2.5) and (frame.labels[:, :10] == 3).all()


def test_depth_of_every_type_is_in_metres(tmp_path):
    root = disk.write_nerfstudio(tmp_path)
    millimetres = np.zeros((48, 64), dtype=np.uint16)
    millimetres[3, 4] = 1234
    Image.fromarray(millimetres).save(root / "a_depth.png")
    metres = np.full((48, 64), 2.0, dtype=np.float32)
    metres[0, :3] = np.nan, np.inf, -1.0
    np.save(root / "b_depth.npy", metres)
    document = disk.transforms()
    document["frames"][0]["depth_file_path"] = "a_depth.png"
    document["frames"][1]["depth_file_path"] = "b_depth.npy"
    disk.write_transforms(root, document)
    depth = open_dataset(root)[0].depth
    assert depth.dtype == np.float32 and depth[3, 4] == pytest.approx(1.234) and np.count_nonzero(depth) == 1
    depth = open_dataset(root)[1].depth
    assert depth[0, :4].tolist() == [0, 0, 0, 2.0]
    Image.fromarray(metres).save(root / "b_depth.tiff")
    document["frames"][1]["depth_file_path"] = "b_depth.tiff"
    disk.write_transforms(root, {**document, "depth_unit_m": 0.5})
    assert open_dataset(root)[1].depth[5, 5] == 1.0


def test_labels_folder_works_with_every_format(tmp_path):
    for name, write in disk.WRITERS.items():
        root = write(tmp_path / name)
        (root / "labels").mkdir()
        indices = np.zeros((48, 64), dtype=np.uint8)
        indices[2, 3] = 2
        picture = Image.fromarray(indices, mode="P")
        picture.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
        picture.save(root / "labels" / "b.png")
        (root / "labels" / "classes.txt").write_text("1 chair\n2 red mug\n")
        dataset = open_dataset(root)
        assert dataset.classes == ["", "chair", "red mug"] and dataset.has_labels
        assert dataset[0].labels is None
        assert dataset[1].labels[2, 3] == 2 and np.count_nonzero(dataset[1].labels) == 1


def test_labels_of_two_cameras_are_found_in_their_folders(tmp_path):
    root = disk.write_two_cameras(tmp_path)
    (root / "classes.txt").write_text("1 chair\n2 mug\n")
    for label, camera in enumerate(("left", "right"), start=1):
        (root / "labels" / camera).mkdir(parents=True)
        Image.fromarray(np.full((48, 64), label, np.uint8)).save(root / "labels" / camera / "a.png")
    dataset = open_dataset(root)
    assert [int(frame.labels.max()) for frame in dataset] == [1, 2]
    (root / "classes.txt").write_text("nonsense")
    without = open_dataset(root, labels=False)
    assert not without.has_labels and without.classes is None and without[0].labels is None


def test_colmap_reads_one_model_and_warns_of_others(tmp_path, caplog):
    root = disk.write_colmap_text(tmp_path)
    shutil.copytree(root / "sparse" / "0", root / "sparse" / "1")
    (root / "sparse" / "2").mkdir()  # broken
    assert len(open_dataset(root)) == 2
    assert f"sparse/0: only this model of 2 images is read, not {root}/sparse/1 (2 images);" in caplog.text


def test_colmap_ignores_cameras_without_images(tmp_path):
    root = disk.write_colmap_text(tmp_path)
    cameras = root / "sparse" / "0" / "cameras.txt"
    cameras.write_text(cameras.read_text() + "8 OPENCV_FISHEYE 64 48 100 100 32 24 0 0 0 0\n")
    assert len(open_dataset(root)) == 2


@pytest.mark.parametrize("kind", [">u2", "<u4", ">u4", ">i4", ">f4", ">f8"])
def test_depth_arrays_of_either_byte_order_are_read(tmp_path, kind):
    root = disk.write_nerfstudio(tmp_path)
    np.save(root / "depth.npy", np.full((48, 64), 1500).astype(kind))
    document = disk.transforms()
    document["frames"][0]["depth_file_path"] = "depth.npy"
    disk.write_transforms(root, {**document, "depth_unit_m": 0.001})
    assert open_dataset(root)[0].depth[7, 9] == pytest.approx(1.5)


def test_label_file_path_of_a_frame_is_read(tmp_path):
    root = disk.write_nerfstudio(tmp_path)
    Image.fromarray(np.full((24, 32), 1, dtype=np.uint8)).save(root / "half_size.png")
    (root / "classes.txt").write_text("1 wall")
    document = disk.transforms()
    document["frames"][1]["label_file_path"] = "half_size.png"
    disk.write_transforms(root, document)
    assert (open_dataset(root)[1].labels == np.ones((48, 64))).all()


def test_3dovs_scene_is_recognised_beside_a_colmap_model(tmp_path):
    root = disk.write_llff(tmp_path)
    disk.write_segmentations(root)
    (root / "sparse").mkdir()
    (root / "sparse" / "cameras.bin").write_bytes(b"")
    dataset = open_dataset(root)
    assert dataset.format == "llff" and dataset.classes == ["", "apple", "wall"]
    assert dataset[0].labels is None
    expected = np.zeros((48, 64))
    expected[:, :32] = 2
    expected[5, 60] = 1
    np.testing.assert_array_equal(dataset[1].labels, expected)


def test_llff_scales_intrinsics_to_shrunk_images(tmp_path):
    root = disk.write_llff(tmp_path)
    (root / "images").rename(root / "full")
    (root / "images_2").mkdir()
    for name in "ab":
        Image.open(root / "full" / f"{name}.png").resize((32, 24)).save(root / "images_2" / f"{name}.png")
    np.testing.assert_allclose(open_dataset(root)[0].camera.K, [[50, 0, 16], [0, 50, 12], [0, 0, 1]])


def test_folder_of_two_formats_is_refused(tmp_path):
    disk.write_llff(disk.write_colmap_binary(tmp_path))
    with pytest.raises(UserError, match=r"colmap and llff.*--format"):
        open_dataset(tmp_path)
    assert open_dataset(tmp_path, format="llff").format == "llff"
    assert open_dataset(tmp_path, format="colmap").format == "colmap"


def test_nerfstudio_frames_have_own_intrinsics_and_time_order(tmp_path):
    root = disk.write_nerfstudio(tmp_path)
    document = disk.transforms()
    document["frames"][0].update(timestamp=12.5, fl_x=80.0, fl_y=81.0, cx=30.0, cy=20.0)
    document["frames"][1].update(timestamp=12.25)
    disk.write_transforms(root, document)
    dataset = open_dataset(root)
    assert dataset.names == ["b", "a"] and dataset.stamps.tolist() == [12.25, 12.5]
    np.testing.assert_allclose(dataset[1].camera.K, [[80, 0, 30], [0, 81, 20], [0, 0, 1]])
    np.testing.assert_allclose(dataset[0].camera.K, [[100, 0, 32], [0, 100, 24], [0, 0, 1]])


def test_blender_scene_is_read(tmp_path):
    """Names lack suffixes, a field of view gives the focal length, transparency turns white."""
    (tmp_path / "train").mkdir()
    rgba = np.zeros((40, 80, 4), dtype=np.uint8)
    rgba[0, 0], rgba[0, 1] = (200, 10, 10, 255), (200, 0, 0, 51)
    Image.fromarray(rgba).save(tmp_path / "train" / "r_0.png")
    frames = [{"file_path": "./train/r_0", "transform_matrix": disk.OPENGL[0]}]
    path = tmp_path / "transforms_train.json"
    path.write_text(json.dumps({"camera_angle_x": np.pi / 2, "frames": frames}))
    with pytest.raises(UserError, match=r"transforms_train\.json"):
        open_dataset(tmp_path)
    frame = open_dataset(path)[0]
    np.testing.assert_allclose(frame.camera.K, [[40, 0, 40], [0, 40, 20], [0, 0, 1]])
    assert frame.image[0, :3].tolist() == [[200, 10, 10], [244, 204, 204], [255, 255, 255]]


def test_pixels_are_read_on_access(tmp_path):
    dataset = open_dataset(disk.write_nerfstudio(tmp_path))
    (tmp_path / "images" / "b.png").unlink()
    assert dataset[0].name == "a" and dataset[-2].name == "a"
    with pytest.raises(UserError, match=r"b\.png: no such file"):
        dataset[1]
    with pytest.raises(IndexError):
        dataset[2]


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_sparse_points_of_nerfstudio_are_read(tmp_path, binary, end):
    root = disk.write_nerfstudio(tmp_path)
    properties = "".join(
        f"property {kind} {name}\n"
        for kind, name in [
            *(("float", axis) for axis in "xyz"),
            *(("uchar", c) for c in ("red", "green", "blue")),
        ]
    )
    kind = "binary_little_endian" if binary else "ascii"
    head = f"ply\nformat {kind} 1.0\nelement vertex 2\n{properties}end_header\n".replace("\n", end).encode()
    dtype = [(axis, "<f4") for axis in "xyz"] + [(c, "u1") for c in "rgb"]
    rows = [(5.0, 1.0, 3.5, 250, 20, 30), (0.0, 0.5, 2.0, 1, 2, 3)]
    body = (
        np.array(rows, dtype=dtype).tobytes()
        if binary
        else "\n".join(" ".join(map(str, r)) for r in rows).encode()
    )
    (root / "sparse_pc.ply").write_bytes(head + body)
    disk.write_transforms(root, {**disk.transforms(), "ply_file_path": "sparse_pc.ply"})
    xyz, rgb = open_dataset(root).points
    np.testing.assert_allclose(xyz, [row[:3] for row in rows])
    assert rgb.tolist() == [list(row[3:]) for row in rows]


@needs_office
def test_office_depth_agrees_between_frames():
    """A point measured in one frame lies where another frame measures it; checks poses, axes, units and K."""
    dataset = open_dataset(SHARED / "office", max_image_size=270)
    assert len(dataset) == 188 and dataset.has_depth and (np.diff(dataset.stamps) > 0).all()
    errors = []
    for first, second in ((0, 4), (60, 64), (120, 123)):
        a, b = dataset[first], dataset[second]
        points = geometry.transform_points(geometry.unproject(a.depth, a.camera)[a.depth > 0], a.camtoworld)
        pixels, z = geometry.project(points, b.camera, b.camtoworld)
        inside = (
            (z > 0.1) & (pixels >= 0).all(axis=1) & (pixels < [b.camera.width, b.camera.height]).all(axis=1)
        )
        columns, rows = np.floor(pixels[inside]).astype(int).T
        measured = b.depth[rows, columns]
        errors.append(np.median(np.abs(measured - z[inside])[measured > 0]))
    assert max(errors) < 0.015, f"median depth disagreement {errors} m"


@needs_bird
def test_bird_poses_agree_between_colmap_and_llff():
    colmap, llff = (open_dataset(SHARED / "bird_llff", format=kind) for kind in ("colmap", "llff"))
    assert len(colmap) == len(llff) == 184 and colmap.image_paths == llff.image_paths
    for a, b in zip(colmap.camtoworlds, llff.camtoworlds, strict=True):
        # The chord is sqrt(2) times a small angle; arccos would lose digits.
        chord = np.linalg.norm(a[:3, :3] - b[:3, :3])
        assert np.degrees(chord) < 1e-5 and np.abs(a[:3, 3] - b[:3, 3]).max() < 1e-12
    np.testing.assert_allclose(llff.cameras[0].K, colmap.cameras[0].K)  # LLFF keeps view 0's focal for all


@needs_bird
def test_bird_points_reproject_onto_their_observations():
    """COLMAP's own figure for this model is 1.08 px mean reprojection error."""
    model = SHARED / "bird_llff" / "sparse" / "0"
    dataset = open_dataset(SHARED / "bird_llff", format="colmap")
    data, offset, rows = (model / "points3D.bin").read_bytes(), 8, {}
    while offset < len(data):
        rows[struct.unpack_from("<Q", data, offset)[0]] = len(rows)
        offset += 51 + 8 * struct.unpack_from("<Q", data, offset + 43)[0]
    data = (model / "images.bin").read_bytes()
    end = data.index(b"\0", 72)
    name, (count,) = data[72:end].decode(), struct.unpack_from("<Q", data, end + 1)
    observed = np.frombuffer(data, dtype=[("xy", "<f8", 2), ("id", "<i8")], count=count, offset=end + 9)
    observed = observed[observed["id"] >= 0]
    points = dataset.points[0][[rows[i] for i in observed["id"]]]
    i = [path.name for path in dataset.image_paths].index(name)
    pixels, z = geometry.project(points, dataset.cameras[i], dataset.camtoworlds[i])
    errors = np.linalg.norm(pixels - observed["xy"], axis=1)
    assert len(errors) > 100 and (z > 0).all() and errors.mean() < 2.0
