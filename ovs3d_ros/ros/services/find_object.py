"""The action `~/find_object`: asks the growing map until one of the prompts is found, for behaviour trees."""

from __future__ import annotations

import math
import threading
import time

from rclpy.action import ActionServer, CancelResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node

from ovs3d_interfaces.action import FindObject
from ovs3d_ros.query.request import check_prompts
from ovs3d_ros.ros import conversions
from ovs3d_ros.ros.goals import begin_goal, end_goal
from ovs3d_ros.ros.outputs.answers import Answer
from ovs3d_ros.ros.services import responses
from ovs3d_ros.ros.session import MappingSession
from ovs3d_ros.types import UserError

POLL = 0.2  # seconds between looks at the map, which changes at most a few times per second
CLOSE_TIMEOUT = 30.0  # seconds a search has to end when the node cleans up


class FindObjectAction:
    """Runs one search at a time. Accepts all goals, so a refusal gives its reason in the result.

    Like `RefineAction` it exists as long as the node, and rclpy executes each goal on a separate thread.
    """

    def __init__(self, node: Node):
        """Offers the action. Goals are refused until `attach`."""
        self._log = node.get_logger()
        self._session: MappingSession | None = None
        self._running = threading.Lock()
        self._closing = threading.Event()
        self._server = ActionServer(
            node,
            FindObject,
            "~/find_object",
            self._execute,
            callback_group=MutuallyExclusiveCallbackGroup(),
            handle_accepted_callback=begin_goal,
            cancel_callback=lambda _: CancelResponse.ACCEPT,
        )

    def attach(self, session: MappingSession) -> None:
        """Searches the map of this session from now on."""
        self._session = session
        self._closing.clear()

    def detach(self) -> None:
        """Ends a running search and waits for its end; goals are refused afterwards."""
        self._session = None
        self._closing.set()
        if self._running.acquire(timeout=CLOSE_TIMEOUT):
            self._running.release()
        else:
            self._log.error(f"the search did not end within {CLOSE_TIMEOUT:.0f} s")

    def _execute(self, goal: ServerGoalHandle) -> FindObject.Result:
        if not self._running.acquire(blocking=False):
            end_goal(goal, goal.abort)
            busy = "another search runs; wait for its result or cancel it"
            return FindObject.Result(error_code=FindObject.Result.BUSY, error_msg=busy)
        try:
            result = responses.fill_response(
                lambda _, response: self._search(goal, response), goal.request, FindObject.Result()
            )
            self._end(goal, result)
            return result
        finally:
            self._running.release()

    def _end(self, goal: ServerGoalHandle, result: FindObject.Result) -> None:
        """Sets and logs the final state of the goal."""
        if result.error_code == FindObject.Result.OK:
            end_goal(goal, goal.succeed)
            self._log.info(f"search for {', '.join(goal.request.prompts)}: found {result.prompt}")
            return
        if result.error_code == FindObject.Result.CANCELLED and goal.is_cancel_requested:
            end_goal(goal, goal.canceled)
        else:
            end_goal(goal, goal.abort)
        self._log.info(f"search for {', '.join(goal.request.prompts)}: {result.error_msg}")

    def _search(self, goal: ServerGoalHandle, result: FindObject.Result) -> None:
        prompts, timeout = check_prompts(list(goal.request.prompts)), goal.request.timeout
        if math.isnan(timeout):
            raise UserError("timeout is not a number; give seconds, 0 to ask once, or -1 for no limit")
        session = self._session
        if session is None:
            raise responses.NoMap("no map: the node is not configured; configure and activate it first")
        started, version = time.monotonic(), None
        while True:
            snapshot = session.worker.snapshot
            if snapshot is not None and snapshot.codec is not None and snapshot.version != version:
                version = snapshot.version
                with session.worker.priority.claim():
                    answer = session.asking.answer(session.pipeline.make_query(prompts), snapshot)
                if answer.result.objects:
                    return self._fill(result, answer, session)
            else:
                answer = None
            elapsed = time.monotonic() - started
            self._publish(goal, answer, elapsed)
            if self._closing.is_set() or goal.is_cancel_requested:
                result.error_code = FindObject.Result.CANCELLED
                result.error_msg = (
                    "the node is shutting the map down" if self._closing.is_set() else "cancelled"
                )
                return None
            if 0 <= timeout <= elapsed:
                result.error_code = FindObject.Result.NOT_FOUND
                result.error_msg = f"none of {', '.join(prompts)} was found within {elapsed:.1f} s"
                return None
            self._closing.wait(POLL)

    def _fill(self, result: FindObject.Result, answer: Answer, session: MappingSession) -> None:
        """Fills in the best object of an answer."""
        found, header = answer.result, session.asking.header()
        best = max(
            range(len(found.objects)), key=lambda index: found.presence[found.objects[index].label - 1]
        )
        item = found.objects[best]
        result.error_code = FindObject.Result.OK
        result.prompt, result.presence = item.prompt, float(found.presence[item.label - 1])
        result.object = session.asking.object_messages(answer, header)[best]
        if (goal := session.find_goal(answer, item)) is not None:
            pose = conversions.to_pose(goal)
            result.approach = conversions.PoseStamped(header=header, pose=pose)
        result.map_version = found.map_version

    def _publish(self, goal: ServerGoalHandle, answer: Answer | None, elapsed: float) -> None:
        """Publishes the state of the search; without a new answer only the time has changed."""
        feedback = FindObject.Feedback(elapsed=elapsed)
        if answer is not None:
            feedback.presence = [float(p) for p in answer.result.presence]
            feedback.observed = float(answer.result.observed)
            feedback.map_version = answer.result.map_version
        goal.publish_feedback(feedback)
