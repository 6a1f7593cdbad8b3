"""`ros2 run ovs3d_ros play DATA`: publishes a dataset on the topics of a robot."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions

from ovs3d_ros.config import Config, InputConfig, override
from ovs3d_ros.config.yaml_io import parse_assignments
from ovs3d_ros.datasets import FORMATS, Dataset, open_dataset, split_frames
from ovs3d_ros.ros import conversions
from ovs3d_ros.ros.stopping import stop_on_signals
from ovs3d_ros.types import Frame, UserError

log = logging.getLogger(__name__)

CAMERA_FRAME = "camera_optical_frame"
MILLIMETRES = 1000.0
QUEUE = 60  # frames kept until all reliable subscribers have acknowledged them
POLL = 0.05  # seconds
SETTLE = 1.0  # seconds to wait for a subscriber of depth, which may be discovered last
POSE_TYPES = {
    "pose": conversions.PoseStamped,
    "odom": conversions.Odometry,
    "transform": conversions.TransformStamped,
    "pose_with_covariance": conversions.PoseWithCovarianceStamped,
}


class Player(Node):
    """Publishes frames reliably on image, camera_info, depth and a pose topic, with current stamps."""

    def __init__(
        self, pose_source: str, depth_encoding: str, world_frame: str, has_depth: bool, **options: Any
    ):
        """Advertises the topics.

        Args:
            pose_source: a key of `POSE_TYPES`, or tf.
            depth_encoding: 32FC1 (metres) or 16UC1 (millimetres).
            world_frame: frame of the poses.
            has_depth: whether to advertise depth.
            options: passed to `rclpy.node.Node`.

        Raises:
            UserError: pose_source tf without tf2_msgs.
        """
        super().__init__("player", **options)
        profile = QoSProfile(depth=QUEUE, reliability=ReliabilityPolicy.RELIABLE)
        topics: dict[str, type] = {"image": conversions.Image, "camera_info": conversions.CameraInfo}
        if has_depth:
            topics["depth"] = conversions.Image
        self._pose_type = POSE_TYPES[pose_source] if pose_source != "tf" else conversions.tf_message_type()
        self._pose_topic = "/tf" if pose_source == "tf" else pose_source
        self._depth_encoding = depth_encoding
        self._world_frame = world_frame
        self._outputs = {
            topic: self.create_publisher(kind, topic, profile)
            for topic, kind in {**topics, self._pose_topic: self._pose_type}.items()
        }
        self.sent = 0

    def missing_subscribers(self) -> list[str]:
        """The topics without subscribers. Depth is optional and not among them."""
        return [
            p.topic_name
            for topic, p in self._outputs.items()
            if topic != "depth" and p.get_subscription_count() == 0
        ]

    def publish(self, frame: Frame) -> None:
        """Publishes one frame; pose and calibration first, so that the image does not wait for them."""
        header = conversions.Header(stamp=self.get_clock().now().to_msg(), frame_id=CAMERA_FRAME)
        world = conversions.Header(stamp=header.stamp, frame_id=self._world_frame)
        self._outputs[self._pose_topic].publish(self._pose_message(frame.camtoworld, world))
        self._outputs["camera_info"].publish(conversions.to_camera_info(frame.camera, header))
        if frame.depth is not None and "depth" in self._outputs:
            self._outputs["depth"].publish(self._depth_message(frame.depth, header))
        self._outputs["image"].publish(conversions.to_image(frame.image, "rgb8", header))
        self.sent += 1

    def _pose_message(self, camtoworld: np.ndarray, header: conversions.Header) -> Any:
        if self._pose_type is conversions.PoseStamped:
            return conversions.PoseStamped(header=header, pose=conversions.to_pose(camtoworld))
        if self._pose_type is conversions.Odometry:
            return conversions.to_odometry(camtoworld, header, CAMERA_FRAME)
        if self._pose_type is conversions.PoseWithCovarianceStamped:
            return conversions.to_pose_with_covariance(camtoworld, header)
        transform = conversions.to_transform(camtoworld, header, CAMERA_FRAME)
        return (
            transform
            if self._pose_type is conversions.TransformStamped
            else self._pose_type(transforms=[transform])
        )

    def _depth_message(self, depth: np.ndarray, header: conversions.Header) -> conversions.Image:
        if self._depth_encoding == "32FC1":
            return conversions.to_image(depth.astype(np.float32), "32FC1", header)
        millimetres = np.clip(np.round(depth * MILLIMETRES), 0, np.iinfo(np.uint16).max)
        return conversions.to_image(millimetres.astype(np.uint16), "16UC1", header)

    def drain(self, seconds: float) -> bool:
        """Waits until all subscribers have acknowledged all messages; False after `seconds`."""
        return all(p.wait_for_all_acked(Duration(seconds=seconds)) for p in self._outputs.values())


def _add_data(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that say which data to read."""
    parser.add_argument("data", type=Path, help="nerfstudio, COLMAP or LLFF folder, or a rosbag2")
    parser.add_argument("--format", choices=FORMATS, help="only needed if a folder contains several formats")
    parser.add_argument("--images", type=Path, metavar="DIR", help="folder of the photographs, if elsewhere")
    parser.add_argument("--skip-missing", action="store_true", help="leave out frames without a photograph")


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """Parses the command line without its ROS arguments."""
    parser = argparse.ArgumentParser(
        prog="play", description="Publishes a dataset as ROS topics: image, camera_info, depth and poses."
    )
    _add_data(parser)
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a parameter for reading bags, e.g. bag.image=/camera/color/image_raw; may be repeated",
    )
    parser.add_argument("--rate", type=float, default=2.0, help="frames per second (default 2)")
    parser.add_argument("--loop", action="store_true", help="repeat the dataset until stopped")
    parser.add_argument(
        "--holdout",
        type=int,
        default=0,
        metavar="N",
        help="omit the frames i with i %% N == N // 2, which are for evaluation (0: none)",
    )
    parser.add_argument(
        "--max-image-size",
        type=int,
        default=0,
        help="resize images to this longer side in pixels, if they are larger (0: never)",
    )
    parser.add_argument(
        "--pose-source", choices=[*POSE_TYPES, "tf"], default="pose", help="topic type of the poses"
    )
    parser.add_argument(
        "--depth-encoding",
        choices=["32FC1", "16UC1"],
        default="32FC1",
        help="depth in metres or in millimetres",
    )
    parser.add_argument("--world-frame", default=InputConfig().world_frame, help="frame of the poses")
    parser.add_argument(
        "--wait",
        type=float,
        default=60.0,
        metavar="S",
        help="seconds to wait for subscribers before the first frame; 0: do not wait (default 60)",
    )
    parser.add_argument("--json", type=Path, help="write a report of what was sent to this file")
    options = parser.parse_args(arguments)
    if not 0 < options.rate <= 1000 or options.wait < 0:
        parser.error("--rate must be in 0..1000 Hz, and --wait must not be negative")
    return options


