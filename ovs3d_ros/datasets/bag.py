"""Reads recordings (mcap, sqlite3, ROS 1); matches images with calibration, depth and poses by stamp."""

from __future__ import annotations

import bisect
import functools
import logging
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ovs3d_ros.config import Config
from ovs3d_ros.datasets import images
from ovs3d_ros.datasets.bag_file import BagFile, Sample
from ovs3d_ros.datasets.bag_poses import Poses, read_poses
from ovs3d_ros.datasets.bag_topics import BagTopics, choose_topics
from ovs3d_ros.datasets.dataset import Dataset
from ovs3d_ros.sensors import messages
from ovs3d_ros.sensors.calibration import (
    CameraCalibration,
    Rectifier,
    describe_doubt,
    is_rectified,
    make_rectifier,
)
from ovs3d_ros.sensors.pixels import BitDepth
from ovs3d_ros.sensors.sync import StampBuffer
from ovs3d_ros.sensors.video import VideoFrames, can_start
from ovs3d_ros.types import Frame, UserError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BagView:
    """The messages and the camera of one frame, without pixels.

    Attributes:
        image: the colour image.
        depth: the depth image, or None.
        camtoworld: [4, 4] float64, OpenCV camera axes.
        rectifier: rectifies the images of the camera.
    """

    image: Sample
    depth: Sample | None
    camtoworld: np.ndarray
    rectifier: Rectifier


class BagDataset(Dataset):
    """The frames of a bag; see `Dataset`."""

    def __init__(
        self,
        bag: BagFile,
        name: str,
        views: list[BagView],
        max_image_size: int,
        depth_scale: float,
        video: _Video | None,
    ):
        """Makes the dataset of the views matched in an open bag; other arguments as for `Dataset`.

        Args:
            bag: the open bag.
            name: of the dataset.
            views: in order.
            max_image_size: as for `open_dataset`.
            depth_scale: `input.depth_scale`.
            video: decodes the images if they are a video.
        """
        self._depth_scale = depth_scale
        self._video = video
        self._bit_depth = BitDepth()
        self._bag = bag
        self._views = views
        super().__init__(
            name=name,
            format="bag",
            cameras=[view.rectifier.camera for view in views],
            max_image_size=max_image_size,
            camtoworlds=np.stack([view.camtoworld for view in views]),
            stamps=np.array([view.image.stamp for view in views]),
            names=[f"{view.image.stamp:.6f}" for view in views],
            has_depth=any(view.depth is not None for view in views),
        )

    def __getitem__(self, index: int) -> Frame:
        """Reads, rectifies and resizes frame `index`.

        Raises:
            IndexError: there is no such frame.
            UserError: damaged data, an unsupported encoding, or sizes that contradict the calibration.
        """
        view, camera = self._views[index], self.cameras[index]
        topic = view.image.topic
        if self._video is not None:
            pixels = self._video.read(view.image)
        else:
            pixels = messages.from_image(self._bag.read(view.image), topic, self._bit_depth)
        image = view.rectifier.rectify_color(pixels, topic)
        depth = None
        if view.depth is not None:
            topic = view.depth.topic
            depth = view.rectifier.rectify_depth(
                messages.from_depth(self._bag.read(view.depth), topic, self._depth_scale), topic
            )
            depth = images.resize_nearest(depth, camera.width, camera.height)
        return Frame(
            stamp=view.image.stamp,
            image=images.resize_rgb(image, camera.width, camera.height),
            camera=camera,
            camtoworld=view.camtoworld.copy(),
            depth=depth,
            name=self.names[index],
        )


