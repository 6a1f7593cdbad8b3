"""Writes one small scene in every dataset format; all numbers are worked out by hand.

Camera 0 sits at (1, 2, 3) and looks along world +x with world +z up, so its right is world -y and its down is
world -z. Camera 1 is the world frame itself. Photographs: 64 x 48 px, f = 100, principal point (32, 24).
"""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ovs3d_ros.datasets import open_dataset
from ovs3d_ros.types import UserError

WIDTH, HEIGHT, FOCAL = 64, 48, 100.0
# columns right, down, forward, position
CAMTOWORLDS = np.array(
    [
        [[0, 0, 1, 1], [-1, 0, 0, 2], [0, -1, 0, 3], [0, 0, 0, 1]],
        [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]],
    ],
    dtype=np.float64,
)
# (5, 1, 3.5) is 4 in front of camera 0, 1 to its right and 0.5 above: 32 + 100/4, 24 - 50/4
POINT = np.array([5.0, 1.0, 3.5])
POINT_PIXEL = np.array([57.0, 11.5])
OPENGL = [
    [[0, 0, -1, 1], [-1, 0, 0, 2], [0, 1, 0, 3], [0, 0, 0, 1]],
    [[1, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 0], [0, 0, 0, 1]],
]
# world to camera: quaternion wxyz, translation -R c
COLMAP_POSES = [((0.5, 0.5, -0.5, 0.5), (2.0, 3.0, -1.0)), ((1.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0))]
# columns down, right, backward, position, (H, W, f)
LLFF = [
    [[0, 0, -1, 1, HEIGHT], [0, -1, 0, 2, WIDTH], [-1, 0, 0, 3, FOCAL]],
    [[0, 1, 0, 0, HEIGHT], [1, 0, 0, 0, WIDTH], [0, 0, -1, 0, FOCAL]],
]
POINT_COLOR = (250, 20, 30)


def write_images(root: Path) -> None:
    """`images/a.png` with the point drawn on its pixel (block of 2 x 2 around it), `images/b.png` plain."""
    (root / "images").mkdir(parents=True, exist_ok=True)
    picture = np.full((HEIGHT, WIDTH, 3), 90, dtype=np.uint8)
    picture[10:12, 56:58] = POINT_COLOR
    Image.fromarray(picture).save(root / "images" / "a.png")
    Image.fromarray(np.full((HEIGHT, WIDTH, 3), 40, dtype=np.uint8)).save(root / "images" / "b.png")


def transforms() -> dict:
    """The content of a plain `transforms.json`."""
    frames = [
        {"file_path": f"images/{name}.png", "transform_matrix": matrix}
        for name, matrix in zip("ab", OPENGL, strict=True)
    ]
    return {
        "camera_model": "PINHOLE",
        "w": WIDTH,
        "h": HEIGHT,
        "fl_x": FOCAL,
        "fl_y": FOCAL,
        "cx": WIDTH / 2,
        "cy": HEIGHT / 2,
        "frames": frames,
    }


def write_transforms(root: Path, document: dict) -> Path:
    path = root / "transforms.json"
    path.write_text(json.dumps(document))
    return path


def write_nerfstudio(root: Path) -> Path:
    write_images(root)
    write_transforms(root, transforms())
    return root


def write_two_cameras(root: Path) -> Path:
    """The nerfstudio scene with its images as `images/left/a.png` and `images/right/a.png`."""
    document = transforms()
    write_images(root)
    for frame, camera, name in zip(document["frames"], ("left", "right"), "ab", strict=True):
        (root / "images" / camera).mkdir()
        (root / "images" / f"{name}.png").rename(root / "images" / camera / "a.png")
        frame["file_path"] = f"images/{camera}/a.png"
    write_transforms(root, document)
    return root


def write_colmap_text(root: Path, camera: str = f"PINHOLE {WIDTH} {HEIGHT} 100 100 32 24") -> Path:
    """Lists images in reverse, one with 2D points and one with a blank points line, like COLMAP."""
    write_images(root)
    model = root / "sparse" / "0"
    model.mkdir(parents=True)
    (model / "cameras.txt").write_text(f"# comment\n7 {camera}\n")
    rows = [
        " ".join(map(str, (i + 1, *quat, *translation, 7, f"{name}.png")))
        for i, (name, (quat, translation)) in enumerate(zip("ab", COLMAP_POSES, strict=True))
    ]
    (model / "images.txt").write_text(f"# comment\n{rows[1]}\n\n{rows[0]}\n57 11.5 1 3 3 -1\n")
    (model / "points3D.txt").write_text("# comment\n1 5 1 3.5 250 20 30 0.4 1 0\n")
    return root


