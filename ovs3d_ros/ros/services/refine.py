"""The action `~/refine`: refines the labels of the map for given names while mapping continues."""

from __future__ import annotations

import threading
import time

from rclpy.action import ActionServer, CancelResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node

from ovs3d_interfaces.action import Refine
from ovs3d_ros.query.request import check_prompts
from ovs3d_ros.ros.goals import begin_goal, end_goal
from ovs3d_ros.ros.services import responses
from ovs3d_ros.types import RefineStep, UserError
from ovs3d_ros.worker import MappingWorker, MapRefiner

TIMEOUT = 60.0  # seconds to wait for the mapping thread
CLOSE_TIMEOUT = 30.0  # seconds a refinement has to end when the node cleans up
NAN = float("nan")


class RefineAction:
    """Runs one refinement at a time. Accepts all goals, so a refusal gives its reason in the result.

    rclpy executes each goal on a separate thread of the executor; the callback group only receives goals and
    cancellations. The action exists as long as the node, because rclpy cannot destroy an action server while
    an executor waits for it.
    """

    def __init__(self, node: Node):
        """Offers the action. Goals are refused until `attach`."""
        self._log = node.get_logger()
        self._worker: MappingWorker | None = None
        self._refiner: MapRefiner | None = None
        self._running = threading.Lock()
        self._closing = False
        self._server = ActionServer(
            node,
            Refine,
            "~/refine",
            self._execute,
            callback_group=MutuallyExclusiveCallbackGroup(),
            handle_accepted_callback=begin_goal,
            cancel_callback=lambda _: CancelResponse.ACCEPT,
        )

    def attach(self, worker: MappingWorker, refiner: MapRefiner) -> None:
        """Refines the map of this worker from now on."""
        self._worker, self._refiner, self._closing = worker, refiner, False

    def detach(self) -> None:
        """Stops a running refinement and waits for its end; goals are refused afterwards."""
        self._worker, self._refiner, self._closing = None, None, True
        if self._running.acquire(timeout=CLOSE_TIMEOUT):
            self._running.release()
        else:
            self._log.error(f"the refinement did not end within {CLOSE_TIMEOUT:.0f} s")

    def _execute(self, goal: ServerGoalHandle) -> Refine.Result:
        if not self._running.acquire(blocking=False):
            end_goal(goal, goal.abort)
            busy = "another refinement runs; wait for its result or cancel it"
            return Refine.Result(error_code=Refine.Result.BUSY, error_msg=busy, before=NAN, after=NAN)
        try:
            result = responses.fill_response(
                lambda _, response: self._refine(goal, response), goal.request, Refine.Result()
            )
            if result.error_code != Refine.Result.OK:
                result.before = result.after = NAN
            self._end(goal, result)
            return result
        finally:
            self._running.release()

    def _end(self, goal: ServerGoalHandle, result: Refine.Result) -> None:
        """Sets and logs the final state of the goal."""
        if result.error_code == Refine.Result.OK:
            end_goal(goal, goal.succeed)
            self._log.info(f"refinement for {', '.join(goal.request.names)}: {result.message}")
            return
        if result.error_code == Refine.Result.CANCELLED and goal.is_cancel_requested:
            end_goal(goal, goal.canceled)
        else:
            end_goal(goal, goal.abort)
        self._log.info(f"refinement: {result.error_msg}")

    def _refine(self, goal: ServerGoalHandle, response: Refine.Result) -> None:
        names, worker = check_prompts(list(goal.request.names), "name"), self._worker
        refiner = self._refiner
        if worker is None or refiner is None:
            raise responses.NoMap("no map: the node is not configured; configure and activate it first")
        responses.require_features(worker)
        progress = Progress(goal, worker)

        def on_step(step: RefineStep) -> bool:
            if self._closing or goal.is_cancel_requested:
                return False
            progress.publish(step)
            return True

        step, snapshot = refiner.refine(names, on_step, TIMEOUT)
        if step.stage != "done" or self._closing or (goal.is_cancel_requested and snapshot is None):
            response.error_code = Refine.Result.CANCELLED
            response.error_msg = (
                "the node is shutting the map down"
                if self._closing
                else "cancelled; the map keeps its labels"
            )
            return
        if step.kept and snapshot is None:
            raise UserError(
                "the map was replaced during the refinement (reset or load_map); refine the new map"
            )
        response.accepted, response.message = snapshot is not None, step.message
        response.map_version = snapshot.version if snapshot is not None else 0
        response.checked_views = step.figures.get("checked", 0)
        response.before, response.after = (
            step.figures[name]["objective"] if response.checked_views else NAN for name in ("before", "after")
        )
        response.labels_changed = step.figures["labels_changed"]


class Progress:
    """Publishes the steps of one refinement as feedback."""

    def __init__(self, goal: ServerGoalHandle, worker: MappingWorker):
        """Starts the clock."""
        self._goal = goal
        self._worker = worker
        self._started = self._stage_started = self._last = time.monotonic()
        self._stage = ""

    def publish(self, step: RefineStep) -> None:
        """Publishes stage, step, objective and the estimated time to the end of the stage."""
        now = time.monotonic()
        if step.stage != self._stage:
            # The first step of the stage ends now and began at the last feedback.
            self._stage, self._stage_started = step.stage, self._last
        self._last = now
        eta = (now - self._stage_started) / step.step * (step.total - step.step) if step.step else NAN
        losses = step.figures.get("after", step.figures)
        self._goal.publish_feedback(
            Refine.Feedback(
                stage=step.stage,
                step=step.step,
                steps=step.total,
                elapsed=now - self._started,
                eta=eta,
                loss=losses.get("objective", NAN),
                psnr=self._worker.stats()["psnr"],
            )
        )
