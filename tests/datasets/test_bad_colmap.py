"""Broken COLMAP models are refused with one line that names the file and the reason."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from helpers import datasets_on_disk as disk

from ovs3d_ros.types import UserError


@pytest.mark.parametrize("name", ["cameras", "images", "points3D"])
def test_colmap_binary_truncated_anywhere_is_refused(tmp_path, name):
    path = disk.write_colmap_binary(tmp_path) / "sparse" / f"{name}.bin"
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        assert f"{name}.bin: truncated or not a COLMAP file" in disk.refusal(tmp_path), length


def test_colmap_binary_with_flipped_bytes_never_crashes(tmp_path):
    """Damage either is refused or changes a number to another valid number."""
    root = disk.write_colmap_binary(tmp_path)
    rng = np.random.default_rng(3)
    for name in ("cameras", "images", "points3D"):
        path = root / "sparse" / f"{name}.bin"
        data = path.read_bytes()
        for _ in range(60):
            damaged = bytearray(data)
            damaged[rng.integers(len(data))] ^= int(rng.integers(1, 256))
            path.write_bytes(damaged)
            try:
                disk.read_all(root)
            except UserError as error:
                assert str(root) in str(error)
        path.write_bytes(data)


COLMAP_TEXT = {
    "unsupported model": (
        "cameras",
        "7 FOV 64 48 1 1 1 1 0",
        "camera model FOV is not",
    ),
    "made-up model": ("cameras", "7 TELESCOPE 64 48 100 32 24", "camera model TELESCOPE is not supported"),
    "too few parameters": ("cameras", "7 PINHOLE 64 48 100 32", "PINHOLE needs 4 finite parameters"),
    "NaN focal": ("cameras", "7 SIMPLE_PINHOLE 64 48 nan 32 24", "needs 3 finite parameters"),
    "zero focal": ("cameras", "7 SIMPLE_PINHOLE 64 48 0 32 24", "cameras.txt: camera 7: focal length"),
    "other size": ("cameras", "7 SIMPLE_PINHOLE 64 64 100 32 24", "a.png: the image is 64x48"),
    "words": ("cameras", "seven PINHOLE", "cameras.txt: truncated or not a COLMAP file"),
    "no images": ("images", "# none", "images.txt: lists no images"),
    "unknown camera": ("images", "1 1 0 0 0 0 0 0 8 a.png\n", "image a.png refers to camera 8"),
    "zero quaternion": ("images", "1 0 0 0 0 0 0 0 7 a.png\n", "quaternion (0.0, 0.0, 0.0, 0.0)"),
    "NaN translation": ("images", "1 1 0 0 0 nan 0 0 7 a.png\n", "image a.png: pose has NaN"),
    "missing image": ("images", "1 1 0 0 0 0 0 0 7 z.png\n", "images/z.png: no such file"),
    "no points lines": (
        "images",
        "1 1 0 0 0 0 0 0 7 a.png\n2 1 0 0 0 0 0 0 7 b.png\n",
        "no line of 2D points follows image a.png",
    ),
    "endless image name": ("images", f"1 1 0 0 0 0 0 0 7 {'x' * 300}\n", "x: no such file"),
    "short row": ("images", "1 1 0 0 0\n", "images.txt: truncated or not a COLMAP file"),
    "NaN point": ("points3D", "1 nan 0 0 1 2 3 0.5", "points3D.txt: has points that are not finite"),
    "far point": ("points3D", "1 1e39 0 0 1 2 3 0.5", "points3D.txt: lies 1e+39 m from the origin"),
    "far camera": ("images", "1 1 0 0 0 0 1e39 0 7 a.png\n", "image a.png: lies 1e+39 m from the origin"),
    "short point": ("points3D", "1 0 0 0", "points3D.txt: truncated or not a COLMAP file"),
}


@pytest.mark.parametrize("case", COLMAP_TEXT)
def test_broken_colmap_text_is_refused(tmp_path, case):
    name, content, reason = COLMAP_TEXT[case]
    root = disk.write_colmap_text(tmp_path)
    (root / "sparse" / "0" / f"{name}.txt").write_text(content)
    message = disk.refusal(root)
    assert reason in message and str(tmp_path) in message


def test_unknown_camera_model_in_colmap_binary_is_refused(tmp_path):
    root = disk.write_colmap_binary(tmp_path)
    (root / "sparse" / "cameras.bin").write_bytes(struct.pack("<QiiQQ", 1, 7, 99, 64, 48))
    assert "cameras.bin: camera 7 has unknown model id 99" in disk.refusal(root)
