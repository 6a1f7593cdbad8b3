"""The node's inputs: one `CameraInput` per camera, and `keyframe_path`."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

import numpy as np
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from rclpy.qos import QoSProfile

from ovs3d_ros.config import Config
from ovs3d_ros.ros import conversions
from ovs3d_ros.ros.callbacks import start_timer
from ovs3d_ros.ros.inputs.camera import CameraInput
from ovs3d_ros.ros.inputs.losses import LossWindow
from ovs3d_ros.ros.inputs.streams import Quality, Stream
from ovs3d_ros.ros.inputs.tf import TfTopicBuffer, TransformBuffer, make_transform_buffer
from ovs3d_ros.ros.inputs.topics import SHARED
from ovs3d_ros.sensors.mounts import are_set
from ovs3d_ros.types import Frame, UserError

POLL_PERIOD = 0.05  # seconds between checks of the images that wait for a pose


class Inputs:
    """Subscribes to the input topics of all cameras and calls back with every complete frame.

    All callbacks share one mutually exclusive group; they only convert and enqueue.

    Attributes:
        cameras: in the order of `input.cameras`.
        streams: the cameras' subscriptions by role.
    """

    def __init__(
        self,
        node: Node,
        config: Config,
        on_frame: Callable[[Frame, conversions.Header], None],
        on_path: Callable[[conversions.Path, Stream, dict[str, np.ndarray]], None],
    ):
        """Subscribes.

        Args:
            node: subscribes.
            config: cameras (see `check_cameras`), topics' transports, quality of service, tolerances.
            on_frame: receives each frame and the image's header; must not block.
            on_path: receives `keyframe_path`, its stream, and by camera where it sits in the frame whose
                poses arrive, as far as known; must not block.

        Raises:
            UserError: bad extrinsics, or pose_source tf without both tf2_ros and tf2_msgs.
        """
        group = MutuallyExclusiveCallbackGroup()
        names = check_cameras(config.input.cameras)
        extrinsics = chosen_extrinsics(config, len(names))
        transforms: TransformBuffer | None = None
        if config.input.camera_frame and len(names) > 1:
            raise UserError(
                "input.camera_frame names one frame, but there are several cameras; leave it empty and let "
                "their images carry header.frame_id"
            )
        if config.pose_source == "tf":
            transforms = make_transform_buffer(node, config.input, group, self._reject)
        elif config.pose_source in ("odom", "transform") and any(e is None for e in extrinsics):
            transforms = _make_static_buffer(node, config, group, self._reject)
        self.cameras = [
            CameraInput(node, config, name, matrix, transforms, group, on_frame)
            for name, matrix in zip(names, extrinsics, strict=True)
        ]
        self.streams: dict[str, Stream] = {
            stream.role: stream for camera in self.cameras for stream in camera.streams.values()
        }
        path = "keyframe_path"
        quality = Quality(QoSProfile(depth=1), latched=True)

        def receive_path(message: conversions.Path, stream: Stream) -> None:
            mounts = {camera.name: camera.mount for camera in self.cameras}
            on_path(message, stream, {name: mount for name, mount in mounts.items() if mount is not None})

        self._path = Stream(node, path, conversions.Path, path, quality, group, receive_path, self._reject)
        self._updated_at = time.monotonic()
        self._losses = LossWindow()
        for source in filter(None, (transforms, *self.cameras, self._path)):
            source.subscribe()
        start_timer(node, POLL_PERIOD, self._poll, "inputs", group)

    def _reject(self, error: UserError) -> None:
        self.cameras[0].reject(error)

    def _poll(self) -> None:
        for camera in self.cameras:
            camera.poll()

    @property
    def frames(self) -> int:
        """Complete frames so far."""
        return sum(camera.frames for camera in self.cameras)

    @property
    def lost_images(self) -> int:
        """Images that were sent but never reached a callback, see `Stream.lost`."""
        return sum(camera.streams["image"].lost for camera in self.cameras)

    @property
    def losses(self) -> str:
        """Which share of the newest images was lost and why, as of the last `update_rates`; empty if few."""
        return self._losses.text

    @property
    def rejected(self) -> int:
        """Messages that could not be used."""
        return sum(camera.rejected for camera in self.cameras)

    @property
    def problem(self) -> str:
        """Why the last messages were rejected, by camera; empty once frames are complete."""
        return _join({camera.name: camera.problem for camera in self.cameras})

    @property
    def silence(self) -> str:
        """The last `report_silence`, without the cameras that had a frame since."""
        return _join({camera.name: camera.silence for camera in self.cameras})

    def report_silence(self) -> str:
        """Why no usable frame arrived since the last call, by camera; empty if all cameras had one."""
        return _join({camera.name: camera.report_silence() for camera in self.cameras})

    def update_rates(self) -> None:
        """Updates the rate of each stream over the time since the last call, and `losses`."""
        now = time.monotonic()
        period, self._updated_at = max(now - self._updated_at, 1e-3), now
        for stream in (*self.streams.values(), self._path):
            stream.update_rate(period)
        self._losses.update(Counter(lost_transit=self.lost_images) + self._counts())

    def _counts(self) -> Counter[str]:
        """The counts of all cameras together."""
        counts: Counter[str] = Counter()
        for camera in self.cameras:
            counts.update(camera.counts())
        return counts

    def diagnostic_values(self) -> dict[str, object]:
        """Counts and rates for /diagnostics."""
        counts = self._counts()
        values: dict[str, object] = {name: counts[name] for name in self.cameras[0].counts()}
        values["slowest callback (ms)"] = round(max(s.slowest_ms for s in self.streams.values()), 1)
        for stream in (*self.streams.values(), self._path):
            values |= stream.diagnostic_values()
        return values


def _join(reasons: dict[str, str]) -> str:
    """One line of the reasons by camera, without the empty ones."""
    return "; ".join(f"{name}: {reason}" if name else reason for name, reason in reasons.items() if reason)


def check_cameras(names: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the names of the cameras; one empty name for a single camera without a prefix.

    Raises:
        UserError: a duplicate, an empty name beside others, or a name that cannot be part of a topic.
    """
    usable = all(
        name.replace("_", "a").isalnum() and not name[0].isdigit() and name.isascii()
        for name in names
        if name
    )
    if not usable or len(set(names)) < len(names) or (len(names) > 1 and "" in names):
        raise UserError(
            f"input.cameras: {list(names)} cannot be topic prefixes; give distinct names of letters, "
            "digits and underscores, or an empty list for one camera without a prefix"
        )
    return names or ("",)


