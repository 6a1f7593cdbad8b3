"""`~/prompt`: asks by topic, from Foxglove, a voice node or `ros2 topic pub`."""

from __future__ import annotations

from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node

from ovs3d_ros.pipeline import Ovs3d
from ovs3d_ros.ros import conversions
from ovs3d_ros.ros.callbacks import ErrorReporter
from ovs3d_ros.ros.outputs.answers import AnswerStore
from ovs3d_ros.ros.services import responses
from ovs3d_ros.ros.services.asking import Asking
from ovs3d_ros.types import UserError
from ovs3d_ros.worker import MappingWorker

QUEUE = 10  # messages


class PromptTopic:
    """Answers each message like a `~/query` with default settings; the answer is on the output topics."""

    def __init__(
        self,
        node: Node,
        pipeline: Ovs3d,
        worker: MappingWorker,
        answers: AnswerStore,
        asking: Asking,
        group: CallbackGroup,
    ):
        """Subscribes; `group` is that of the other queries, so that one is answered at a time."""
        self._log = node.get_logger()
        self._pipeline = pipeline
        self._worker = worker
        self._answers = answers
        self._asking = asking
        self._errors = ErrorReporter("~/prompt")
        node.create_subscription(conversions.String, "~/prompt", self._receive, QUEUE, callback_group=group)

    def _receive(self, message: conversions.String) -> None:
        try:
            with self._worker.priority.claim():
                self._answer([name.strip() for name in message.data.split(",")])
        except (UserError, responses.NoMap) as error:
            self._log.warning(f"~/prompt: {error}")
        except Exception as error:  # logged: one question must not end the process
            self._errors.report(error)

    def _answer(self, names: list[str]) -> None:
        query = self._pipeline.make_query(names)
        answer = self._asking.answer(query, responses.require_features(self._worker))
        self._answers.add(answer)
        outcome = ", ".join(
            f"{name} {verdict}"
            for name, verdict in zip(answer.result.prompts, answer.result.verdicts, strict=True)
        )
        self._log.info(f"~/prompt: {outcome}; {len(answer.result.objects)} objects")
