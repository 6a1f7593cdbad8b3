"""Converts messages of rclpy and of the rosbags library to plain values, by their field names.

Quaternions are xyzw only here and in `ros/conversions.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ovs3d_ros.geometry import check_pose, quat_to_matrix
from ovs3d_ros.sensors import pixels
from ovs3d_ros.sensors.calibration import CameraCalibration
from ovs3d_ros.types import UserError


def to_seconds(stamp: Any) -> float:
    """Seconds of a builtin_interfaces/Time (float64: exact to about 0.2 microseconds today)."""
    return stamp.sec + stamp.nanosec * 1e-9


def from_image(message: Any, topic: str, bit_depth: pixels.BitDepth) -> np.ndarray:
    """RGB uint8 [H, W, 3] of a sensor_msgs/Image or CompressedImage; `bit_depth` is that of the topic.

    Raises:
        UserError: the encoding is not a colour image, the data is truncated, or the sizes contradict it.
    """
    if _is_compressed(message):
        return pixels.decompress_color(_buffer(message), message.format, topic, bit_depth)
    return pixels.decode_color(
        _buffer(message),
        message.encoding,
        message.height,
        message.width,
        message.step,
        bool(message.is_bigendian),
        topic,
        bit_depth,
    )


def from_depth(message: Any, topic: str, scale: float) -> np.ndarray:
    """Depth float32 [H, W] in metres, 0 = none, of a sensor_msgs/Image (32FC1, 16UC1) or compressedDepth.

    Args:
        message: the depth image.
        topic: for error messages.
        scale: `input.depth_scale`, which corrects a unit other than that of the encoding.

    Raises:
        UserError: the encoding is not depth, the data is truncated, or the sizes contradict it.
    """
    if _is_compressed(message):
        return pixels.scale_depth(pixels.decompress_depth(_buffer(message), message.format, topic), scale)
    depth = pixels.decode_depth(
        _buffer(message),
        message.encoding,
        message.height,
        message.width,
        message.step,
        bool(message.is_bigendian),
        topic,
    )
    return pixels.scale_depth(depth, scale)


def _is_compressed(message: Any) -> bool:
    return hasattr(message, "format")  # a CompressedImage has a format instead of encoding and size


def _buffer(message: Any) -> memoryview | bytes:
    """The bytes of a data field, without a copy."""
    data = message.data
    return data if isinstance(data, bytes) else memoryview(data).cast("B")


def from_camera_info(message: Any) -> CameraCalibration:
    """The calibration in a sensor_msgs/CameraInfo."""
    roi = message.roi
    return CameraCalibration(
        K=tuple(float(v) for v in message.k),
        P=tuple(float(v) for v in message.p),
        D=tuple(float(v) for v in message.d),
        model=message.distortion_model,
        size=(message.width, message.height),
        offset=(roi.x_offset, roi.y_offset),
        roi=(roi.width, roi.height),
        binning=(message.binning_x, message.binning_y),
        frame_id=message.header.frame_id,
    )


def from_pose(pose: Any, topic: str) -> np.ndarray:
    """A geometry_msgs/Pose as a matrix [4, 4] float64.

    Raises:
        UserError: the pose has NaN, or the quaternion is not a rotation.
    """
    return _matrix(pose.position, pose.orientation, topic)


def from_stamped_pose(message: Any, topic: str) -> tuple[np.ndarray, str]:
    """The matrix [4, 4] float64 of a pose message, and the frame whose pose it is.

    The message is a PoseStamped, PoseWithCovarianceStamped, Odometry or TransformStamped. The frame is empty
    if the message does not name it.

    Raises:
        UserError: the pose has NaN, or the quaternion is not a rotation.
    """
    child = getattr(message, "child_frame_id", "").lstrip("/")
    if hasattr(message, "transform"):
        return from_transform(message.transform, topic), child
    pose = message.pose
    return from_pose(pose.pose if hasattr(pose, "covariance") else pose, topic), child


def from_transform(transform: Any, topic: str) -> np.ndarray:
    """A geometry_msgs/Transform as a matrix [4, 4] float64.

    Raises:
        UserError: the pose has NaN, or the quaternion is not a rotation.
    """
    return _matrix(transform.translation, transform.rotation, topic)


def _matrix(position: Any, rotation: Any, topic: str) -> np.ndarray:
    return rigid_matrix(
        (position.x, position.y, position.z), (rotation.x, rotation.y, rotation.z, rotation.w), topic
    )


def rigid_matrix(
    position: tuple[float, float, float], rotation: tuple[float, float, float, float], name: str
) -> np.ndarray:
    """The matrix [4, 4] float64 of a position in metres and a quaternion xyzw.

    Raises:
        UserError: the pose has NaN, or the quaternion is not a rotation.
    """
    x, y, z, w = rotation
    matrix = np.eye(4)
    try:
        matrix[:3, :3] = quat_to_matrix(np.array([w, x, y, z]))
    except UserError as error:
        raise UserError(f"{name}: {error}") from None
    matrix[:3, 3] = position
    return check_pose(matrix, name)


def extrinsics_matrix(values: tuple[float, ...], name: str) -> np.ndarray:
    """The matrix [4, 4] of x y z qx qy qz qw, the order of static_transform_publisher.

    Raises:
        UserError: the values are not seven numbers, or not a rigid motion.
    """
    if len(values) != 7:
        raise UserError(f"{name}: expected 7 numbers x y z qx qy qz qw, got {len(values)}")
    return rigid_matrix(values[:3], values[3:], name)
