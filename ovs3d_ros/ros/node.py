"""The mapping node: `ros2 run ovs3d_ros node`. Puts the parts together; each does its own work."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from typing import Any

import rclpy
from rcl_interfaces.msg import SetParametersResult
from rclpy.exceptions import InvalidHandle
from rclpy.executors import Executor, MultiThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions

from ovs3d_ros.ros.entity_scope import Scope
from ovs3d_ros.ros.inputs.cameras import Inputs
from ovs3d_ros.ros.outputs.diagnostics import Diagnostics
from ovs3d_ros.ros.params import changed, declare_config
from ovs3d_ros.ros.services.refine import RefineAction
from ovs3d_ros.ros.session import Mapping
from ovs3d_ros.types import UserError

SPIN_PERIOD = 0.1  # seconds until a signal or a failure is noticed
# Seconds a thread may hold the interpreter while others wait. A query is a hundred short calls of torch, each of which
# lets go of the interpreter and has to wait for it again: with Python's 5 ms that is half a second.
SWITCH_INTERVAL = 5e-4
log = logging.getLogger(__name__)


class MappingNode(LifecycleNode):
    """Subscribes to posed images, maps them on a thread of its own, and answers text queries.

    configure loads the models and offers the services; activate subscribes to the inputs; deactivate ends that, the
    map stays and still answers; cleanup writes the map where `output.save_on_exit` says and frees everything.

    Attributes:
        config: as it is now.
        mapping: from configure to cleanup.
        failure: why the last transition failed.
        finished: it was shut down, by whomever.
        misplaced: a map could not be written where `output.save_on_exit` says, but elsewhere.
    """

    def __init__(self, **options: Any):
        """Declares the parameters; `options` go to `rclpy.lifecycle.LifecycleNode`.

        Raises:
            UserError: a bad parameter.
        """
        super().__init__("ovs3d", automatically_declare_parameters_from_overrides=True, **options)
        self.config = declare_config(self)
        self.mapping: Mapping | None = None
        self.failure: UserError | None = None
        self.finished = False
        self.misplaced = False
        self._inputs = Scope(self)
        self._refinement = RefineAction(self)
        self.diagnostics = Diagnostics(self, self.config)
        self.add_on_set_parameters_callback(self._on_parameters)

    @property
    def error(self) -> BaseException | None:
        """What ended the mapping thread, or None."""
        return self.mapping.worker.error if self.mapping is not None else None

    def start(self) -> None:
        """Configures and activates.

        Raises:
            UserError: a model that cannot be loaded, or inputs that cannot be subscribed to.
        """
        for trigger in (self.trigger_configure, self.trigger_activate):
            if trigger() != TransitionCallbackReturn.SUCCESS:
                raise self.failure or UserError("the node did not start; see the log")

    def stop(self) -> None:
        """Shuts down: frees everything, and writes the map where `output.save_on_exit` says.

        Raises:
            UserError: the map cannot be written.
        """
        if not self.finished:
            self.trigger_shutdown()
        if self.failure is not None:
            raise self.failure

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Loads the models, warms up and offers the services."""
        return self._transition(self._configure)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribes to the inputs."""
        return self._transition(self._activate)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Ends the subscriptions; what waits is still mapped."""
        return self._transition(self._deactivate)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Ends the mapping thread and the services, and frees the map and the models."""
        return self._transition(self._cleanup)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """What deactivate and cleanup do; then the process ends."""
        self.finished = True
        return self._transition(self._deactivate, self._cleanup)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """After a transition that broke: frees everything, so that configure can be tried again."""
        return self._transition(self._deactivate, self._cleanup)

    def _transition(self, *steps: Any) -> TransitionCallbackReturn:
        """Takes the steps; a UserError is kept and logged, and the node stays in the state it was in."""
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
            log.exception("a transition of the node failed")  # rclpy drops the exception
            raise
        self.diagnostics.failure = ""
        return TransitionCallbackReturn.SUCCESS

    def _configure(self) -> None:
        self.mapping = Mapping(self, self.config)
        self.diagnostics.worker = self.mapping.worker
        self._refinement.attach(self.mapping.worker)

    def _activate(self) -> None:
        if self.mapping.closed:
            raise UserError(
                "nothing is mapped before the last map could be saved; mend that and clean up again"
            )
        with self._inputs.collecting():
            try:
                inputs = Inputs(self, self.config, self.mapping.take, self.mapping.loop_closure.take)
            except UserError:
                self._inputs.close()
                raise
        self.diagnostics.inputs = inputs
        pipeline = self.mapping.pipeline
        self.get_logger().info(
            f"ready: poses from {self.config.pose_source}, device {pipeline.device}, "
            f"text encoder {pipeline.clip.name}"
        )

    def _deactivate(self) -> None:
        self.diagnostics.inputs = None
        self._inputs.close()

    def _cleanup(self) -> None:
        self._refinement.detach()
        if self.mapping is not None:
            self.misplaced |= not self.mapping.close()
        self.mapping, self.diagnostics.worker = None, None

    def _on_parameters(self, parameters: list[Parameter]) -> SetParametersResult:
        try:
            config = changed(self.config, parameters)
        except UserError as error:
            return SetParametersResult(successful=False, reason=str(error))
        self.config = config
        if self.mapping is not None:
            self.mapping.configure(config)
        return SetParametersResult(successful=True)


def main(args: list[str] | None = None) -> int:
    """Runs the node until SIGINT or SIGTERM.

    Returns:
        0, 1 after a failure or with the map elsewhere than asked for, 2 for bad input.
    """
    logging.basicConfig(level=logging.INFO, format="[%(levelname)s] [%(name)s]: %(message)s")
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
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
    """Starts the node and serves it; returns the exit status."""
    node = MappingNode()
    # For inputs, queries, services, outputs, vocabulary, refinement, diagnostics, lifecycle and parameters.
    executor = MultiThreadedExecutor(num_threads=8)
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
    """Spins until told to stop, or until the mapping thread or a callback fails; saves the map; returns the status."""
    failure = None
    try:
        while not (stopping.is_set() or node.finished or node.error):
            spin_once(executor)
    except Exception as error:  # of whatever callback: the process ends, but not without its map
        log.exception("a callback failed")
        failure = f"a callback failed: {type(error).__name__}: {error}"
    if node.error is not None:
        failure = f"the mapping thread failed: {node.error}"
        node.diagnostics.publish()
    if failure is None:
        node.stop()
        return int(node.misplaced)
    node.get_logger().fatal(failure)
    if node.mapping is not None:
        node.mapping.rescue()
    return 1


def spin_once(executor: Executor) -> None:
    """Serves what is ready, or waits up to `SPIN_PERIOD` for it.

    A subscription that goes, as on deactivation, while rclpy gathers what to wait for takes its events with it, and rclpy
    raises where it should pass over them (ros2/rclpy issues 1142 and 1206). The next round does not see them any more.
    """
    try:
        executor.spin_once(timeout_sec=SPIN_PERIOD)
    except InvalidHandle as error:
        log.debug("destroyed while it was gathered: %s", error)


if __name__ == "__main__":
    sys.exit(main())
