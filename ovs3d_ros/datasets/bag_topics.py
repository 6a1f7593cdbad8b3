"""Chooses the topics of colour, depth, calibration and poses in a bag; lists candidates if several fit."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from ovs3d_ros.config import Config
from ovs3d_ros.datasets.bag_file import VIDEO, BagFile
from ovs3d_ros.sensors.pixels import COLOR_ENCODINGS, DEPTH_ENCODINGS, compressed_encoding
from ovs3d_ros.sensors.video import video_codec
from ovs3d_ros.types import UserError

logger = logging.getLogger(__name__)

TF, TF_STATIC = "/tf", "/tf_static"
IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
_IMAGE_TYPES = (IMAGE, COMPRESSED, VIDEO)
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
TF_MESSAGE = "tf2_msgs/msg/TFMessage"
PATH = "nav_msgs/msg/Path"
POSE_TYPES = {
    "geometry_msgs/msg/PoseStamped": "pose",
    "nav_msgs/msg/Odometry": "odom",
    "geometry_msgs/msg/TransformStamped": "transform",
    TF_MESSAGE: "tf",
}
# Taken if nothing else is there: planners publish paths too, and localisers also publish other kinds.
_LAST_POSE_TYPES = {
    "geometry_msgs/msg/PoseWithCovarianceStamped": "pose_with_covariance",
    PATH: "path",
}
_GREY = ("mono8", "8UC1", "mono16")


@dataclass(frozen=True, slots=True)
class BagTopics:
    """The topics to read.

    Attributes:
        image: colour images, raw or compressed.
        camera_info: their calibration.
        depth: depth images, raw or compressedDepth; "" for none.
        pose: poses, or `/tf`.
        pose_source: kind of the poses: pose, odom, transform, tf, pose_with_covariance or path.
        codec: FFmpeg's name of the codec if the images are a video, else "".
    """

    image: str
    camera_info: str
    depth: str
    pose: str
    pose_source: str
    codec: str = ""


@dataclass(frozen=True, slots=True)
class _ImageTopic:
    """An image topic with the properties of its first message."""

    topic: str
    encoding: str
    frame_id: str
    is_depth: bool


def choose_topics(bag: BagFile, config: Config) -> BagTopics:
    """Chooses the topics that `bag.*` names, and otherwise the only ones that fit.

    Raises:
        UserError: a named topic is missing or has the wrong type, no topic fits, or several fit; the error
            lists the candidates.
    """
    images = [
        _inspect(bag, topic.name)
        for topic in bag.topics.values()
        if topic.type in _IMAGE_TYPES and topic.count
    ]
    color = _choose_color(bag, config.bag.image, images)
    depth = _choose_depth(bag, config.bag.depth, images, color) if config.input.use_depth else ""
    camera_info = _choose_camera_info(bag, config.bag.camera_info, color)
    pose = _choose_pose(bag, config)
    logger.info(
        "%s: colour %s, calibration %s, depth %s, poses %s",
        bag.path,
        color.topic,
        camera_info,
        depth or "none",
        pose,
    )
    source = (POSE_TYPES | _LAST_POSE_TYPES)[bag.topics[pose].type]
    is_video = bag.topics[color.topic].type != IMAGE
    codec = (is_video and video_codec(color.encoding)) or ""
    return BagTopics(color.topic, camera_info, depth, pose, source, codec)


def _inspect(bag: BagFile, topic: str) -> _ImageTopic:
    message: Any = bag.first_message(topic)
    if bag.topics[topic].type == VIDEO:
        return _ImageTopic(topic, message.format, message.frame_id, False)
    if bag.topics[topic].type == COMPRESSED:
        described, encoding = message.format, compressed_encoding(message.data, message.format)
    else:
        described = encoding = message.encoding
    is_depth = (
        "compressedDepth" in described
        or topic.endswith("/compressedDepth")
        or (encoding in DEPTH_ENCODINGS and (encoding not in COLOR_ENCODINGS or "depth" in topic))
    )
    return _ImageTopic(topic, described, message.header.frame_id, is_depth)


def _choose_color(bag: BagFile, named: str, images: list[_ImageTopic]) -> _ImageTopic:
    if named:
        _check_named(bag, "bag.image", named, _IMAGE_TYPES)
        return next(entry for entry in images if entry.topic == named)
    candidates = [entry for entry in images if not entry.is_depth]
    raw = {entry.topic for entry in candidates}
    candidates = [
        entry
        for entry in candidates
        if _strip_transport(entry.topic) == entry.topic or _strip_transport(entry.topic) not in raw
    ]
    if len(candidates) > 1:  # prefers a colour camera to an infrared pair
        candidates = [
            entry for entry in candidates if entry.encoding.partition(";")[0].strip() not in _GREY
        ] or candidates
    if not candidates:
        raise UserError(
            f"{bag.path}: no colour images: no Image, CompressedImage or CompressedVideo topic holds any "
            f"({_list_topics(bag)})"
        )
    return _require_single(bag, "bag.image", "colour topics", candidates)


def _choose_depth(bag: BagFile, named: str, images: list[_ImageTopic], color: _ImageTopic) -> str:
    if named:
        _check_named(bag, "bag.depth", named, (IMAGE, COMPRESSED))
        return named
    candidates = [entry for entry in images if entry.is_depth]
    raw = {entry.topic for entry in candidates}
    candidates = [
        entry
        for entry in candidates
        if _strip_transport(entry.topic) == entry.topic or _strip_transport(entry.topic) not in raw
    ]
    if len(candidates) > 1:
        candidates = [entry for entry in candidates if entry.frame_id == color.frame_id] or candidates
    if not candidates:
        return ""
    chosen = _require_single(bag, "bag.depth", "depth topics", candidates)
    if chosen.frame_id != color.frame_id:
        logger.warning(
            "%s: depth is in frame '%s', images in '%s': unless both are one camera, use depth registered to "
            "the colour camera, or input.use_depth=false",
            bag.path,
            chosen.frame_id,
            color.frame_id,
        )
    return chosen.topic


def _require_single(bag: BagFile, leaf: str, what: str, candidates: list[_ImageTopic]) -> _ImageTopic:
    if len(candidates) > 1:
        listed = ", ".join(f"{entry.topic} ({entry.encoding})" for entry in candidates)
        raise UserError(
            f"{bag.path}: several {what}: {listed}; choose with --set {leaf}={candidates[0].topic}"
        )
    return candidates[0]


def _choose_camera_info(bag: BagFile, named: str, color: _ImageTopic) -> str:
    if named:
        _check_named(bag, "bag.camera_info", named, (CAMERA_INFO,))
        return named
    candidates = [topic.name for topic in bag.topics.values() if topic.type == CAMERA_INFO and topic.count]
    if not candidates:
        raise UserError(
            f"{bag.path}: no camera_info, so {color.topic} cannot be used; record its CameraInfo topic too"
        )
    beside = _strip_transport(color.topic).rpartition("/")[0] + "/camera_info"
    if beside in candidates:
        return beside
    if len(candidates) > 1:
        firsts = {name: bag.first_message(name) for name in candidates}
        same_frame = [n for n, first in firsts.items() if first and first.header.frame_id == color.frame_id]
        candidates = same_frame or candidates
    if len(candidates) > 1:
        raise UserError(
            f"{bag.path}: several camera_info topics, none beside {color.topic}: {', '.join(candidates)}; "
            f"choose with --set bag.camera_info={candidates[0]}"
        )
    return candidates[0]


def _choose_pose(bag: BagFile, config: Config) -> str:
    if config.bag.pose:
        _check_named(bag, "bag.pose", config.bag.pose, (*POSE_TYPES, *_LAST_POSE_TYPES))
        return config.bag.pose
    candidates = [
        topic
        for topic in bag.topics.values()
        if topic.type in POSE_TYPES and topic.count and topic.name != TF_STATIC
    ]
    if len(candidates) > 1:
        of_source = [topic for topic in candidates if POSE_TYPES[topic.type] == config.pose_source]
        candidates = of_source if len(of_source) == 1 else candidates
    if not candidates:
        candidates = [t for t in bag.topics.values() if t.type in _LAST_POSE_TYPES and t.count]
    if not candidates:
        raise UserError(
            f"{bag.path}: no poses: no PoseStamped, Odometry, TransformStamped, Path or /tf messages "
            f"({_list_topics(bag)}); record poses too, this package has no SLAM"
        )
    if len(candidates) > 1:
        kinds = POSE_TYPES | _LAST_POSE_TYPES
        listed = ", ".join(f"{topic.name} ({kinds[topic.type]})" for topic in candidates)
        raise UserError(
            f"{bag.path}: several sources of poses: {listed}; choose with --set "
            f"bag.pose={candidates[0].name} or pose_source"
        )
    return candidates[0].name


def _check_named(bag: BagFile, leaf: str, name: str, types: tuple[str, ...]) -> None:
    topic = bag.topics.get(name)
    fitting = ", ".join(t.name for t in bag.topics.values() if t.type in types and t.count) or "none"
    if topic is None or not topic.count:
        raise UserError(f"{leaf}: {bag.path} has no messages on {name}; topics that fit: {fitting}")
    if topic.type not in types:
        raise UserError(f"{leaf}: {name} holds {topic.type}, which does not fit; topics that fit: {fitting}")


def _strip_transport(topic: str) -> str:
    """The topic without the suffix of its image transport."""
    for suffix in ("/compressed", "/compressedDepth"):
        topic = topic.removesuffix(suffix)
    return topic


def _list_topics(bag: BagFile) -> str:
    listed = ", ".join(
        f"{topic.name} {topic.type.rpartition('/')[2]}" for topic in bag.topics.values() if topic.count
    )
    return f"recorded: {listed or 'nothing'}"
