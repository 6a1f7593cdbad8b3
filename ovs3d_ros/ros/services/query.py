"""`~/query`, `~/get_objects` and `~/encode_text`, which search the newest snapshot."""

from __future__ import annotations

import array
import contextlib
import dataclasses
import time

import numpy as np
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node

from ovs3d_interfaces.msg import ObjectRelation
from ovs3d_interfaces.srv import EncodeText, GetObjects, QueryText
from ovs3d_ros.config import Config
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.query.description import explain_missing
from ovs3d_ros.query.presence import VERDICTS
from ovs3d_ros.query.related import relate_objects
from ovs3d_ros.query.request import check_prompts
from ovs3d_ros.ros import conversions
from ovs3d_ros.ros.outputs.answers import Answer, AnswerStore
from ovs3d_ros.ros.outputs.messages import build_query_cloud, keyframe_stamp
from ovs3d_ros.ros.outputs.view import LatestView
from ovs3d_ros.ros.services import responses
from ovs3d_ros.ros.services.asking import Asking
from ovs3d_ros.ros.services.prompt import PromptTopic
from ovs3d_ros.types import Camera, MapSnapshot, Query, QueryResult, UserError
from ovs3d_ros.worker import MappingWorker

MODES = {QueryText.Request.RELEVANCY: "relevancy", QueryText.Request.ARGMAX: "argmax"}
MAX_MASKS = 64  # per query; each mask is rendered
STAMP_TOLERANCE = 1e-3  # seconds; clients may round stamps


