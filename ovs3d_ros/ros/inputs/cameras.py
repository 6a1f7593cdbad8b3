"""The node's inputs: one `CameraInput` per camera, and what they have to say together."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

import numpy as np
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import QoSProfile

from ovs3d_ros.config import Config
from ovs3d_ros.ros import conversions
from ovs3d_ros.ros.callback_errors import guarded
from ovs3d_ros.ros.inputs.camera import CameraInput
from ovs3d_ros.ros.inputs.streams import Stream, make_stream
from ovs3d_ros.ros.inputs.tf import make_buffer
from ovs3d_ros.types import Frame, UserError

POLL_PERIOD = 0.05  # seconds between looks at the images that wait for a pose


class Inputs:
    """Subscribes to the input topics of all cameras and calls back with every complete frame.

    All callbacks share one mutually exclusive group: they only convert and enqueue.

    Attributes:
        cameras: in the order of `input.cameras`.
        streams: all subscriptions of cameras by role.
    """

    def __init__(
        self,
        node: Node,
        config: Config,
        on_frame: Callable[[Frame, conversions.Header], None],
        on_path: Callable[[conversions.Path, Stream], None],
    ):
        """Subscribes.

        Args:
            node: to subscribe on.
            config: cameras (see `check_cameras`), topics' transports, quality of service, tolerances.
            on_frame: receives each frame and the image's header; must not block.
            on_path: receives `keyframe_path` and its stream; must not block.

        Raises:
            UserError: bad extrinsics, or pose_source tf without tf2_ros and tf2_msgs.
        """
        group = MutuallyExclusiveCallbackGroup()
        names = config.input.cameras
        extrinsics = split_extrinsics(config, len(names))
        transforms = None
        if config.pose_source == "tf":
            transforms = make_buffer(node, config.input, group, self._reject)
        self.cameras = [
            CameraInput(node, config, name, matrix, transforms, group, on_frame)
            for name, matrix in zip(names, extrinsics, strict=True)
        ]
        self.streams: dict[str, Stream] = {
            stream.role if camera.name else role: stream
            for camera in self.cameras
            for role, stream in camera.streams.items()
        }
        self._path = make_stream(
            node,
            "keyframe_path",
            conversions.Path,
            "keyframe_path",
            QoSProfile(depth=1),
            group,
            on_path,
            self._reject,
        )
        self._measured_at = time.monotonic()
        for source in filter(None, (transforms, *self.cameras, self._path)):
            source.listen()
        # Steady: with use_sim_time, the time of the node stands still until /clock comes.
        node.create_timer(
            POLL_PERIOD,
            guarded(self._poll, "inputs"),
            callback_group=group,
            clock=Clock(clock_type=ClockType.STEADY_TIME),
        )

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
    def lost(self) -> int:
        """Images that were sent but did not get here, see `Stream.lost`."""
        return sum(camera.streams["image"].lost for camera in self.cameras)

    @property
    def rejected(self) -> int:
        """Messages that could not be used."""
        return sum(camera.rejected for camera in self.cameras)

    @property
    def problem(self) -> str:
        """Why the last messages could not be used; empty once frames came again."""
        return self._joined({camera.name: camera.problem for camera in self.cameras})

    @property
    def silence(self) -> str:
        """The answer of the last `report_silence`, but for cameras of which frames came since."""
        return self._joined({camera.name: camera.silence for camera in self.cameras})

    def report_silence(self) -> str:
        """Why no usable frame arrived since the last call, of each camera of which none did; empty if all is well."""
        return self._joined({camera.name: camera.report_silence() for camera in self.cameras})

    @staticmethod
    def _joined(reasons: dict[str, str]) -> str:
        return "; ".join(f"{name}: {why}" if name else why for name, why in reasons.items() if why)

    def measure(self) -> None:
        """Updates the streams' rates; called once per report."""
        now = time.monotonic()
        period, self._measured_at = max(now - self._measured_at, 1e-3), now
        for stream in (*self.streams.values(), self._path):
            stream.measure(period)

    def values(self) -> dict[str, object]:
        """Counts and rates for the diagnostics."""
        counts: Counter[str] = Counter()
        for camera in self.cameras:
            counts.update(camera.counts())
        values: dict[str, object] = {name: counts[name] for name in self.cameras[0].counts()}
        values["slowest callback (ms)"] = round(max(s.slowest_ms for s in self.streams.values()), 1)
        for stream in (*self.streams.values(), self._path):
            values |= stream.values()
        return values


def check_cameras(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names of the cameras.

    Raises:
        UserError: none, one twice, an empty one beside others, or one that cannot be part of a topic.
    """
    usable = all(
        name.replace("_", "a").isalnum() and not name[0].isdigit() and name.isascii()
        for name in names
        if name
    )
    if not names or not usable or len(set(names)) < len(names) or (len(names) > 1 and "" in names):
        raise UserError(
            f"input.cameras: {list(names)} cannot be topic prefixes; give different names of letters, digits and "
            "underscores, or [''] for one camera without a prefix"
        )
    return names


def split_extrinsics(config: Config, count: int) -> list[np.ndarray]:
    """The extrinsics [4, 4] of each of `count` cameras.

    Raises:
        UserError: not seven numbers per camera, or not a rigid motion.
    """
    values, name = config.input.extrinsics, "input.extrinsics"
    if config.pose_source != "odom" and len(values) == 7:
        values *= count  # poses are of the cameras themselves
    if count > 1 and len(values) != 7 * count:
        raise UserError(
            f"{name}: expected 7 numbers x y z qx qy qz qw for each of the {count} cameras, got {len(values)}"
        )
    if count == 1:
        return [conversions.extrinsics_matrix(values, name)]
    return [conversions.extrinsics_matrix(values[7 * i : 7 * i + 7], name) for i in range(count)]
