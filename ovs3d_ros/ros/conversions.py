"""Conversions between ROS messages and plain values.

Only this module and `outputs.detections` import message packages; others take the types from here.
The readers of messages need no ROS and are in `sensors/messages.py`. Fields `.data` receive `bytes`, because
assigning a numpy array is 60 times slower.
"""

from __future__ import annotations

import array
import json

import numpy as np
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import (
    Point,
    Pose,
    PoseArray,
    PoseStamped,
    PoseWithCovariance,
    PoseWithCovarianceStamped,
    Quaternion,
    Transform,
    TransformStamped,
    Vector3,
)
from nav_msgs.msg import MapMetaData, OccupancyGrid, Odometry, Path
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2, PointField
from std_msgs.msg import ColorRGBA, Header, String
from visualization_msgs.msg import Marker, MarkerArray

from ovs3d_ros.geometry import matrix_to_quat
from ovs3d_ros.query.navigation import Grid
from ovs3d_ros.sensors.messages import (
    extrinsics_matrix,
    from_camera_info,
    from_depth,
    from_image,
    from_pose,
    from_stamped_pose,
    from_transform,
    to_seconds,
)
from ovs3d_ros.types import Camera, SemanticObject, UserError

__all__ = [
    "CameraInfo",
    "CompressedImage",
    "DiagnosticArray",
    "Header",
    "Image",
    "Marker",
    "MarkerArray",
    "OccupancyGrid",
    "Odometry",
    "Path",
    "PointCloud2",
    "PoseArray",
    "PoseStamped",
    "PoseWithCovariance",
    "PoseWithCovarianceStamped",
    "String",
    "TransformStamped",
    "extrinsics_matrix",
    "from_camera_info",
    "from_depth",
    "from_image",
    "from_pose",
    "from_stamped_pose",
    "from_transform",
    "to_seconds",
]

POINT_FIELD_TYPES = {"f4": PointField.FLOAT32, "u4": PointField.UINT32}
MIN_MARKER = 0.005  # metres: RViz complains about boxes without thickness
TEXT_HEIGHT = 0.08  # metres
LETTER_SPACING = 0.6  # of the height; RViz takes it from scale.x, and tears letters apart without it
ARROW = Vector3(x=0.4, y=0.06, z=0.1)  # metres: length, diameter of the shaft, diameter of the head
DIAGNOSTIC_LEVELS = {
    "ok": DiagnosticStatus.OK,
    "warn": DiagnosticStatus.WARN,
    "error": DiagnosticStatus.ERROR,
}


def to_time(seconds: float) -> Time:
    """The stamp of a time in seconds."""
    nanoseconds = round(seconds * 1e9)
    return Time(sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9)


def to_header(seconds: float, frame_id: str) -> Header:
    """A header at a time in seconds."""
    return Header(stamp=to_time(seconds), frame_id=frame_id)


def to_camera_info(camera: Camera, header: Header) -> CameraInfo:
    """The camera_info of an undistorted pinhole camera; ROS puts pixel centres at integers."""
    K = camera.K.copy()
    K[:2, 2] -= 0.5
    projection = np.concatenate([K, np.zeros((3, 1))], axis=1)
    return CameraInfo(
        header=header,
        width=camera.width,
        height=camera.height,
        distortion_model="plumb_bob",
        d=[0.0] * 5,
        k=K.ravel().tolist(),
        r=np.eye(3).ravel().tolist(),
        p=projection.ravel().tolist(),
    )


def _quaternion(matrix: np.ndarray) -> Quaternion:
    w, x, y, z = (float(v) for v in matrix_to_quat(matrix[:3, :3]))
    return Quaternion(x=x, y=y, z=z, w=w)


def to_pose(matrix: np.ndarray) -> Pose:
    """A rigid transform [4, 4] as a pose."""
    x, y, z = (float(v) for v in matrix[:3, 3])
    return Pose(position=Point(x=x, y=y, z=z), orientation=_quaternion(matrix))


def to_box(center: np.ndarray, quat: np.ndarray, size: np.ndarray) -> tuple[Pose, Vector3]:
    """An oriented box: centre [3] and full size [3] in metres, orientation wxyz [4]."""
    (x, y, z), (w, qx, qy, qz) = (float(v) for v in center), (float(v) for v in quat)
    pose = Pose(position=Point(x=x, y=y, z=z), orientation=Quaternion(x=qx, y=qy, z=qz, w=w))
    length, width, height = (float(v) for v in size)
    return pose, Vector3(x=length, y=width, z=height)


