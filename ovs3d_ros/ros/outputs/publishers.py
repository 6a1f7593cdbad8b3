"""The node's output topics. Nothing is built that nobody subscribes to."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from ovs3d_ros.config import Config
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.query.navigation import goal_pose, query_grid
from ovs3d_ros.ros import conversions
from ovs3d_ros.ros.callbacks import start_timer
from ovs3d_ros.sampling import evenly_spaced_indices
from ovs3d_ros.types import Frame, MapSnapshot, Query, QueryResult
from ovs3d_ros.visualization import pictures, point_cloud
from ovs3d_ros.worker import MappingWorker

ANSWER_PERIOD = 0.1  # seconds until a new answer is on its topics
LATCHED = QoSProfile(
    depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
)


NO_ANSWER = dict(label=np.zeros(0, np.uint32), instance=np.zeros(0, np.uint32), score=np.zeros(0, np.float32))


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer and the map it was answered from.

    Attributes:
        result: the answer, which carries its query.
        snapshot: the map.
    """

    result: QueryResult
    snapshot: MapSnapshot


class LatchedOutput:
    """A latched topic that builds its message once per version, and only while someone listens."""

    def __init__(self, node: Node, message_type: type, topic: str, build: Callable[..., Any]):
        """Advertises the topic; `build` makes its message."""
        self._publisher = node.create_publisher(message_type, topic, LATCHED)
        self._published: object = None
        self._build = build

    @property
    def wanted(self) -> bool:
        """Whether someone listens."""
        return self._publisher.get_subscription_count() > 0

    def update(self, version: object, *arguments: Any) -> None:
        """Publishes `build(*arguments)` unless this version was published already or nobody listens."""
        if version != self._published and self.wanted:
            self._publisher.publish(self._build(*arguments))
            self._published = version


