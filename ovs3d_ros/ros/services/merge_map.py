"""`~/merge_map`: puts a map file into the map that grows.

The service's thread reads the file, looks for its place and prepares it, while mapping goes on. The mapping
thread then joins both, which takes 3 seconds for two maps of 100,000 Gaussians.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node

from ovs3d_interfaces.srv import MergeMap
from ovs3d_ros.config import Config
from ovs3d_ros.map_file import load_map
from ovs3d_ros.merging.live import PreparedMap, merge_into, prepare
from ovs3d_ros.merging.merge import StoredMap, on_host, same_frame_motion
from ovs3d_ros.merging.registration import register
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.rasterize import make_rasterizer
from ovs3d_ros.ros import conversions
from ovs3d_ros.ros.services import responses
from ovs3d_ros.ros.services.map_folder import MAP_SUFFIX, MapFolder
from ovs3d_ros.ros.services.maps import TIMEOUT, check_world_frame
from ovs3d_ros.types import MapSnapshot, UserError
from ovs3d_ros.worker import MappingWorker

_LIVE = "the map of this node"
_OTHER_FRAME = "give place TRANSFORM (1) and the transform, or ALIGN (2)"


class MergeService:
    """Offers the service in its own callback group: finding the place of a map takes many seconds."""

    def __init__(self, node: Node, config: Config, pipeline: Ovs3d, worker: MappingWorker):
        """Offers the service."""
        self._node = node
        self._config = config
        self._pipeline = pipeline
        self._worker = worker
        self._folder = MapFolder(config.map.directory)
        group = MutuallyExclusiveCallbackGroup()
        responses.offer_service(node, MergeMap, "merge_map", self._merge, group)

    def _merge(self, request: MergeMap.Request, response: MergeMap.Response) -> None:
        path = self._folder.source(request.name, MAP_SUFFIX)
        if self._worker.snapshot is None:
            raise responses.NoMap("there is no map to merge into yet; call ~/load_map instead")
        other = StoredMap(*load_map(path, training=True), request.name)
        replaced, lacks_images, live = self._worker.run(self._copy_map, TIMEOUT)
        rasterizer = make_rasterizer("cpu")
        response.confidence = 1.0
        if request.place == MergeMap.Request.SAME_FRAME:
            check_world_frame(path, other.snapshot, self._config, _OTHER_FRAME)
            motion = same_frame_motion(live, other)
        elif request.place == MergeMap.Request.TRANSFORM:
            motion = conversions.from_transform(request.transform, "transform")
        elif request.place == MergeMap.Request.ALIGN:
            found = register(live, other, rasterizer)
            motion, response.confidence = found.motion, found.confidence
        else:
            raise UserError(f"place {request.place}: give SAME_FRAME (0), TRANSFORM (1) or ALIGN (2)")
        prepared = prepare(live, other, motion, rasterizer, lacks_images)
        figures, merged = self._worker.run(lambda: self._join(prepared, replaced), TIMEOUT)
        self._report(response, motion, figures, merged)

    def _copy_map(self) -> tuple[int, bool, StoredMap]:
        """How often the map was replaced so far, whether it lacks images, and a copy of it.

        A job of the mapping thread.
        """
        live = on_host(StoredMap(*self._pipeline.freeze(), _LIVE))
        return self._worker.num_replacements, self._pipeline.map.lacks_images, live

    def _join(self, prepared: PreparedMap, replaced: int) -> tuple[dict[str, Any], MapSnapshot]:
        """Puts the prepared map into the present one; a job of the mapping thread.

        Raises:
            UserError: it does not fit. The map is unchanged.
        """
        if replaced != self._worker.num_replacements:
            raise UserError(f"{_LIVE} was replaced meanwhile, and is unchanged; call again")
        figures = merge_into(self._pipeline.map, prepared, self._pipeline.config)
        self._worker.training.retrain(self._worker.config.train.steps_per_keyframe)
        self._worker.publish()
        assert self._worker.snapshot is not None, "a map was just published"
        return figures, self._worker.snapshot

    def _report(
        self,
        response: MergeMap.Response,
        motion: np.ndarray,
        figures: dict[str, Any],
        merged: MapSnapshot,
    ) -> None:
        response.map_version, response.num_gaussians = merged.version, merged.num_gaussians
        response.num_keyframes, response.num_fused = len(merged.names), figures["fused"]
        response.transform = conversions.to_transform(motion, conversions.Header(), "").transform
        text = (
            f"merged: {merged.num_gaussians} Gaussians, {figures['fused']} fused, "
            f"{len(merged.names)} keyframes"
        )
        if figures["refined_dropped"]:
            text += "; the refined field of the file is left out, call ~/refine again"
        if figures["images_dropped"]:
            text += "; the images of its keyframes are left out, because this map was loaded without its own"
        self._node.get_logger().info(text)
