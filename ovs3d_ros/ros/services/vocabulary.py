"""`~/set_vocabulary`: names that are asked for again whenever the map has changed, for who watches the topics."""

from __future__ import annotations

import functools

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node

from ovs3d_interfaces.srv import SetVocabulary
from ovs3d_ros.config import Config
from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.query.request import MODES, check_prompts
from ovs3d_ros.ros.callbacks import start_timer
from ovs3d_ros.ros.outputs.publishers import Answer, Outputs
from ovs3d_ros.ros.services import responses
from ovs3d_ros.ros.services.query import mode_name
from ovs3d_ros.types import Query, UserError
from ovs3d_ros.worker import MappingWorker


def check_vocabulary(config: Config) -> list[str]:
    """The names of `output.vocabulary`; none for one empty name.

    Raises:
        UserError: they cannot be asked for.
    """
    names = list(config.output.vocabulary)
    try:
        return check_prompts(names, "name") if any(names) else []
    except UserError as error:
        raise UserError(f"output.vocabulary: {error}") from None


class Vocabulary:
    """Asks for the vocabulary at most at `output.rate`, only of a map that changed, and only while someone listens."""

    def __init__(self, node: Node, config: Config, pipeline: Ovs3d, worker: MappingWorker, outputs: Outputs):
        """Offers the service and starts with `output.vocabulary`; raises as `check_vocabulary` does."""
        self._log = node.get_logger()
        self._pipeline = pipeline
        self._worker = worker
        self._outputs = outputs
        self._names: list[str] = []
        self._mode = MODES[0]
        self._shown = 0  # version of the map that was asked last
        group = MutuallyExclusiveCallbackGroup()
        node.create_service(
            SetVocabulary,
            "~/set_vocabulary",
            functools.partial(responses.fill_response, self._set),
            callback_group=group,
        )
        start_timer(node, 1.0 / config.output.rate, self.update, "vocabulary", group)
        if names := check_vocabulary(config):
            self._take(names, "relevancy")

    def configure(self, config: Config) -> None:
        """After a change of runtime parameters: the same map may have another answer."""
        self._shown = 0
        if self._names:
            self._outputs.renew(self._make_query())

    def _set(self, request: SetVocabulary.Request, response: SetVocabulary.Response) -> None:
        names, mode = list(request.names), mode_name(request.mode)
        self._take(check_prompts(names, "name") if names else [], mode)
        self._log.info(f"vocabulary on request: {', '.join(names) or 'none'}")

    def _take(self, names: list[str], mode: str) -> None:
        self._pipeline.encode_text(names)
        self._names, self._mode, self._shown = names, mode, 0
        self._outputs.hold(self._make_query() if names else None)

    def _make_query(self) -> Query:
        return self._pipeline.make_query(self._names, mode=self._mode)

    def update(self) -> None:
        """Asks the newest map, if it is another than before and someone listens."""
        snapshot = self._worker.snapshot
        nothing = snapshot is None or snapshot.num_gaussians == 0 or snapshot.codec is None
        if not self._names or nothing or snapshot.version == self._shown or not self._outputs.wanted:
            return
        self._shown = snapshot.version
        self._outputs.show(Answer(self._pipeline.answer(self._make_query(), snapshot), snapshot))