def to_transform(matrix: np.ndarray, header: Header, child_frame_id: str) -> TransformStamped:
    """A rigid transform [4, 4] from `child_frame_id` to the header's frame."""
    x, y, z = (float(v) for v in matrix[:3, 3])
    transform = Transform(translation=Vector3(x=x, y=y, z=z), rotation=_quaternion(matrix))
    return TransformStamped(header=header, child_frame_id=child_frame_id, transform=transform)


def tf_message_type() -> type:
    """The type of /tf messages.

    Raises:
        UserError: tf2_msgs is not installed.
    """
    try:
        from tf2_msgs.msg import TFMessage
    except ImportError:
        raise UserError(
            "tf2_msgs is not installed; apt install ros-$ROS_DISTRO-tf2-msgs (without a ROS distribution: "
            "pip install ./tests/tf2_msgs in the repository), or do without /tf: with another pose_source, "
            "and output.camera_tf false"
        ) from None
    return TFMessage


def to_odometry(matrix: np.ndarray, header: Header, child_frame_id: str) -> Odometry:
    """A rigid transform [4, 4] from `child_frame_id` to the header's frame, without twist and covariance."""
    odometry = Odometry(header=header, child_frame_id=child_frame_id)
    odometry.pose.pose = to_pose(matrix)
    return odometry


def to_pose_with_covariance(matrix: np.ndarray, header: Header) -> PoseWithCovarianceStamped:
    """A rigid transform [4, 4] to the header's frame, without a covariance."""
    return PoseWithCovarianceStamped(header=header, pose=PoseWithCovariance(pose=to_pose(matrix)))


def to_image(array: np.ndarray, encoding: str, header: Header) -> Image:
    """An image message of [H, W] or [H, W, 3] whose dtype fits `encoding` (rgb8, mono8, 16UC1, 32FC1)."""
    array = np.ascontiguousarray(array)
    height, width = array.shape[:2]
    return Image(
        header=header,
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=0,
        step=array.nbytes // height,
        data=array.tobytes(),
    )


def to_cloud(points: np.ndarray, rgb: np.ndarray, header: Header, **extra: np.ndarray) -> PointCloud2:
    """A cloud with fields x y z rgb and one field for each array in `extra`.

    Args:
        points: [N, 3] metres in the header's frame.
        rgb: [N, 3] uint8; packed as PCL and RViz read it.
        header: frame and stamp.
        extra: [N] float32 or uint32 each.
    """
    red, green, blue = (rgb[:, i].astype(np.uint32) for i in range(3))
    packed = (red << 16 | green << 8 | blue).view(np.float32)
    columns = {"x": points[:, 0], "y": points[:, 1], "z": points[:, 2], "rgb": packed, **extra}
    kinds = {name: "u4" if column.dtype == np.uint32 else "f4" for name, column in columns.items()}
    table = np.empty(len(points), dtype=list(kinds.items()))
    for name, column in columns.items():
        table[name] = column
    fields = [
        PointField(name=name, offset=4 * i, datatype=POINT_FIELD_TYPES[kind], count=1)
        for i, (name, kind) in enumerate(kinds.items())
    ]
    return PointCloud2(
        header=header,
        height=1,
        width=len(table),
        fields=fields,
        is_bigendian=False,
        point_step=table.itemsize,
        row_step=table.nbytes,
        data=table.tobytes(),
        is_dense=True,
    )


def from_cloud(message: PointCloud2) -> np.ndarray:
    """The points as a structured array [N] with the message's field names; `rgb` is the packed float32."""
    kinds = {kind: name for name, kind in POINT_FIELD_TYPES.items()}
    order = ">" if message.is_bigendian else "<"
    layout = {
        "names": [f.name for f in message.fields],
        "formats": [order + kinds[f.datatype] for f in message.fields],
        "offsets": [f.offset for f in message.fields],
        "itemsize": message.point_step,
    }
    return np.frombuffer(bytes(message.data), dtype=np.dtype(layout))


def to_label_map(
    prompts: list[str], found: list[bool], presence: list[float], map_version: int, keyframe_stamp: float
) -> String:
    """The prompt of each label number as JSON; labels are 1 + prompt index. The stamp is in seconds."""
    labels = [
        dict(label=i + 1, prompt=prompt, found=bool(f), presence=round(float(p), 4))
        for i, (prompt, f, p) in enumerate(zip(prompts, found, presence, strict=True))
    ]
    return String(
        data=json.dumps(dict(map_version=map_version, keyframe_stamp=keyframe_stamp, labels=labels))
    )