class QueryServices:
    """Offers the services in their own callback group: one runs at a time, while the node maps."""

    def __init__(
        self,
        node: Node,
        config: Config,
        pipeline: Ovs3d,
        worker: MappingWorker,
        answers: AnswerStore,
        view: LatestView,
        asking: Asking,
    ):
        """Offers the services.

        Args:
            node: serves.
            config: size of masks, frame and limits of messages.
            pipeline: checks queries and renders masks.
            worker: has the newest snapshot.
            answers: receives the answers of `~/query`.
            view: the view of the default mask.
            asking: answers queries.
        """
        self._config = config
        self._asking = asking
        self._pipeline = pipeline
        self._worker = worker
        self._answers = answers
        self._view = view
        group = MutuallyExclusiveCallbackGroup()
        node.create_service(QueryText, "~/query", self._query, callback_group=group)
        responses.offer_service(node, GetObjects, "get_objects", self._get_objects, group)
        responses.offer_service(node, EncodeText, "encode_text", self._encode_text, group)
        PromptTopic(node, pipeline, worker, answers, asking, group)

    def configure(self, config: Config) -> None:
        """Uses new values of the runtime parameters."""
        self._config = config

    def _query(self, request: QueryText.Request, response: QueryText.Response) -> QueryText.Response:
        started = time.perf_counter()
        # A refinement takes seconds; the mapping thread does not pause for it.
        with contextlib.nullcontext() if request.refine else self._worker.priority.claim():
            response = responses.fill_response(self._answer_query, request, response)
        response.latency_ms = 1e3 * (time.perf_counter() - started)
        return response

    def _answer_query(self, request: QueryText.Request, response: QueryText.Response) -> None:
        query = self._to_query(request)
        snapshot = responses.require_features(self._worker)
        views = self._mask_views(request, snapshot) if request.masks else []
        answer = self._asking.answer(query, snapshot)
        result = answer.result
        response.error_code = QueryText.Response.OK
        response.header = self._asking.header()
        response.keyframe_stamp = conversions.to_time(keyframe_stamp(snapshot))
        if request.cloud:
            response.cloud = build_query_cloud(answer, response.header, self._config)
        response.map_version = result.map_version
        self._fill_presence(result, response)
        response.objects = self._asking.object_messages(answer, response.header)
        response.masks = [self._render_mask(answer, *view) for view in views]
        self._answers.add(answer)

    def _to_query(self, request: QueryText.Request) -> Query:
        """The checked query of a request.

        Raises:
            UserError: prompts, negatives, mode, threshold or region of interest that cannot be used.
        """
        low, high = request.roi_min, request.roi_max
        roi = np.array([[low.x, low.y, low.z], [high.x, high.y, high.z]])
        if (roi[0] > roi[1]).any():
            raise UserError(f"region of interest {roi.tolist()}: roi_min must not exceed roi_max")
        return self._pipeline.make_query(
            request.prompts,
            negatives=request.negatives,
            mode=mode_name(request.mode),
            threshold=None if request.threshold < 0 else float(request.threshold),
            max_instances=int(request.max_instances),
            roi=None if (roi[0] == roi[1]).all() else roi,
            refine=request.refine,
        )

    def _get_objects(self, request: GetObjects.Request, response: GetObjects.Response) -> None:
        if not 0 <= request.min_score <= 1:  # NaN too
            raise UserError(f"min_score {request.min_score} is not a relevancy; give 0..1")
        limit = int(request.max_instances)
        if request.prompts:
            query = self._pipeline.make_query(request.prompts, max_instances=limit)
        elif (last := self._answers.query) is not None:
            # A refinement takes seconds and would block ~/query: the shown question is repeated without it.
            query = dataclasses.replace(last, max_instances=limit, refine=False)
        else:
            raise UserError("no prompts: give some, or call ~/query first, whose prompts are used then")
        relate = _check_relate(list(request.relate), query)
        snapshot = responses.require_features(self._worker)
        answer = self._asking.answer(query, snapshot)
        result = answer.result
        response.header = self._asking.header()
        response.keyframe_stamp = conversions.to_time(keyframe_stamp(snapshot))
        response.map_version = result.map_version
        response.prompts = result.prompts
        self._fill_presence(result, response)
        items = self._asking.object_messages(answer, response.header)
        kept = [index for index, item in enumerate(items) if item.score >= request.min_score]
        response.objects = [items[index] for index in kept]
        number = {index: position for position, index in enumerate(kept)}
        related = relate_objects(relate, result, snapshot, self._pipeline.config.query)
        response.relations = [
            ObjectRelation(thing=number[thing], relation=relation, place=number[place])
            for thing, relation, place in related
            if thing in number and place in number
        ]

    def _fill_presence(self, result: QueryResult, response: QueryText.Response | GetObjects.Response) -> None:
        """Fills in the presence decision of each prompt, and what there is to say about it."""
        response.found = [bool(f) for f in result.found]
        response.presence = [float(p) for p in result.presence]
        # The constants NO, UNSURE and YES are the indices in VERDICTS.
        response.verdict = [VERDICTS.index(verdict) for verdict in result.verdicts]
        response.observed = result.observed
        notes = explain_missing(result, self._pipeline.config.query)
        response.notes = [notes.get(p, "") for p in range(len(result.prompts))]

    def _encode_text(self, request: EncodeText.Request, response: EncodeText.Response) -> None:
        embeddings = self._pipeline.encode_text(check_prompts(list(request.prompts)))
        response.encoder, response.dim = self._pipeline.queries.encoder_name, embeddings.shape[1]
        response.embeddings = array.array("f", embeddings.float().contiguous().numpy().tobytes())

    def _mask_views(
        self, request: QueryText.Request, snapshot: MapSnapshot
    ) -> list[tuple[Camera, np.ndarray, conversions.Header]]:
        """Camera, pose and header of each requested mask; by default of the newest view."""
        if not request.mask_stamps:
            if (view := self._view.get()) is None:
                return []
            camera = view.frame.camera.fitted(self._config.output.mask_size)
            return [(camera, view.frame.camtoworld, view.header)]
        if len(request.mask_stamps) > MAX_MASKS:
            raise UserError(f"{len(request.mask_stamps)} mask_stamps: at most {MAX_MASKS} per query")
        views = []
        for stamp in request.mask_stamps:
            seconds = conversions.to_seconds(stamp)
            nearest = int(np.abs(snapshot.stamps - seconds).argmin())
            if abs(snapshot.stamps[nearest] - seconds) > STAMP_TOLERANCE:
                raise UserError(
                    f"mask_stamps: no keyframe at {seconds:.3f} s; the nearest is at "
                    f"{snapshot.stamps[nearest]:.3f} s"
                )
            header = conversions.Header(stamp=stamp, frame_id=self._config.input.world_frame)
            camera = self._view.full_camera(snapshot.cameras[nearest]).fitted(self._config.output.mask_size)
            views.append((camera, snapshot.camtoworlds[nearest], header))
        return views

    def _render_mask(
        self, answer: Answer, camera: Camera, camtoworld: np.ndarray, header: conversions.Header
    ) -> conversions.Image:
        labels, _ = self._pipeline.render_labels(answer.result, camera, camtoworld, answer.snapshot)
        return conversions.to_image(labels.astype(np.uint8), "mono8", header)


def _check_relate(names: list[str], query: Query) -> list[str]:
    """The names whose objects are related to others.

    Raises:
        UserError: one is none of the prompts.
    """
    names = check_prompts(names, "name to relate") if names else []
    prompts = {prompt.casefold() for prompt in query.prompts}
    for name in names:
        if name.casefold() not in prompts:
            raise UserError(f"relate: {name!r} is none of the prompts; add it to them")
    return names


def mode_name(mode: int) -> str:
    """The mode of `Ovs3d.query` for the number in a request.

    Raises:
        UserError: there is no such mode.
    """
    if mode not in MODES:
        raise UserError(f"mode {mode} is unknown; use RELEVANCY (0) or ARGMAX (1)")
    return MODES[mode]
