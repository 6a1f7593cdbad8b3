"""The `~/query` service: validates, asks the newest snapshot, and answers in messages."""

from __future__ import annotations

import logging
import time
from typing import Any

import numpy as np
from ovs3d_interfaces.msg import SemanticObject as SemanticObjectMessage
from ovs3d_interfaces.srv import QueryText
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node

from ovs3d_ros.config import Config
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.query import check_prompts
from ovs3d_ros.ros import conversions
from ovs3d_ros.ros.publish import Answer, Outputs
from ovs3d_ros.types import Camera, MapSnapshot, SemanticObject, UserError
from ovs3d_ros.worker import MappingWorker

log = logging.getLogger(__name__)

MODES = {QueryText.Request.RELEVANCY: "relevancy", QueryText.Request.ARGMAX: "argmax"}
STAMP_TOLERANCE = 1e-3  # seconds: float64 stamps and clients' roundings


class QueryService:
    """Answers text queries from the newest snapshot, on a callback group of its own: mapping goes on."""

    def __init__(self, node: Node, config: Config, pipeline: Ovs3d, worker: MappingWorker, outputs: Outputs):
        """Offers the service."""
        self._config = config
        self._pipeline = pipeline
        self._worker = worker
        self._outputs = outputs
        self._service = node.create_service(
            QueryText, "~/query", self.answer, callback_group=MutuallyExclusiveCallbackGroup()
        )

    def answer(self, request: QueryText.Request, response: QueryText.Response) -> QueryText.Response:
        """Fills the response; never raises for what a client can get wrong."""
        started = time.perf_counter()
        try:
            self._fill(request, response)
        except UserError as error:
            response = _failure(QueryText.Response.BAD_REQUEST, str(error))
        except _NoMap as error:
            response = _failure(QueryText.Response.NO_MAP, str(error))
        except Exception as error:  # noqa: BLE001 - reported to the client and logged: the map must survive
            response = _fault(error)
        response.latency_ms = 1e3 * (time.perf_counter() - started)
        return response

    def _fill(self, request: QueryText.Request, response: QueryText.Response) -> None:
        arguments = _arguments(request)
        snapshot = self._worker.snapshot
        if snapshot is None or snapshot.num_gaussians == 0 or snapshot.codec is None:
            raise _NoMap("no map yet: no usable frame has arrived; /diagnostics says which input is missing")
        views = self._mask_views(request, snapshot)
        roi, max_instances = arguments.pop("roi"), arguments.pop("max_instances")
        prompts = arguments.pop("prompts")
        result = self._pipeline.query(
            prompts, roi=roi, max_instances=max_instances, snapshot=snapshot, **arguments
        )
        answer = Answer(result, snapshot, arguments)
        response.error_code = QueryText.Response.OK
        response.cloud = self._outputs.build_answer_cloud(answer, labelled_only=True)
        response.header = response.cloud.header
        response.map_version = result.map_version
        response.found = [bool(f) for f in result.found]
        response.presence = [float(p) for p in result.presence]
        response.objects = [_object_message(item, response.header) for item in result.objects]
        response.masks = [self._mask(answer, *view) for view in views]
        self._outputs.set_answer(answer)

    def _mask_views(
        self, request: QueryText.Request, snapshot: MapSnapshot
    ) -> list[tuple[Camera, np.ndarray, conversions.Header]]:
        """Camera, pose and header of each mask asked for; by default of the newest camera pose."""
        if not request.mask_stamps:
            if self._outputs.view is None:
                return []
            frame, header = self._outputs.view
            return [(frame.camera.fitted(self._config.map.image_size), frame.camtoworld, header)]
        views = []
        for stamp in request.mask_stamps:
            seconds = conversions.to_seconds(stamp)
            i = int(np.abs(snapshot.stamps - seconds).argmin())
            if abs(snapshot.stamps[i] - seconds) > STAMP_TOLERANCE:
                raise UserError(
                    f"mask_stamps: no keyframe at {seconds:.3f} s; the nearest is at "
                    f"{snapshot.stamps[i]:.3f} s"
                )
            header = conversions.Header(stamp=stamp, frame_id=self._config.input.world_frame)
            views.append((snapshot.cameras[i], snapshot.camtoworlds[i], header))
        return views

    def _mask(
        self, answer: Answer, camera: Camera, camtoworld: np.ndarray, header: conversions.Header
    ) -> conversions.Image:
        if bool((answer.result.labels > 0).any()):
            labels, _ = self._pipeline.render_labels(
                answer.result, camera, camtoworld, answer.snapshot, **answer.settings
            )
        else:  # nothing is labelled: no view can show a label
            labels = np.zeros((camera.height, camera.width))
        return conversions.to_image(labels.astype(np.uint8), "mono8", header)


class _NoMap(Exception):
    """There is nothing to ask yet."""


def _fault(error: Exception) -> QueryText.Response:
    """The answer when the query broke: memory, or a bug, which must not take the map down with it."""
    if isinstance(error, MemoryError) or "out of memory" in str(error):
        return _failure(
            QueryText.Response.OUT_OF_MEMORY,
            "out of memory; ask for fewer prompts at once or lower map.max_gaussians",
        )
    log.exception("the query failed")
    return _failure(
        QueryText.Response.BAD_REQUEST,
        f"the query failed ({type(error).__name__}: {error}); see the node's log",
    )


def _failure(code: int, message: str) -> QueryText.Response:
    return QueryText.Response(error_code=code, error_msg=message)


def _arguments(request: QueryText.Request) -> dict[str, Any]:
    """The request as arguments of `Ovs3d.query`.

    Raises:
        UserError: prompts, mode, threshold or region of interest that cannot be used, or `refine`.
    """
    prompts = check_prompts(list(request.prompts))
    negatives = check_prompts(list(request.negatives), "negative") if request.negatives else None
    if request.mode not in MODES:
        raise UserError(f"mode {request.mode} is unknown; use RELEVANCY (0) or ARGMAX (1)")
    threshold = float(request.threshold)
    if not threshold <= 1.0:  # NaN too
        raise UserError(
            f"threshold {threshold} is not a relevancy; give 0..1, or below 0 for the calibrated one"
        )
    if request.refine:
        raise UserError("refine: query-time refinement is not part of this version; ask with refine=false")
    low, high = request.roi_min, request.roi_max
    roi = np.array([[low.x, low.y, low.z], [high.x, high.y, high.z]])
    if not np.isfinite(roi).all() or (roi[0] > roi[1]).any():
        raise UserError(
            f"region of interest {roi.tolist()}: roi_min must not exceed roi_max and both be finite"
        )
    return dict(
        prompts=prompts,
        negatives=negatives,
        mode=MODES[request.mode],
        threshold=threshold if threshold >= 0 else None,
        max_instances=int(request.max_instances),
        roi=None if (roi[0] == roi[1]).all() else roi,
    )


def _object_message(item: SemanticObject, header: conversions.Header) -> SemanticObjectMessage:
    pose, size = conversions.to_box(item.center, item.quat, item.size)
    return SemanticObjectMessage(
        header=header,
        label=item.prompt,
        instance=item.instance,
        score=float(item.score),
        pose=pose,
        size=size,
        num_gaussians=int(item.num_gaussians),
        observed_views=int(item.views),
    )
