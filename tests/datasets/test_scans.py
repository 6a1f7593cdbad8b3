"""TUM RGB-D, 7-Scenes and exported ScanNet folders, written from their makers' descriptions."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ovs3d_ros.datasets import open_dataset
from ovs3d_ros.types import UserError

# A camera at (1, 2, 3) that looks along world +x with world +z up: right is -y, down is -z.
ROTATION = np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0]], float)
QUATERNION = (-0.5, 0.5, -0.5, 0.5)  # x y z w


def pose(x: float = 1.0) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = ROTATION, [x, 2, 3]
    return matrix


def save(path: Path, size: tuple[int, int], depth: int | None = None) -> None:
    """A photograph, or depth that is `depth` everywhere but saturated in the first row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if depth is None:
        Image.fromarray(np.full((size[1], size[0], 3), 90, np.uint8)).save(path)
        return
    values = np.full((size[1], size[0]), depth, np.uint16)
    values[0] = 65535
    Image.fromarray(values).save(path)


def write_tum(root: Path, name: str = "rgbd_dataset_freiburg3_x") -> Path:
    root = root / name
    for index in range(3):
        save(root / f"rgb/{index}.png", (640, 480))
        save(root / f"depth/{index}.png", (640, 480), 10_000)
    stamps = [100.0, 100.1, 104.0]
    (root / "rgb.txt").write_text(
        "# color\n" + "".join(f"{t:.6f} rgb/{i}.png\n" for i, t in enumerate(stamps))
    )
    (root / "depth.txt").write_text("".join(f"{t + 0.01:.6f} depth/{i}.png\n" for i, t in enumerate(stamps)))
    x, y, z, w = QUATERNION
    lines = [
        f"{t:.4f} {position} 2 3 {x} {y} {z} {w}\n"
        for t, position in ((99.95, 0.5), (100.05, 1.5), (100.1, 4))
    ]
    (root / "groundtruth.txt").write_text("# timestamp tx ty tz qx qy qz qw\n" + "".join(lines))
    return root


def test_tum_sequence_is_read_with_its_own_depth_unit(tmp_path, caplog) -> None:
    with caplog.at_level(logging.WARNING):
        dataset = open_dataset(write_tum(tmp_path))
    assert (dataset.format, len(dataset), dataset.has_depth) == ("tum", 2, True)
    assert "1 of 3 images are left out" in caplog.text
    np.testing.assert_allclose(dataset.camtoworlds[0], pose(1.0), atol=1e-9)  # halfway between two poses
    np.testing.assert_allclose(dataset.camtoworlds[1], pose(4.0), atol=1e-9)
    np.testing.assert_allclose(dataset.cameras[0].K, [[535.4, 0, 320.6], [0, 539.2, 248.1], [0, 0, 1]])
    depth = dataset[0].depth
    assert np.allclose(depth[1:], 2.0), "5000 units are a metre, not 1000"
    assert not depth[0].any(), "saturated depth is none"


def test_tum_lens_of_freiburg1_is_undistorted(tmp_path) -> None:
    dataset = open_dataset(write_tum(tmp_path, "rgbd_dataset_freiburg1_desk"))
    assert 450 < dataset.cameras[0].K[0, 0] < 600 and dataset.cameras[0].K[0, 0] != 517.3
    assert dataset[0].image.shape == (480, 640, 3)


def test_tum_sequence_of_another_camera_needs_its_calibration(tmp_path) -> None:
    root = write_tum(tmp_path, "kitchen")
    with pytest.raises(UserError, match=r"calibration is not known.*calibration\.txt"):
        open_dataset(root)
    (root / "calibration.txt").write_text("500 510 319.5 239.5\n")
    np.testing.assert_allclose(open_dataset(root).cameras[0].K, [[500, 0, 320], [0, 510, 240], [0, 0, 1]])
    (root / "calibration.txt").write_text("500 510\n")
    with pytest.raises(UserError, match="expected the four numbers fx fy cx cy"):
        open_dataset(root)


def test_missing_photographs_of_a_tum_sequence_are_counted(tmp_path) -> None:
    root = write_tum(tmp_path)
    (root / "rgb/1.png").unlink()
    with pytest.raises(UserError, match=r"1 of 3 images are missing.*--skip-missing"):
        open_dataset(root)
    assert len(open_dataset(root, skip_missing=True)) == 1


