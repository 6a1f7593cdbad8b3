"""/diagnostics at 1 Hz: what comes in, what is missing, how the map does."""

from __future__ import annotations

import math

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from ovs3d_ros.config import Config
from ovs3d_ros.ros import conversions
from ovs3d_ros.ros.inputs import Inputs
from ovs3d_ros.worker import MappingWorker

PERIOD = 1.0  # seconds


class Diagnostics:
    """Publishes two statuses, inputs and mapping, and logs one line whenever the inputs fall silent."""

    def __init__(self, node: Node, config: Config, inputs: Inputs, worker: MappingWorker):
        """Advertises /diagnostics and starts the timers."""
        self._node = node
        self._inputs = inputs
        self._worker = worker
        self._publisher = node.create_publisher(conversions.DiagnosticArray, "/diagnostics", 10)
        group = MutuallyExclusiveCallbackGroup()
        # Steady: with use_sim_time, the time of the node stands still until /clock comes.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        node.create_timer(PERIOD, self.publish, callback_group=group, clock=steady)
        node.create_timer(config.input.silence, self._report_silence, callback_group=group, clock=steady)

    def _report_silence(self) -> None:
        silence = self._inputs.report_silence()
        if silence:
            self._node.get_logger().warning(f"no usable frame: {silence}")

    def publish(self) -> None:
        """Publishes the current state."""
        self._inputs.measure()
        name = self._node.get_fully_qualified_name().lstrip("/")
        statuses = [
            conversions.to_diagnostic(f"{name}: input", *self._input_state(), self._inputs.values()),
            conversions.to_diagnostic(f"{name}: mapping", *self._mapping_state()),
        ]
        now = self._node.get_clock().now().to_msg()
        self._publisher.publish(conversions.to_diagnostics(now, statuses))

    def _input_state(self) -> tuple[str, str]:
        if self._inputs.silence:
            return "warn", f"no usable frame: {self._inputs.silence}"
        if self._inputs.problem:
            return "warn", f"rejected: {self._inputs.problem}"
        if self._inputs.frames == 0:
            return "ok", "waiting for the first frame"
        return "ok", f"{self._inputs.frames} frames"

    def _mapping_state(self) -> tuple[str, str, dict[str, object]]:
        stats = {key: _readable(value) for key, value in self._worker.stats().items()}
        if self._worker.error is not None:
            error = self._worker.error
            return "error", f"the mapping thread failed: {type(error).__name__}: {error}", stats
        if stats["frames_dropped"]:
            return (
                "warn",
                f"{stats['frames_dropped']} frames dropped: mapping is slower than the camera",
                stats,
            )
        paused = [f"{name} off" for name in ("ingest", "training") if not stats[name]]
        what = [f"{stats['keyframes']} keyframes, {stats['num_gaussians']} Gaussians", *paused]
        return "ok", ", ".join(what), stats


def _readable(value: object) -> object:
    if isinstance(value, float):
        return None if math.isnan(value) else round(value, 3)
    return value
