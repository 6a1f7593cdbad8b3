"""Writes a rendered scene as a rosbag2 in mcap, with compressed images.

Usage: `python tools/world/make_bag.py SCENE`.

The image files are stored unchanged: JPEG, and 16-bit PNG behind the header of compressedDepth.
"""

from __future__ import annotations

import argparse
import json
import struct
from pathlib import Path

import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

START_NS, PERIOD_NS = 1_700_000_000 * 10**9, 500_000_000  # 2 Hz
CAMERA_FRAME, WORLD_FRAME = "camera_optical_frame", "map"
OPENGL_TO_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])
DEPTH_HEADER = struct.pack("<iff", 0, 0.0, 0.0)  # readers of 16UC1 ignore it
STORE = get_typestore(Stores.ROS2_KILTED)
TOPICS = {
    "/image/compressed": "sensor_msgs/msg/CompressedImage",
    "/depth/compressedDepth": "sensor_msgs/msg/CompressedImage",
    "/camera_info": "sensor_msgs/msg/CameraInfo",
    "/pose": "geometry_msgs/msg/PoseStamped",
}


def make(name: str, **fields: object) -> object:
    """A message of a type such as `std_msgs/msg/Header`."""
    return STORE.types[name](**fields)


def header(stamp_ns: int, frame: str) -> object:
    """A header at a time in nanoseconds."""
    stamp = make("builtin_interfaces/msg/Time", sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    return make("std_msgs/msg/Header", stamp=stamp, frame_id=frame)


def compressed(path: Path, format: str, prefix: bytes, head: object) -> object:
    """A compressed image; its data are a prefix and the bytes of a file."""
    data = np.frombuffer(prefix + path.read_bytes(), np.uint8)
    return make("sensor_msgs/msg/CompressedImage", header=head, format=format, data=data)


def camera_info(scene: dict, head: object) -> object:
    """The CameraInfo of the pinhole camera; it has pixel centres at integers."""
    fx, fy, cx, cy = scene["fl_x"], scene["fl_y"], scene["cx"] - 0.5, scene["cy"] - 0.5
    region = make(
        "sensor_msgs/msg/RegionOfInterest", x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
    )
    return make(
        "sensor_msgs/msg/CameraInfo",
        header=head,
        height=scene["h"],
        width=scene["w"],
        distortion_model="plumb_bob",
        d=np.zeros(5),
        k=np.array([fx, 0, cx, 0, fy, cy, 0, 0, 1.0]),
        r=np.eye(3).ravel(),
        p=np.array([fx, 0, cx, 0, 0, fy, cy, 0, 0, 0, 1.0, 0]),
        binning_x=0,
        binning_y=0,
        roi=region,
    )


def pose(transform: list, head: object) -> object:
    """Pose of the optical frame from an OpenGL camera-to-world matrix."""
    matrix = np.array(transform) @ OPENGL_TO_OPENCV
    x, y, z, w = quaternion(matrix[:3, :3])
    return make(
        "geometry_msgs/msg/PoseStamped",
        header=head,
        pose=make(
            "geometry_msgs/msg/Pose",
            position=make(
                "geometry_msgs/msg/Point", **dict(zip("xyz", map(float, matrix[:3, 3]), strict=True))
            ),
            orientation=make("geometry_msgs/msg/Quaternion", x=x, y=y, z=z, w=w),
        ),
    )


def quaternion(rotation: np.ndarray) -> tuple[float, float, float, float]:
    """x y z w of a rotation matrix: the eigenvector of Bar-Itzhack's symmetric matrix (2000)."""
    m = rotation
    symmetric = (
        np.array(
            [
                [m[0, 0] - m[1, 1] - m[2, 2], m[1, 0] + m[0, 1], m[2, 0] + m[0, 2], m[2, 1] - m[1, 2]],
                [m[1, 0] + m[0, 1], m[1, 1] - m[0, 0] - m[2, 2], m[2, 1] + m[1, 2], m[0, 2] - m[2, 0]],
                [m[2, 0] + m[0, 2], m[2, 1] + m[1, 2], m[2, 2] - m[0, 0] - m[1, 1], m[1, 0] - m[0, 1]],
                [m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1], m[0, 0] + m[1, 1] + m[2, 2]],
            ]
        )
        / 3
    )
    q = np.linalg.eigh(symmetric)[1][:, -1]
    return tuple(float(v) for v in q * (1 if q[3] >= 0 else -1))


def write_bag(folder: Path, out: Path) -> None:
    """Writes the scene in `folder` as the bag `out`, which must not exist."""
    scene = json.loads((folder / "transforms.json").read_text(encoding="utf-8"))
    with Writer(out, version=9, storage_plugin=StoragePlugin.MCAP) as bag:
        connections = {t: bag.add_connection(t, kind, typestore=STORE) for t, kind in TOPICS.items()}
        for i, frame in enumerate(scene["frames"]):
            stamp = START_NS + i * PERIOD_NS
            in_camera, in_world = header(stamp, CAMERA_FRAME), header(stamp, WORLD_FRAME)
            depth = folder / frame["depth_file_path"]
            messages = {
                "/pose": pose(frame["transform_matrix"], in_world),
                "/camera_info": camera_info(scene, in_camera),
                "/depth/compressedDepth": compressed(
                    depth, "16UC1; compressedDepth png", DEPTH_HEADER, in_camera
                ),
                "/image/compressed": compressed(
                    folder / frame["file_path"], "rgb8; jpeg compressed bgr8", b"", in_camera
                ),
            }
            for topic, message in messages.items():
                bag.write(connections[topic], stamp, STORE.serialize_cdr(message, TOPICS[topic]))


def main() -> None:
    """Command line entry: writes SCENE/bag."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scene", type=Path, help="folder with transforms.json, depth in millimetres")
    args = parser.parse_args()
    write_bag(args.scene, args.scene / "bag")


if __name__ == "__main__":
    main()