def _make_static_buffer(
    node: Node, config: Config, group: MutuallyExclusiveCallbackGroup, reject: Callable[[UserError], None]
) -> TransformBuffer | None:
    """A buffer of /tf_static, or None without tf2_msgs, which is needed only if the frames differ."""
    try:
        return TfTopicBuffer(node, config.input, group, reject, topics=("/tf_static",))
    except UserError:
        return None


def chosen_extrinsics(config: Config, count: int) -> list[np.ndarray | None]:
    """The extrinsics [4, 4] per camera, None for the default. Errors as in `split_extrinsics`."""
    matrices, values = split_extrinsics(config, count), config.input.extrinsics
    values = values * count if len(values) == 7 else values
    return [matrix if are_set(values[7 * i : 7 * i + 7]) else None for i, matrix in enumerate(matrices)]


def split_extrinsics(config: Config, count: int) -> list[np.ndarray]:
    """The extrinsics [4, 4] of each camera.

    Raises:
        UserError: not seven numbers per camera, or not a rigid transform.
    """
    values, name = config.input.extrinsics, "input.extrinsics"
    if len(values) == 7 and (config.pose_source not in SHARED or not are_set(values)):
        values *= count  # unused, or not set: then /tf_static leads to each camera
    if count > 1 and len(values) != 7 * count:
        raise UserError(
            f"{name}: expected 7 numbers x y z qx qy qz qw for each of the {count} cameras, got {len(values)}"
        )
    if count == 1:
        return [conversions.extrinsics_matrix(values, name)]
    return [conversions.extrinsics_matrix(values[7 * i : 7 * i + 7], name) for i in range(count)]