@pytest.mark.parametrize("line", ["100.0 1 2 3", "x 1 2 3 0 0 0 1", "100.0 1 2 3 0 0 0 0"])
def test_broken_lines_of_a_tum_sequence_are_named(tmp_path, line: str) -> None:
    root = write_tum(tmp_path)
    (root / "groundtruth.txt").write_text(f"# comment\n{line}\n")
    with pytest.raises(UserError, match="line 2"):
        open_dataset(root)


def write_7scenes(root: Path) -> Path:
    for sequence in ("seq-01", "seq-02"):
        for index in range(2):
            stem = root / sequence / f"frame-{index:06d}"
            save(Path(f"{stem}.color.png"), (640, 480))
            save(Path(f"{stem}.depth.png"), (640, 480), 1500)
            np.savetxt(f"{stem}.pose.txt", pose(index))
    (root / "TrainSplit.txt").write_text("sequence1\n")
    (root / "TestSplit.txt").write_text("sequence2\n")
    return root


def test_7scenes_scene_and_sequence_are_read(tmp_path) -> None:
    dataset = open_dataset(write_7scenes(tmp_path))
    assert (dataset.format, len(dataset)) == ("7scenes", 4)
    assert dataset.splits == ["training", "training", "held out", "held out"]
    np.testing.assert_allclose(dataset.camtoworlds[1], pose(1.0))
    assert len(open_dataset(tmp_path / "seq-02")) == 2
    frame = dataset[0]
    assert frame.camera.K[0, 0] == 525 and frame.camera.K[0, 2] == 320
    # The depth camera has a longer focal length: it sees 91 % of the colour image.
    seen = frame.depth > 0
    assert np.allclose(frame.depth[seen], 1.5)
    columns = np.flatnonzero(seen[240])
    expected = 320 - 320 * 525 / 585
    assert abs(columns[0] - expected) < 2 and abs(columns[-1] - (639 - expected)) < 2


def write_scannet(root: Path) -> Path:
    for index in (0, 2, 10):
        save(root / f"color/{index}.jpg", (648, 484))
        save(root / f"depth/{index}.png", (320, 240), 2500)
        (root / "pose").mkdir(exist_ok=True)
        np.savetxt(root / f"pose/{index}.txt", pose(index) if index != 2 else np.full((4, 4), -np.inf))
    (root / "intrinsic").mkdir()
    for kind, focal, (cx, cy) in (("color", 585.0, (323.5, 241.5)), ("depth", 288.9, (159.5, 119.5))):
        np.savetxt(
            root / f"intrinsic/intrinsic_{kind}.txt",
            [[focal, 0, cx, 0], [0, focal, cy, 0], [0, 0, 1, 0], [0, 0, 0, 1]],
        )
    return root


def test_scannet_export_is_read(tmp_path, caplog) -> None:
    with caplog.at_level(logging.WARNING):
        dataset = open_dataset(write_scannet(tmp_path))
    assert (dataset.format, dataset.names) == ("scannet", ["0", "10"])  # in the order of their numbers
    assert "1 of 3 images are left out" in caplog.text
    np.testing.assert_allclose(dataset.camtoworlds[1], pose(10.0))
    frame = dataset[1]
    np.testing.assert_allclose(frame.camera.K[:2, 2], [324, 242])
    assert frame.depth.shape == (484, 648)
    assert np.allclose(frame.depth[10:470, 8:640], 2.5)


def test_folder_that_is_no_scan_is_refused_though_the_format_is_given(tmp_path) -> None:
    for format, words in (("scannet", "no folder color/"), ("tum", "no such file"), ("7scenes", "no frames")):
        with pytest.raises(UserError, match=words):
            open_dataset(tmp_path, format=format)


def test_garbled_matrix_of_a_scan_is_named(tmp_path) -> None:
    root = write_scannet(tmp_path)
    for text in ("1 2 3", "x " * 16):
        (root / "pose/0.txt").write_text(text)
        with pytest.raises(UserError, match=r"pose/0\.txt: expected 4 x 4 numbers"):
            open_dataset(root)


def test_images_of_scans_cannot_be_elsewhere(tmp_path) -> None:
    with pytest.raises(UserError, match="hold their images"):
        open_dataset(write_scannet(tmp_path), images=tmp_path)
