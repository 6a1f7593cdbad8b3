"""`~/show_view`: a picture of the keyframe's view that shows an answer best."""

from __future__ import annotations

import array

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node

from ovs3d_interfaces.srv import ShowView
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.ros import conversions
from ovs3d_ros.ros.services import responses
from ovs3d_ros.ros.services.asking import Asking
from ovs3d_ros.types import UserError
from ovs3d_ros.visualization.answer_views import PICTURE_WIDTH, picture_answer
from ovs3d_ros.worker import MappingWorker

_WIDTHS = 64, 4096  # px


class ViewService:
    """Offers the service in its own callback group: dozens of renders must not hold up `~/query`."""

    def __init__(self, node: Node, pipeline: Ovs3d, worker: MappingWorker, asking: Asking):
        """Offers the service.

        Args:
            node: serves.
            pipeline: answers and renders.
            worker: has the newest snapshot.
            asking: has the header of answers.
        """
        self._pipeline = pipeline
        self._worker = worker
        self._asking = asking
        group = MutuallyExclusiveCallbackGroup()
        responses.offer_service(node, ShowView, "show_view", self._show, group)

    def _show(self, request: ShowView.Request, response: ShowView.Response) -> None:
        width = request.width or PICTURE_WIDTH
        if not _WIDTHS[0] <= width <= _WIDTHS[1]:
            raise UserError(f"width {width}: give {_WIDTHS[0]} to {_WIDTHS[1]} pixels, or 0")
        query = self._pipeline.make_query(request.prompts)
        snapshot = responses.require_features(self._worker)
        with self._worker.priority.claim():
            result = self._pipeline.answer(query, snapshot)
            index, picture = picture_answer(self._pipeline, snapshot, result, width)
        response.header = self._asking.header()
        response.map_version = result.map_version
        response.keyframe_stamp = conversions.to_time(snapshot.stamps[index])
        response.view = conversions.to_pose(snapshot.camtoworlds[index])
        response.picture.header = response.header
        response.picture.format = "jpeg"
        response.picture.data = array.array("B", picture)
