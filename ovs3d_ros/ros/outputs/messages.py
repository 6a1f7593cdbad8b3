"""Builds the messages of the output topics from a snapshot or an answer; None gives an empty message.

The header of each message is that of `map_header`: a static map holds at the time of publication, and tf2
forgets the times of old keyframes after ten seconds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from rclpy.clock import Clock

from ovs3d_ros.config import Config
from ovs3d_ros.map_frame import points_to_world, without_origin
from ovs3d_ros.query.navigation import query_grid
from ovs3d_ros.ros import conversions
from ovs3d_ros.ros.outputs import detections
from ovs3d_ros.ros.outputs.answers import Answer
from ovs3d_ros.ros.outputs.origin import cloud_frame
from ovs3d_ros.sampling import evenly_spaced_indices
from ovs3d_ros.types import MapSnapshot, SemanticObject
from ovs3d_ros.visualization import pictures, point_cloud

NO_LABELS = dict(label=np.zeros(0, np.uint32), instance=np.zeros(0, np.uint32), score=np.zeros(0, np.float32))


def map_header(clock: Clock, config: Config) -> conversions.Header:
    """The map's frame at the present time of the node's clock."""
    return conversions.Header(stamp=clock.now().to_msg(), frame_id=config.input.world_frame)


def keyframe_stamp(snapshot: MapSnapshot | None) -> float:
    """The stamp of the newest keyframe in seconds; 0 without keyframes."""
    return float(np.max(snapshot.stamps)) if snapshot is not None and len(snapshot.stamps) else 0.0


def build_map_cloud(
    snapshot: MapSnapshot | None, header: conversions.Header, config: Config
) -> conversions.PointCloud2:
    """`~/map_cloud`: the Gaussians' centres and colours."""
    if snapshot is None:
        return _empty_cloud(header)
    indices = point_cloud.visible_points(snapshot, config.output)
    points, rgb = point_cloud.point_columns(snapshot, indices)
    points = points_to_world(points, without_origin(snapshot.frame))
    return conversions.to_cloud(points, rgb, _cloud_header(snapshot, header, config))


def build_keyframes(
    snapshot: MapSnapshot | None, header: conversions.Header, config: Config
) -> conversions.Path:
    """`~/keyframes`: the poses of the keyframes."""
    if snapshot is None:
        return conversions.Path(header=header)
    return conversions.to_path(snapshot.camtoworlds, snapshot.stamps, header)


def build_query_cloud(
    answer: Answer | None, header: conversions.Header, config: Config
) -> conversions.PointCloud2:
    """`~/query_cloud` and the cloud in a response of `~/query`: the labelled points.

    The other points are those of `~/map_cloud`: a second copy in the same places would flicker in RViz.
    """
    if answer is None:
        return _empty_cloud(header, **NO_LABELS)
    labelled = np.flatnonzero(answer.result.labels.cpu().numpy())
    indices = labelled[evenly_spaced_indices(len(labelled), config.output.max_points)]
    points, base = point_cloud.point_columns(answer.snapshot, indices)
    columns = point_cloud.answer_columns(answer.result, indices, base)
    points = points_to_world(points, without_origin(answer.snapshot.frame))
    return conversions.to_cloud(
        points, columns.pop("rgb"), _cloud_header(answer.snapshot, header, config), **columns
    )


def _cloud_header(snapshot: MapSnapshot, header: conversions.Header, config: Config) -> conversions.Header:
    return conversions.Header(stamp=header.stamp, frame_id=cloud_frame(snapshot, config))


def _empty_cloud(header: conversions.Header, **columns: np.ndarray) -> conversions.PointCloud2:
    points, rgb = np.zeros((0, 3), np.float32), np.zeros((0, 3), np.uint8)
    return conversions.to_cloud(points, rgb, header, **columns)


def build_label_map(answer: Answer | None, header: conversions.Header, config: Config) -> conversions.String:
    """`~/label_map`: the prompt of each label as JSON."""
    if answer is None:
        return conversions.to_label_map([], [], [], 0, 0.0)
    result = answer.result
    return conversions.to_label_map(
        list(result.prompts),
        list(result.found),
        list(result.presence),
        result.map_version,
        keyframe_stamp(answer.snapshot),
    )


def build_markers(
    answer: Answer | None, header: conversions.Header, config: Config
) -> conversions.MarkerArray:
    """`~/markers`: boxes and names of the objects for RViz."""
    colors = pictures.label_colors(len(answer.result.prompts) if answer else 0)
    return conversions.to_markers(_objects(answer), colors, header)


def build_object_poses(
    answer: Answer | None, header: conversions.Header, config: Config
) -> conversions.PoseArray:
    """`~/object_poses`: centre and axes of the objects' boxes."""
    return conversions.to_pose_array(_objects(answer), header)


def build_detections(answer: Answer | None, header: conversions.Header, config: Config) -> Any:
    """`~/detections`: the objects as a vision_msgs/Detection3DArray."""
    ids = [track.id for track in answer.tracks] if answer is not None else []
    return detections.to_detections(_objects(answer), ids, header)


def build_label_info(answer: Answer | None, header: conversions.Header, config: Config) -> Any:
    """`~/label_info`: the prompt of each label as vision_msgs/LabelInfo."""
    prompts = list(answer.result.prompts) if answer else []
    return detections.to_label_info(prompts, header)


def build_grid(
    answer: Answer | None, header: conversions.Header, config: Config
) -> conversions.OccupancyGrid:
    """`~/query_grid`: the best score of the labelled points over each cell of the ground."""
    points, scores = np.zeros((0, 3)), np.zeros(0)
    if answer is not None:
        indices = point_cloud.visible_points(answer.snapshot, config.output)
        points, base = point_cloud.point_columns(answer.snapshot, indices)
        columns = point_cloud.answer_columns(answer.result, indices, base)
        points = points_to_world(points, answer.snapshot.frame)
        scores = np.where(columns["label"] > 0, columns["score"], 0.0)
    grid = query_grid(points, scores, config.output.grid_resolution)
    return conversions.to_grid(grid, header)


def build_goal_arrow(
    goal: np.ndarray | None, header: conversions.Header, config: Config
) -> conversions.Marker:
    """`~/goal_marker`: a goal pose [4, 4] as an arrow, which unlike a pose can be deleted in RViz."""
    return conversions.to_arrow(goal, header)


def _objects(answer: Answer | None) -> list[SemanticObject]:
    return answer.result.objects if answer is not None else []
