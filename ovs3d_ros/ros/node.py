"""The mapping node: `ros2 run ovs3d_ros node`."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import deque
from typing import Any

import rclpy
from rcl_interfaces.msg import SetParametersResult
from rclpy.exceptions import InvalidHandle
from rclpy.executors import Executor, MultiThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions

from ovs3d_ros.ros.entities import EntityGroup
from ovs3d_ros.ros.inputs.cameras import Inputs
from ovs3d_ros.ros.lifecycle import Transitions
from ovs3d_ros.ros.outputs.diagnostics import Diagnostics
from ovs3d_ros.ros.params import EmptyLists, apply_parameters, declare_config, widen_integers
from ovs3d_ros.ros.services.find_object import FindObjectAction
from ovs3d_ros.ros.services.refine import RefineAction
from ovs3d_ros.ros.session import MappingSession
from ovs3d_ros.ros.stopping import stop_on_signals
from ovs3d_ros.types import UserError

# Inputs, costmap, queries, pictures, services, merging, outputs, vocabulary, keep-out mask, refinement,
# search, diagnostics, lifecycle.
NUM_GROUPS = 13  # of callbacks that run beside each other
SPIN_PERIOD = 0.1  # seconds until a signal or a failure is noticed
MOST_FAILURES, FAILURES_WITHIN = 10, 10.0  # of the middleware, within seconds, before the node ends
LINGER = 0.5  # seconds a node stays after it answered that it is shut down, so that the answer arrives
# Seconds a thread may hold the interpreter while others wait. A query makes a hundred short calls of torch.
# Each call releases the interpreter and waits for it again; with Python's default of 5 ms the waits add up to
# half a second.
SWITCH_INTERVAL = 5e-4
log = logging.getLogger(__name__)


class MappingNode(EmptyLists, Transitions, LifecycleNode):
    """A lifecycle node that maps posed images on a thread of its own and answers text queries.

    configure loads the models and offers the services. activate subscribes to the inputs. deactivate
    unsubscribes; the map stays and still answers queries. cleanup writes the map to `output.save_on_exit` and
    frees everything.

    Attributes:
        config: the current configuration.
        session: the map and its services, from configure to cleanup.
        failure: why the last transition failed, or None.
        finished: the node was shut down.
        answered: whoever shut it down by the service was told.
        misplaced: a map could not be written to `output.save_on_exit` and was written to `map.directory`.
    """

    def __init__(self, **options: Any):
        """Declares the parameters; `options` go to `rclpy.lifecycle.LifecycleNode`.

        Raises:
            UserError: a bad parameter.
        """
        super().__init__("ovs3d", automatically_declare_parameters_from_overrides=True, **options)
        self.config = declare_config(self)
        self.session: MappingSession | None = None
        self.failure: UserError | None = None
        self.finished = self.answered = False
        self.misplaced = False
        self._inputs = EntityGroup(self)
        self._refinement = RefineAction(self)
        self._search = FindObjectAction(self)
        self.diagnostics = Diagnostics(self, self.config)
        if hasattr(self, "add_pre_set_parameters_callback"):  # not on Humble
            self.add_pre_set_parameters_callback(widen_integers)
        self.add_on_set_parameters_callback(self._on_parameters)

    @property
    def error(self) -> BaseException | None:
        """The exception that ended the mapping thread, or None."""
        return self.session.error if self.session is not None else None

    def start(self) -> None:
        """Configures and activates.

        Raises:
            UserError: a model cannot be loaded, or the inputs cannot be subscribed.
        """
        for trigger in (self.trigger_configure, self.trigger_activate):
            if trigger() != TransitionCallbackReturn.SUCCESS:
                raise self.failure or UserError("the node did not start; see the log")

    def stop(self) -> None:
        """Shuts down: writes the map to `output.save_on_exit` and frees everything.

        A transition that is running ends first.

        Raises:
            UserError: the map cannot be written.
        """
        with self.changing:
            if not self.finished:
                self.trigger_shutdown()
        if self.failure is not None:
            raise self.failure

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Loads the models, compiles the kernels and offers the services."""
        return self._transition(self._configure)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribes to the inputs."""
        return self._transition(self._activate)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Ends the subscriptions; frames that already arrived are still mapped."""
        return self._transition(self._deactivate)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Ends the mapping thread and the services, and frees the map and the models."""
        return self._transition(self._cleanup)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Deactivates and cleans up; the process ends afterwards."""
        try:
            return self._transition(self._deactivate, self._cleanup)
        finally:
            self.finished = True
            # A timer in the callback group of the lifecycle services waits until this one has answered.
            self.create_timer(0.0, self._note_answer)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Frees everything after a transition raised, so that configure can be tried again."""
        return self._transition(self._deactivate, self._cleanup)

    def _note_answer(self) -> None:
        self.answered = True

    def _transition(self, *steps: Any) -> TransitionCallbackReturn:
        """Runs the steps; after a UserError, which is kept and logged, the node stays in its state."""
        self.failure = None
        try:
            for step in steps:
                step()
        except UserError as error:
            self.failure = error
            self.diagnostics.failure = str(error)
            self.get_logger().error(str(error))
            return TransitionCallbackReturn.FAILURE
        except Exception:
            log.exception("a lifecycle transition failed")  # rclpy does not log the exception
            raise
        self.diagnostics.failure = ""
        return TransitionCallbackReturn.SUCCESS

    def _configure(self) -> None:
        self.session = MappingSession(self, self.config)
        self.diagnostics.worker = self.session.worker
        self._refinement.attach(self.session.worker, self.session.refiner)
        self._search.attach(self.session)

    def _activate(self) -> None:
        session = self.session
        assert session is not None, "a node is configured before it is activated"
        if session.closed:
            raise UserError(
                "the last map could not be saved, so no new one is started; fix the cause and clean up again"
            )
        with self._inputs.collect():
            try:
                inputs = Inputs(self, self.config, session.submit, session.submit_path)
            except UserError:
                self._inputs.destroy()
                raise
        self.diagnostics.inputs = inputs
        self.get_logger().info(f"ready: poses from {self.config.pose_source}, {session.describe()}")

    def _deactivate(self) -> None:
        self.diagnostics.inputs = None
        self._inputs.destroy()

    def _cleanup(self) -> None:
        self._refinement.detach()
        self._search.detach()
        if self.session is not None:
            self.misplaced |= not self.session.close()
        self.session, self.diagnostics.worker = None, None

    def _on_parameters(self, parameters: list[Parameter]) -> SetParametersResult:
        try:
            config = apply_parameters(self.config, parameters)
        except UserError as error:
            return SetParametersResult(successful=False, reason=str(error))
        self.config = config
        if self.session is not None:
            self.session.configure(config)
        return SetParametersResult(successful=True)


def main(args: list[str] | None = None) -> int:
    """Runs the node until SIGINT, SIGTERM or SIGHUP.

    Returns:
        0; 1 after a failure, or if the map was written elsewhere than configured; 2 for bad input.
    """
    logging.basicConfig(level=logging.WARNING, format="[%(levelname)s] [%(name)s]: %(message)s")
    logging.getLogger("ovs3d_ros").setLevel(logging.INFO)  # of libraries, only warnings
    stopping = threading.Event()
    stop_on_signals(stopping)
    sys.setswitchinterval(SWITCH_INTERVAL)
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    try:
        return _run(stopping)
    except UserError as error:
        sys.stderr.write(f"ovs3d: {error}\n")
        return 2
    finally:
        rclpy.try_shutdown()


def _run(stopping: threading.Event) -> int:
    """Starts the node and spins it; returns the exit status."""
    node = MappingNode()
    executor = MultiThreadedExecutor(num_threads=NUM_GROUPS)  # so that none waits for another one
    executor.add_node(node)
    try:
        if node.config.autostart:
            node.start()
        else:
            node.get_logger().info("waiting to be configured and activated (autostart is false)")
        return serve(node, executor, stopping)
    finally:
        executor.shutdown(timeout_sec=5.0)
        node.destroy_node()


def serve(node: MappingNode, executor: Executor, stopping: threading.Event) -> int:
    """Spins until `stopping` is set or something fails, saves the map, and returns the exit status."""
    failure = None
    try:
        failures: deque[float] = deque(maxlen=MOST_FAILURES)
        while not (stopping.is_set() or node.answered or node.error):
            spin_once(executor, failures)
        if node.answered:
            time.sleep(LINGER)
    except Exception as error:  # of any callback: the map is saved before the process ends
        log.exception("a callback failed")
        failure = f"a callback failed: {type(error).__name__}: {error}"
    if node.error is not None:
        failure = f"the mapping thread failed: {node.error}"
        node.diagnostics.publish()
    if failure is None:
        node.stop()
        return int(node.misplaced)
    node.get_logger().fatal(failure)
    if node.session is not None:
        node.session.rescue()
    return 1


def spin_once(executor: Executor, failures: deque[float]) -> None:
    """Runs one callback that is ready, or waits up to `SPIN_PERIOD` for one.

    rclpy raises InvalidHandle if a subscription is destroyed, for example on deactivation, while it collects
    the entities to wait for (ros2/rclpy issues 1142, 1206). The next call no longer collects it. RCLError
    comes from code of rclpy round a callback, for example where an action server cannot publish the state of
    a goal. Neither must end the mapping.

    Args:
        executor: of the node.
        failures: times of the last RCLErrors, at most `MOST_FAILURES`; one more is added here.

    Raises:
        RCLError: so many came within `FAILURES_WITHIN` seconds.
    """
    try:
        executor.spin_once(timeout_sec=SPIN_PERIOD)
    except InvalidHandle as error:
        log.debug("an entity was destroyed while the executor collected it: %s", error)
    except rclpy_implementation.RCLError as error:
        failures.append(time.monotonic())
        if len(failures) == MOST_FAILURES and failures[-1] - failures[0] < FAILURES_WITHIN:
            raise
        log.error("the middleware failed, and the node goes on: %s", error)


if __name__ == "__main__":
    sys.exit(main())