class Outputs:
    """Publishes the map, the last answer, and the last answer as seen by the newest camera.

    The last answer is that of `~/query`, or, while there is a vocabulary (`hold`), that for the vocabulary.
    """

    def __init__(self, node: Node, config: Config, pipeline: Ovs3d, worker: MappingWorker):
        """Advertises the topics and starts the timer (`output.rate`)."""
        self._config = config
        self._pipeline = pipeline
        self._worker = worker
        # What the topics show, with the number of times that changed: in one tuple, as several threads change it.
        self._shown: tuple[int, Answer | None] = (0, None)
        self._showing = threading.Lock()
        self._published = 0  # number of the answer that is on its topics
        self._retired = 0  # version of the last map that was replaced
        self._clearings = 0
        self._held: Query | None = None
        self._goals: deque[Answer] = deque(maxlen=1)  # answers whose goal is still to be published
        self._view: tuple[Frame, conversions.Header] | None = None
        self._segmented: tuple | None = None
        self._of_map = [
            LatchedOutput(node, conversions.PointCloud2, "~/map_cloud", self._build_map_cloud),
            LatchedOutput(node, conversions.Path, "~/keyframes", self._build_keyframes),
        ]
        self._of_answer = [
            LatchedOutput(node, conversions.PointCloud2, "~/query_cloud", self._build_query_cloud),
            LatchedOutput(node, conversions.String, "~/label_map", self._build_label_map),
            LatchedOutput(node, conversions.MarkerArray, "~/markers", self._build_markers),
            LatchedOutput(node, conversions.PoseArray, "~/object_poses", self._build_poses),
            LatchedOutput(node, conversions.OccupancyGrid, "~/query_grid", self._build_grid),
        ]
        vision = conversions.vision_messages()
        if vision is None:
            node.get_logger().info("vision_msgs is not installed: no ~/detections and ~/label_info")
        else:
            self._of_answer += [
                LatchedOutput(node, vision.Detection3DArray, "~/detections", self._build_detections),
                LatchedOutput(node, vision.LabelInfo, "~/label_info", self._build_label_info),
            ]
        # Not latched: a planner that starts later must not set off for what was asked long ago.
        self._goal = node.create_publisher(conversions.PoseStamped, "~/goal_pose", 1)
        types = dict(
            label=conversions.Image,
            score=conversions.Image,
            overlay=conversions.Image,
            camera_info=conversions.CameraInfo,
        )
        self._segmentation = {
            name: node.create_publisher(kind, f"~/segmentation/{name}", 1) for name, kind in types.items()
        }
        group = MutuallyExclusiveCallbackGroup()
        for period, update in ((1.0 / config.output.rate, self.update), (ANSWER_PERIOD, self._update_answer)):
            start_timer(node, period, update, "outputs", group)

    def configure(self, config: Config) -> None:
        """Takes new values of runtime parameters."""
        self._config = config

    @property
    def view(self) -> tuple[Frame, conversions.Header] | None:
        """The newest frame with its image's header."""
        return self._view

    def set_view(self, frame: Frame, header: conversions.Header) -> None:
        """Takes the newest camera view; segmentations are drawn in it."""
        self._view = (frame, header)

    @property
    def question(self) -> Query | None:
        """The query whose answer the topics show."""
        _, answer = self._shown
        return self._held if self._held is not None or answer is None else answer.result.query

    @property
    def wanted(self) -> bool:
        """Whether someone listens to a topic that shows the answer."""
        segmentation = self._segmentation.values()
        return any(o.wanted for o in self._of_answer) or any(p.get_subscription_count() for p in segmentation)

    def retire(self, snapshot: MapSnapshot | None) -> None:
        """Takes no more answers from this map nor from earlier ones, which are replaced, and forgets the one shown."""
        with self._showing:
            self._retired = snapshot.version if snapshot is not None else self._retired
            self._clear()

    def _clear(self) -> None:
        """Forgets the answer; latched topics say so to late joiners too."""
        self._shown = (self._shown[0] + 1, None)
        self._clearings += 1

    def hold(self, query: Query | None) -> None:
        """From now on the topics show answers to this query alone, see `show`, or (None) those of `~/query`."""
        with self._showing:
            self._held = query
            if self._shown[1] is not None:
                self._clear()

    def renew(self, query: Query) -> None:
        """Replaces the query of `hold` by the same one with other settings; the answer that is shown stays."""
        with self._showing:
            self._held = query

    def set_answer(self, answer: Answer) -> None:
        """Takes the newest answer of `~/query`, to be published soon but not before its service call returns."""
        self._goals.append(answer)
        if self._held is None:
            self.show(answer)

    def show(self, answer: Answer) -> None:
        """Takes what the topics show from now on; nothing of a map that was replaced or emptied since."""
        with self._showing:
            if self._is_current(answer):
                self._shown = (self._shown[0] + 1, answer)

    def _is_current(self, answer: Answer) -> bool:
        return answer.snapshot.version > self._retired

    def update(self) -> None:
        """Publishes what is new and subscribed to."""
        # The settings too: a change of runtime parameters changes what is built, though the map rests.
        snapshot, (number, answer), settings = self._worker.snapshot, self._shown, self._config.output
        if snapshot is not None or self._clearings:
            version = ("cleared", self._clearings) if snapshot is None else snapshot.version
            for output in self._of_map:
                output.update((version, settings), snapshot)
        if number:
            for output in self._of_answer:
                output.update((number, settings), answer)
        if answer is not None and snapshot is not None and self._view is not None:
            # A refined field belongs to the Gaussians of its own snapshot.
            drawn = snapshot if answer.result.field is None else answer.snapshot
            self._publish_segmentation(answer, number, drawn, *self._view)

    def _update_answer(self) -> None:
        """Publishes a new answer without waiting for the next regular update."""
        number, _ = self._shown
        if number != self._published:
            self._published = number
            self.update()
        while self._goals:
            self._publish_goal(self._goals.popleft())

    def _publish_goal(self, answer: Answer) -> None:
        if answer.result.objects and self._is_current(answer) and self._goal.get_subscription_count():
            pose = goal_pose(
                answer.result.objects[0], answer.snapshot.camtoworlds, self._config.output.stand_off
            )
            header = self.header(answer.snapshot)
            self._goal.publish(conversions.PoseStamped(header=header, pose=conversions.to_pose(pose)))

    def header(self, snapshot: MapSnapshot | None) -> conversions.Header:
        """The map's frame at the stamp of the newest keyframe."""
        stamp = float(snapshot.stamps[-1]) if snapshot is not None and len(snapshot.stamps) else 0.0
        return conversions.to_header(stamp, self._config.input.world_frame)

    def _build_map_cloud(self, snapshot: MapSnapshot | None) -> conversions.PointCloud2:
        if snapshot is None:
            return _no_points(self.header(None))
        indices = point_cloud.visible_points(snapshot, self._config.output)
        points, rgb = point_cloud.point_columns(snapshot, indices)
        return conversions.to_cloud(points, rgb, self.header(snapshot))

    def _build_keyframes(self, snapshot: MapSnapshot | None) -> conversions.Path:
        if snapshot is None:
            return conversions.Path(header=self.header(None))
        return conversions.to_path(snapshot.camtoworlds, snapshot.stamps, self.header(snapshot))

    def _build_query_cloud(self, answer: Answer | None) -> conversions.PointCloud2:
        if answer is None:
            return _no_points(self.header(None), **NO_ANSWER)
        return self.build_answer_cloud(answer, labelled_only=False)

    def build_answer_cloud(self, answer: Answer, labelled_only: bool) -> conversions.PointCloud2:
        """The labelled cloud of an answer: all of the map, or only what carries a label."""
        snapshot, result, config = answer.snapshot, answer.result, self._config.output
        if labelled_only:
            labelled = np.flatnonzero(result.labels.cpu().numpy())
            indices = labelled[evenly_spaced_indices(len(labelled), config.max_points)]
        else:
            indices = point_cloud.visible_points(snapshot, config)
        points, base = point_cloud.point_columns(snapshot, indices)
        columns = point_cloud.answer_columns(result, indices, base)
        return conversions.to_cloud(points, columns.pop("rgb"), self.header(snapshot), **columns)

    def _build_label_map(self, answer: Answer | None) -> conversions.String:
        if answer is None:
            return conversions.to_label_map([], [], [], 0)
        result = answer.result
        found, presence = list(result.found), list(result.presence)
        return conversions.to_label_map(result.prompts, found, presence, result.map_version)

    def _build_markers(self, answer: Answer | None) -> conversions.MarkerArray:
        objects, snapshot = (answer.result.objects, answer.snapshot) if answer else ([], None)
        colors = pictures.label_colors(len(answer.result.prompts) if answer else 0)
        return conversions.to_markers(objects, colors, self.header(snapshot))

    def _build_poses(self, answer: Answer | None) -> conversions.PoseArray:
        objects, snapshot = (answer.result.objects, answer.snapshot) if answer else ([], None)
        return conversions.to_pose_array(objects, self.header(snapshot))

    def _build_detections(self, answer: Answer | None) -> Any:
        objects, snapshot = (answer.result.objects, answer.snapshot) if answer else ([], None)
        return conversions.to_detections(objects, self.header(snapshot))

    def _build_label_info(self, answer: Answer | None) -> Any:
        prompts, snapshot = (answer.result.prompts, answer.snapshot) if answer else ([], None)
        return conversions.to_label_info(prompts, self.header(snapshot))

    def _build_grid(self, answer: Answer | None) -> conversions.OccupancyGrid:
        points, scores, snapshot = np.zeros((0, 3)), np.zeros(0), None
        if answer is not None:
            snapshot = answer.snapshot
            indices = point_cloud.visible_points(snapshot, self._config.output)
            points, base = point_cloud.point_columns(snapshot, indices)
            columns = point_cloud.answer_columns(answer.result, indices, base)
            scores = np.where(columns["label"] > 0, columns["score"], 0.0)
        return conversions.to_grid(
            query_grid(points, scores, self._config.output.grid_resolution), self.header(snapshot)
        )

    def _publish_segmentation(
        self, answer: Answer, number: int, snapshot: MapSnapshot, frame: Frame, header: conversions.Header
    ) -> None:
        wanted = {name: p for name, p in self._segmentation.items() if p.get_subscription_count()}
        state = (number, snapshot.version, frame.stamp)
        if not wanted or state == self._segmented:
            return
        camera = frame.camera.fitted(self._config.map.image_size)
        labels, score = self._pipeline.render_labels(answer.result, camera, frame.camtoworld, snapshot)
        messages = {
            "camera_info": lambda: conversions.to_camera_info(camera, header),
            "label": lambda: conversions.to_image(labels.astype(np.uint8), "mono8", header),
            "score": lambda: conversions.to_image(score, "32FC1", header),
            "overlay": lambda: conversions.to_image(self._overlay(frame, labels, answer), "rgb8", header),
        }
        for name, publisher in wanted.items():
            publisher.publish(messages[name]())
        self._segmented = state

    @staticmethod
    def _overlay(frame: Frame, labels: np.ndarray, answer: Answer) -> np.ndarray:
        size = labels.shape[::-1]
        image = cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA)
        return pictures.overlay(image, labels)


def _no_points(header: conversions.Header, **columns: np.ndarray) -> conversions.PointCloud2:
    return conversions.to_cloud(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.uint8), header, **columns)
