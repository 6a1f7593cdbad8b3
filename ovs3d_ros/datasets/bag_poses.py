"""Poses of the camera in a bag: from a topic, or from the transform tree."""

from __future__ import annotations

import collections
import logging
import sys
from typing import Any, Protocol

import numpy as np

from ovs3d_ros.config import Config
from ovs3d_ros.datasets.bag_file import BagFile
from ovs3d_ros.datasets.bag_topics import TF_MESSAGE, TF_STATIC, BagTopics
from ovs3d_ros.sensors import messages
from ovs3d_ros.sensors.mounts import are_set, settled_mount
from ovs3d_ros.sensors.sync import PoseBuffer
from ovs3d_ros.sensors.transforms import TransformTree
from ovs3d_ros.types import UserError

OF_ROBOTS = (
    "odom",
    "pose_with_covariance",
)  # sources whose poses are those of the robot, unless they say otherwise
logger = logging.getLogger(__name__)


class Poses(Protocol):
    """Poses of the camera over time.

    Attributes:
        span: first and last stamp, seconds.
    """

    span: tuple[float, float]

    def at(self, stamp: float, frame_id: str) -> np.ndarray | None:
        """The pose [4, 4] of the camera with optical frame `frame_id` at `stamp`, or None."""


class _TopicPoses:
    """Poses of one frame from a topic, and the pose of the camera in that frame."""

    def __init__(self, buffer: PoseBuffer, mount: _Mount):
        self._buffer = buffer
        self._mount = mount
        self.span = buffer.poses.stamps[0], buffer.poses.stamps[-1]

    def at(self, stamp: float, frame_id: str) -> np.ndarray | None:
        """See `Poses.at`."""
        pose = self._buffer.at(stamp, accept_nearest=True)
        mount = self._mount.at(stamp, frame_id)
        return None if pose is None or mount is None else pose @ mount


class _TreePoses:
    """Poses from the transform tree."""

    def __init__(self, tree: TransformTree, world_frame: str, span: tuple[float, float]):
        self._tree = tree
        self._world_frame = world_frame
        self.span = span

    def at(self, stamp: float, frame_id: str) -> np.ndarray | None:
        """See `Poses.at`."""
        return self._tree.at(self._world_frame, frame_id.lstrip("/"), stamp)


class _Mount:
    """Where the camera sits in the frame whose poses are recorded.

    See `settled_mount` for the rule. The transforms are those in the bag.
    """

    def __init__(self, bag: BagFile, topics: BagTopics, config: Config):
        self._bag = bag
        self._topics = topics
        self._config = config
        extrinsics = messages.extrinsics_matrix(config.input.extrinsics, "input.extrinsics")
        self._extrinsics = extrinsics if are_set(config.input.extrinsics) else None
        self._tree: TransformTree | None = None
        self._child: str | None = None

    def set_child(self, message: Any) -> None:
        """Takes the frame whose pose is in a message.

        Raises:
            UserError: earlier messages hold poses of another frame.
        """
        child = getattr(message, "child_frame_id", "").lstrip("/")
        if (
            self._child is None
            and not child
            and self._topics.pose_source in OF_ROBOTS
            and self._extrinsics is None
        ):
            logger.warning(
                "%s: %s does not say whose poses it holds (no child_frame_id); they are taken as those of "
                "the camera. If they are the robot's, set input.extrinsics",
                self._bag.path,
                self._topics.pose,
            )
        if self._child not in (None, child):
            raise UserError(
                f"{self._bag.path}: {self._topics.pose} has poses of several frames, '{self._child}' and "
                f"'{child}'; choose another topic with --set bag.pose=..."
            )
        self._child = child

    def at(self, stamp: float, frame_id: str) -> np.ndarray | None:
        """The pose [4, 4] of the optical frame in the child frame at `stamp`, or None.

        Raises:
            UserError: the frames differ, and neither the extrinsics nor the bag connect them.
        """
        optical = frame_id.lstrip("/")
        mount = settled_mount(
            self._extrinsics, self._topics.pose_source in OF_ROBOTS, self._child or "", optical
        )
        if mount is not None:
            return mount
        return self._connected_tree(optical).at(self._child, optical, stamp)

    def _connected_tree(self, optical: str) -> TransformTree:
        if self._tree is None:
            names = [name for name, topic in self._bag.topics.items() if topic.type == TF_MESSAGE]
            tree, _ = _read_transforms(self._bag, names, self._config)
            try:
                tree.check_connected(self._child, optical)
            except UserError as error:
                raise UserError(
                    f"{self._bag.path}: {self._topics.pose} has poses of '{self._child}', images are in "
                    f"'{optical}', and the bag does not connect them ({error}); give the camera's pose on "
                    "the robot with --set input.extrinsics=x,y,z,qx,qy,qz,qw "
                    "(0,0,0,0,0,0,-1 if both names mean the same frame)"
                ) from None
            self._tree = tree
        return self._tree