def write_colmap_binary(root: Path) -> Path:
    write_images(root)
    rows = [
        (i + 1, *pose, f"{name}.png", [(57, 11.5, 1)] * i)
        for i, (name, pose) in enumerate(zip("ab", COLMAP_POSES, strict=True))
    ]
    write_binaries(
        root / "sparse", (WIDTH, HEIGHT, FOCAL, WIDTH / 2, HEIGHT / 2), rows[::-1], [(*POINT, *POINT_COLOR)]
    )
    return root


def write_binaries(model: Path, camera: tuple, images: list[tuple], points: list[tuple]) -> None:
    """A COLMAP model of one SIMPLE_PINHOLE camera.

    Args:
        model: the folder, made here.
        camera: width, height, f, cx, cy.
        images: id, quaternion wxyz and translation world to camera, file name, 2D points (x, y, id).
        points: x, y, z, red, green, blue; each is seen by image 1.
    """
    model.mkdir(parents=True)
    (model / "cameras.bin").write_bytes(struct.pack("<QiiQQ3d", 1, 7, 0, *camera))
    data = [struct.pack("<Q", len(images))]
    for id_, quat, translation, name, seen in images:
        data += [
            struct.pack("<i7di", id_, *quat, *translation, 7),
            name.encode() + b"\0",
            struct.pack("<Q", len(seen)),
            *(struct.pack("<ddq", *row) for row in seen),
        ]
    (model / "images.bin").write_bytes(b"".join(data))
    rows = (struct.pack("<Q3d3BdQii", id_, *row, 0.4, 1, 1, 0) for id_, row in enumerate(points, start=1))
    (model / "points3D.bin").write_bytes(b"".join([struct.pack("<Q", len(points)), *rows]))


def write_lerf(root: Path) -> Path:
    """The scene `table` of a lerf_ovs folder: image a annotated at twice its size, image b at its own.

    In b two apples lie at columns and rows 8..15 and at columns 40..47, rows 20..27, the first one in a bowl
    of columns and rows 4..19; in a there is the first apple alone.
    """
    scene = write_colmap_binary(root / "lerf_ovs" / "table")
    apple, other, bowl = square(8, 8, 15, 15), square(40, 20, 47, 27), square(4, 4, 19, 19)
    objects = [outlined("green apple", apple), outlined("bowl", bowl), outlined("green apple", other)]
    write_annotation(scene.parent / "label" / "table", "b.jpg", (WIDTH, HEIGHT), objects)
    write_annotation(
        scene.parent / "label" / "table",
        "a.jpg",
        (2 * WIDTH, 2 * HEIGHT),
        [outlined("green apple", square(16, 16, 31, 31))],
    )
    return scene


def square(left: float, top: float, right: float, bottom: float) -> list[list[float]]:
    """The corners of a square whose outline belongs to it."""
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def outlined(category: str, polygon: list[list[float]]) -> dict:
    """An object of lerf_ovs, including keys that the reader ignores."""
    x, y = zip(*polygon, strict=True)
    return {
        "category": category,
        "group": 1,
        "segmentation": polygon,
        "area": 1.0,
        "layer": 1.0,
        "bbox": [min(x), min(y), max(x), max(y)],
        "iscrowd": 0,
        "note": "",
    }


def write_annotation(folder: Path, image: str, size: tuple[int, int], objects: list) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = (folder / image).with_suffix(".json")
    info = {"name": image, "width": size[0], "height": size[1], "depth": 3, "note": ""}
    path.write_text(json.dumps({"info": info, "objects": objects}))
    return path


def write_llff(root: Path) -> Path:
    write_images(root)
    rows = [np.append(np.array(row, dtype=np.float64).ravel(), [1.0, 9.0]) for row in LLFF]
    np.save(root / "poses_bounds.npy", np.stack(rows))
    return root


def write_segmentations(root: Path) -> None:
    """3D-OVS masks of view 1: 'wall' on the left half, 'apple' on one pixel; 254 must not count."""
    folder = root / "segmentations" / "01"
    folder.mkdir(parents=True)
    (root / "segmentations" / "classes.txt").write_text("wall\napple\n")
    wall, apple = (np.zeros((HEIGHT, WIDTH), dtype=np.uint8) for _ in range(2))
    wall[:, : WIDTH // 2] = 255
    wall[:, WIDTH // 2] = 254
    apple[5, 60] = 255
    Image.fromarray(wall).save(folder / "wall.png")
    Image.fromarray(apple).save(folder / "apple.png")


WRITERS = {
    "nerfstudio": write_nerfstudio,
    "colmap_text": write_colmap_text,
    "colmap_binary": write_colmap_binary,
    "llff": write_llff,
}


def read_all(path: Path, **options) -> None:
    """Reads all frames of a dataset."""
    for _ in open_dataset(path, **options):
        pass


def refusal(path: Path, **options) -> str:
    """The one-line error of a dataset that cannot be read."""
    with pytest.raises(UserError) as caught:
        read_all(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message
