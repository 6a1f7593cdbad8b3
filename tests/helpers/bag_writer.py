"""Writes small bags with the rosbags library, message by message."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml
from rosbags import rosbag1
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from ovs3d_ros.geometry import matrix_to_quat

STORE = get_typestore(Stores.ROS2_HUMBLE)
STORE.register(
    get_types_from_msg(
        "builtin_interfaces/Time timestamp\nstring frame_id\nuint8[] data\nstring format\n",
        "foxglove_msgs/msg/CompressedVideo",
    )
)
START = 1_700_000_000.0  # seconds
LAG_NS = 7_000_000  # between a stamp and when it is recorded


def make(kind: str, **fields):
    """A message of a type such as `std_msgs/Header`."""
    package, _, name = kind.partition("/")
    return STORE.types[f"{package}/msg/{name}"](**fields)


def header(stamp: float, frame: str):
    nanoseconds = round(stamp * 1e9)
    time = make("builtin_interfaces/Time", sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9)
    return make("std_msgs/Header", stamp=time, frame_id=frame)


def image(stamp: float, frame: str, array: np.ndarray, encoding: str):
    array = np.ascontiguousarray(array)
    return make(
        "sensor_msgs/Image",
        header=header(stamp, frame),
        height=array.shape[0],
        width=array.shape[1],
        encoding=encoding,
        is_bigendian=0,
        step=array.nbytes // array.shape[0],
        data=array.reshape(-1).view(np.uint8),
    )


def compressed(stamp: float, frame: str, data: bytes, format: str):
    return make(
        "sensor_msgs/CompressedImage",
        header=header(stamp, frame),
        format=format,
        data=np.frombuffer(data, np.uint8),
    )


def camera_info(stamp: float, frame: str, K: np.ndarray, size: tuple[int, int], D=(0.0,) * 5):
    """`K` with pixel centres at integers, as ROS has them; `size` is width, height."""
    K = np.asarray(K, np.float64)
    region = make("sensor_msgs/RegionOfInterest", x_offset=0, y_offset=0, height=0, width=0, do_rectify=False)
    return make(
        "sensor_msgs/CameraInfo",
        header=header(stamp, frame),
        height=size[1],
        width=size[0],
        distortion_model="plumb_bob",
        d=np.array(D),
        k=K.ravel(),
        r=np.eye(3).ravel(),
        p=np.hstack([K, np.zeros((3, 1))]).ravel(),
        binning_x=0,
        binning_y=0,
        roi=region,
    )


def _quaternion(matrix: np.ndarray):
    w, x, y, z = map(float, matrix_to_quat(matrix[:3, :3]))
    return make("geometry_msgs/Quaternion", x=x, y=y, z=z, w=w)


def _vector(kind: str, matrix: np.ndarray):
    return make(kind, **dict(zip("xyz", map(float, matrix[:3, 3]), strict=True)))


def pose(matrix: np.ndarray):
    return make(
        "geometry_msgs/Pose", position=_vector("geometry_msgs/Point", matrix), orientation=_quaternion(matrix)
    )


def pose_stamped(stamp: float, frame: str, matrix: np.ndarray):
    return make("geometry_msgs/PoseStamped", header=header(stamp, frame), pose=pose(matrix))


def pose_with_covariance(stamp: float, frame: str, matrix: np.ndarray):
    inner = make("geometry_msgs/PoseWithCovariance", pose=pose(matrix), covariance=np.zeros(36))
    return make("geometry_msgs/PoseWithCovarianceStamped", header=header(stamp, frame), pose=inner)


def odometry(stamp: float, frame: str, child: str, matrix: np.ndarray):
    zero = make("geometry_msgs/Vector3", x=0.0, y=0.0, z=0.0)
    twist = make(
        "geometry_msgs/TwistWithCovariance",
        covariance=np.zeros(36),
        twist=make("geometry_msgs/Twist", linear=zero, angular=zero),
    )
    return make(
        "nav_msgs/Odometry",
        header=header(stamp, frame),
        child_frame_id=child,
        twist=twist,
        pose=make("geometry_msgs/PoseWithCovariance", pose=pose(matrix), covariance=np.zeros(36)),
    )


def transform(stamp: float, parent: str, child: str, matrix: np.ndarray):
    inner = make(
        "geometry_msgs/Transform",
        translation=_vector("geometry_msgs/Vector3", matrix),
        rotation=_quaternion(matrix),
    )
    return make(
        "geometry_msgs/TransformStamped", header=header(stamp, parent), child_frame_id=child, transform=inner
    )


def path(frame: str, poses: list):
    """A path of PoseStamped messages, stamped as the last of them."""
    return make("nav_msgs/Path", header=header(_stamp_ns(poses[-1]) / 1e9, frame), poses=poses)


def video(stamp: float, frame: str, data: bytes, format: str):
    """A foxglove_msgs/CompressedVideo, which has a stamp and a frame but no header."""
    time = header(stamp, frame).stamp
    return make(
        "foxglove_msgs/CompressedVideo",
        timestamp=time,
        frame_id=frame,
        data=np.frombuffer(data, np.uint8),
        format=format,
    )


def tf(*transforms):
    return make("tf2_msgs/TFMessage", transforms=list(transforms))


def _stamp_ns(message) -> int:
    if hasattr(message, "timestamp"):
        stamp = message.timestamp
    else:
        stamp = (message.transforms[0] if hasattr(message, "transforms") else message).header.stamp
    return stamp.sec * 10**9 + stamp.nanosec


def write(path: Path, topics: dict[str, list], storage: str = "sqlite3", compression: str = "") -> Path:
    """Writes topics with their messages as a bag, interleaved by stamp as a recorder would.

    `compression` is file, message or storage (zstd).
    """
    plugin = StoragePlugin.MCAP if storage == "mcap" else StoragePlugin.SQLITE3
    bag = Writer(path, version=8, storage_plugin=plugin)
    if compression:
        bag.set_compression(CompressionMode[compression.upper()], CompressionFormat.ZSTD)
    with bag:
        rows = []
        for topic, messages in topics.items():
            connection = bag.add_connection(topic, messages[0].__msgtype__, typestore=STORE)
            rows += [(_stamp_ns(m) + LAG_NS, connection, m) for m in messages]
        for time_ns, connection, message in sorted(rows, key=lambda row: row[0]):
            bag.write(connection, time_ns, STORE.serialize_cdr(message, connection.msgtype))
    return path


def write_ros1(path: Path, topics: dict[str, list], old_tf: bool = False) -> Path:
    """Writes the topics as a .bag of ROS 1; `old_tf` gives transforms the type of the package tf."""
    definitions = get_typestore(Stores.ROS1_NOETIC)
    for name in ("tf2_msgs/msg/TFMessage", "tf/msg/tfMessage"):
        definitions.register(get_types_from_msg("geometry_msgs/TransformStamped[] transforms", name))
    with rosbag1.Writer(path) as bag:
        rows = []
        for topic, messages in topics.items():
            kind = messages[0].__msgtype__
            kind = "tf/msg/tfMessage" if old_tf and kind == "tf2_msgs/msg/TFMessage" else kind
            connection = bag.add_connection(topic, kind, typestore=definitions)
            rows += [(_stamp_ns(m) + LAG_NS, connection, m) for m in messages]
        for time_ns, connection, message in sorted(rows, key=lambda row: row[0]):
            data = STORE.serialize_cdr(message, message.__msgtype__)
            bag.write(connection, time_ns, STORE.cdr_to_ros1(data, message.__msgtype__))
    return path


def join(path: Path, first: Path, second: Path) -> Path:
    """Joins two bags of the same topics into one of two sqlite3 files, as `ros2 bag record` splits it."""
    path.mkdir()
    documents = [yaml.safe_load((bag / "metadata.yaml").read_text()) for bag in (first, second)]
    whole, other = (document["rosbag2_bagfile_information"] for document in documents)
    for bag in (first, second):
        (bag / f"{bag.name}.db3").rename(path / f"{bag.name}.db3")
    whole["relative_file_paths"] += other["relative_file_paths"]
    whole["files"] += other["files"]
    whole["message_count"] += other["message_count"]
    for mine, theirs in zip(
        whole["topics_with_message_count"], other["topics_with_message_count"], strict=True
    ):
        mine["message_count"] += theirs["message_count"]
    (path / "metadata.yaml").write_text(yaml.safe_dump(documents[0]))
    return path