def read_poses(bag: BagFile, topics: BagTopics, config: Config, camera_frame: str) -> Poses:
    """Reads the poses that `topics` names.

    Raises:
        UserError: poses are in another frame than `input.world_frame`, or are not connected with the camera.
    """
    if topics.pose_source == "tf":
        return _read_tree(bag, topics, config, camera_frame)
    buffer = PoseBuffer(config.input.sync_slop, config.input.pose_gap, sys.maxsize)
    mount = _Mount(bag, topics, config)
    if topics.pose_source == "path":
        return _read_path(bag, topics, config, buffer, mount)
    for topic, message in bag.messages([topics.pose]):
        _check_frame(bag, topic, message, config)
        mount.set_child(message)
        pose, _ = messages.from_stamped_pose(message, topic)
        buffer.add(messages.to_seconds(message.header.stamp), pose)
    return _TopicPoses(buffer, mount)


def _check_frame(bag: BagFile, topic: str, message: Any, config: Config) -> None:
    """Raises UserError unless poses are in the frame of the map."""
    frame_id = message.header.frame_id.lstrip("/")
    if frame_id and frame_id != config.input.world_frame:
        raise UserError(
            f"{bag.path}: {topic} has poses in frame '{frame_id}', the map is in "
            f"'{config.input.world_frame}'; --set input.world_frame={frame_id}"
        )


def _read_path(
    bag: BagFile, topics: BagTopics, config: Config, buffer: PoseBuffer, mount: _Mount
) -> _TopicPoses:
    """The poses of the last path in the bag, which has the corrections of all loop closures."""
    # A path repeats all poses before: decoding every message would take the square of their number.
    ((_, _, data),) = collections.deque(bag.read_raw([topics.pose]), maxlen=1)
    last = bag.decode(topics.pose, data)
    stamps = [messages.to_seconds(pose.header.stamp) for pose in last.poses]
    if len(set(stamps)) < 2 or not all(stamps):
        raise UserError(
            f"{bag.path}: the poses on {topics.pose} have no stamps of their own, so it is a plan and not "
            "the path of the camera; choose another topic with --set bag.pose=..."
        )
    _check_frame(bag, topics.pose, last, config)
    mount.set_child(last)
    for stamp, pose in zip(stamps, last.poses, strict=True):
        buffer.add(stamp, messages.from_pose(pose.pose, topics.pose))
    return _TopicPoses(buffer, mount)


def _read_tree(bag: BagFile, topics: BagTopics, config: Config, camera_frame: str) -> _TreePoses:
    named = [topics.pose, topics.pose + TF_STATIC.removeprefix("/tf"), TF_STATIC]
    tree, stamps = _read_transforms(
        bag,
        [t for t in dict.fromkeys(named) if t in bag.topics and bag.topics[t].type == TF_MESSAGE],
        config,
        moving=topics.pose,
    )
    try:
        tree.check_connected(config.input.world_frame, camera_frame.lstrip("/"))
    except UserError as error:
        raise UserError(
            f"{bag.path}: {error}; images are in '{camera_frame}', set the frame of the map with --set "
            "input.world_frame=..."
        ) from None
    return _TreePoses(tree, config.input.world_frame, (min(stamps), max(stamps)))


def _read_transforms(
    bag: BagFile, topics: list[str], config: Config, moving: str | None = None
) -> tuple[TransformTree, list[float]]:
    """The tree of the transforms on `topics`, and their stamps in seconds.

    Args:
        bag: the open bag.
        topics: TFMessage topics.
        config: tolerances.
        moving: the only topic whose transforms move; None: those whose name does not end in `_static`.
    """
    tree, stamps = TransformTree(config.input.sync_slop, config.input.pose_gap), []
    for topic, message in bag.messages(topics):
        static = topic.endswith("_static") if moving is None else topic != moving
        for item in message.transforms:
            stamps.append(messages.to_seconds(item.header.stamp))
            matrix = messages.from_transform(item.transform, topic)
            tree.add(item.header.frame_id, item.child_frame_id, stamps[-1], matrix, static=static)
    return tree, stamps