def read(path: Path, config: Config, max_image_size: int) -> BagDataset:
    """Opens a bag: reads stamps, calibration and poses at once, and pixels frame by frame.

    Images without a pose or depth at their stamp (`input.sync_slop`, `input.pose_gap`) are left out, and
    their number is logged.

    Args:
        path: folder of the bag, or its storage file.
        config: `bag.*` names topics; `input.*` and `pose_source` are used as in the node.
        max_image_size: longest image side in pixels, 0: as recorded.

    Raises:
        UserError: the bag is damaged, topics are missing or ambiguous, poses are in another frame, or no
            frame is complete.
    """
    bag = BagFile(path)
    topics = choose_topics(bag, config)
    samples: dict[str, list[Sample]] = {topics.image: [], topics.depth: []}
    for sample in bag.samples([topic for topic in (topics.image, topics.depth) if topic]):
        if sample.stamp == 0:
            raise UserError(
                f"{path}: a message on {sample.topic} has stamp 0; its publisher must stamp messages"
            )
        samples[sample.topic].append(sample)
    color = list({sample.stamp: sample for sample in samples[topics.image]}.values())
    color.sort(key=lambda sample: sample.stamp)
    count, video = len(color), _Video(bag, color, topics) if topics.codec else None
    if video is not None:
        color = video.samples
    rectifiers = _Rectifiers(bag, topics, config.input.rectification)
    poses = read_poses(bag, topics, config, config.input.camera_frame or color[0].frame_id)
    views = _match(color, samples[topics.depth] if topics.depth else None, poses, rectifiers, config)
    lost = count - len(views)
    if not views:
        missing = "depth and a pose" if topics.depth else "a pose"
        raise UserError(
            f"{path}: none of the {len(color)} images has {missing} at its stamp "
            f"({_ranges(color, samples[topics.depth], poses)}); check that all use one clock, or raise "
            "input.sync_slop or input.pose_gap"
        )
    if lost:
        logger.warning(
            "%s: %d of %d images are left out: they have no %spose at their stamp%s",
            path,
            lost,
            count,
            "depth or " if topics.depth else "",
            ", or come before the first key frame of the video" if count > len(color) else "",
        )
    name = path.resolve().name.partition(".")[0]
    return BagDataset(bag, name, views, max_image_size, config.input.depth_scale, video)


class _Video:
    """The images of a topic that holds a video.

    Attributes:
        samples: those that can be decoded: from the first key frame on.
    """

    def __init__(self, bag: BagFile, color: list[Sample], topics: BagTopics):
        packets = enumerate(bytes(bag.read(sample).data) for sample in color)
        first = next((i for i, packet in packets if can_start(packet, topics.codec)), len(color))
        self.samples = color[first:]
        if not self.samples:
            raise UserError(f"{bag.path}: the {topics.codec} video on {topics.image} has no key frame")
        self._positions = {sample: position for position, sample in enumerate(self.samples)}
        self._frames = VideoFrames(
            topics.codec,
            lambda index: bytes(bag.read(self.samples[index]).data),
            len(self.samples),
            f"{bag.path}: {topics.image}",
        )

    def read(self, sample: Sample) -> np.ndarray:
        """RGB uint8 [H, W, 3] of a sample."""
        return self._frames.frame(self._positions[sample])


class _Rectifiers:
    """The rectifier at each time; a driver may change its calibration during the recording."""

    def __init__(self, bag: BagFile, topics: BagTopics, rectification: str):
        rectified = is_rectified(rectification, topics.image)
        make = functools.cache(lambda calibration: make_rectifier(calibration, rectified, topics.camera_info))
        self._stamps: list[float] = []
        self._rectifiers: list[Rectifier] = []
        latest: CameraCalibration | None = None
        found = [
            (messages.to_seconds(m.header.stamp), messages.from_camera_info(m))
            for _, m in bag.messages([topics.camera_info])
        ]
        for stamp, calibration in sorted(found, key=lambda entry: entry[0]):
            if calibration != latest:
                latest = calibration
                self._stamps.append(stamp)
                self._rectifiers.append(make(calibration))
                if doubt := describe_doubt(calibration, rectified, topics.image):
                    logger.warning("%s: %s", bag.path, doubt)

    def at(self, stamp: float) -> Rectifier:
        """The newest rectifier at `stamp`, or the first one before that."""
        return self._rectifiers[max(0, bisect.bisect_right(self._stamps, stamp + 1e-6) - 1)]


def _match(
    color: list[Sample], depth: list[Sample] | None, poses: Poses, rectifiers: _Rectifiers, config: Config
) -> list[BagView]:
    """The images that have a pose and, if there is depth, depth."""
    depths = StampBuffer(sys.maxsize)
    for sample in depth or ():
        depths.add(sample.stamp, sample)
    views = []
    for image in color:
        camtoworld = poses.at(image.stamp, config.input.camera_frame or image.frame_id)
        nearest = depths.nearest(image.stamp, config.input.sync_slop)
        if camtoworld is not None and (depth is None or nearest is not None):
            views.append(BagView(image, nearest, camtoworld, rectifiers.at(image.stamp)))
    return views


def _ranges(color: list[Sample], depth: list[Sample], poses: Poses) -> str:
    spans = {"images": (color[0].stamp, color[-1].stamp), "poses": poses.span}
    if depth:
        spans["depth"] = (min(s.stamp for s in depth), max(s.stamp for s in depth))
    return ", ".join(f"{name} {first:.3f} to {last:.3f} s" for name, (first, last) in spans.items())