def wait_for_subscribers(player: Player, seconds: float, stopping: threading.Event) -> None:
    """Waits until image, camera_info and the poses have subscribers.

    Raises:
        UserError: a topic has none after `seconds`.
    """
    deadline = time.monotonic() + seconds
    while missing := player.missing_subscribers():
        if stopping.wait(POLL):
            return
        if time.monotonic() > deadline:
            raise UserError(
                f"nobody subscribes to {', '.join(missing)} after {seconds:g} s; start the node, check "
                "topic names, ROS_DOMAIN_ID and qos.input, or use --wait 0"
            )
    stopping.wait(SETTLE)


def play(player: Player, dataset: Dataset, options: argparse.Namespace, stopping: threading.Event) -> None:
    """Publishes the dataset at a steady rate until its end, or until `stopping` is set."""
    _, indices = split_frames(dataset, options.holdout)
    due = time.monotonic()
    while not stopping.is_set():
        for index in indices:
            frame = dataset[index]  # read before its time
            if stopping.wait(max(0.0, due - time.monotonic())):
                return
            player.publish(frame)
            log.info("frame %d of %d: %s", index + 1, len(dataset), frame.name)
            due = max(due, time.monotonic() - 1 / options.rate) + 1 / options.rate
        if not options.loop:
            return


def main(args: list[str] | None = None) -> int:
    """Runs the player; returns 0, 1 if a subscriber did not acknowledge all frames, or 2 for bad input."""
    logging.basicConfig(level=logging.INFO, format="[%(levelname)s] [%(name)s]: %(message)s")
    stopping = threading.Event()
    stop_on_signals(stopping)
    command = sys.argv[1:] if args is None else args
    options = parse_arguments(rclpy.utilities.remove_ros_args(["play", *command])[1:])
    rclpy.init(args=["play", *command], signal_handler_options=SignalHandlerOptions.NO)
    try:
        settings = {"input.world_frame": options.world_frame} | parse_assignments(options.set)
        config = override(Config(), settings)
        dataset = open_dataset(
            options.data,
            options.max_image_size,
            options.format,
            config,
            images=options.images,
            skip_missing=options.skip_missing,
        )
        player = Player(options.pose_source, options.depth_encoding, options.world_frame, dataset.has_depth)
        return _run(player, dataset, options, stopping)
    except UserError as error:
        sys.stderr.write(f"play: {error}\n")
        return 2
    finally:
        rclpy.try_shutdown()


def _run(player: Player, dataset: Dataset, options: argparse.Namespace, stopping: threading.Event) -> int:
    """Waits for subscribers, plays, waits for acknowledgements and reports; returns the exit status."""
    try:
        if options.wait:
            wait_for_subscribers(player, options.wait, stopping)
        started = time.monotonic()
        play(player, dataset, options, stopping)
        acknowledged = player.drain(10.0)
        seconds = time.monotonic() - started
        if not acknowledged:
            log.error("a subscriber did not acknowledge all frames within 10 s")
        log.info("sent %d frames in %.1f s", player.sent, seconds)
        if options.json:
            report = dict(frames_sent=player.sent, seconds=round(seconds, 2), acknowledged=acknowledged)
            options.json.write_text(json.dumps(report) + "\n", encoding="utf-8")
        return 0 if acknowledged else 1
    finally:
        player.destroy_node()


if __name__ == "__main__":
    sys.exit(main())
