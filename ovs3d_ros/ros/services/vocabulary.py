"""`~/set_vocabulary`: names that the node searches for again whenever the map has changed."""

from __future__ import annotations

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node

from ovs3d_interfaces.srv import GetNames, SetVocabulary
from ovs3d_ros.config import Config
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.query.request import MODES, check_names, check_prompts
from ovs3d_ros.ros.callbacks import start_timer
from ovs3d_ros.ros.outputs.answers import AnswerStore
from ovs3d_ros.ros.outputs.publishers import Outputs
from ovs3d_ros.ros.services import responses
from ovs3d_ros.ros.services.asking import Asking
from ovs3d_ros.ros.services.query import mode_name
from ovs3d_ros.types import Query
from ovs3d_ros.worker import MappingWorker


class Vocabulary:
    """Searches for the vocabulary whenever the map has changed, at most at `output.rate`, for subscribers."""

    def __init__(
        self,
        node: Node,
        config: Config,
        pipeline: Ovs3d,
        worker: MappingWorker,
        answers: AnswerStore,
        outputs: Outputs,
        asking: Asking,
    ):
        """Offers the services and starts with `output.vocabulary`.

        Args:
            node: serves.
            config: the first vocabulary, and the rate.
            pipeline: checks queries.
            worker: has the newest snapshot.
            answers: receives the answers.
            outputs: knows whether a topic that shows answers has subscribers.
            asking: answers queries.

        Raises:
            UserError: see `check_names`.
        """
        self._log = node.get_logger()
        self._pipeline = pipeline
        self._worker = worker
        self._answers = answers
        self._outputs = outputs
        self._asking = asking
        self._names: list[str] = []
        self._mode = MODES[0]
        self._searched_version = 0  # of the map
        group = MutuallyExclusiveCallbackGroup()
        responses.offer_service(node, SetVocabulary, "set_vocabulary", self._on_request, group)
        responses.offer_service(node, GetNames, "get_names", self._get_names, group)
        start_timer(node, 1.0 / config.output.rate, self._search, "vocabulary", group)
        if names := check_names(config.output.vocabulary, "output.vocabulary"):
            self._set_names(names, "relevancy")

    def configure(self, config: Config) -> None:
        """Searches again: the runtime parameters have changed, and may change the answer."""
        self._searched_version = 0
        if self._names:
            self._answers.update_vocabulary(self._make_query())

    def _on_request(self, request: SetVocabulary.Request, response: SetVocabulary.Response) -> None:
        names, mode = list(request.names), mode_name(request.mode)
        self._set_names(check_prompts(names, "name") if names else [], mode)
        self._log.info(f"vocabulary on request: {', '.join(names) or 'none'}")

    def _get_names(self, request: GetNames.Request, response: GetNames.Response) -> None:
        snapshot = self._worker.snapshot
        response.vocabulary = self._names
        if snapshot is not None and snapshot.refined is not None:
            response.refined = list(snapshot.refined.names)
        response.common = list(self._pipeline.queries.common_names())

    def _set_names(self, names: list[str], mode: str) -> None:
        self._pipeline.encode_text(names)
        self._names, self._mode, self._searched_version = names, mode, 0
        self._answers.set_vocabulary(self._make_query() if names else None)

    def _make_query(self) -> Query:
        return self._pipeline.make_query(self._names, mode=self._mode)

    def _search(self) -> None:
        """Searches the newest map if it has changed and a topic that shows answers has subscribers."""
        snapshot = self._worker.snapshot
        if not self._names or snapshot is None or snapshot.num_gaussians == 0 or snapshot.codec is None:
            return
        watched = self._outputs.has_answer_subscribers or self._asking.has_subscribers
        if snapshot.version == self._searched_version or not watched:
            return
        self._searched_version = snapshot.version
        self._answers.show(self._asking.answer(self._make_query(), snapshot))