def to_markers(objects: list[SemanticObject], colors: np.ndarray, header: Header) -> MarkerArray:
    """Boxes and their names for RViz; the first marker deletes the previous ones.

    Args:
        objects: the objects to show.
        colors: [P + 1, 3] uint8 of the labels.
        header: frame and stamp.
    """
    markers = [Marker(header=header, action=Marker.DELETEALL)]
    for item in objects:
        pose, size = to_box(item.center, item.quat, item.size)
        red, green, blue = (float(v) / 255 for v in colors[item.label])
        box = Marker(
            header=header, ns="boxes", id=item.instance, type=Marker.CUBE, action=Marker.ADD, pose=pose
        )
        box.scale = Vector3(**{axis: max(getattr(size, axis), MIN_MARKER) for axis in "xyz"})
        box.color = ColorRGBA(r=red, g=green, b=blue, a=0.35)
        text = Marker(
            header=header, ns="labels", id=item.instance, type=Marker.TEXT_VIEW_FACING, action=Marker.ADD
        )
        top = float(item.center[2] + np.linalg.norm(item.size) / 2)
        text.pose.position = Point(x=pose.position.x, y=pose.position.y, z=top)
        text.scale = Vector3(x=LETTER_SPACING * TEXT_HEIGHT, z=TEXT_HEIGHT)
        text.color = ColorRGBA(r=1.0, g=1.0, b=1.0, a=1.0)
        text.text = f"{item.prompt} {item.score:.2f}"
        markers += [box, text]
    return MarkerArray(markers=markers)


def to_arrow(matrix: np.ndarray | None, header: Header) -> Marker:
    """An arrow along the x axis of a pose [4, 4]; None deletes the arrow."""
    marker = Marker(header=header, ns="goal", type=Marker.ARROW)
    if matrix is None:
        marker.action = Marker.DELETE
        return marker
    marker.action, marker.pose, marker.scale = Marker.ADD, to_pose(matrix), ARROW
    marker.color = ColorRGBA(r=1.0, g=0.0, b=1.0, a=1.0)
    return marker


def to_pose_array(objects: list[SemanticObject], header: Header) -> PoseArray:
    """The poses of objects: centre and axes of their boxes."""
    return PoseArray(header=header, poses=[to_box(item.center, item.quat, item.size)[0] for item in objects])


def to_path(camtoworlds: np.ndarray, stamps: np.ndarray, header: Header) -> Path:
    """Poses [K, 4, 4] with their stamps [K] in seconds."""
    poses = [
        PoseStamped(header=to_header(float(stamp), header.frame_id), pose=to_pose(matrix))
        for stamp, matrix in zip(stamps, camtoworlds, strict=True)
    ]
    return Path(header=header, poses=poses)


def to_grid(grid: Grid, header: Header) -> OccupancyGrid:
    """An occupancy grid of the ground."""
    rows, columns = grid.cells.shape
    info = MapMetaData(map_load_time=header.stamp, resolution=grid.resolution, width=columns, height=rows)
    info.origin = Pose(position=Point(x=float(grid.origin[0]), y=float(grid.origin[1])))
    return OccupancyGrid(header=header, info=info, data=array.array("b", grid.cells.tobytes()))


def from_grid(message: OccupancyGrid, topic: str) -> Grid:
    """The cells of an occupancy grid whose axes are those of its frame.

    Raises:
        UserError: sizes that contradict each other, a resolution or an origin that is no number, or a turned
            grid.
    """
    info, turn = message.info, message.info.origin.orientation
    origin = np.array([info.origin.position.x, info.origin.position.y])
    if not len(message.data) or len(message.data) != info.width * info.height:
        raise UserError(f"{topic}: {len(message.data)} cells contradict {info.width} x {info.height}")
    if not (np.isfinite(origin).all() and 0 < info.resolution < np.inf):
        raise UserError(f"{topic}: origin {origin.tolist()} and resolution {info.resolution} are no grid")
    if max(abs(turn.x), abs(turn.y), abs(turn.z)) > 1e-3:
        raise UserError(f"{topic}: its origin is turned, which nav2 does not support either")
    cells = np.array(message.data, np.int8).reshape(info.height, info.width)
    return Grid(origin, float(info.resolution), cells)


def to_diagnostic(name: str, level: str, message: str, values: dict[str, object]) -> DiagnosticStatus:
    """One diagnostic status; level is "ok", "warn" or "error"."""
    pairs = [KeyValue(key=key, value="" if value is None else str(value)) for key, value in values.items()]
    return DiagnosticStatus(
        level=DIAGNOSTIC_LEVELS[level], name=name, message=message, hardware_id="ovs3d", values=pairs
    )


def to_diagnostics(stamp: Time, statuses: list[DiagnosticStatus]) -> DiagnosticArray:
    """The message for /diagnostics."""
    return DiagnosticArray(header=Header(stamp=stamp), status=statuses)
