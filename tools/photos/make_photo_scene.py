"""Cuts and scales a recorded walk to the scene of `ovs3d demo --photos`.

    python tools/photos/make_photo_scene.py OFFICE ovs3d_ros/photo_scene

OFFICE is the recording of `ORIGIN` as a nerfstudio folder with depth, `labels/`, `classes.txt` and
`presence.json`. Of its frames 64 are kept, so that every labelled one is among those that the demo holds out.
Poses are turned so that z points up, and moved so that the floor is at z = 0.
"""

from __future__ import annotations

import argparse
import json
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

from ovs3d_ros.datasets import open_dataset, split_holdout
from ovs3d_ros.demo.scene import HOLDOUT
from ovs3d_ros.geometry import transform_points, unproject

STEPS = 20, 16, 8, 8, 8, 3  # kept frames up to each labelled one, and after the last but one
QUALITY = 80  # of the JPEG files
DEPTH_STRIDE, DEPTH_UNIT = 2, 4  # every second pixel, rounded to 4 mm: the sensor is no better
FLOOR = 2.0  # percentile of the heights of all points that counts as the floor
Z_UP = np.array([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])  # from y up
OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])
ORIGIN = """Photo scene of ovs3d_ros
========================
A walk through an office with a HoloLens: RGB-D photographs with poses, from ardaduz/deep-video-mvs
(commit fa14288), sample-data/hololens-dataset/000. MIT licence, see LICENSE in this folder. Made by
  python tools/photos/make_photo_scene.py OFFICE ovs3d_ros/photo_scene

64 of 373 frames, 540x360 px; depth at half the size, in steps of 4 mm; z points up, the floor is at z = 0.

transforms.json  poses (OpenGL camera-to-world, metres) and intrinsics, as nerfstudio has them
images/ depth/   RGB (JPEG) and z-depth (16-bit PNG, millimetres, 0 = none)
labels/          of five held-out views, by hand, 0 = not labelled; classes.txt names them. Measuring only
presence.json    names of things that are there and of things that are not, by eye over all frames
"""


def chosen_frames(labelled: list[int], count: int) -> list[int]:
    """Indices of the kept frames: evenly spread between the labelled ones, which the demo holds out."""
    stops = [0, *labelled, count - 1]
    parts = [
        np.linspace(start, stop, steps, endpoint=False)
        for (start, stop), steps in zip(pairwise(stops), STEPS, strict=True)
    ]
    frames = [int(i) for i in np.concatenate([*parts, [count - 1]]).round()]
    held_out, _ = split_holdout(len(frames), HOLDOUT)
    assert {frames.index(i) for i in labelled} <= set(held_out) and len(set(frames)) == len(frames)
    return frames


def main() -> None:
    """Writes the scene."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    options = parser.parse_args()
    source, target = options.source, options.target
    dataset = open_dataset(source)
    labelled = [i for i, name in enumerate(dataset.names) if (source / "labels" / f"{name}.png").exists()]
    frames = chosen_frames(labelled, len(dataset))
    for folder in ("images", "depth", "labels"):
        (target / folder).mkdir(parents=True, exist_ok=True)
    poses, heights = [], []
    for index in frames:
        frame, name = dataset[index], dataset.names[index]
        Image.fromarray(frame.image).save(
            target / "images" / f"{name}.jpg", quality=QUALITY, optimize=True, progressive=True
        )
        depth = (frame.depth * 1000 / DEPTH_UNIT).round() * DEPTH_UNIT
        depth = depth[DEPTH_STRIDE // 2 :: DEPTH_STRIDE, DEPTH_STRIDE // 2 :: DEPTH_STRIDE]
        Image.fromarray(depth.astype(np.uint16)).save(target / "depth" / f"{name}.png", optimize=True)
        poses.append(Z_UP @ frame.camtoworld)
        points = transform_points(unproject(frame.depth, frame.camera)[frame.depth > 0][::16], poses[-1])
        heights.append(points[:, 2])
    for index in labelled:
        name = f"{dataset.names[index]}.png"
        shutil.copyfile(source / "labels" / name, target / "labels" / name)
    floor = np.percentile(np.concatenate(heights), FLOOR)
    for pose in poses:
        pose[2, 3] -= floor
    camera = dataset.cameras[0]
    (fx, _, cx), (_, fy, cy), _ = camera.K.tolist()
    document = dict(camera_model="PINHOLE", w=camera.width, h=camera.height, fl_x=fx, fl_y=fy, cx=cx, cy=cy)
    document |= dict(depth_unit_m=0.001, frames=[])
    for index, pose in zip(frames, poses, strict=True):
        name = dataset.names[index]
        document["frames"].append(
            dict(
                file_path=f"images/{name}.jpg",
                depth_file_path=f"depth/{name}.png",
                transform_matrix=(pose @ OPENGL).round(6).tolist(),
            )
        )
    (target / "transforms.json").write_text(json.dumps(document, indent=1) + "\n")
    for name in ("LICENSE", "classes.txt", "presence.json"):
        shutil.copyfile(source / name, target / name)
    (target / "ORIGIN.txt").write_text(ORIGIN)


if __name__ == "__main__":
    main()
