"""The topics `~/segmentation/...`: the answer, rendered in the newest camera view."""

from __future__ import annotations

import cv2
import numpy as np
from rclpy.node import Node

from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.ros import conversions
from ovs3d_ros.ros.outputs.answers import Answer
from ovs3d_ros.ros.outputs.view import CameraView
from ovs3d_ros.types import MapSnapshot
from ovs3d_ros.visualization import pictures

TYPES = {
    "label": conversions.Image,
    "score": conversions.Image,
    "overlay": conversions.Image,
    "camera_info": conversions.CameraInfo,
}


class SegmentationPublisher:
    """Renders a segmentation once per answer, map version, view and size, if a topic has subscribers.

    Attributes:
        max_size: longest side of the images, pixels; 0 for the size of the camera.
    """

    def __init__(self, node: Node, pipeline: Ovs3d, max_size: int):
        """Advertises the topics.

        Args:
            node: publishes.
            pipeline: renders.
            max_size: see the attribute.
        """
        self._pipeline = pipeline
        self.max_size = max_size
        self._publishers = {
            name: node.create_publisher(message_type, f"~/segmentation/{name}", 1)
            for name, message_type in TYPES.items()
        }
        self._published: tuple | None = None

    @property
    def has_subscribers(self) -> bool:
        """Whether any of the topics has subscribers."""
        return any(publisher.get_subscription_count() for publisher in self._publishers.values())

    def publish(self, number: int, answer: Answer, newest: MapSnapshot, view: CameraView) -> None:
        """Publishes answer `number` in a view of the newest map."""
        frame = view.frame
        # A refined field only fits the Gaussians of its own snapshot.
        snapshot = newest if answer.result.field is None else answer.snapshot
        version = (number, snapshot.version, frame.stamp, self.max_size)
        if version == self._published or not self.has_subscribers:
            return
        camera = frame.camera.fitted(self.max_size)
        labels, score = self._pipeline.render_labels(answer.result, camera, frame.camtoworld, snapshot)
        messages = {
            "camera_info": lambda: conversions.to_camera_info(camera, view.header),
            "label": lambda: conversions.to_image(labels.astype(np.uint8), "mono8", view.header),
            "score": lambda: conversions.to_image(score, "32FC1", view.header),
            "overlay": lambda: conversions.to_image(_overlay(frame.image, labels), "rgb8", view.header),
        }
        for name, publisher in self._publishers.items():
            if publisher.get_subscription_count():
                publisher.publish(messages[name]())
        self._published = version


def _overlay(image: np.ndarray, labels: np.ndarray) -> np.ndarray:
    size = labels.shape[::-1]
    return pictures.overlay(cv2.resize(image, size, interpolation=cv2.INTER_AREA), labels)
